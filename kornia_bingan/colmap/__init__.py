"""Keypoints and matches become a COLMAP database, and the database a model.

The frame changes here and nowhere else. For this package the centre of the first pixel is (0, 0), for COLMAP it is
(0.5, 0.5): 0.5 is added to keypoints and principal points on writing and subtracted on reading (``half_pixel.py``).

COLMAP's keypoints are x, y, scale, orientation. The scale is the sigma of a blob, half of OpenCV's ``size``; the
orientation is OpenCV's angle in radians, of the same sense, since both have y down. (Measured on COLMAP's own SIFT
against OpenCV's: ratio 2.000, median difference of angles 0.02 degrees.)

Bad input is refused here, because the library would crash or read foreign memory. What may still crash, verification
and mapping, runs in a child process; a fault there is a :class:`~kornia_bingan.errors.JobError`.

The names are imported on first use, since pycolmap is heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kornia_bingan.colmap.database import (
        add_features,
        read_features,
        read_images,
        read_verification,
        verify,
        write_features,
        write_matches,
    )
    from kornia_bingan.colmap.half_pixel import CAMERA_MODELS, read_cameras
    from kornia_bingan.colmap.mapping import reconstruct
    from kornia_bingan.colmap.model import read_model, read_poses, write_points
    from kornia_bingan.colmap.rigs import apply_rigs, read_rigs
    from kornia_bingan.colmap.triangulation import triangulate
    from kornia_bingan.colmap.types import Camera, Model, NoModelError, Verification, cameras_for

_MODULE_OF = {
    "CAMERA_MODELS": "half_pixel",
    "Camera": "types",
    "Model": "types",
    "NoModelError": "types",
    "Verification": "types",
    "add_features": "database",
    "apply_rigs": "rigs",
    "cameras_for": "types",
    "read_cameras": "half_pixel",
    "read_features": "database",
    "read_images": "database",
    "read_model": "model",
    "read_poses": "model",
    "read_rigs": "rigs",
    "read_verification": "database",
    "reconstruct": "mapping",
    "triangulate": "triangulation",
    "verify": "database",
    "write_features": "database",
    "write_matches": "database",
    "write_points": "model",
}

__all__ = [
    "CAMERA_MODELS",
    "Camera",
    "Model",
    "NoModelError",
    "Verification",
    "add_features",
    "apply_rigs",
    "cameras_for",
    "read_cameras",
    "read_features",
    "read_images",
    "read_model",
    "read_poses",
    "read_rigs",
    "read_verification",
    "reconstruct",
    "triangulate",
    "verify",
    "write_features",
    "write_matches",
    "write_points",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"kornia_bingan.colmap.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'kornia_bingan.colmap' has no attribute '{name}'")
