"""Known cameras: written to a file, read from it, and compared with estimated ones.

The camera's frame is OpenCV's: x right, y down, z forward, the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.work.files import write_json

Array = NDArray[np.float64]
Pose = tuple[ArrayLike, ArrayLike]

_CONVENTION = (
    "x_cam = R @ X_world + t ; u = (K @ x_cam)[:2]/(K @ x_cam)[2] ; camera looks along +z, x right, y down ; "
    "pixel centres at integers: the centre of the top-left pixel is (0,0) (OpenCV); add 0.5 to cx,cy for COLMAP"
)


@dataclass(frozen=True, eq=False)
class PosedCamera:
    """A pinhole camera: ``x_cam = R @ X + t``, ``(u, v) = (K @ x_cam)[:2] / x_cam[2]``.

    Attributes:
        K: calibration matrix, pixels, float64 (3, 3).
        R: rotation from the world to the camera, float64 (3, 3).
        t: translation, float64 (3,).
        width, height: size of the image in pixels.
    """

    K: Array
    R: Array
    t: Array
    width: int
    height: int

    @property
    def center(self) -> Array:
        """The camera's position in the world, float64 (3,)."""
        return -self.R.T @ self.t

    def project(self, points: ArrayLike) -> Array:
        """Project points (N, 3) to pixels (N, 2); points behind the camera give NaN, N = 0 gives (0, 2)."""
        in_camera = np.asarray(points, np.float64).reshape(-1, 3) @ self.R.T + self.t
        depth = np.where(in_camera[:, 2:] > 0, in_camera[:, 2:], np.nan)
        pixels: Array = (in_camera @ self.K.T)[:, :2] / depth
        return pixels


def write_cameras(path: Path, cameras: Mapping[str, PosedCamera], source: str) -> None:
    """Write a ``cameras.json``, see :func:`load_cameras`; ``source`` is a note on where they come from."""
    value: dict[str, object] = {"convention": _CONVENTION, "source": source, "truth": "exact: the images were rendered"}
    for name, camera in cameras.items():
        pose = {"K": camera.K.tolist(), "R": camera.R.tolist(), "t": camera.t.tolist()}
        value[name] = {**pose, "width": camera.width, "height": camera.height}
    write_json(path, value)


def load_cameras(path: Path) -> dict[str, PosedCamera]:
    """Read a ``cameras.json``: name of a photo -> {K, R, t, width, height}, in the convention of `PosedCamera`.

    Entries whose value is text (convention, source, truth) are notes and passed over.

    Raises:
        UsageError: the file is absent, not JSON, or an entry is not a camera; the message names the entry.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds a {type(value).__name__}; it must map names of photos to cameras")
    cameras = {}
    for name, entry in value.items():
        if isinstance(entry, str):
            continue
        try:
            K, R, t = (np.array(entry[key], np.float64) for key in "KRt")
            cameras[name] = PosedCamera(K, R, t, int(entry["width"]), int(entry["height"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}: {name} is not a camera with K, R, t, width and height ({error})") from error
        if (K.shape, R.shape, t.shape) != ((3, 3), (3, 3), (3,)):
            raise UsageError(f"{path}: K, R, t of {name} have shapes {K.shape}, {R.shape}, {t.shape}")
        if not np.allclose(R @ R.T, np.eye(3), atol=1e-4) or np.linalg.det(R) < 0:
            raise UsageError(f"{path}: R of {name} is not a rotation matrix")
    return cameras


def pose_errors(estimated: Mapping[str, Pose], truth: Mapping[str, Pose]) -> dict[str, float]:
    """Compare poses (R world to camera, t) of the photos named in both, after a similarity alignment.

    The estimated camera centres are moved onto the true ones by the least-squares similarity (rotation, translation,
    scale; Umeyama 1991), because a reconstruction has a frame and a scale of its own.

    Returns:
        num_compared: photos in both.
        median_rotation_deg: median angle between estimated and true camera rotation, degrees.
        median_position_percent: median distance between estimated and true camera centre, as a percentage of the
            scene's extent: the largest distance between two true camera centres, over all photos of ``truth``.

    Raises:
        JobError: fewer than 3 photos in both, or their true centres lie on one line, so that there is no alignment.
        UsageError: a pose is not finite or not of shapes (3, 3) and (3,); the message names the photo.
    """
    names = sorted(set(estimated) & set(truth))
    if len(names) < 3:
        raise JobError(f"{len(names)} photos have an estimated and a true pose; an alignment needs 3")
    R_true, centers_true = _rotations_and_centers(truth, names)
    R, centers = _rotations_and_centers(estimated, names)
    mean, mean_true = centers.mean(axis=0), centers_true.mean(axis=0)
    spread = np.linalg.svd(centers_true - mean_true, compute_uv=False)
    if spread[1] <= 1e-6 * spread[0]:
        raise JobError("the true camera centres lie on one line; an alignment needs 3 that do not")
    # rotation and scale that take the estimated centres to the true ones (Umeyama 1991, equations 38 to 43)
    u, singular, vt = np.linalg.svd((centers_true - mean_true).T @ (centers - mean))
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * signs) @ vt
    variance = np.square(centers - mean).sum()
    if variance == 0:
        raise JobError("all estimated camera centres are in one place; there is no alignment to the true ones")
    scale = (singular * signs).sum() / variance
    aligned = scale * (centers - mean) @ rotation.T + mean_true
    turn = R @ rotation.T @ R_true.transpose(0, 2, 1)
    # atan2 of sine and cosine: an arc cosine alone is blind to angles below 1e-6 degrees
    sine = np.linalg.norm(turn - turn.transpose(0, 2, 1), axis=(1, 2)) / (2 * math.sqrt(2))
    cosine = (np.trace(turn, axis1=1, axis2=2) - 1) / 2
    _, all_centers = _rotations_and_centers(truth, sorted(truth))
    extent = np.linalg.norm(all_centers[:, None] - all_centers, axis=2).max()
    return {
        "num_compared": len(names),
        "median_rotation_deg": float(np.median(np.degrees(np.arctan2(sine, cosine)))),
        "median_position_percent": float(np.median(np.linalg.norm(aligned - centers_true, axis=1)) / extent * 100),
    }


def _rotations_and_centers(poses: Mapping[str, Pose], names: Sequence[str]) -> tuple[Array, Array]:
    for name in names:
        R, t = (np.asarray(part, np.float64) for part in poses[name])
        if R.shape != (3, 3) or t.shape != (3,) or not (np.isfinite(R).all() and np.isfinite(t).all()):
            raise UsageError(f"the pose of {name} is not a finite R (3, 3) and t (3,): shapes {R.shape} and {t.shape}")
    rotations = np.array([poses[name][0] for name in names], np.float64)
    translations = np.array([poses[name][1] for name in names], np.float64)
    return rotations, -np.einsum("nji,nj->ni", rotations, translations)
