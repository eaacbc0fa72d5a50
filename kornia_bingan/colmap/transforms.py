"""A ``transforms.json``, as nerfstudio, instant-ngp and scanning programs write it, becomes cameras with poses.

Source: nerfstudio's data conventions. A pose is camera to world, 4 x 4, of a camera that looks along -z with y up;
lengths are pixels, and the centre of the first pixel is (0.5, 0.5), as in COLMAP.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from os.path import commonpath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.colmap.half_pixel import HALF_PIXEL, camera_to_colmap
from kornia_bingan.colmap.types import Camera, Model
from kornia_bingan.errors import UsageError

_FROM_OPENGL = np.diag([1.0, -1.0, -1.0])
_ORTHOGONAL = 1e-3
_PINHOLE = ("fl_x", "fl_y", "cx", "cy")
_MODELS = {
    "PINHOLE": ("PINHOLE", _PINHOLE),
    "OPENCV": ("OPENCV", (*_PINHOLE, "k1", "k2", "p1", "p2")),
    "OPENCV_FISHEYE": ("OPENCV_FISHEYE", (*_PINHOLE, "k1", "k2", "k3", "k4")),
}
"""By the file's word: COLMAP's model, and the file's names of its parameters in COLMAP's order."""
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")

Values = tuple[int, int, str, tuple[float, ...]]


def read_transforms(path: Path) -> Model:
    """Read the cameras and poses of a ``transforms.json``, a model without points.

    Names are those below the folder that all pictures of the file share: ``images/left/1.jpg`` and
    ``images/right/1.jpg`` are ``left/1.jpg`` and ``right/1.jpg``. The world is the file's own.

    Raises:
        UsageError: the file cannot be read or has no frame, two frames have one picture, a frame has no picture, pose
            or size, its pose is no rotation and translation, or its camera is of another kind.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8-sig"))
        frames = [dict(frame) for frame in contents["frames"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as transforms.json with a list of frames: {error!r}") from error
    if not frames:
        raise UsageError(f"{path} has no frame")
    cameras: dict[Values, Camera] = {}
    found: dict[tuple[str, ...], tuple[NDArray[np.float64], Camera]] = {}
    for number, frame in enumerate(frames):
        picture = frame.get("file_path")
        if not isinstance(picture, str) or not picture:
            raise UsageError(f"{path}: frame {number} has no file_path")
        parts = tuple(part for part in picture.replace("\\", "/").split("/") if part not in ("", "."))
        if parts in found:
            raise UsageError(f"{path}: two frames have the picture {picture}")
        where = f"{path}: {picture}"
        values = _camera({**contents, **frame}, where)
        if values not in cameras:
            cameras[values] = Camera(*values)
            camera_to_colmap(cameras[values])  # refuses what is impossible
        found[parts] = _pose(frame.get("transform_matrix"), where), cameras[values]
    shared = len(Path(commonpath(["/" + "/".join(parts[:-1]) for parts in found])).parts) - 1
    ordered = sorted(found, key=lambda parts: "/".join(parts[shared:]))
    poses = np.stack([found[parts][0] for parts in ordered])
    return Model(
        names=tuple("/".join(parts[shared:]) for parts in ordered),
        rotations=poses[:, :, :3].copy(),
        translations=poses[:, :, 3].copy(),
        cameras=tuple(found[parts][1] for parts in ordered),
        xyz=np.zeros((0, 3)),
        rgb=np.zeros((0, 3), np.uint8),
        error_px=np.zeros(0),
        track_length=np.zeros(0, np.int64),
    )


def _camera(values: Mapping[str, Any], where: str) -> Values:
    """Give width, height, COLMAP's model and its parameters in this package's frame."""
    said = values.get("camera_model", "OPENCV")
    if said not in _MODELS:
        raise UsageError(f"{where} has the camera_model {said!r}; those that can be read are {', '.join(_MODELS)}")
    model, names = _MODELS[said]
    size = _number(values, "w", where), _number(values, "h", where)
    if not all(side.is_integer() for side in size):
        raise UsageError(f"{where}: w and h are {size[0]:g} and {size[1]:g}; they are whole pixels")
    if used := [name for name in _DISTORTION if name not in names and values.get(name)]:
        raise UsageError(f"{where} has {used[0]}, which {said} does not have here; undistort the pictures")
    given = dict(values)
    given.setdefault("fl_y", given.get("fl_x"))
    params = [_number(given, name, where) if name in _PINHOLE else float(given.get(name) or 0) for name in names]
    params[2] -= HALF_PIXEL
    params[3] -= HALF_PIXEL
    return int(size[0]), int(size[1]), model, tuple(params)


def _number(values: Mapping[str, Any], name: str, where: str) -> float:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{where} needs a number {name}, got {value!r}")
    return float(value)


def _pose(values: Any, where: str) -> NDArray[np.float64]:
    """Turn a file's camera to world into world to camera of a camera that looks along +z with y down, (3, 4)."""
    try:
        matrix = np.array(values, np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape not in ((4, 4), (3, 4)) or not np.isfinite(matrix).all():
        raise UsageError(f"{where} needs a transform_matrix of 4 x 4 finite numbers, camera to world")
    turn, centre = matrix[:3, :3], matrix[:3, 3]
    if np.abs(turn @ turn.T - np.eye(3)).max() > _ORTHOGONAL or np.linalg.det(turn) < 0:
        raise UsageError(f"{where}: the first three columns of transform_matrix are no rotation")
    u, _, v = np.linalg.svd(turn)  # files have few digits
    rotation = _FROM_OPENGL @ (u @ v).T
    return np.column_stack([rotation, -rotation @ centre])
