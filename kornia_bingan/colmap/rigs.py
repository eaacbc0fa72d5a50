"""Cameras that move together: read from COLMAP's ``rig_config.json``, and told to a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2  # noqa: F401 - before pycolmap, see half_pixel
import pycolmap

from kornia_bingan.colmap.database import open_database
from kornia_bingan.colmap.half_pixel import CAMERA_MODELS, camera_from_colmap, camera_to_colmap
from kornia_bingan.colmap.types import Camera
from kornia_bingan.errors import UsageError


@dataclass(frozen=True, eq=False)
class RigCamera:
    """A camera of a rig.

    Attributes:
        rig: number of the rig, from 0.
        prefix: how the names of its photos begin; what follows is equal for photos of one moment.
        camera: its size is that of its photos, and 1 x 1 here.
        center: where it is in the rig.
    """

    rig: int
    prefix: str
    camera: Camera
    center: tuple[float, float, float]


def read_rigs(path: Path) -> list[RigCamera]:
    """Read COLMAP's ``rig_config.json``: a list of rigs, each with its calibrated cameras.

    Raises:
        UsageError: the file cannot be read or is no such list, or a camera lacks its calibration or its place in the
            rig, or has another's prefix.
    """
    cameras: list[RigCamera] = []
    for number, rig in enumerate(_read(path)):
        for found in rig.cameras:
            prefix, place = found.image_prefix, found.cam_from_rig
            if not found.ref_sensor and place is None:
                raise UsageError(f"{path}: '{prefix}' has no cam_from_rig_rotation and cam_from_rig_translation")
            if found.camera is None or found.camera.model.name not in CAMERA_MODELS:
                raise UsageError(f"{path}: '{prefix}' has no camera_model_name and camera_params")
            if same := [other.prefix for other in cameras if other.prefix.startswith(prefix)]:
                raise UsageError(f"{path}: what begins with '{same[0]}' begins with '{prefix}', too")
            if same := [other.prefix for other in cameras if prefix.startswith(other.prefix)]:
                raise UsageError(f"{path}: what begins with '{prefix}' begins with '{same[0]}', too")
            model, params = found.camera.model.name, tuple(map(float, found.camera.params))
            camera_to_colmap(Camera(1, 1, model, params))  # refuses what is impossible
            found.camera.width = found.camera.height = 1
            center = (0.0, 0.0, 0.0) if place is None else tuple(place.inverse().translation.tolist())
            cameras.append(RigCamera(number, prefix, camera_from_colmap(found.camera), center))
    return cameras


def apply_rigs(database: Path, path: Path) -> None:
    """Make the images of a database parts of rigs, which :func:`kornia_bingan.colmap.reconstruct` keeps as they are.

    Args:
        database: an existing COLMAP database without rigs.
        path: COLMAP's ``rig_config.json``.

    Raises:
        UsageError: the file is no COLMAP database, or as :func:`read_rigs`.
    """
    with open_database(database, existing=True) as db, pycolmap.DatabaseTransaction(db):
        names = [image.name for image in db.read_all_images()]
        seen = [_with_images(rig, names) for rig in _read(path)]
        level, pycolmap.logging.minloglevel = pycolmap.logging.minloglevel, 1  # it says each frame
        try:
            pycolmap.apply_rig_config([rig for rig in seen if rig.cameras], db)
        finally:
            pycolmap.logging.minloglevel = level


def _with_images(rig: Any, names: Sequence[str]) -> Any:
    """Leave out cameras without an image, which COLMAP refuses; one of the others becomes the reference of them all."""
    cameras = [each for each in rig.cameras if any(name.startswith(each.image_prefix) for name in names)]
    if cameras and not any(each.ref_sensor for each in cameras):
        first = cameras[0].cam_from_rig
        for each in cameras[1:]:
            each.cam_from_rig = each.cam_from_rig * first.inverse()
        cameras[0].ref_sensor, cameras[0].cam_from_rig = True, None
    kept = pycolmap.RigConfig()
    kept.cameras = cameras
    return kept


def _read(path: Path) -> Sequence[Any]:
    try:
        rigs: Sequence[Any] = pycolmap.read_rig_config(str(path))
    except (RuntimeError, ValueError) as error:
        reason = str(error).removeprefix(f"{path}")
        raise UsageError(f"{path} is no rig_config.json of COLMAP: {reason}") from error
    if not rigs:
        raise UsageError(f"{path} is no rig_config.json of COLMAP: there is no rig in it")
    return rigs
