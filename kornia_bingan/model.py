"""What a reconstruction consists of: cameras, verified pairs, poses and points, as arrays and numbers.

The frame is that of keypoints: the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import JobError, UsageError

Sharing = Literal["single", "per-size", "per-image"]


class NoModelError(JobError):
    """The images do not give a model: too few matches that agree, or no base line between them."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera in this package's frame. Images that are given the same object share one camera in the database.

    Attributes:
        width, height: pixels.
        model: COLMAP's name, such as SIMPLE_RADIAL, PINHOLE, OPENCV.
        params: in the model's order, the principal point with the centre of the first pixel at 0; None stands for the
            focal length below, the centre of the image and no distortion.
        focal_px: the focal length of ``params=None``; None is a guess, 1.2 times the longer side.

    A focal length that was given counts as prior knowledge for COLMAP, a guess does not.
    """

    width: int
    height: int
    model: str = "SIMPLE_RADIAL"
    params: tuple[float, ...] | None = None
    focal_px: float | None = None

    @classmethod
    def pinhole(cls, width: int, height: int, *, fx: float, fy: float, cx: float, cy: float) -> Camera:
        """Make a camera of known intrinsics without distortion; keep it with ``reconstruct(..., refine=False)``."""
        return cls(width, height, "PINHOLE", (fx, fy, cx, cy))


@dataclass(frozen=True)
class Verification:
    """What two-view geometry made of the matched pairs of a database.

    Attributes:
        pairs: pairs with at least one match.
        verified: those of them with a two-view geometry; the mapper sees only these.
        rejected: those without, after a try. ``pairs - verified - rejected`` have not been tried.
        matches: matches of all pairs.
        inliers: inliers of each pair with a match, 0 where it is not verified.
    """

    pairs: int
    verified: int
    rejected: int
    matches: int
    inliers: dict[tuple[str, str], int]


@dataclass(frozen=True)
class Model:
    """A sparse model in this package's frame, with R registered images and P points.

    Attributes:
        names: of the registered images, sorted.
        rotations: world to camera, float64, shape (R, 3, 3).
        translations: world to camera, float64, shape (R, 3).
        cameras: one a registered image, with refined parameters.
        xyz: points, float64, shape (P, 3).
        rgb: their colours, uint8, shape (P, 3); 0 where no images were given.
        error_px: mean reprojection error of each point, float64, shape (P,).
        track_length: images that see each point, int64, shape (P,).
    """

    names: tuple[str, ...]
    rotations: NDArray[np.float64]
    translations: NDArray[np.float64]
    cameras: tuple[Camera, ...]
    xyz: NDArray[np.float64]
    rgb: NDArray[np.uint8]
    error_px: NDArray[np.float64]
    track_length: NDArray[np.int64]

    @property
    def observations(self) -> int:
        """Observations of all points."""
        return int(self.track_length.sum())

    @property
    def mean_track_length(self) -> float:
        """Mean number of images that see a point; 0 without points."""
        return float(self.track_length.mean()) if len(self.xyz) else 0.0

    @property
    def mean_reprojection_error_px(self) -> float:
        """Mean over the points of their mean error, as COLMAP reports it; 0 without points."""
        return float(self.error_px.mean()) if len(self.xyz) else 0.0


def cameras_for(
    sizes: Mapping[str, tuple[int, int]],
    sharing: Sharing = "per-size",
    model: str = "SIMPLE_RADIAL",
    focal_px: float | None = None,
) -> dict[str, Camera]:
    """Give every image a camera: one for all, one for each image size, or each its own.

    Args:
        sizes: (width, height) of each image.
        sharing: ``single``, ``per-size`` or ``per-image``.
        model: COLMAP's name of the camera model.
        focal_px: focal length of all images, if known.

    Raises:
        UsageError: ``single`` with images of different sizes, or an unknown sharing.
    """
    if sharing not in ("single", "per-size", "per-image"):
        raise UsageError(f"the sharing of cameras is '{sharing}'; choose single, per-size or per-image")
    first = next(iter(sizes), "")
    made: dict[object, Camera] = {}
    cameras: dict[str, Camera] = {}
    for name, size in sizes.items():
        if sharing == "single" and size != sizes[first]:
            raise UsageError(
                f"one camera for all images was asked for, but {first} is {by(sizes[first])} and {name} is {by(size)}"
            )
        key = name if sharing == "per-image" else size
        cameras[name] = made.setdefault(key, Camera(*size, model=model, focal_px=focal_px))
    return cameras


def by(size: tuple[int, int]) -> str:
    """Write a size as ``640 x 480``."""
    return f"{size[0]} x {size[1]}"
