"""The main job on a scene that is rendered on the spot: photos in, 3D model out, and the error against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kornia_bingan.colmap import read_model
from kornia_bingan.colmap.model import count_places, open_model
from kornia_bingan.colmap.sift import reconstruct_with_sift
from kornia_bingan.datasets.poses import pose_errors
from kornia_bingan.datasets.rendered import Scene, render_scene
from kornia_bingan.reconstruct.options import MAX_KEYPOINTS, ReconstructOptions
from kornia_bingan.reconstruct.pipeline import reconstruct_photos
from kornia_bingan.report.text import text_table
from kornia_bingan.work.options import FeatureOptions

NUM_VIEWS = 12


def run_demo(
    out: Path,
    *,
    descriptor: str = "bingan256",
    num_views: int = NUM_VIEWS,
    seed: int = 0,
    max_keypoints: int = MAX_KEYPOINTS,
) -> dict[str, Any]:
    """Render a scene, reconstruct it with our codes and with COLMAP's own SIFT, and compare both with the true cameras.

    COLMAP's limit counts places, of which some get two orientations, and whole levels of scale; ours takes as many
    keypoints as SIFT ends up with, if it finds them.

    Args:
        out: folder; gets ``scene/`` (pictures and true cameras), ``bingan/`` (as ``bingan reconstruct`` writes it) and
            ``sift/`` (COLMAP's model). A demo that was killed is resumed.
        descriptor: shipped name or weights file.
        num_views: pictures, at least 3.
        seed: of the scene.
        max_keypoints: SIFT's limit for a picture.

    Returns:
        ``images`` and, for ``bingan`` and ``sift``, ``keypoints`` of a picture, ``registered, points, places,
        median_rotation_deg, median_position_percent`` (per cent of the largest distance between two cameras); points
        that one keypoint with two orientations has made are at one place.

    Raises:
        JobError: one of the two could not be reconstructed.
    """
    scene = render_scene(out / "scene", num_views, seed)
    photos = out / "scene" / "images"
    if not (out / "sift").exists():
        reconstruct_with_sift(photos, out / "sift", max_keypoints=max_keypoints)
    sift = _compare(out / "sift", scene)
    features = FeatureOptions(descriptor=descriptor, max_keypoints=sift["keypoints"])
    reconstruct_photos(photos, out / "bingan", ReconstructOptions(features))
    return {"images": len(scene.cameras), "bingan": _compare(out / "bingan" / "model", scene), "sift": sift}


def _compare(folder: Path, scene: Scene) -> dict[str, Any]:
    model = read_model(folder)
    keypoints = round(np.mean([len(image.points2D) for image in open_model(folder).images.values()]))
    poses = dict(zip(model.names, zip(model.rotations, model.translations, strict=True), strict=True))
    errors = pose_errors(poses, {name: (camera.R, camera.t) for name, camera in scene.cameras.items()})
    del errors["num_compared"]
    counts = {"registered": len(model.names), "points": len(model.xyz), "places": count_places(folder)}
    return {"keypoints": keypoints, **counts, **errors}


def demo_table(result: dict[str, Any]) -> str:
    """Render what :func:`run_demo` returns as text."""
    rows = [
        [
            label,
            f"{result[key]['keypoints']:,}",
            f"{result[key]['registered']} / {result['images']}",
            f"{result[key]['points']:,}",
            f"{result[key]['places']:,}",
            f"{result[key]['median_rotation_deg']:.3f}",
            f"{result[key]['median_position_percent']:.3f}",
        ]
        for key, label in (("bingan", "our codes (32 bytes)"), ("sift", "SIFT through COLMAP (128 bytes)"))
    ]
    errors = ["median rotation error (deg)", "median position error (%)"]
    header = ["descriptor", "keypoints of a photo", "registered images", "points", "different places", *errors]
    words = (
        "ours takes at most as many keypoints of a photo as COLMAP's SIFT has by default; else each at its defaults\n"
        "a keypoint of SIFT with two orientations is two, which can make two points at one place"
    )
    return f"{text_table(header, rows)}\n\n{words}"
