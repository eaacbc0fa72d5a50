"""The tables of ``python -m eval scale``."""

from __future__ import annotations

from typing import Any

from eval.show.markdown import RESULTS, markdown, provenance_line, read


def _cost(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


FILES = ("scale.json", "scale-codes.json")


def stages(file: str) -> str:
    """Seconds, bytes and memory by stage and number of photos."""
    record = read(RESULTS / file)
    header = ["photos", "number", "stage", "seconds", "bytes", "peak MB", "pairs", "registered", "points"]
    rows = []
    for r in record["results"]:
        seconds = "stopped" if "stopped" in r and r["seconds"] is None else _cost(r["seconds"])
        kind = "real" if r["kind"] == "photos" else "codes only"
        others = [_cost(r.get(key)) for key in ("bytes", "peak_mb")]
        counts = [f"{r[key]:,}" if key in r else "" for key in ("pairs", "registered", "points")]
        rows.append([kind, f"{r['photos']:,}", r["stage"], seconds, *others, *counts])
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def growth() -> str:
    """Exponents, and what they make of a million and of a hundred million photos."""
    records = [read(RESULTS / file) for file in FILES]
    fitted = [row for record in records for row in record["growth"]]
    sizes = [key for key in fitted[0] if key.startswith("at ")]
    header = ["photos", "stage", "cost", "exponent", *(f"{size} photos" for size in sizes), "machines, for a day"]
    rows = []
    for r in fitted:
        kind = "real" if r["kind"] == "photos" else "codes only"
        days = [f"{max(1, -(-r[size] // 86_400)):,.0f}" for size in sizes] if r["cost"] == "seconds" else []
        values = [f"{r[size]:,}" for size in sizes]
        rows.append([kind, r["stage"], r["cost"], f"{r['exponent']:.2f}", *values, " and ".join(days)])
    return "\n".join([f"{markdown(header, rows)}\n", *(provenance_line(record) for record in records)])


TABLES = {"scale": lambda: stages(FILES[0]), "scale-codes": lambda: stages(FILES[1]), "scale-growth": growth}
