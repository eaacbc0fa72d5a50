"""The files of a reconstruction become one HTML page that needs no network."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.colmap.types import Model
from kornia_bingan.reconstruct.drawings import read_drawings
from kornia_bingan.reconstruct.features import features_path
from kornia_bingan.reconstruct.pairs import Pair
from kornia_bingan.reconstruct.summary import Summary, count_photos
from kornia_bingan.report.html import Cell, number_cell, preview, render, text_cell, write_html
from kornia_bingan.work.files import printable

MAX_POINTS = 50_000
"""Points that the page shows at most, those with the longest tracks."""
MAX_PICTURES = 2000
PICTURE_BYTES, PICTURES_BYTES = 60_000, 6_000_000
"""Of the small picture of a photo and of all of them, at most; the page of 1,000 photos has less than 20 MB."""
MAX_PAIRS = 2000
MAX_SQUARES = 300
"""Rows of squares for pairs; of more, each would be smaller than a pixel."""
ROWS = 50
"""Of a table that are shown at a time."""
NO_MODEL = "none: "


def write_page(out: Path, photos: Path) -> Path:
    """Write ``out/report.html`` from what ``bingan reconstruct`` left in a folder.

    Args:
        out: folder with ``summary.json``, ``run.json``, ``model/``, ``features/`` and ``database.db``.
        photos: the photos, for thumbnails; those that are gone have none.

    Raises:
        UsageError: a file is missing or damaged, or the extra ``report`` is not installed.
    """
    from kornia_bingan.colmap import read_model, read_verification

    summary = Summary.read(out / "summary.json")
    model = read_model(out / "model")
    inliers = read_verification(out / "database.db").inliers
    folder = out / "features"
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    names = sorted(name for name in run["identity"]["photos"] if features_path(folder, name).is_file())
    shown = np.argsort(-model.track_length, kind="stable")[:MAX_POINTS]
    pairs = pairs_to_show(inliers)
    row_of = {name: row for row, name in enumerate(names)}
    drawings = read_drawings(out / "database.db", names, pairs)
    drawings["cameras"] = [row_of.get(name, -1) for name in model.names]
    keypoints = [photo["keypoints"] for photo in drawings["photos"]]
    in_no_model = len(summary.unregistered)
    cards = [
        ("registered photos", f"{summary.registered} / {summary.images}"),
        ("points", f"{summary.points:,}"),
        ("observations", f"{summary.observations:,}"),
        ("mean track length", f"{summary.mean_track_length:.2f}"),
        ("reprojection error", f"{summary.mean_reprojection_error_px:.3f} px"),
        ("verified pairs", f"{summary.pairs.verified} / {summary.pairs.tried}"),
        ("seconds", f"{sum(summary.seconds.values()):.0f}"),
        ("descriptor", summary.descriptor),
    ]
    if summary.place is not None:
        cards.append(("on the earth", summary.place.sentence()))
    page = render(
        "reconstruction.html",
        f"Reconstruction of {photos.name or 'photos'}",
        run["provenance"],
        [Path(__file__).parent / "templates"],
        cards=cards,
        model_figure=model_figure(model, shown),
        model_note=(
            f"{len(shown):,} of {len(model.xyz):,} points and {len(model.names)} cameras; drag to turn, scroll to zoom"
        ),
        photo_header=["photo", "model", "keypoints", "inlier matches"],
        photo_rows=_photo_rows(names, keypoints, photos, summary, inliers),
        photo_note=f"{count_photos(in_no_model)} in no model" if in_no_model else "",
        no_model=NO_MODEL,
        pair_header=["photo", "with", "inliers", "verified"],
        pair_rows=[
            [text_cell(a), text_cell(b), number_cell(inliers[a, b]), text_cell("yes" if inliers[a, b] else "no")]
            for a, b in pairs
        ],
        pair_note=f"{len(pairs):,} of {len(inliers):,} pairs: the best of each photo"
        if len(pairs) < len(inliers)
        else "",
        rows=ROWS,
        drawings=drawings,
        coverage_figure=coverage_figure(names, inliers),
        turned_note=summary.turned_note(),
        seconds_figure=seconds_figure(summary.seconds),
        skipped=[
            [text_cell(printable(item["name"])), text_cell(printable(item["reason"]))] for item in summary.skipped
        ],
    )
    path = out / "report.html"
    write_html(path, page)
    return path


def pairs_to_show(inliers: Mapping[Pair, int], most: int = MAX_PAIRS) -> list[Pair]:
    """Choose pairs, the best of each photo before the second of any; those with the most inliers come first.

    Args:
        inliers: of each pair.
        most: pairs.
    """
    by_inliers = sorted(inliers, key=lambda pair: -inliers[pair])
    before: Counter[str] = Counter()
    rank = {}
    for pair in by_inliers:
        rank[pair] = min(before[name] for name in pair)
        before.update(pair)
    return sorted(sorted(by_inliers, key=rank.__getitem__)[:most], key=lambda pair: -inliers[pair])


def _photo_rows(
    names: Sequence[str], keypoints: Sequence[int], photos: Path, summary: Summary, inliers: Mapping[Pair, int]
) -> list[list[Cell]]:
    places = {item["name"]: NO_MODEL + item["reason"] for item in [*summary.skipped, *summary.unregistered]}
    for model in summary.models[::-1]:  # of two, the larger is named
        places |= dict.fromkeys(model.photos, model.folder)
    totals = dict.fromkeys(names, 0)
    for pair, count in inliers.items():
        for name in pair:
            totals[name] = totals.get(name, 0) + count
    most = min(PICTURE_BYTES, PICTURES_BYTES // max(1, min(len(names), MAX_PICTURES)))
    rows = []
    for number, (name, count) in enumerate(zip(names, keypoints, strict=True)):
        image = preview(photos / name, most) if number < MAX_PICTURES else ""
        place = text_cell(places.get(name, ""))
        rows.append([Cell(name, name, image=image), place, number_cell(count), number_cell(totals[name])])
    return rows


def coverage_figure(names: Sequence[str], inliers: Mapping[Pair, int]) -> dict[str, Any]:
    """Draw a square for each pair of photos, dark where they have many inliers: gaps show where photos are missing.

    Of more than :data:`MAX_SQUARES` photos, as many neighbours as needed share a row, and a square has their sum.
    """
    step = max(1, -(-len(names) // MAX_SQUARES))
    row_of = {name: row // step for row, name in enumerate(names)}
    labels = []
    for start in range(0, len(names), step):
        others = len(names[start : start + step]) - 1
        labels.append(names[start].replace("<", "&lt;") + (f" and {others} more" if others else ""))
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for (a, b), count in inliers.items():
        if a in row_of and b in row_of:
            for i, j in {(row_of[a], row_of[b]), (row_of[b], row_of[a])}:
                counts[i, j] += count
    squares = {
        "type": "heatmap",
        "z": counts.tolist(),
        "x": labels,
        "y": labels,
        "colorscale": [[0, "#f4f4f4"], [0.02, "#c9d7ea"], [1, "#16365f"]],
        "hovertemplate": "%{y}<br>%{x}<br>%{z} inliers<extra></extra>",
    }
    hidden = {"showticklabels": False, "constrain": "domain"}
    return {
        "data": [squares],
        "layout": {"xaxis": hidden, "yaxis": {**hidden, "autorange": "reversed", "scaleanchor": "x"}},
    }


def model_figure(model: Model, shown: NDArray[np.int64]) -> dict[str, Any]:
    """Draw points and camera frusta; the view leaves out points far beyond the cameras and the bulk of the points."""
    centers = -np.einsum("nji,nj->ni", model.rotations, model.translations)
    xyz, rgb = model.xyz[shown], model.rgb[shown]
    low, high = np.quantile(xyz, [0.02, 0.98], axis=0) if len(xyz) else (centers.min(0), centers.max(0))
    low, high = np.minimum(low, centers.min(0)), np.maximum(high, centers.max(0))
    inside = ((xyz >= low) & (xyz <= high)).all(1)
    xyz, rgb = xyz[inside], rgb[inside]
    size = 0.04 * float(np.linalg.norm(high - low))
    lines: list[list[float | None]] = [[], [], []]
    for R, center, camera in zip(model.rotations, centers, model.cameras, strict=True):
        half = np.array([camera.width, camera.height]) / max(camera.width, camera.height) * 0.5
        corners = np.array([[x * half[0], y * half[1], 1] for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]) * size
        world = corners @ R + center
        loop = [center, world[0], world[1], center, world[2], world[3], center, None, *world, world[0], None]
        for point in loop:
            for axis in range(3):
                lines[axis].append(None if point is None else round(float(point[axis]), 5))
    points = {
        "type": "scatter3d",
        "mode": "markers",
        "name": "points",
        "hoverinfo": "skip",
        "marker": {"size": 1.6, "color": [f"rgb({r},{g},{b})" for r, g, b in rgb.tolist()]},
        **{axis: np.round(xyz[:, k], 5).tolist() for k, axis in enumerate("xyz")},
    }
    cameras = {
        "type": "scatter3d",
        "mode": "lines",
        "name": "cameras",
        "hoverinfo": "skip",
        "line": {"color": "#d1495b", "width": 2},
        **dict(zip("xyz", lines, strict=True)),
    }
    names = {
        "type": "scatter3d",
        "mode": "markers",
        "name": "photos",
        "text": [name.replace("<", "&lt;") for name in model.names],
        "hoverinfo": "text",
        "marker": {"size": 3, "color": "#d1495b"},
        **{axis: np.round(centers[:, k], 5).tolist() for k, axis in enumerate("xyz")},
    }
    hidden = {"visible": False}
    scene = {"aspectmode": "data", "xaxis": hidden, "yaxis": hidden, "zaxis": hidden}
    # COLMAP's world usually has y down, as its cameras have.
    scene["camera"] = {"up": {"x": 0, "y": -1, "z": 0}, "eye": {"x": 0.6, "y": -0.9, "z": -2.2}}
    return {
        "data": [points, cameras, names],
        "layout": {"scene": scene, "showlegend": False, "margin": dict.fromkeys("lrtb", 0)},
    }


def seconds_figure(seconds: dict[str, float]) -> dict[str, Any]:
    """Draw the seconds of each stage as bars."""
    stages = list(seconds)[::-1]
    bar = {
        "type": "bar",
        "orientation": "h",
        "y": stages,
        "x": [seconds[s] for s in stages],
        "marker": {"color": "#3d6fb6"},
    }
    return {"data": [bar], "layout": {"xaxis": {"title": {"text": "seconds"}}}}
