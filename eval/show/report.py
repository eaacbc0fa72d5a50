"""One page of all results: ``python -m eval report [--results eval/results] [--out bench/report.html]``.

Reads JSON records only and computes nothing: tables with the best value of each column marked, curves, bytes and speed
against quality, models in three dimensions, and the pictures that were drawn on the way, if any. Records
of a protocol without a view of its own are shown as a plain table.
"""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eval.show.markdown import provenances
from eval.training import ablation
from kornia_bingan.errors import UsageError
from kornia_bingan.report.html import Cell, render
from kornia_bingan.work.files import atomic_path

RESULTS = Path("eval/results")
Record = dict[str, Any]
Column = tuple[str, Callable[[Record], Any], str]
"""Header, value of a row, and whether "most" or "least" is best ("" for neither)."""


def make_table(rows: list[Record], columns: list[Column]) -> list[list[Cell]]:
    """Turn rows into cells and mark the best value of each column (all equal values)."""
    best: dict[str, float] = {}
    for name, get, order in columns:
        values = [value for row in rows if isinstance(value := get(row), int | float)]
        if order and len(set(values)) > 1:
            best[name] = max(values) if order == "most" else min(values)
    table = []
    for row in rows:
        cells = []
        for name, get, _ in columns:
            value = get(row)
            marked = name in best and value == best[name]
            cells.append(Cell(show(value), "" if value is None else value, best=marked))
        table.append(cells)
    return table


def column(key: str, name: str = "", order: str = "", of: Callable[[Any], Any] = lambda value: value) -> Column:
    """Give the column of a key of the rows, by its own name or another, with the value as ``of`` turns it."""
    return (name or key.replace("_", " "), lambda row: of(row.get(key)), order)


def show(value: Any) -> str:
    """Write a value for readers."""
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
        totals = [total for total in record["totals"] if total["part"] == part]
        columns: list[Column] = [
            ("descriptor", lambda r: r["descriptor"], ""),
            ("bytes", lambda r: record["peers"][r["descriptor"]]["num_bytes"], "least"),
            ("M95", lambda r: r["m95"], "most"),
            ("x RootSIFT", lambda r: r.get("times_rootsift"), "most"),
            ("95 % interval", lambda r: interval(r.get("times_rootsift_interval")), ""),
            ("least of any set", lambda r: r.get("least_times_rootsift"), "most"),
        ]
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
        sections.append(section(f"M95, {part}", record, totals, columns, figures))
    return sections


def section_hpatches(record: Record) -> list[Record]:
    """Sequences with homographies, EVD apart, with the curve of matching accuracy."""
    sections = []
    for part in dict.fromkeys(row["part"] for row in record["results"]):
        rows = [row for row in record["results"] if row["part"] == part]
        columns: list[Column] = [
            ("descriptor", lambda r: r["descriptor"], ""),
            ("ratio", lambda r: r["ratio"], ""),
            ("matches", lambda r: r["matches"], "most"),
            *((f"MMA@{px}", lambda r, px=px: r["mma"][px], "most") for px in ("1", "3", "5", "10")),
            ("matching score", lambda r: r["matching_score"], "most"),
            *((f"AUC@{px}", lambda r, px=px: r["auc"][px], "most") for px in ("1", "3", "5")),
            ("AUC@3 interval", lambda r: interval(r["auc3_interval"]), ""),
        ]
        series = {r["descriptor"]: ([float(px) for px in r["mma"]], list(r["mma"].values())) for r in rows}
        figure = curves(series, "threshold (px)", "mean matching accuracy")
        sections.append(section(f"Homographies, {part}", record, rows, columns, [figure]))
    return sections


def section_pairs(record: Record) -> list[Record]:
    """Two-view pose."""
    columns: list[Column] = [
        ("part", lambda r: r["part"], ""),
        ("descriptor", lambda r: r["descriptor"], ""),
        *((f"AUC@{d}", lambda r, d=d: r["auc"][d], "") for d in ("5", "10", "20")),
        ("AUC@10 interval", lambda r: interval(r["auc10_interval"]), ""),
        ("matches", lambda r: r["matches"], ""),
        ("inliers", lambda r: r["inliers"], ""),
        ("failures", lambda r: r["failures"], ""),
    ]
    return [section("Two-view pose", record, record["results"], columns, [])]


def section_sfm(record: Record) -> list[Record]:
    """COLMAP reconstructions, one table per scene."""
    columns: list[Column] = [
        ("descriptor", lambda r: r["descriptor"], ""),
        ("registered", lambda r: len(r["registered"]), "most"),
        ("points", lambda r: r["points"], "most"),
        ("observations", lambda r: r["observations"], "most"),
        ("track length", lambda r: r["mean_track_length"], "most"),
        ("reprojection px", lambda r: r["mean_reprojection_error_px"], "least"),
        ("rotation deg", lambda r: r["rotation_deg"], "least"),
        ("position %", lambda r: r["position_percent"], "least"),
        ("bytes", lambda r: r["descriptor_bytes"], "least"),
        ("seconds", lambda r: r["seconds"], "least"),
    ]
    sections = []
    for scene in dict.fromkeys(row["scene"] for row in record["results"]):
        rows = [row for row in record["results"] if row["scene"] == scene]
        figure = record.get("figures", {}).get(scene)
        sections.append(section(f"Reconstruction, {scene}", record, rows, columns, [figure] if figure else []))
    return sections


def section_sfm_check(record: Record) -> list[Record]:
    """SIFT through the harness beside plain pycolmap: mean over the seeds, and the spread."""
    columns = [column(name) for name in ("scene", "pipeline", "seeds")]
    for name in ("points", "observations", "mean_reprojection_error_px", "rotation_deg", "position_percent"):
        columns += [
            column(name, of=lambda v: v and v[0]),
            column(name, "least to most", of=lambda v: interval(v and v[1:])),
        ]
    return [section("SIFT: this harness and plain pycolmap", record, record["summary"], columns, [])]


def section_patch_tasks(record: Record) -> list[Record]:
    """Verification, matching and retrieval of patches."""
    columns = [column("descriptor")]
    for task in ("verification", "matching", "retrieval"):
        keys = [f"{task}_{level}" for level in ("easy", "hard", "tough")] + [task]
        columns += [column(key, key.replace("_", " "), "most") for key in keys]
        columns.append(column(f"{task}_interval", "95 % interval", of=interval))
    return [section("Patch tasks, mean average precision", record, record["results"], columns, [])]


def speed_against_quality(records: list[Record]) -> list[Record]:
    """Draw keypoints per second against M95 where both were measured."""
    sections = []
    speeds = [record for record in records if record["protocol"] == "speed"]
    for m95 in (record for record in records if record["protocol"] == "m95"):
        for speed in speeds:
            rate = {row["descriptor"]: row["keypoints_per_second"] for row in speed["results"]}
            rows = [
                {**total, "rate": rate[total["descriptor"]]}
                for total in m95["totals"]
                if total["part"] == "scene" and total["descriptor"] in rate
            ]
            columns: list[Column] = [
                ("descriptor", lambda r: r["descriptor"], ""),
                ("keypoints / s", lambda r: r["rate"], "most"),
                ("M95", lambda r: r["m95"], "most"),
            ]
            layout = {"xaxis": {"title": {"text": "keypoints described per second"}, "type": "log"}}
            figure = {"data": [labelled(rows, "rate")], "layout": {**layout, "yaxis": {"title": {"text": "M95"}}}}
            if rows:
                title = f"Speed against quality, {m95['file'].removesuffix('.json')}, {speed['threads']} thread(s)"
                sections.append(section(title, speed, rows, columns, [figure]))
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
    columns: list[Column] = [
        ("descriptor", lambda r: r["descriptor"], ""),
        ("FPR@95 %", lambda r: r["fpr95"], "least"),
        ("95 % interval", lambda r: interval(r["interval"]), ""),
        ("published rule %", lambda r: r["fpr95_published"], "least"),
        ("recall", lambda r: r["recall"], ""),
    ]
    sections = []
    for name in dict.fromkeys(row["set"] for row in record["results"]):
        rows = [row for row in record["results"] if row["set"] == name]
        series = {r["descriptor"]: ([p[0] for p in r["roc"]], [p[1] for p in r["roc"]]) for r in rows}
        figure = curves(series, "false positive rate", "recall")
        sections.append(section(f"Patch verification, {name}", record, rows, columns, [figure]))
    return sections


def section_ablation(record: Record) -> list[Record]:
    """Training runs side by side with their validation curves."""
    rows = record["results"]
    measure = ablation.measure_of(rows)
    title, best = ablation.TITLES[measure], "most" if measure == "map" else "least"
    columns: list[Column] = [
        ("run", lambda r: r["run"], ""),
        *((term, lambda r, term=term: r[f"lambda_{term}"], "") for term in ("gan", "dmr", "bre", "two_view")),
        ("patches", lambda r: r["patches"], ""),
        ("seconds", lambda r: r["seconds"], "least"),
        (f"untrained {title}", lambda r: r["untrained"][measure], ""),
        ("late mean", lambda r: r["late_mean"][measure], best),
        ("last", lambda r: r["last"][measure], best),
    ]
    series = {r["run"]: ([p["step"] for p in r["curve"]], [p[measure] for p in r["curve"]]) for r in rows}
    figure = curves(series, "step", title)
    return [section("Training runs", record, rows, columns, [figure])]


def section_other(record: Record) -> list[Record]:
    """Any other record with a list of flat rows."""
    rows = [row for row in record.get("results", []) if isinstance(row, dict)]
    if not rows:
        return []

    names = [name for name, value in rows[0].items() if isinstance(value, str | int | float)]
    return [section(record["protocol"], record, rows, [column(name) for name in names], [])]


def section_cifar10(record: Record) -> list[Record]:
    """Retrieval of whole pictures, one table and two curves per width."""
    sections = []
    for bits in sorted({row["bits"] for row in record["results"]}):
        rows = [row for row in record["results"] if row["bits"] == bits]
        columns = [column("descriptor")]
        columns += [column(key, f"{key}, mAP %", "most") for key in ("exact", "deepbit", "published", "full")]
        columns.insert(2, column("interval", "95 % interval", of=interval))
        figures = []
        for key in ("precision", "recall"):
            series = {r["descriptor"]: ([float(n) for n in r[key]], list(r[key].values())) for r in rows}
            figures.append(curves(series, "pictures looked at", key))
        sections.append(section(f"Whole pictures, {bits} bits", record, rows, columns, figures))
    return sections


VIEWS: dict[str, Callable[[Record], list[Record]]] = {
    "m95": section_m95,
    "hpatches": section_hpatches,
    "pairs": section_pairs,
    "sfm": section_sfm,
    "sfm_check": section_sfm_check,
    "patch_tasks": section_patch_tasks,
    "brown": section_brown,
    "ablation": section_ablation,
    "cifar10": section_cifar10,
}


def interval(values: list[float] | None) -> str:
    """Write an interval."""
    return "" if values is None else f"{values[0]:.4g} to {values[1]:.4g}"


def section(title: str, record: Record, rows: list[Record], columns: list[Column], figures: list[Record]) -> Record:
    """Put together what the template shows of one table."""
    absent = "; ".join(f"{name}: {why}" for name, why in (record.get("absent") or {}).items())
    return {
        "title": title,
        "file": record["file"],
        "command": record["command"],
        "commit": ", ".join(dict.fromkeys(about["commit"] or "none" for about in provenances(record))) or "none",
        "header": [name for name, _, _ in columns],
        "rows": make_table(rows, columns),
        "figures": figures,
        "absent": absent,
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval report")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=Path("bench/report.html"))
    parser.add_argument("--pictures", type=Path, default=Path("bench/pictures"))
    arguments = parser.parse_args(argv)
    paths = sorted(arguments.results.glob("*.json"))
    if not paths:
        raise UsageError(f"{arguments.results} has no results; python -m eval m95 DATA makes some")
    stored = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    # A list, such as that of the looks at the held-out data, is no record of a protocol.
    records = [{**record, "file": name} for name, record in stored.items() if isinstance(record, dict)]
    sections = [view for record in records for view in VIEWS.get(record["protocol"], section_other)(record)]
    sections += speed_against_quality(records)
    machines = {record["file"]: record.get("provenance") for record in records}
    groups = read_pictures(arguments.pictures)
    templates = [Path(__file__).parent / "templates"]
    page = render("results.html", "Results of kornia_bingan", machines, templates, sections=sections, groups=groups)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(arguments.out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(arguments.out)
    return 0
