"""The main job on a scene that is rendered on the spot: photos in, 3D model out, and the error against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kornia_bingan.colmap import read_model
from kornia_bingan.colmap.sift import reconstruct_with_sift
from kornia_bingan.colmap.types import Model
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

    Args:
        out: folder; gets ``scene/`` (pictures and true cameras), ``bingan/`` (as ``bingan reconstruct`` writes it) and
            ``sift/`` (COLMAP's model). A demo that was killed is resumed.
        descriptor: shipped name or weights file.
        num_views: pictures, at least 3.
        seed: of the scene.
        max_keypoints: of a picture, for both.

    Returns:
        ``images``, ``max_keypoints`` and, for ``bingan`` and ``sift``, ``registered, points, median_rotation_deg,
        median_position_percent`` (per cent of the largest distance between two cameras).

    Raises:
        JobError: one of the two could not be reconstructed.
    """
    scene = render_scene(out / "scene", num_views, seed)
    photos = out / "scene" / "images"
    features = FeatureOptions(descriptor=descriptor, max_keypoints=max_keypoints)
    reconstruct_photos(photos, out / "bingan", ReconstructOptions(features))
    if not (out / "sift").exists():
        reconstruct_with_sift(photos, out / "sift", max_keypoints=max_keypoints)
    return {
        "images": len(scene.cameras),
        "max_keypoints": max_keypoints,
        "bingan": _compare(read_model(out / "bingan" / "model"), scene),
        "sift": _compare(read_model(out / "sift"), scene),
    }


def _compare(model: Model, scene: Scene) -> dict[str, float]:
    poses = dict(zip(model.names, zip(model.rotations, model.translations, strict=True), strict=True))
    errors = pose_errors(poses, {name: (camera.R, camera.t) for name, camera in scene.cameras.items()})
    del errors["num_compared"]
    return {"registered": len(model.names), "points": len(model.xyz), **errors}


def demo_table(result: dict[str, Any]) -> str:
    """Render what :func:`run_demo` returns as text."""
    rows = [
        [
            label,
            f"{result[key]['registered']} / {result['images']}",
            f"{result[key]['points']:,}",
            f"{result[key]['median_rotation_deg']:.3f}",
            f"{result[key]['median_position_percent']:.3f}",
        ]
        for key, label in (("bingan", "our codes (32 bytes)"), ("sift", "SIFT through COLMAP (128 bytes)"))
    ]
    header = ["descriptor", "registered images", "points", "median rotation error (deg)", "median position error (%)"]
    words = f"at most {result['max_keypoints']:,} keypoints of a photo for both, each otherwise at its defaults"
    return f"{text_table(header, rows)}\n\n{words}"
