"""Tables of whole pipelines: each gets the name of a JSON file in ``eval/results``, which may not be there yet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from eval.harness.known_pairs import WIDE
from eval.quality import defaults, pipelines
from eval.show.markdown import is_measured, markdown_of, provenance_line, read_record, table


def of_part(name: str, *parts: str) -> str:
    """One table for each of the parts, best first in each set of data."""
    if not is_measured(name):
        return _absent(name)
    record = read_record(name)
    tables = []
    for part in parts:
        rows = [row for row in record["results"] if row["part"] == part]
        order = list(dict.fromkeys(row["data"] for row in rows))
        rows.sort(key=lambda row: (order.index(row["data"]), -list(row["auc"].values())[1]))
        tables += [markdown_of(pipelines.columns(part), rows)] if rows else []
    if not tables:
        return _absent(name)
    absent = "".join(f" Absent: {pipeline} ({reason})." for pipeline, reason in record["absent"].items())
    return "\n\n".join([*tables, f"{provenance_line(record)}{absent}"])


def means(name: str) -> str:
    """The means over the scenes of a record, best first, without matches and bytes."""
    if not is_measured(name):
        return _absent(name)
    record = read_record(name)
    rows = [row for row in record["results"] if row["part"] == "scenes" and row["data"] == pipelines.MEAN]
    rows.sort(key=lambda row: -list(row["auc"].values())[1])
    left_out = ("data", "matches", "correct", "precision", "bytes / picture")
    return markdown_of([each for each in pipelines.columns("scenes") if each.header not in left_out], rows)


def colmap(name: str) -> str:
    """What COLMAP makes of the matches of each pipeline."""
    if not is_measured(name) or not read_record(name)["colmap"]:
        return _absent(name, " --colmap")
    return table(name, pipelines.COLMAP_COLUMNS, lambda record: record["colmap"])


def programs(split: str) -> str:
    """Default against default."""
    if not is_measured(f"defaults-{split}"):
        return f"Not measured yet: `python -m eval defaults DATA/{split}`."
    record = read_record(f"defaults-{split}")
    absent = "".join(f" Absent: {program} ({reason})." for program, reason in record["absent"].items())
    return f"{markdown_of(defaults.COLUMNS, record['results'])}\n\n{provenance_line(record)}{absent}"


def _absent(name: str, words: str = "") -> str:
    return f"Not measured yet: `python -m eval pipelines DATA/{name.removeprefix('pipelines-')}{words}`."


TABLES: dict[str, Callable[[], str]] = {"pipelines-means-heldout": partial(means, "pipelines-heldout")}
for _split in ("validate", "heldout"):
    TABLES |= {
        f"pipelines-scenes-{_split}": partial(of_part, f"pipelines-{_split}", "scenes"),
        f"pipelines-wide-{_split}": partial(of_part, f"pipelines-{_split}", WIDE),
        f"pipelines-homographies-{_split}": partial(of_part, f"pipelines-{_split}", "homographies", "evd"),
        f"pipelines-colmap-{_split}": partial(colmap, f"pipelines-{_split}"),
        f"defaults-{_split}": partial(programs, _split),
    }
