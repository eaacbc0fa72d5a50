"""Rows become a table of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kornia_bingan.errors import UsageError
from kornia_bingan.work.files import printable


def skipped_lines(skipped: Sequence[Mapping[str, str]]) -> str:
    """List what was skipped, one line each after an empty one and their number; nothing gives an empty text."""
    if not skipped:
        return ""
    lines = [f"skipped {printable(item['name'])}: {printable(item['reason'])}" for item in skipped]
    return "\n".join(["", "", f"{len(skipped):,} files skipped:", *lines])


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns of text: the first to the left, the others to the right, with a line under the header.

    Line breaks and control characters are escaped.

    Raises:
        UsageError: a row has another number of cells than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise UsageError(f"a table of {len(header)} columns has a row of {len(row)}: {list(row)}")
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [[*header], ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
