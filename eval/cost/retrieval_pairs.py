"""What does ``bingan reconstruct --pairs retrieval:K`` cost and save against all pairs?

    python -m eval retrieval_pairs SCENE [SCENE ...] --distractors PHOTOS [--count 10] [--mixed 60] [--out FILE.json]

Protocol. The photos of a scene are mixed with others (``--mixed`` of them, evenly from the sorted names of PHOTOS) and
reconstructed twice by the same command, with all pairs and with ``retrieval:K``. Each SCENE holds ``images``. Counted
are pairs, registered images (of the largest model), points and seconds by stage.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from eval.harness.columns import Column, text_of
from eval.harness.command import Out, Paths, command_line
from eval.harness.options import RESULTS
from eval.harness.records import write_json
from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.network.weights import find_weights
from kornia_bingan.reconstruct.options import ReconstructOptions
from kornia_bingan.reconstruct.pipeline import reconstruct_photos
from kornia_bingan.work.options import FeatureOptions
from kornia_bingan.work.provenance import provenance

COUNT = 10
MIXED = 60
MAX_KEYPOINTS = 2048

COLUMNS = (
    Column("scene", "scene"),
    Column("its photos", "own"),
    Column("photos", "photos"),
    Column("pairs compared", "pairs", lambda r: f"{r['pairs']:,} ({r['choice']})"),
    Column("registered", "registered"),
    Column("points", "points", ","),
    Column("matching, s", lambda r: r["seconds"].get("match", 0), ".0f"),
    Column("verifying, s", lambda r: r["seconds"].get("verify", 0), ".0f"),
)


def mix(scene: Path, distractors: Path, count: int, folder: Path) -> int:
    """Copy the photos of a scene and some others into a folder; give the number of those of the scene.

    Raises:
        UsageError: one of them holds no photos, or not so many.
    """
    own, others = list_images(scene / "images")[0], list_images(distractors)[0]
    if not own or len(others) < count:
        raise UsageError(f"{scene / 'images'} holds {len(own)} photos and {distractors} {len(others)}, {count} wanted")
    chosen = [others[k] for k in np.linspace(0, len(others) - 1, count).round().astype(int)] if count else []
    for part, root, names in (("scene", scene / "images", own), ("other", distractors, chosen)):
        for name in names:
            target = folder / part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target)
    return len(own)


def evaluate(photos: Path, out: Path, pairs: str) -> dict[str, Any]:
    """Reconstruct a folder with one choice of pairs."""
    options = ReconstructOptions(FeatureOptions(max_keypoints=MAX_KEYPOINTS), pairs=pairs)
    summary = reconstruct_photos(photos, out, options)
    seconds = {stage: round(value, 1) for stage, value in summary.seconds.items()}
    return {
        "choice": pairs,
        "photos": summary.images,
        "pairs": summary.pairs.tried,
        "registered": summary.registered,
        "points": summary.points,
        "observations": summary.observations,
        "reprojection_error_px": round(summary.mean_reprojection_error_px, 4),
        "seconds": seconds,
    }


@command_line("retrieval_pairs")
def main(
    scenes: Paths,
    distractors: Path,
    count: int = COUNT,
    mixed: int = MIXED,
    out: Out = RESULTS / "retrieval-pairs.json",
) -> int:
    """Reconstruct every scene among other photos.

    Args:
        count: others a photo is paired with.
        mixed: photos that are mixed in.
    """
    results = []
    for scene in scenes:
        with tempfile.TemporaryDirectory() as folder:
            own = mix(scene, distractors, mixed, Path(folder) / "photos")
            for choice in ("exhaustive", f"retrieval:{count}"):
                found = evaluate(Path(folder) / "photos", Path(folder) / choice.replace(":", "-"), choice)
                results.append({"scene": scene.name, "own": own, **found})
                print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    record = {
        "protocol": "retrieval_pairs",
        "command": f"python -m eval retrieval_pairs {' '.join(s.name for s in scenes)} "
        f"--distractors {distractors.name} --count {count} --mixed {mixed}",
        "results": results,
        "provenance": provenance(find_weights("bingan256")),
    }
    write_json(out, record)
    print(text_of(COLUMNS, results))
    return 0
