"""What a reconstruction consists of: cameras, verified pairs, poses and points, as arrays and numbers.

The frame is that of keypoints: the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from kornia_bingan.errors import JobError, UsageError

if TYPE_CHECKING:  # the command line reads the words below and waits for no library
    import numpy as np
    from numpy.typing import NDArray

Mapper = Literal["incremental", "global"]
Sharing = Literal["single", "per-folder", "per-size", "per-image"]


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


GEOREFERENCE = "georeference.json"
"""Name of the file, in the folder of a model, with its :class:`Georeference`."""


@dataclass(frozen=True)
class Georeference:
    """Where a model is. Its axes point east, north and up, in metres, from the origin.

    Attributes:
        latitude, longitude: of the origin, WGS84, degrees.
        altitude: of the origin, metres, as the photos say it.
        photos: that agree with the model, of those that say a position.
        positions: photos of the model that say a position.
        median_error_m: between their positions and the cameras.
        reason: why the model has no place, if it has none; then all numbers but ``positions`` are 0.
    """

    latitude: float = 0.0
    longitude: float = 0.0
    altitude: float = 0.0
    photos: int = 0
    positions: int = 0
    median_error_m: float = 0.0
    reason: str = ""

    def sentence(self) -> str:
        """Say it in one line."""
        if self.reason:
            return f"no: {self.reason}"
        return (
            f"metres east, north, up of {self.latitude:.6f}, {self.longitude:.6f}, {self.altitude:.1f} m; "
            f"{self.photos} / {self.positions} positions agree, by {self.median_error_m:.1f} m"
        )


def cameras_for(
    sizes: Mapping[str, tuple[int, int]],
    sharing: Sharing = "per-size",
    model: str = "SIMPLE_RADIAL",
    focal_px: float | Mapping[str, float] | None = None,
) -> dict[str, Camera]:
    """Give every image a camera: one for all, for each folder, for each image size, or each its own.

    Args:
        sizes: (width, height) of each image.
        sharing: ``single``, ``per-folder``, ``per-size`` (and focal length, where images say theirs) or ``per-image``.
        model: COLMAP's name of the camera model.
        focal_px: focal length of all images, if known, or of those that say theirs. Images that share a camera but not
            the length start from the median.

    Raises:
        UsageError: ``single`` or ``per-folder`` with images of different sizes, or an unknown sharing.
    """
    if sharing not in get_args(Sharing):
        raise UsageError(f"the sharing of cameras is '{sharing}'; choose one of {', '.join(get_args(Sharing))}")
    focals = focal_px if isinstance(focal_px, Mapping) else {}
    groups: dict[object, list[str]] = {}
    for name, size in sizes.items():
        rounded = round(focals[name]) if name in focals else None
        keys = {"single": "", "per-folder": name.rpartition("/")[0], "per-size": (size, rounded), "per-image": name}
        groups.setdefault(keys[sharing], []).append(name)
    cameras: dict[str, Camera] = {}
    for names in groups.values():
        for name in names:
            if sizes[name] != sizes[names[0]]:
                raise UsageError(
                    f"one camera for {'all images' if sharing == 'single' else 'each folder'} was asked for, "
                    f"but {names[0]} is {by(sizes[names[0]])} and {name} is {by(sizes[name])}"
                )
        known = sorted(focals[name] for name in names if name in focals)
        start = focal_px if not isinstance(focal_px, Mapping) else known[len(known) // 2] if known else None
        cameras |= dict.fromkeys(names, Camera(*sizes[names[0]], model=model, focal_px=start))
    return {name: cameras[name] for name in sizes}


def fixed_camera(size: tuple[int, int], intrinsics: Sequence[float]) -> Camera:
    """Make a camera of known intrinsics: fx fy cx cy, and the first of k1 k2 p1 p2 as far as they are known.

    Raises:
        UsageError: there are fewer than 4 or more than 8 numbers, or one is not finite.
    """
    if not 4 <= len(intrinsics) <= 8:
        raise UsageError(f"intrinsics are fx fy cx cy and up to k1 k2 p1 p2; {len(intrinsics)} numbers were given")
    if not all(map(math.isfinite, intrinsics)):
        raise UsageError(f"intrinsics are finite numbers, got {', '.join(f'{value:g}' for value in intrinsics)}")
    fx, fy, cx, cy, *distortion = intrinsics
    if not distortion:
        return Camera.pinhole(*size, fx=fx, fy=fy, cx=cx, cy=cy)
    return Camera(*size, "OPENCV", (fx, fy, cx, cy, *distortion, *[0.0] * (4 - len(distortion))))


def by(size: tuple[int, int]) -> str:
    """Write a size as ``640 x 480``."""
    return f"{size[0]} x {size[1]}"
