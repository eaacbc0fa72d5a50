"""The recipe search: one row a training run, what was expected of it and what came out.

    python -m eval recipe_search RUN [RUN ...] [--out eval/results/recipe-search.json]

Each RUN is a folder that ``bingan train`` wrote, with the result of ``python -m eval m95 DATA --ours
RUN/weights.safetensors --out RUN/m95.json`` and, written before the run was started, ``idea.json``: ``{"idea": ...,
"predicted": ...}``. A JSON file that this command wrote before stands for all of its rows. The first row is the one
that the others change; which settings they change is read from the runs themselves. All must have been measured on the
same data.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from eval.harness.columns import Column, text_of
from eval.harness.options import rows_of_runs
from eval.harness.records import write_json
from kornia_bingan.errors import UsageError
from kornia_bingan.network.published import multiply_adds
from kornia_bingan.network.weights import load_weights
from kornia_bingan.train.config import TrainConfig, describe_config

NOT_SETTINGS = ("data", "out", "preset", "time_limit", "checkpoint_every", "log_every", "validate_every", "threads")

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
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        measured = json.loads((folder / "m95.json").read_text(encoding="utf-8"))
        totals = {t["descriptor"]: t for t in measured["totals"] if t["part"] == "scene"}
        (name,) = (name for name in totals if f"{name}/float" in totals)
        seconds = [line for line in log if line["kind"] == "train"][-1]["seconds"]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UsageError(f"{folder} holds no finished and measured run: {error}") from error
    idea = folder / "idea.json"
    words = json.loads(idea.read_text(encoding="utf-8")) if idea.is_file() else {"idea": "", "predicted": ""}
    of: dict[str, dict[str, int]] = {row["descriptor"]: {} for row in measured["results"]}
    for row in measured["results"]:
        of[row["descriptor"]][row["data"]] = row["m95"]
    config = {key: value for key, value in about["config"].items() if key not in NOT_SETTINGS}
    config["tracks"] = [Path(path).name for path in config.get("tracks", [])]
    if config.get("start"):
        start = Path(config["start"])
        config["start"] = start.parent.name if start.stem == "weights" else start.stem
    if not config["tracks"]:
        config.pop("tracks_share", None)
    return {
        "run": folder.name,
        **words,
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


def changes(row: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """Give the settings of a run that differ from those of the reference, nested ones by their dotted name.

    A setting that is younger than the reference counts as having had its default.
    """
    found = {}
    defaults = describe_config(TrainConfig(Path(), Path()))
    for key, value in row["config"].items():
        before = reference["config"].get(key, defaults.get(key))
        if isinstance(value, dict) and isinstance(before, dict):
            younger = defaults.get(key, {})
            found.update({f"{key}.{n}": v for n, v in value.items() if v != before.get(n, younger.get(n))})
        elif value != before and not (before is None and not value):
            found[key] = value
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval recipe_search")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    rows = rows_of_runs(arguments.runs, "recipe_search", read_row)
    for row in rows:
        if row["m95_rootsift"] != rows[0]["m95_rootsift"]:
            raise UsageError(f"{row['run']} was measured on other data than {rows[0]['run']}")
        row["changes"] = changes(row, rows[0])
    print(text_of(COLUMNS, rows))
    if arguments.out:
        command = "python -m eval recipe_search " + " ".join(row["run"] for row in rows)
        last = rows[-1]["provenance"]
        write_json(
            arguments.out, {"protocol": "recipe_search", "command": command, "results": rows, "provenance": last}
        )
    return 0
