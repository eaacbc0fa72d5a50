"""Results become tables of Markdown: what all tables share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eval.harness.columns import Column, Row, table_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "eval" / "results"


def read(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_record(name: str) -> Any:
    """Read a record of ``eval/results``."""
    return read(RESULTS / f"{name}.json")


def is_measured(name: str) -> bool:
    """Say whether ``eval/results`` has such a record."""
    return (RESULTS / f"{name}.json").is_file()


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Render a table; the first column is text, the others are numbers."""
    rule = "|---|" + "--:|" * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" if row else rule for row in (header, [], *rows))


def markdown_of(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Render the columns of a protocol that the pages of ``docs/`` show."""
    return markdown(*table_of(columns, rows, "docs"))


def table(
    name: str,
    columns: Sequence[Column] | Callable[[Any], Sequence[Column]],
    rows: Callable[[Any], Sequence[Row]] = lambda record: record["results"],
) -> str:
    """Render a record by the columns of its protocol, and say which command made it.

    Args:
        name: of the record in ``eval/results``.
        columns: as they are, or a function of the rows.
        rows: of the record, in their order; its ``results`` by default.
    """
    record = read_record(name)
    shown = rows(record)
    chosen = columns(shown) if callable(columns) else columns
    return f"{markdown_of(chosen, shown)}\n\n{provenance_line(record)}"


def best_first(key: Callable[[Row], Any], part: str = "") -> Callable[[Any], Sequence[Row]]:
    """Give what sorts the results of a record, of one part if it has parts."""
    return lambda record: sorted((row for row in record["results"] if not part or row["part"] == part), key=key)


def provenance_line(record: dict[str, Any]) -> str:
    """Say which command made a record, from which commits, on which machines and when.

    Rows of a composed record have a provenance each; all that differ are named. ``-dirty`` marks a checkout that had
    changes.
    """
    every = provenances(record)
    commits = list(dict.fromkeys(short_commit(about["commit"]) for about in every))
    machines = list(dict.fromkeys(about["machine"]["cpu"] for about in every))
    dates = sorted({about["date"][:10] for about in every})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    word = "commit" if len(commits) == 1 else "commits"
    return f"`{record['command']}`, {word} {', '.join(commits)}, {', '.join(machines)}, {when}."


def provenances(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the provenance of a record and those of its rows, which a composed record has."""
    rows = [row.get("provenance") for row in record.get("results", []) if isinstance(row, dict)]
    return [about for about in (record.get("provenance"), *rows) if about]


def short_commit(commit: str | None) -> str:
    """Write a commit in 12 digits, with its ``-dirty``."""
    if commit is None:
        return "no commit"
    return commit[:12] + ("-dirty" if commit.endswith("-dirty") else "")


def with_interval(value: float, interval: list[float] | None, places: int) -> str:
    """Write a value, and its interval in brackets where there is one."""
    if interval is None:
        return f"{value:,.{places}f}"
    return f"{value:,.{places}f} ({interval[0]:,.{places}f} to {interval[1]:,.{places}f})"
