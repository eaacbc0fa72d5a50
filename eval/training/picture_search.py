"""The recipe search for networks of pictures: one row a training run, what was expected of it and what came out.

    python -m eval picture_search RUN [RUN ...] [--out eval/results/picture-search.json]

Each RUN is a folder that ``bingan train`` wrote with a network of pictures, finished or not; it may hold ``idea.json``
as for ``python -m eval recipe_search``. A JSON file that this command wrote before stands for all of its rows. What is
compared is the last validation of each run, mAP@1000 in percent of the whole code and of its nested ones: pictures of
the training set ask among others of it, so that nothing is chosen by the test set. The first row is the one that the
others change. All must have been validated on the same pictures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from eval.harness.options import rows_of_runs
from eval.harness.records import write_json
from eval.training.recipe_search import NOT_SETTINGS, changes
from kornia_bingan.errors import UsageError
from kornia_bingan.network.pictures import PictureNetwork
from kornia_bingan.network.published import multiply_adds
from kornia_bingan.report.text import text_table
from kornia_bingan.train.config import PICTURE_NETWORKS

SAME = ("seed", "validation_pairs", "queries_aside")
"""Settings that decide which pictures validation takes."""


def read_row(folder: Path) -> dict[str, Any]:
    """Read one run.

    Raises:
        UsageError: it holds no validated run of a network of pictures.
    """
    try:
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        validations = [line for line in log if line["kind"] == "validation" and line["step"] > 0]
        measured, last = validations[-1], [line for line in log if line["kind"] == "train"][-1]
        idea = folder / "idea.json"
        words = json.loads(idea.read_text(encoding="utf-8")) if idea.is_file() else {"idea": "", "predicted": ""}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UsageError(f"{folder} holds no validated run: {error}") from error
    config = {key: value for key, value in about["config"].items() if key not in NOT_SETTINGS}
    if config["network"] not in PICTURE_NETWORKS:
        raise UsageError(f"{folder} trained {config['network']}, which describes patches, not pictures")
    row = {
        "run": folder.name,
        **words,
        "config": config,
        "steps": measured["step"],
        "pictures": measured["step"] * config["batch_size"],
        "seconds": last["seconds"],
        "map": {str(config["bits"]): round(measured["map"], 2)},
        "before": round(log[0]["map"], 2),
        "provenance": about["provenance"],
    }
    row["map"] |= {str(width): round(measured[f"map_{width}"], 2) for width in config["nested"]}
    if config["network"] == "PictureNetwork":
        row["multiply_adds"] = multiply_adds(PictureNetwork(config["bits"], config["stages"]))
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Render the rows as text."""
    widths = sorted({int(width) for row in rows for width in row["map"]})
    header = ["run", "idea", "predicted", "changes", *(f"mAP {width}" for width in widths), "pictures", "minutes"]
    cells = [
        [
            row["run"],
            row["idea"],
            row["predicted"],
            ", ".join(f"{key} {value}" for key, value in row["changes"].items()),
            *(f"{row['map'][str(width)]:.2f}" if str(width) in row["map"] else "" for width in widths),
            f"{row['pictures']:,}",
            f"{row['seconds'] / 60:.1f}",
        ]
        for row in rows
    ]
    return text_table(header, cells)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval picture_search")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    rows = rows_of_runs(arguments.runs, "picture_search", read_row)
    for row in rows:
        if any(row["config"][key] != rows[0]["config"][key] for key in SAME):
            raise UsageError(f"{row['run']} was validated on other pictures than {rows[0]['run']}")
        row["changes"] = changes(row, rows[0])
    print(table(rows))
    if arguments.out:
        command = "python -m eval picture_search " + " ".join(row["run"] for row in rows)
        last = rows[-1]["provenance"]
        write_json(
            arguments.out, {"protocol": "picture_search", "command": command, "results": rows, "provenance": last}
        )
    return 0
