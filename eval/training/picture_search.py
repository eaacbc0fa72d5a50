"""The recipe search for networks of pictures: one row a training run, what was expected of it and what came out.

    python -m eval picture_search RUN [RUN ...] [--out eval/results/picture-search.json]

Each RUN is a folder that ``bingan train`` wrote with a network of pictures, finished or not; it may hold ``idea.json``
as for ``python -m eval recipe_search``. A JSON file that this command wrote before stands for all of its rows. What is
compared is the last validation of each run, mAP@1000 in percent of the whole code and of its nested ones: pictures of
the training set ask among others of it, so that nothing is chosen by the test set. The first row is the one that the
others change. All must have been validated on the same pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.harness.columns import Column
from eval.harness.command import OptionalOut, Paths, command_line
from eval.training.runs import idea_of, read_log, rows_of_runs, search, settings_of
from kornia_bingan.errors import UsageError
from kornia_bingan.network.pictures import PictureNetwork
from kornia_bingan.network.published import multiply_adds
from kornia_bingan.train.config import PICTURE_NETWORKS

SAME = ("seed", "validation_pairs", "queries_aside")
"""Settings that decide which pictures validation takes."""


def read_row(folder: Path) -> dict[str, Any]:
    """Read one run.

    Raises:
        UsageError: it holds no validated run of a network of pictures.
    """
    try:
        about, validations, steps = read_log(folder)
        measured, last = [line for line in validations if line["step"] > 0][-1], steps[-1]
        words = idea_of(folder)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UsageError(f"{folder} holds no validated run: {error}") from error
    config = settings_of(about)
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
        "before": round(validations[0]["map"], 2),
        "provenance": about["provenance"],
    }
    row["map"] |= {str(width): round(measured[f"map_{width}"], 2) for width in config["nested"]}
    if config["network"] == "PictureNetwork":
        row["multiply_adds"] = multiply_adds(PictureNetwork(config["bits"], config["stages"]))
    return row


def columns(rows: list[dict[str, Any]]) -> list[Column]:
    """Give the idea, what it changed, mAP by width, and the cost."""

    def of_width(width: int) -> Column:
        return Column(f"mAP {width}", lambda r: r["map"].get(str(width)), ".2f")

    return [
        Column("run", "run"),
        Column("idea", "idea"),
        Column("predicted", "predicted"),
        Column("changes", lambda r: ", ".join(f"{key} {value}" for key, value in r["changes"].items())),
        *map(of_width, sorted({int(width) for row in rows for width in row["map"]})),
        Column("pictures", "pictures", ","),
        Column("minutes", lambda r: r["seconds"] / 60, ".1f"),
    ]


@command_line("picture_search")
def main(runs: Paths, out: OptionalOut = None) -> int:
    rows = rows_of_runs(runs, "picture_search", read_row)

    def same(row: dict[str, Any]) -> list[Any]:
        return [row["config"][key] for key in SAME]

    return search("picture_search", rows, same, "was validated on other pictures", columns, out)
