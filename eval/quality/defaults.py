"""Default against default: the same photos through programs as they are started without any option.

    python -m eval defaults DATA/validate [--scenes herz_jesus,fox] [--learned] [--out FILE.json]

Protocol. ``bingan reconstruct PHOTOS OUT`` with ``bingan256`` and with ``bingan256-lite``, and, to tell what matching
in context adds, with ``bingan256`` and ``--matcher ratio``; pycolmap's own SIFT and matcher, one camera for each size
of photos, as ours have it; with ``--learned`` also ALIKED with LightGlue at the defaults of their package, mapped with
the same options. All pairs of photos, one thread for describing and matching. Poses against the true cameras are
medians, as in ``sfm``. ``of the longest`` is the mean reprojection error of equally many of the longest tracks, as many
as the smaller one of ours (``bingan256``) and this model has, first of ours and then of this one. Seconds are of all
stages, and of those before mapping: reading, describing, matching and verifying (of ALIKED without verifying); bytes
are those of the descriptors (not known of SIFT's). Nothing is tuned here.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eval.harness.columns import Column, text_of
from eval.harness.command import Names, OptionalOut, Split, command_line
from eval.harness.data import read_scene, scenes_of
from eval.harness.known_pairs import pictures_of
from eval.harness.matchers import Matcher
from eval.harness.options import RESULTS, use_threads
from eval.harness.pipelines import load_pipelines
from eval.harness.records import check_clean, write_json
from eval.quality import sfm
from eval.quality.pipelines import matcher_of
from kornia_bingan.colmap import read_model, reconstruct
from kornia_bingan.colmap.sift import MAX_KEYPOINTS, match_with_sift
from kornia_bingan.colmap.types import Model
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.network.weights import find_weights
from kornia_bingan.reconstruct.features import read_features
from kornia_bingan.reconstruct.options import MAX_KEYPOINTS as OUR_MAX_KEYPOINTS
from kornia_bingan.reconstruct.options import Matcher as MatcherName
from kornia_bingan.reconstruct.options import MatchOptions, ReconstructOptions
from kornia_bingan.reconstruct.pipeline import reconstruct_photos
from kornia_bingan.work.options import FeatureOptions
from kornia_bingan.work.provenance import provenance

OURS = ("bingan256", "bingan256-lite")
RATIO = "bingan256, ratio test"
SIFT = "pycolmap, SIFT"
LEARNED = "aliked-n16rot+lightglue"

COLUMNS = (
    Column("scene", "scene"),
    Column("program", "program"),
    Column("registered", "registered", lambda r: f"{r['registered']} / {r['images']}", best="most"),
    Column("points", "points", ",", best="most"),
    Column("observations", "observations", ",", best="most"),
    Column("reprojection error px", "error_px", ".3f", best="least"),
    Column("ours, of the longest px", lambda r: r["longest_error_px"][0], ".3f"),
    Column("this, of the longest px", lambda r: r["longest_error_px"][1], ".3f"),
    Column("rotation error deg", "rotation_deg", ".3f", best="least"),
    Column("position error %", "position_percent", ".3f", best="least"),
    Column("seconds", "seconds", ".0f", best="least"),
    Column("before mapping s", "seconds_before_mapping", ".0f", best="least"),
    Column("bytes", "bytes", ",", best="least"),
)

Row = dict[str, Any]
Made = tuple[Model | None, int | None, float, float]
"""A model, or None; bytes of the descriptors, None where the program does not say; seconds, all and before mapping."""


def with_ours(photos: Path, folder: Path, name: str, matcher: MatcherName = "auto") -> Made:
    """Run ``bingan reconstruct``; the bytes are those of the files of features."""
    features = FeatureOptions(descriptor=name, max_keypoints=OUR_MAX_KEYPOINTS)
    started = time.perf_counter()
    try:
        reconstruct_photos(photos, folder, ReconstructOptions(features, matches=MatchOptions(matcher=matcher)))
        model = read_model(folder / "model")
    except JobError:
        model = None
    seconds = time.perf_counter() - started
    mapping = json.loads((folder / "seconds.json").read_text(encoding="utf-8")).get("map", 0.0)
    size = sum(read_features(path).codes.nbytes for path in folder.glob("features/**/*.npz"))
    return model, size, seconds, seconds - mapping


def with_sift(photos: Path, folder: Path) -> Made:
    """Run pycolmap at its defaults; the number of its keypoints is gone with its database."""
    started = matched = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as place:
            match_with_sift(photos, Path(place) / "database.db")
            matched = time.perf_counter()
            reconstruct(Path(place) / "database.db", None, folder)
        model = read_model(folder)
    except JobError:
        model = None
    return model, None, time.perf_counter() - started, matched - started


def with_learned(path: Path) -> Made:
    """Map the matches of ALIKED and LightGlue with our options."""
    (chosen,), _ = load_pipelines([LEARNED])
    scene = read_scene(path)
    pictures = pictures_of(scene, path)
    started = time.perf_counter()
    images = {name: picture.grey for name, picture in pictures.items()}
    matches = matcher_of(chosen, pictures, None).match(images, {})
    matched = time.perf_counter()
    result, model = sfm.evaluate(path, Matcher(LEARNED, {}, lambda *_: matches), images, {})
    return model, result.descriptor_bytes, time.perf_counter() - started, matched - started


def row_of(scene: Path, program: str, images: int, made: Made) -> Row:
    """Put numbers together; what only all models of a scene say is added by :func:`compare`."""
    model, size, seconds, before = made
    truth = scene / "cameras.json"
    return {
        "scene": scene.name,
        "program": program,
        "images": images,
        "registered": 0 if model is None else len(model.names),
        "points": 0 if model is None else len(model.xyz),
        "observations": 0 if model is None else model.observations,
        "error_px": None if model is None else round(model.mean_reprojection_error_px, 4),
        **sfm.against_truth(model, truth if truth.is_file() else None),
        "seconds": round(seconds, 1),
        "seconds_before_mapping": round(before, 1),
        "bytes": size,
    }


def compare(models: dict[str, Model | None], rows: list[Row]) -> None:
    """Add the reprojection errors of equally many of the longest tracks to the rows of a scene."""
    ours = models[OURS[0]]
    for row in rows:
        model = models[row["program"]]
        if ours is None or model is None:
            row["longest_error_px"] = [None, None]
            continue
        count = min(len(ours.xyz), len(model.xyz))
        tracks = [{"track": each.track_length, "error": each.error_px} for each in (ours, model)]
        row["longest_error_px"] = [sfm.error_of_longest(each, count) for each in tracks]


def evaluate(scene: Path, learned: bool) -> list[Row]:
    """Reconstruct a scene by every program."""
    photos = scene / "images"
    images = len(read_scene(scene).names)
    rows, models = [], {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        programs: dict[str, Callable[[], Made]] = {
            **{name: lambda name=name: with_ours(photos, out / name, name) for name in OURS},  # type: ignore[misc]
            RATIO: lambda: with_ours(photos, out / "ratio", OURS[0], "ratio"),
            SIFT: lambda: with_sift(photos, out / "sift"),
            **({LEARNED: lambda: with_learned(scene)} if learned else {}),
        }
        for name, make in programs.items():
            made = make()
            models[name] = made[0]
            rows.append(row_of(scene, name, images, made))
            print(f"{scene.name} {name}: {rows[-1]['points']:,} points", file=sys.stderr, flush=True)
    compare(models, rows)
    return rows


@command_line("defaults")
def main(data: Split, scenes: Names = (), learned: bool = False, out: OptionalOut = None) -> int:
    """Reconstruct every scene by every program.

    Args:
        scenes: names, separated by commas; all scenes by default.
        learned: ALIKED with LightGlue too, which needs the extra peers.
    """
    if not data.is_dir():
        raise UsageError(f"{data} is no folder of scenes")
    out = out or RESULTS / f"defaults-{data.resolve().name}.json"
    check_clean(out)
    use_threads(1)
    absent = load_pipelines([LEARNED])[1] if learned else {LEARNED: "not asked for (--learned)"}
    chosen = scenes_of(data, scenes)
    if not chosen:
        raise UsageError(f"{data} has no folder with images/ in it")
    rows = [row for scene in chosen for row in evaluate(scene, learned and not absent)]
    words = f" --scenes {','.join(scenes)}" if scenes else ""
    words += " --learned" if learned else ""
    record = {
        "protocol": "defaults",
        "command": f"python -m eval defaults DATA/{data.resolve().name}{words}",
        "max_keypoints": {"bingan reconstruct": OUR_MAX_KEYPOINTS, SIFT: MAX_KEYPOINTS},
        "absent": absent,
        "results": rows,
        "provenance": provenance(find_weights(OURS[0]), 0),
    }
    write_json(out, record)
    print(text_of(COLUMNS, rows))
    for name, reason in absent.items():
        print(f"absent: {name}: {reason}")
    return 0
