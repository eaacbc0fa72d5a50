"""The recipe search: one row a training run, what was expected of it and what came out.

    python -m eval recipe_search RUN [RUN ...] [--out eval/results/recipe-search.json]

Each RUN is a folder that ``bingan train`` wrote, with the result of ``python -m eval m95 DATA --ours
RUN/weights.safetensors --out RUN/m95.json`` and, written before the run was started, ``idea.json``: ``{"idea": ...,
"predicted": ...}``. A JSON file that this command wrote before stands for all of its rows. The first row is the one
that the others change; which settings they change is read from the runs themselves. All must have been measured on the
same data.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval.harness.columns import Column
from eval.harness.command import OptionalOut, Paths, command_line
from eval.training.runs import idea_of, read_log, rows_of_runs, search, settings_of
from kornia_bingan.errors import UsageError
from kornia_bingan.network.published import multiply_adds
from kornia_bingan.network.weights import load_weights

COLUMNS = (
    Column("run", "run"),
    Column("idea", "idea"),
    Column("predicted", lambda r: r["predicted"] or "not written down"),
    Column("changes", lambda r: ", ".join(f"`{key} {value}`" for key, value in r["changes"].items())),
    Column("x RootSIFT (interval)", "times_rootsift", ".3f", best="most", interval="interval"),
    Column("its float", "float_times_rootsift", ".3f"),
    Column("code / float", "code_of_float", ".3f"),
    Column("minutes", lambda r: r["seconds"] / 60, ".0f"),
)


def read_row(folder: Path) -> dict[str, Any]:
    """Read one run.

    Raises:
        UsageError: it is unfinished, or was not measured.
    """
    try:
        about, _, steps = read_log(folder)
        measured = json.loads((folder / "m95.json").read_text(encoding="utf-8"))
        totals = {t["descriptor"]: t for t in measured["totals"] if t["part"] == "scene"}
        (name,) = (name for name in totals if f"{name}/float" in totals)
        seconds = steps[-1]["seconds"]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UsageError(f"{folder} holds no finished and measured run: {error}") from error
    of: dict[str, dict[str, int]] = {row["descriptor"]: {} for row in measured["results"]}
    for row in measured["results"]:
        of[row["descriptor"]][row["data"]] = row["m95"]
    config = settings_of(about)
    config["tracks"] = [Path(path).name for path in config.get("tracks", [])]
    if config.get("start"):
        start = Path(config["start"])
        config["start"] = start.parent.name if start.stem == "weights" else start.stem
    if not config["tracks"]:
        config.pop("tracks_share", None)
    return {
        "run": folder.name,
        **idea_of(folder),
        "config": config,
        "steps": config["steps"],
        "seconds": seconds,
        "multiply_adds": multiply_adds(load_weights(folder / "weights.safetensors")),
        "m95": of[name],
        "m95_rootsift": of["rootsift"],
        "times_rootsift": round(totals[name]["times_rootsift"], 4),
        "interval": [round(value, 4) for value in totals[name]["times_rootsift_interval"]],
        "float_times_rootsift": round(totals[f"{name}/float"]["times_rootsift"], 4),
        "code_of_float": round(totals[name]["m95"] / totals[f"{name}/float"]["m95"], 4),
        "provenance": about["provenance"],
    }


@command_line("recipe_search")
def main(runs: Paths, out: OptionalOut = None) -> int:
    rows = rows_of_runs(runs, "recipe_search", read_row)
    return search(
        "recipe_search", rows, lambda r: r["m95_rootsift"], "was measured on other data", lambda _: COLUMNS, out
    )
