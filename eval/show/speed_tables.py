"""The tables of what things cost: ``python -m eval speed``, ``scale``, ``scale_search``, ``cluster``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from eval.cost import cluster, retrieval_pairs, scale, scale_search, speed, train_speed
from eval.show.markdown import markdown_of, provenance_line, read_record, table

SPEED = "speed"
FLOAT32 = "speed-float32"
"""The same run on a processor that does not compute in bfloat16."""
SCALE = ("scale", "scale-codes")


def part(name: str, of: str) -> str:
    """One of the other parts of a record of speed."""
    return table(name, speed.COLUMNS[of], lambda record: record[of])


def growth() -> str:
    """Exponents, and what they make of a million and of a hundred million photos."""
    records = [read_record(name) for name in SCALE]
    fitted = [row for record in records for row in record["growth"]]
    return "\n".join([f"{markdown_of(scale.GROWTH, fitted)}\n", *map(provenance_line, records)])


TABLES: dict[str, Callable[[], str]] = {
    **{f"{SPEED}-{of}": partial(part, SPEED, of) for of in speed.COLUMNS},
    **{f"{FLOAT32}-{of}": partial(part, FLOAT32, of) for of in ("optimisations", "pipeline")},
    **{name: partial(table, name, scale.COLUMNS) for name in SCALE},
    "scale-growth": growth,
    "scale-search": partial(table, "scale-search", scale_search.COLUMNS),
    "cluster": partial(table, "cluster", cluster.COLUMNS, cluster.rows_of),
    "retrieval-pairs": partial(table, "retrieval-pairs", retrieval_pairs.COLUMNS),
    "train-speed": partial(table, "train-speed", train_speed.COLUMNS),
}
