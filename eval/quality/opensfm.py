"""Our codes in OpenSfM, from photos to a model, beside its own features.

    python -m eval opensfm DATA/train_clear/sets --sets brighton_beach --checkout OPENSFM [--most 12]

Protocol. ``bin/opensfm_main.py`` of a checkout of OpenSfM with its C++ built, one step after another:
``extract_metadata``, ``detect_features``, ``match_features``, ``create_tracks``, ``reconstruct``. Everything is at its
defaults (4,000 keypoints a photo, all pairs, ratio 0.8 in both directions, one process) but what ``config.yaml`` says
in ``SETTINGS``; ours have the lines of ``OURS`` at the top of the program. Photos without EXIF get OpenSfM's guess of
the focal length, 0.85 widths. Of the models of a set the one with most photos counts, and its numbers are those of
``compute_statistics``: mean reprojection error over all observations, and observations per point. Seconds are those of
the processor, of detecting and of matching, which includes the geometry of pairs.

``PYTHONPATH`` may name a folder with what OpenSfM needs beside us.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.harness.columns import Column, text_of
from eval.harness.command import Out, Scenes, SomeNames, command_line
from eval.harness.options import RESULTS
from eval.harness.records import check_clean, write_json
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.network.weights import find_weights
from kornia_bingan.work.files import sha256_of
from kornia_bingan.work.provenance import provenance

OURS = """
import cv2
from kornia_bingan.opencv import BinGANExtractor
cv2.ORB_create = lambda nfeatures: BinGANExtractor(max_keypoints=nfeatures)
"""
"""What stands at the top of ``bin/opensfm_main.py``."""
_BYTES = "feature_type: ORB\nmatcher_type: BRUTEFORCE\n"
SETTINGS = {
    "bingan256": (OURS, _BYTES),
    "bingan256 (FLANN)": (OURS, "feature_type: ORB\n"),
    "HAHOG (default)": ("", ""),
    "SIFT": ("", "feature_type: SIFT\n"),
    "ORB": ("", _BYTES),
}
"""Lines of the program and of ``config.yaml``, by the name of the features."""
STEPS = ("extract_metadata", "detect_features", "match_features", "create_tracks", "reconstruct")
_START = "import runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"

COLUMNS = (
    Column("photos", "photos"),
    Column("features", "features"),
    Column("lines for ours", "lines", "d"),
    Column("in the model", "shots", lambda row: f"{row['shots']} / {row['images']}", "most"),
    Column("models", "models", "d"),
    Column("points", "points", ",d", "most"),
    Column("observations a point", "track_length", ".2f", "most"),
    Column("reprojection error px", "error_px", ".3f", "least"),
    Column("detecting s", "detect_s", ".0f", "least"),
    Column("matching s", "match_s", ".0f", "least"),
)


def run_step(checkout: Path, lines: str, step: str, folder: Path) -> float:
    """Run a step of OpenSfM in a data folder; gives its processor seconds.

    Raises:
        JobError: it fails.
    """
    program = str(checkout / "bin" / "opensfm_main.py")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-c", f"{lines}\n{_START}", program, step, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise JobError(f"OpenSfM's {step} failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def keep_largest(path: Path) -> tuple[int, int]:
    """Leave only the model with most photos in OpenSfM's file; gives its photos, and how many models there were."""
    models = json.loads(path.read_text(encoding="utf-8"))
    largest = max(models, key=lambda model: len(model["shots"]), default=None)
    if largest is None:
        return 0, 0
    path.write_text(json.dumps([largest]), encoding="utf-8")
    return len(largest["shots"]), len(models)


def measure(checkout: Path, photos: Path, names: Sequence[str], features: str) -> dict[str, Any]:
    """Make a model of some photos of a folder with some features, in a folder of its own."""
    lines, settings = SETTINGS[features]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "images").mkdir()
        for name in names:
            (folder / "images" / name).symlink_to((photos / name).resolve())
        (folder / "config.yaml").write_text(settings, encoding="utf-8")
        seconds = {step: run_step(checkout, lines, step, folder) for step in STEPS}
        made = folder / "reconstruction.json"
        shots, models = keep_largest(made) if made.is_file() else (0, 0)
        row = {
            "photos": photos.name,
            "features": features,
            "lines": len(lines.splitlines()[1:]) + len(settings.splitlines()) if lines else None,
            "images": len(names),
            "shots": shots,
            "models": models,
            "points": 0,
            "track_length": None,
            "error_px": None,
            "detect_s": round(seconds["detect_features"], 1),
            "match_s": round(seconds["match_features"], 1),
        }
        if shots:
            run_step(checkout, lines, "compute_statistics", folder)
            found = json.loads((folder / "stats" / "stats.json").read_text(encoding="utf-8"))
            about = found["reconstruction_statistics"]
            row["points"] = about["reconstructed_points_count"]
            row["track_length"] = round(about["average_track_length"], 3)
            row["error_px"] = round(about["reprojection_error_pixels"], 4)
    return row


def commit_of(checkout: Path) -> str:
    """Give the commit of a checkout.

    Raises:
        UsageError: it is none of OpenSfM.
    """
    words = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode or not (checkout / "bin" / "opensfm_main.py").is_file():
        raise UsageError(f"{checkout} is no checkout of OpenSfM")
    return done.stdout.strip()


@command_line("opensfm")
def main(
    data: Scenes,
    sets: SomeNames,
    checkout: Path,
    features: SomeNames = tuple(SETTINGS),
    most: int = 18,
    out: Out = RESULTS / "opensfm.json",
) -> int:
    """Make a model of each set of photos with each of the features.

    Args:
        data: folder of folders of photos.
        sets: their names, separated by commas.
        checkout: of OpenSfM, with its C++ built.
        features: names, separated by commas.
        most: photos of a set, the first by name.
    """
    if unknown := [name for name in features if name not in SETTINGS]:
        raise UsageError(f"the features are '{unknown[0]}'; choose of {', '.join(SETTINGS)}")
    if absent := [name for name in sets if not (data / name).is_dir()]:
        raise UsageError(f"{data} has no folder {absent[0]}")
    check_clean(out)
    commit = commit_of(checkout)
    names = {name: list_images(data / name)[0][:most] for name in sets}
    rows = []
    for name in sets:
        for each in features:
            rows.append(measure(checkout, data / name, names[name], each))
            print(f"{name} {each}: {rows[-1]['points']:,} points", file=sys.stderr, flush=True)
    print(text_of(COLUMNS, rows))
    split = f"DATA/{data.resolve().parent.name}/{data.resolve().name}"
    record = {
        "protocol": "opensfm",
        "command": f"python -m eval opensfm {split} --sets {','.join(sets)} --checkout OPENSFM --most {most}",
        "opensfm": commit,
        "photos": {name: {each: sha256_of(data / name / each) for each in names[name]} for name in sets},
        "results": rows,
        "provenance": provenance(find_weights("bingan256")),
    }
    write_json(out, record)
    return 0
