"""Keypoints and cameras go to COLMAP and come back: half a pixel is added or taken away, see the folder's docstring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2  # noqa: F401 - must be loaded before pycolmap: after it, OpenCV aborts the process when it writes a PNG
import numpy as np
import pycolmap
from numpy.typing import NDArray

from kornia_bingan.colmap.types import Camera, by
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints

HALF_PIXEL = 0.5
DEFAULT_FOCAL = 1.2
"""Focal length over the longer side where it is not known: COLMAP's own guess."""

CAMERA_MODELS = tuple(name for name in pycolmap.CameraModelId.__members__ if name not in ("INVALID", "EQUIRECTANGULAR"))


def keypoint_rows(name: str, keypoints: Keypoints | NDArray[Any]) -> NDArray[np.float32]:
    """Turn the keypoints of an image, by its name, into COLMAP's rows, float32 (N, 2 | 4 | 6).

    Raises:
        UsageError: they have another shape, or a value is not finite; the message has the name.
    """
    if isinstance(keypoints, Keypoints):
        angle = np.deg2rad(np.where(keypoints.angle_deg == -1, 0, keypoints.angle_deg))
        given = np.column_stack([keypoints.xy, keypoints.size / 2, angle])
    else:
        given = np.asarray(keypoints)
        if given.ndim != 2 or given.shape[1] not in (2, 4, 6) or given.dtype.kind not in "fiu":
            raise UsageError(f"{name}: keypoints are numbers (N, 2), (N, 4) or (N, 6), got {given.dtype} {given.shape}")
    with np.errstate(over="ignore"):  # what does not fit is infinite and refused below
        rows = np.array(given, np.float32, order="C")
    rows[:, :2] += np.float32(HALF_PIXEL)
    bad = ~np.isfinite(rows).all(1)
    if rows.shape[1] == 4:
        bad |= rows[:, 2] <= 0
    if bad.any():
        index = int(np.argmax(bad))
        raise UsageError(f"{name}: keypoint {index} is not finite or has no size: {given[index].tolist()}")
    return rows


def keypoints_from_colmap(rows: NDArray[np.float32]) -> Keypoints:
    """Turn COLMAP's rows, float32 (N, 2 | 4 | 6), into keypoints; see :func:`kornia_bingan.colmap.read_features`."""
    count, columns = rows.shape
    scale, angle = np.ones(count, np.float32), np.zeros(count, np.float32)
    if columns == 4:
        scale, angle = rows[:, 2], rows[:, 3]
    elif columns == 6:
        a11, a12, a21, a22 = rows[:, 2:].T
        scale, angle = (np.hypot(a11, a21) + np.hypot(a12, a22)) / 2, np.arctan2(a21, a11)
    nothing = np.zeros(count, np.float32)
    degrees = np.mod(np.rad2deg(angle), 360).astype(np.float32)
    return Keypoints(pixels_from_colmap(rows[:, :2]), 2 * scale, degrees, nothing, nothing.astype(np.int32))


def camera_to_colmap(camera: Camera) -> Any:
    """Turn a camera into pycolmap's.

    Raises:
        UsageError: the model is unknown, the size or a parameter is impossible, or there are too many or too few.
    """
    size = by((camera.width, camera.height))
    if camera.model not in CAMERA_MODELS:
        raise UsageError(f"the camera model is '{camera.model}'; choose one of {', '.join(CAMERA_MODELS)}")
    if min(camera.width, camera.height) < 1:
        raise UsageError(f"a camera of {size} pixels is impossible")
    focal = DEFAULT_FOCAL * max(camera.width, camera.height) if camera.focal_px is None else camera.focal_px
    made = pycolmap.Camera.create_from_model_name(1, camera.model, focal, camera.width, camera.height)
    made.has_prior_focal_length = camera.focal_px is not None or camera.params is not None
    if camera.params is not None:
        if len(camera.params) != len(made.params):
            raise UsageError(
                f"{camera.model} has the parameters {made.params_info}, but {len(camera.params)} were given"
            )
        params = np.array(camera.params, np.float64)
        params[list(made.principal_point_idxs())] += HALF_PIXEL
        made.params = params
    focals = np.array(made.params)[list(made.focal_length_idxs())]
    if not (np.isfinite(made.params).all() and (focals > 0).all()):
        raise UsageError(f"the {camera.model} camera of {size} has impossible parameters {made.params.tolist()}")
    return made


def camera_from_colmap(camera: Any) -> Camera:
    """Turn pycolmap's camera into one of this package's frame."""
    params = np.array(camera.params)
    params[list(camera.principal_point_idxs())] -= HALF_PIXEL
    return Camera(camera.width, camera.height, camera.model.name, tuple(params.tolist()))


def pixels_from_colmap(xy: NDArray[Any]) -> NDArray[Any]:
    """Move positions, shape (N, 2), from COLMAP's frame to this package's."""
    moved: NDArray[Any] = xy - xy.dtype.type(HALF_PIXEL)
    return moved


def read_cameras(path: Path) -> dict[int, Camera]:
    """Read COLMAP's ``cameras.txt``: a line ``ID MODEL WIDTH HEIGHT PARAMETERS`` a camera, ``#`` for comments.

    Returns:
        The cameras by their numbers, in the order of the file.

    Raises:
        UsageError: the file cannot be read, has no camera or two of one number, or a line is none; the message names
            the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a list of cameras: {error}") from error
    cameras: dict[int, Camera] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            key = int(words[0])
            made = pycolmap.Camera.create_from_model_name(1, words[1], 1.0, int(words[2]), int(words[3]))
            params = [float(word) for word in words[4:]]
            if len(params) != len(made.params):
                raise UsageError(f"{path}, line {number}: {words[1]} has the parameters {made.params_info}")
            made.params = params
            if key in cameras:
                raise UsageError(f"{path}, line {number}: there is a camera {key} before")
            cameras[key] = camera_from_colmap(made)
            camera_to_colmap(cameras[key])
        except (IndexError, ValueError, RuntimeError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"{path}, line {number} is no camera, ID MODEL WIDTH HEIGHT PARAMETERS: {line}") from error
    if not cameras:
        raise UsageError(f"{path} has no camera; a line is ID MODEL WIDTH HEIGHT PARAMETERS")
    return cameras
