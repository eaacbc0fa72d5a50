"""What the tables of a protocol show: each declares its columns once, beside its code.

The same columns become text in the terminal (:func:`text_of`), Markdown in ``docs/``
(:func:`eval.show.markdown.markdown_of`) and HTML in the page of results (:func:`eval.show.report.cells_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kornia_bingan.report.text import text_table

Row = Mapping[str, Any]
View = Literal["text", "docs", "page"]
EVERYWHERE: tuple[View, ...] = ("text", "docs", "page")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        header: what stands above it.
        get: its value in a row of the record, by key or by a function; None leaves the cell empty.
        form: how the value is written, as ``format`` takes it, or a function of the row.
        best: which value is marked as the best one: the most, the least, or none.
        interval: key or function of an interval, which stands in brackets behind the value.
        interval_form: how its ends are written; as the value if not given.
        views: where the column is shown.
    """

    header: str
    get: str | Callable[[Row], Any]
    form: str | Callable[[Row], str] = ""
    best: Literal["most", "least", ""] = ""
    interval: str | Callable[[Row], Sequence[float] | None] | None = None
    interval_form: str = ""
    views: tuple[View, ...] = EVERYWHERE

    def value(self, row: Row) -> Any:
        """Give the value, which a page sorts by."""
        return row.get(self.get) if isinstance(self.get, str) else self.get(row)

    def text(self, row: Row) -> str:
        """Write the value and its interval."""
        value = self.value(row)
        if value is None:
            return ""
        if not isinstance(self.form, str):
            return self.form(row)
        ends = row.get(self.interval) if isinstance(self.interval, str) else self.interval and self.interval(row)
        form = self.interval_form or self.form
        return format(value, self.form) + (f" ({ends[0]:{form}} to {ends[1]:{form}})" if ends else "")


def of_any_size(value: Any, digits: int = 4) -> str:
    """Write a number: whole and with commas from 100, with so many digits below; text as it is, None as nothing."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def sized(header: str, get: str | Callable[[Row], Any], digits: int = 4) -> Column:
    """Give a column of numbers of any size, see :func:`of_any_size`."""
    column = Column(header, get)
    return replace(column, form=lambda row: of_any_size(column.value(row), digits))


def numbers(**keys: str) -> tuple[Column, ...]:
    """Give a column of numbers of any size for each key and its header."""
    return tuple(sized(header, key) for key, header in keys.items())


def plain_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """Give a column for each key of the first row."""
    return tuple(Column(key, key) for key in rows[0])


def shown(columns: Sequence[Column], view: View) -> list[Column]:
    """Keep the columns of a view."""
    return [column for column in columns if view in column.views]


def table_of(columns: Sequence[Column], rows: Sequence[Row], view: View) -> tuple[list[str], list[list[str]]]:
    """Give the header and the cells of a table in a view."""
    chosen = shown(columns, view)
    return [column.header for column in chosen], [[column.text(row) for column in chosen] for row in rows]


def text_of(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Render a table as text."""
    return text_table(*table_of(columns, rows, "text"))
