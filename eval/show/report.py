"""One page of all results: ``python -m eval report [--results eval/results] [--out bench/report.html]``.

Reads JSON records only and computes nothing: tables with the best value of each column marked, curves, bytes and speed
against quality, models in three dimensions, and the pictures that were drawn on the way, if any. Records
of a protocol without a view of its own are shown as a plain table.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eval.harness.columns import Column, Row, shown
from eval.harness.command import command_line
from eval.quality import brown, cifar10, defaults, hpatches, m95, pairs, patch_tasks, pipelines, sfm, sfm_check
from eval.show.markdown import provenances
from eval.training import ablation
from kornia_bingan.errors import UsageError
from kornia_bingan.report.html import Cell, render
from kornia_bingan.work.files import atomic_path

RESULTS = Path("eval/results")
Record = dict[str, Any]


def cells_of(columns: Sequence[Column], rows: Sequence[Row]) -> list[list[Cell]]:
    """Render the columns of a protocol for a page, with the best value of each column marked (all equal values)."""
    best: dict[str, float] = {}
    for column in columns:
        values = [value for row in rows if isinstance(value := column.value(row), int | float)]
        if column.best and len(set(values)) > 1:
            best[column.header] = max(values) if column.best == "most" else min(values)
    table = []
    for row in rows:
        cells = []
        for column in columns:
            value = column.value(row)
            marked = column.header in best and value == best[column.header]
            cells.append(Cell(column.text(row), "" if value is None else value, best=marked))
        table.append(cells)
    return table


def show(value: Any) -> str:
    """Write a value of a record without columns of its own."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def curves(series: dict[str, tuple[list[float], list[float]]], x: str, y: str) -> Record:
    """Draw named lines."""
    data = [
        {"type": "scatter", "mode": "lines", "name": name, "x": xs, "y": ys, "line": {"dash": dash(name)}}
        for name, (xs, ys) in series.items()
    ]
    return {"data": data, "layout": {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}}


def dash(name: str) -> str:
    """Give real-valued descriptors of ours a dashed line."""
    return "dash" if name.endswith("/float") else "solid"


def section_m95(record: Record) -> list[Record]:
    """Totals, quality against bytes, and the curves of correct matches against precision."""
    sections = []
    for part in dict.fromkeys(total["part"] for total in record["totals"]):
        totals = m95.totals_of(record, part)
        sized = [{**t, "num_bytes": record["peers"][t["descriptor"]]["num_bytes"]} for t in totals]
        x_axis = {"title": {"text": "bytes per keypoint"}, "type": "log"}
        layout = {"xaxis": x_axis, "yaxis": {"title": {"text": "M95"}}}
        figures = [{"data": [labelled(sized, "num_bytes")], "layout": layout}]
        for data in totals[0]["data"]:
            rows = [row for row in record["results"] if row["data"] == data]
            series = {}
            for row in rows:
                matches, correct = row["curve"]["num_matches"], row["curve"]["num_correct"]
                series[row["descriptor"]] = (correct, [c / max(1, m) for c, m in zip(correct, matches, strict=True)])
            figures.append(curves(series, f"correct matches, {data}", "precision"))
        sections.append(section(f"M95, {part}", record, totals, m95.columns(record, part), figures))
    return sections


def section_hpatches(record: Record) -> list[Record]:
    """Sequences with homographies, EVD apart, with the curve of matching accuracy."""
    sections = []
    for part in dict.fromkeys(row["part"] for row in record["results"]):
        rows = [row for row in record["results"] if row["part"] == part]
        series = {r["descriptor"]: ([float(px) for px in r["mma"]], list(r["mma"].values())) for r in rows}
        figure = curves(series, "threshold (px)", "mean matching accuracy")
        sections.append(section(f"Homographies, {part}", record, rows, hpatches.COLUMNS, [figure]))
    return sections


def section_pairs(record: Record) -> list[Record]:
    """Two-view pose."""
    return [section("Two-view pose", record, record["results"], pairs.COLUMNS, [])]


def section_pipelines(record: Record) -> list[Record]:
    """Whole pipelines, one table per part, and what COLMAP makes of their matches."""
    parts = dict.fromkeys(row["part"] for row in record["results"])
    tables = {part: [row for row in record["results"] if row["part"] == part] for part in parts}
    sections = [section(f"Pipelines, {p}", record, rows, pipelines.columns(p), []) for p, rows in tables.items()]
    if models := record["colmap"]:
        sections.append(section("Pipelines, COLMAP", record, models, pipelines.COLMAP_COLUMNS, []))
    return sections


def section_defaults(record: Record) -> list[Record]:
    """Default against default."""
    return [section("Default against default", record, record["results"], defaults.COLUMNS, [])]


def section_sfm(record: Record) -> list[Record]:
    """COLMAP reconstructions, one table per scene."""
    sections = []
    for scene in dict.fromkeys(row["scene"] for row in record["results"]):
        rows = [row for row in record["results"] if row["scene"] == scene]
        figure = record.get("figures", {}).get(scene)
        sections.append(section(f"Reconstruction, {scene}", record, rows, sfm.COLUMNS, [figure] if figure else []))
    return sections


def section_sfm_check(record: Record) -> list[Record]:
    """SIFT through the harness beside plain pycolmap: mean over the seeds, and the spread."""
    return [section("SIFT: this harness and plain pycolmap", record, record["summary"], sfm_check.COLUMNS, [])]


def section_patch_tasks(record: Record) -> list[Record]:
    """Verification, matching and retrieval of patches."""
    columns = patch_tasks.columns(record["results"])
    return [section("Patch tasks, mean average precision", record, record["results"], columns, [])]


SPEED_COLUMNS = (
    Column("descriptor", "descriptor"),
    Column("keypoints / s", "rate", ",.0f", best="most"),
    Column("M95", "m95", ",", best="most"),
)


def speed_against_quality(records: list[Record]) -> list[Record]:
    """Draw keypoints per second against M95 where both were measured."""
    sections = []
    speeds = [record for record in records if record["protocol"] == "speed"]
    for matches in (record for record in records if record["protocol"] == "m95"):
        for speed in speeds:
            rate = {row["descriptor"]: row["keypoints_per_second"] for row in speed["results"]}
            rows = [
                {**total, "rate": rate[total["descriptor"]]}
                for total in matches["totals"]
                if total["part"] == "scene" and total["descriptor"] in rate
            ]
            layout = {"xaxis": {"title": {"text": "keypoints described per second"}, "type": "log"}}
            figure = {"data": [labelled(rows, "rate")], "layout": {**layout, "yaxis": {"title": {"text": "M95"}}}}
            if rows:
                title = f"Speed against quality, {matches['file'].removesuffix('.json')}, {speed['threads']} thread(s)"
                sections.append(section(title, speed, rows, SPEED_COLUMNS, [figure]))
    return sections


def labelled(rows: list[Record], x: str) -> Record:
    """Draw a named point per row."""
    names = [row["descriptor"] for row in rows]
    points = {"x": [row[x] for row in rows], "y": [row["m95"] for row in rows]}
    return {"type": "scatter", "mode": "markers+text", "text": names, "textposition": "top center", **points}


def read_pictures(folder: Path) -> list[Record]:
    """Read the groups of pictures that other commands drew: title, note, and pictures as data URLs."""
    groups = []
    for path in sorted(folder.glob("*.json"), reverse=True):
        about = json.loads(path.read_text(encoding="utf-8"))
        shown = []
        for row in about["results"]:
            data = base64.b64encode((folder / row["file"]).read_bytes()).decode()
            kind = "png" if row["file"].endswith(".png") else "jpeg"
            shown.append({"text": row["text"], "source": f"data:image/{kind};base64,{data}"})
        groups.append({"title": about["title"], "note": about["note"], "pictures": shown})
    return groups


def section_brown(record: Record) -> list[Record]:
    """Patch verification, one table and one ROC per set."""
    sections = []
    for name in dict.fromkeys(row["set"] for row in record["results"]):
        rows = [row for row in record["results"] if row["set"] == name]
        series = {r["descriptor"]: ([p[0] for p in r["roc"]], [p[1] for p in r["roc"]]) for r in rows}
        figure = curves(series, "false positive rate", "recall")
        sections.append(section(f"Patch verification, {name}", record, rows, brown.COLUMNS, [figure]))
    return sections


def section_ablation(record: Record) -> list[Record]:
    """Training runs side by side with their validation curves."""
    rows = record["results"]
    measure = ablation.measure_of(rows)
    series = {r["run"]: ([p["step"] for p in r["curve"]], [p[measure] for p in r["curve"]]) for r in rows}
    figure = curves(series, "step", ablation.TITLES[measure])
    return [section("Training runs", record, rows, ablation.columns(rows), [figure])]


def section_other(record: Record) -> list[Record]:
    """Any other record with a list of flat rows."""
    rows = [row for row in record.get("results", []) if isinstance(row, dict)]
    if not rows:
        return []

    names = [name for name, value in rows[0].items() if isinstance(value, str | int | float)]
    return [section(record["protocol"], record, rows, [_plain(name) for name in names], [])]


def _plain(name: str) -> Column:
    return Column(name.replace("_", " "), name, lambda row: show(row.get(name)))


def section_cifar10(record: Record) -> list[Record]:
    """Retrieval of whole pictures, one table and two curves per width."""
    sections = []
    for bits in sorted({row["bits"] for row in record["results"]}):
        rows = [row for row in record["results"] if row["bits"] == bits]
        figures = []
        for key in ("precision", "recall"):
            series = {r["descriptor"]: ([float(n) for n in r[key]], list(r[key].values())) for r in rows}
            figures.append(curves(series, "pictures looked at", key))
        sections.append(section(f"Whole pictures, {bits} bits", record, rows, cifar10.COLUMNS, figures))
    return sections


VIEWS: dict[str, Callable[[Record], list[Record]]] = {
    "m95": section_m95,
    "hpatches": section_hpatches,
    "pairs": section_pairs,
    "pipelines": section_pipelines,
    "defaults": section_defaults,
    "sfm": section_sfm,
    "sfm_check": section_sfm_check,
    "patch_tasks": section_patch_tasks,
    "brown": section_brown,
    "ablation": section_ablation,
    "cifar10": section_cifar10,
}


def section(title: str, record: Record, rows: list[Record], columns: Sequence[Column], figures: list[Record]) -> Record:
    """Put together what the template shows of one table."""
    columns = shown(columns, "page")
    absent = "; ".join(f"{name}: {why}" for name, why in (record.get("absent") or {}).items())
    return {
        "title": title,
        "file": record["file"],
        "command": record["command"],
        "commit": ", ".join(dict.fromkeys(about["commit"] or "none" for about in provenances(record))) or "none",
        "header": [column.header for column in columns],
        "rows": cells_of(columns, rows),
        "figures": figures,
        "absent": absent,
    }


@command_line("report")
def main(
    results: Path = RESULTS, out: Path = Path("bench/report.html"), pictures: Path = Path("bench/pictures")
) -> int:
    paths = sorted(results.glob("*.json"))
    if not paths:
        raise UsageError(f"{results} has no results; python -m eval m95 DATA makes some")
    stored = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    # A list, such as that of the looks at the held-out data, is no record of a protocol.
    records = [{**record, "file": name} for name, record in stored.items() if isinstance(record, dict)]
    sections = [view for record in records for view in VIEWS.get(record["protocol"], section_other)(record)]
    sections += speed_against_quality(records)
    machines = {record["file"]: record.get("provenance") for record in records}
    groups = read_pictures(pictures)
    templates = [Path(__file__).parent / "templates"]
    page = render("results.html", "Results of kornia_bingan", machines, templates, sections=sections, groups=groups)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(out)
    return 0
