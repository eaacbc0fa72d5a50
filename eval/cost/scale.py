"""What do more photos cost, stage by stage?

    python -m eval scale SCENE [SCENE ...] [--sizes 10,100,1000] [--codes none]
    python -m eval scale SCENE --sizes none [--codes 1000,10000,100000] --out eval/results/scale-codes.json

Protocol. ``photos``: ``bingan reconstruct --pairs retrieval:10`` in a process of its own, on the photos of the scenes
(each SCENE holds ``images``) in a fixed order; where a size needs more, they come again under a random homography.
Photos are reduced to ``MAX_SIZE`` pixels and have at most ``MAX_KEYPOINTS`` keypoints. It maps by the incremental
mapper, the global one maps the same database beside; each stops after ``--limit`` seconds.

``codes``: photos that exist as synthetic codes only; ten of them show one place, with half of their codes in common but
for ``FLIPPED`` of the bits. Their pairs are chosen by ``sequential:10``, ``gps:10`` and, up to ``--most-retrieval``
photos, ``retrieval:10``; matching is timed on ``SAMPLED`` pairs of one place each and scaled to all N * 10.

Seconds, bytes and peak memory are measured. Exponents are slopes of log cost over log photos between the smallest and
the largest size that were measured; from the largest one the same power law goes on to 1 M and 100 M photos.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray

from eval.cost.speed_pipeline import status_mb
from eval.harness.columns import Column, sized, text_of
from eval.harness.command import Out, Paths, command_line
from eval.harness.options import RESULTS
from eval.harness.records import write_json
from eval.show.curves import Line, Panel, svg_panels
from kornia_bingan import colmap
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.images.read import read_color
from kornia_bingan.network.weights import find_weights
from kornia_bingan.reconstruct.matches import match_block
from kornia_bingan.reconstruct.options import ReconstructOptions
from kornia_bingan.reconstruct.pairs import choose_pairs
from kornia_bingan.reconstruct.pipeline import reconstruct_photos
from kornia_bingan.work.files import atomic_path
from kornia_bingan.work.isolated import run_in_child
from kornia_bingan.work.options import FeatureOptions, WorkOptions
from kornia_bingan.work.provenance import provenance

DESCRIPTOR = "bingan256-lite"
MAX_SIZE, MAX_KEYPOINTS = 640, 512
COUNT = 10
CODES = 600
"""Codes of a synthetic photo, as many as vote when pairs are chosen."""
FLIPPED = 0.08
SAMPLED = 640
RATIO = 0.8
MORE = (1_000_000, 100_000_000)

Row = dict[str, Any]


def write_photos(scenes: Sequence[Path], count: int, folder: Path) -> None:
    """Write ``count`` photos of scenes, warped from the second round on, as JPEG of at most ``MAX_SIZE`` pixels.

    Raises:
        UsageError: the scenes hold no photos.
    """
    paths = [scene / "images" / name for scene in scenes for name in list_images(scene / "images")[0]]
    if not paths:
        raise UsageError(f"{scenes[0] / 'images'} holds no photos")
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        picture = cv2.cvtColor(read_color(paths[number % len(paths)]), cv2.COLOR_RGB2BGR)
        scale = min(1.0, MAX_SIZE / max(picture.shape[:2]))
        picture = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        if number >= len(paths):
            height, width = picture.shape[:2]
            corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
            moved = corners + rng.uniform(-0.08, 0.08, (4, 2)).astype(np.float32) * (width, height)
            warp = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
            picture = np.asarray(cv2.warpPerspective(picture, warp, (width, height), borderMode=cv2.BORDER_REFLECT))
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])


def of_photos(photos: Path, out: Path, count: int, limit: float) -> list[Row]:
    """Reconstruct photos, and map them once more by the global mapper.

    Returns:
        Rows ``kind``, ``photos``, ``stage``, ``seconds`` (None if stopped), ``bytes`` of what the stage wrote.
    """
    arguments = {"photos": str(photos), "out": str(out), "limit": limit}
    found = run_in_child("eval.cost.scale:reconstruct_here", arguments, stage="a reconstruction")
    written = {"describe": "features", "match": "matches", "verify": "database.db", "map": "model"}
    rows: list[Row] = []
    for stage, seconds in found.pop("seconds").items():
        row = {"kind": "photos", "photos": count, "stage": stage, "seconds": seconds}
        rows.append(row | {"bytes": _bytes(out / written[stage])})
    rows[0] |= found
    if "stopped" in found:
        rows[-1]["seconds"] = None
    row = {"kind": "photos", "photos": count, "stage": "map, global", "seconds": None}
    started = time.perf_counter()
    try:
        if not (out / "database.db").exists():
            raise JobError("the time was over before verification")
        model = colmap.reconstruct(
            out / "database.db", photos, out / "model-global", mapper="global", time_limit_s=limit
        )
        seconds = round(time.perf_counter() - started, 3)
        row |= {"seconds": seconds, "bytes": _bytes(out / "model-global"), "registered": len(model.names)}
        row |= {"points": len(model.xyz), "reprojection_error_px": round(model.mean_reprojection_error_px, 4)}
    except JobError as error:
        row["stopped"] = str(error).partition("\n")[0][:200]
    return [*rows, row]


def reconstruct_here(report: Any, *, photos: str, out: str, limit: float) -> Row:
    """Reconstruct in this process; gives seconds by stage, peak memory, and what came of it."""
    settings = ReconstructOptions(
        FeatureOptions(descriptor=DESCRIPTOR, max_size=MAX_SIZE, max_keypoints=MAX_KEYPOINTS),
        work=WorkOptions(time_limit=limit),
        pairs=f"retrieval:{COUNT}",
    )
    row: Row = {}
    try:
        summary = reconstruct_photos(Path(photos), Path(out), settings)
        row |= {"pairs": summary.pairs.tried, "registered": summary.registered, "points": summary.points}
        row["reprojection_error_px"] = summary.mean_reprojection_error_px
    except JobError as error:
        row["stopped"] = str(error).partition("\n")[0][:200]
    row["seconds"] = json.loads((Path(out) / "seconds.json").read_text(encoding="utf-8"))
    return row | {"peak_mb": round(status_mb("VmHWM"), 1)}


def of_codes(count: int, most_retrieval: int) -> list[Row]:
    """Choose and match pairs of photos that exist as codes only; rows as those of :func:`of_photos`."""
    arguments = {"count": count, "with_retrieval": count <= most_retrieval}
    rows: list[Row] = run_in_child("eval.cost.scale:codes_here", arguments, stage="choosing pairs")
    return [{"kind": "codes", "photos": count, **row} for row in rows]


def codes_here(report: Any, *, count: int, with_retrieval: bool) -> list[Row]:
    """Do the work of :func:`of_codes` in this process."""
    codes = synthetic_codes(count)
    rng = np.random.default_rng(1)
    positions = {name: (48 + y, 2 + x, 0.0) for name, (x, y) in zip(codes, rng.random((count, 2)), strict=True)}
    rows = []
    for kind in ("sequential", "gps", *(["retrieval"] if with_retrieval else [])):
        started = time.perf_counter()
        pairs, _ = choose_pairs([(kind, COUNT)], codes, positions)
        row = {"stage": f"pairs, {kind}", "seconds": round(time.perf_counter() - started, 3), "pairs": len(pairs)}
        rows.append(row | {"bytes": codes[next(iter(codes))].nbytes * count, "peak_mb": round(status_mb("VmHWM"), 1)})
        if kind == "retrieval":
            same = sum(int(a) // COUNT == int(b) // COUNT for a, b in pairs)
            rows[-1]["true_pairs"] = round(same / (count * (COUNT - 1) / 2), 4)
    names = list(codes)
    firsts = np.linspace(0, count - COUNT, min(SAMPLED, count)).astype(int) // COUNT * COUNT
    sample = [(names[first], names[first + 1 + k % (COUNT - 1)]) for k, first in enumerate(firsts.tolist())]
    started = time.perf_counter()
    block = match_block(sample, codes.__getitem__, RATIO)
    share = len(sample) / (count * COUNT)
    seconds = (time.perf_counter() - started) / share
    written = round(sum(matches.nbytes for matches in block.matches) / share)
    return [*rows, {"stage": "match, sample scaled up", "seconds": round(seconds, 3), "bytes": written}]


def synthetic_codes(count: int) -> dict[str, NDArray[np.uint8]]:
    """Give each photo ``CODES`` codes, half of them shared, up to noise, by the ten photos of one place."""
    rng = np.random.default_rng(0)
    half = CODES // 2
    codes = {}
    for number in range(count):
        if number % COUNT == 0:
            place = rng.integers(0, 256, (half, 32), np.uint8)
        noise = np.packbits(rng.random((half, 256), np.float32) < FLIPPED, axis=1)
        own = rng.integers(0, 256, (CODES - half, 32), np.uint8)
        codes[f"{number:08d}"] = np.concatenate([place ^ noise, own])
    return codes


def growth(rows: Sequence[Row]) -> list[Row]:
    """Fit cost = a N^exponent to each stage between its smallest and its largest size, and go on with it."""
    fitted = []
    for kind, stage in dict.fromkeys((row["kind"], row["stage"]) for row in rows):
        for cost in ("seconds", "bytes"):
            known = [(r["photos"], r[cost]) for r in rows if (r["kind"], r["stage"]) == (kind, stage) and r.get(cost)]
            if len(known) < 2:
                continue
            (first, low), *_, (last, high) = known
            exponent = math.log(high / low) / math.log(last / first)
            more = {f"at {size:,}": round(high * (size / last) ** exponent) for size in MORE}
            fitted.append({"kind": kind, "stage": stage, "cost": cost, "exponent": round(exponent, 3), **more})
    return fitted


def draw(rows: Sequence[Row]) -> str:
    """Draw seconds against photos, both as powers of ten, as SVG."""
    panels = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if row["kind"] == kind and row.get("seconds"):
                point = (math.log10(row["photos"]), math.log10(row["seconds"]))
                lines.setdefault(row["stage"], []).append(point)
        drawn = [Line(stage, [x for x, _ in points], [y for _, y in points]) for stage, points in lines.items()]
        panels.append(Panel(kind, drawn))
    heights = [y for panel in panels for line in panel.lines for y in line.y]
    limits = (math.floor(min(heights)), math.ceil(max(heights)))
    return svg_panels(panels, "photos, power of ten", "seconds, power of ten", limits, columns=2)


def _bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())


def _kind(row: Mapping[str, Any]) -> str:
    return "real" if row["kind"] == "photos" else "codes only"


def _machines(row: Mapping[str, Any]) -> str:
    days = [f"{max(1, -(-row[f'at {size:,}'] // 86_400)):,.0f}" for size in MORE]
    return " and ".join(days) if row["cost"] == "seconds" else ""


COLUMNS = (
    Column("photos", _kind),
    Column("number", "photos", ","),
    Column("stage", "stage"),
    sized("seconds", lambda r: "stopped" if "stopped" in r and r["seconds"] is None else r["seconds"], 3),
    sized("bytes", "bytes", 3),
    sized("peak MB", "peak_mb", 3),
    Column("pairs", "pairs", ","),
    Column("registered", "registered", ","),
    Column("points", "points", ","),
)
GROWTH = (
    Column("photos", _kind),
    Column("stage", "stage"),
    Column("cost", "cost"),
    Column("exponent", "exponent", ".2f"),
    *(Column(f"at {size:,} photos", f"at {size:,}", ",") for size in MORE),
    Column("machines, for a day", _machines),
)


@dataclass(frozen=True)
class ScaleOptions:
    """How much is measured.

    Attributes:
        sizes: numbers of photos, separated by commas, or none.
        codes: numbers of photos whose codes alone are made up, or none.
        limit: seconds of one reconstruction, and of the other mapping.
        most_retrieval: most photos whose similar ones are searched.
    """

    sizes: str = "10,100,1000"
    codes: str = "none"
    limit: float = 1800.0
    most_retrieval: int = 10_000
    out: Out = RESULTS / "scale.json"


@command_line("scale")
def main(scenes: Paths, options: Annotated[ScaleOptions, tyro.conf.arg(name="")]) -> int:
    sizes, codes = _numbers(options.sizes), _numbers(options.codes)
    rows: list[Row] = []
    for count in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_photos(scenes, count, Path(folder) / "photos")
            rows += of_photos(Path(folder) / "photos", Path(folder) / "out", count, options.limit)
        _write(scenes, options, rows)
    for count in codes:
        rows += of_codes(count, options.most_retrieval)
        _write(scenes, options, rows)
    print(text_of(COLUMNS, rows))
    return 0


def _write(scenes: Sequence[Path], options: ScaleOptions, rows: Sequence[Row]) -> None:
    """Write what is known so far: the larger sizes take long."""
    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    words = [scene.name for scene in scenes]
    words += ["--sizes", options.sizes, "--codes", options.codes]
    words += ["--limit", f"{options.limit:g}", "--most-retrieval", str(options.most_retrieval)]
    record = {
        "protocol": "scale",
        "command": f"python -m eval scale {' '.join(words)}",
        "results": rows,
        "growth": growth(rows),
        "provenance": provenance(find_weights(DESCRIPTOR)),
    }
    write_json(options.out, record)
    with atomic_path(options.out.with_suffix(".svg")) as temporary:
        temporary.write_text(draw(rows), encoding="utf-8")


def _numbers(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    words = text.split(",")
    if not all(word.isdecimal() and int(word) >= COUNT for word in words):
        raise UsageError(f"'{text}' are no numbers of photos; give {COUNT} or more, with commas between, or none")
    return tuple(map(int, words))
