"""Adaptation to the photos of one place: what the codes gained on them, and on their matches.

    python -m eval adapt RUN [RUN ...] [--out eval/results/adapt.json]

Each RUN is a folder of ``bingan train --from bingan256 --data SCENE/images --time-limit 600``, with the result of
``python -m eval m95 DATA --only SCENE --peers rootsift --ours bingan256,RUN/weights.safetensors --out RUN/m95.json``.
``nearest`` is the share of keypoints whose code is nearest to that of another jittered view, on photos of the scene
that were kept aside; M95 counts true matches between all photos of the scene.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval.harness.columns import Column, text_of
from eval.harness.command import OptionalOut, Paths, command_line
from eval.training.runs import read_log, rows_of_runs, write_runs
from kornia_bingan.errors import UsageError

COLUMNS = (
    Column("scene", "data"),
    Column("photos", "photos"),
    Column("steps", "steps", ","),
    Column("minutes", lambda r: r["seconds"] / 60, ".0f"),
    Column("nearest % before", lambda r: r["nearest"]["before"], ".1f"),
    Column("after", lambda r: r["nearest"]["after"], ".1f"),
    Column("M95 before", lambda r: r["m95"]["before"], ","),
    Column("after", lambda r: r["m95"]["after"], ","),
    Column("ratio", "m95_ratio", ".3f"),
)


def read_row(folder: Path) -> dict[str, Any]:
    """Read one run.

    Raises:
        UsageError: it did not go on from weights, is unfinished, or was not measured.
    """
    try:
        about, curve, steps = read_log(folder)
        measured = json.loads((folder / "m95.json").read_text(encoding="utf-8"))
        last = steps[-1]
        if not about["config"]["start"]:
            raise ValueError("it started from nothing")
        before, after = (n for n in measured["peers"] if not n.endswith("/float") and n != "rootsift")
        (data,) = {row["data"] for row in measured["results"]}
        m95 = {row["descriptor"]: row["m95"] for row in measured["results"]}
        codes = {"before": m95[before], "after": m95[after], "rootsift": m95["rootsift"]}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UsageError(f"{folder} holds no finished and measured adaptation: {error!r}") from error
    return {
        "run": folder.name,
        "start": before,
        "data": data,
        "photos": about["identity"]["photos"],
        "steps": last["step"],
        "seconds": last["seconds"],
        "nearest": {"before": curve[0]["nearest"], "after": curve[-1]["nearest"]},
        "m95": codes,
        "m95_ratio": round(codes["after"] / codes["before"], 4),
        "float_m95": {"before": m95[f"{before}/float"], "after": m95[f"{after}/float"]},
        "provenance": about["provenance"],
    }


@command_line("adapt")
def main(runs: Paths, out: OptionalOut = None) -> int:
    rows = rows_of_runs(runs, "adapt", read_row)
    print(text_of(COLUMNS, rows))
    write_runs("adapt", rows, out, provenance=rows[-1]["provenance"])
    return 0
