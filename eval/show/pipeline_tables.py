"""Tables of whole pipelines: each gets the name of a JSON file in ``eval/results``, which may not be there yet."""

from __future__ import annotations

from typing import Any

from eval.quality import pipelines
from eval.show.markdown import RESULTS, markdown_of, provenance_line, read


def of_part(name: str, *parts: str) -> str:
    """One table for each of the parts, best first in each set of data."""
    if (record := _measured(name)) is None:
        return _absent(name)
    tables = []
    for part in parts:
        rows = [row for row in record["results"] if row["part"] == part]
        order = list(dict.fromkeys(row["data"] for row in rows))
        rows.sort(key=lambda row: (order.index(row["data"]), -list(row["auc"].values())[1]))
        tables += [markdown_of(pipelines.columns(part), rows)] if rows else []
    absent = "".join(f" Absent: {pipeline} ({reason})." for pipeline, reason in record["absent"].items())
    return "\n\n".join([*tables, f"{provenance_line(record)}{absent}"])


def colmap(name: str) -> str:
    """What COLMAP makes of the matches of each pipeline."""
    if (record := _measured(name)) is None or not record["colmap"]:
        return _absent(name, " --colmap")
    return f"{markdown_of(pipelines.COLMAP_COLUMNS, record['colmap'])}\n\n{provenance_line(record)}"


def _measured(name: str) -> Any:
    path = RESULTS / f"{name}.json"
    return read(path) if path.is_file() else None


def _absent(name: str, words: str = "") -> str:
    return f"Not measured yet: `python -m eval pipelines DATA/{name.removeprefix('pipelines-')}{words}`."
