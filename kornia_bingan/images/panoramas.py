"""Panoramas of all directions become photos of perspective cameras that look around from one place.

A panorama is equirectangular: twice as wide as high, longitude along the rows and latitude along the columns. The views
go around the horizon and overlap by 15 degrees; what is far above and below, sky and tripod, is in none. They say where
they were taken if the panorama does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.images.exif import position_block, read_exif
from kornia_bingan.images.folders import list_images, no_photos
from kornia_bingan.images.read import read_color, sample_ranges, write_image
from kornia_bingan.work.files import atomic_folder, check_empty, write_json

VIEWS, LEAST_VIEWS = 6, 4
OVERLAP_DEG = 15.0
RIG = "rig.json"

_MARGIN = 4  # columns that are repeated at both ends, for the cubic kernel
_MOST = 32_767 - 2 * _MARGIN  # OpenCV's remap reads no wider pictures


@dataclass(frozen=True)
class PanoramaSummary:
    """What became of panoramas.

    Attributes:
        panoramas: that were cut.
        views: of each.
        size_px: side of a view.
        focal_px: of all views.
        skipped: names of other files.
    """

    panoramas: int
    views: int
    size_px: int
    focal_px: float
    skipped: list[str]


def cut_panoramas(panoramas: Path, photos: Path, *, views: int = VIEWS) -> PanoramaSummary:
    """Cut perspective views from panoramas, as a rig that ``bingan reconstruct --rig`` reads.

    Args:
        panoramas: folder of equirectangular pictures, all of one size.
        photos: folder, absent or empty, which appears whole or not at all; gets ``YAW/PANORAMA.jpg`` of each direction,
            in degrees from the middle of the panorama to the right, and ``rig.json``, in COLMAP's format.
        views: directions, 4 or more.

    Raises:
        UsageError: there are no panoramas, one is not twice as wide as high or has another size, or the folder is not
            empty.
    """
    panoramas, photos = Path(panoramas), Path(photos)
    if views < LEAST_VIEWS:
        raise UsageError(f"{views} views do not see all around; give {LEAST_VIEWS} or more")
    check_empty(photos)
    names, passed_over = list_images(panoramas)
    if not names:
        raise no_photos(panoramas, passed_over)
    targets = [PurePosixPath(name).with_suffix(".jpg").as_posix() for name in names]
    if len(set(targets)) < len(names):
        twice = next(target for target in targets if targets.count(target) > 1)
        raise UsageError(f"two panoramas in {panoramas} would become {twice}; rename one")
    ranges = sample_ranges(panoramas, names)
    directions = [360 * number / views for number in range(views)]
    width = 0
    with atomic_folder(photos) as temporary:
        for name, target in zip(names, targets, strict=True):
            picture = read_color(panoramas / name, ranges)
            _check(name, picture, width)
            if not width:
                width = picture.shape[1]
                focal, side = view_of(width, views)
                maps = [_places(width, focal, side, yaw) for yaw in directions]
            place = read_exif(panoramas / name).position
            exif = position_block(place) if place else b""
            around = np.concatenate([picture[:, -_MARGIN:], picture, picture[:, :_MARGIN]], 1)
            for yaw, (x, y) in zip(directions, maps, strict=True):
                path = temporary / f"{yaw:03.0f}" / target
                path.parent.mkdir(parents=True, exist_ok=True)
                view = cv2.remap(around, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
                write_image(path, np.asarray(view[:, :, ::-1], np.uint8), exif)
        write_json(temporary / RIG, [{"cameras": [_rig_camera(yaw, focal, side) for yaw in directions]}])
    return PanoramaSummary(len(names), views, side, round(focal, 3), [item.name for item in passed_over])


def view_of(width: int, views: int) -> tuple[float, int]:
    """Give focal length and side of the views of a panorama, pixels: as fine at the middle as the panorama is there."""
    focal = width / (2 * math.pi)
    return focal, round(2 * focal * math.tan(math.radians(360 / views + OVERLAP_DEG) / 2))


def cam_from_rig(yaw_deg: float) -> NDArray[np.float64]:
    """Give the rotation (3, 3) from the panorama's frame, x right, y down, z to its middle, to that of a view."""
    cosine, sine = math.cos(math.radians(yaw_deg)), math.sin(math.radians(yaw_deg))
    return np.array([[cosine, 0.0, -sine], [0.0, 1.0, 0.0], [sine, 0.0, cosine]])


def _check(name: str, picture: NDArray[np.uint8], width: int) -> None:
    size = f"{picture.shape[1]} x {picture.shape[0]}"
    if picture.shape[1] != 2 * picture.shape[0]:
        raise UsageError(f"{name} is {size}; a panorama of all directions is twice as wide as high")
    if width and picture.shape[1] != width:
        raise UsageError(f"{name} is {size}, but others are {width} x {width // 2}; give panoramas of one size")
    if picture.shape[1] > _MOST:
        raise UsageError(f"{name} is {size}; the limit is {_MOST} columns, so reduce it first")


def _places(width: int, focal: float, side: int, yaw_deg: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where the pixels of a view are in the panorama with its repeated columns, the first pixel's centre at 0."""
    along = (np.arange(side) - (side - 1) / 2) / focal
    x, y = np.meshgrid(along, along)
    rays = np.stack([x, y, np.ones_like(x)], 2) @ cam_from_rig(yaw_deg)  # rows, so by the transpose: to the rig
    longitude = np.arctan2(rays[..., 0], rays[..., 2])
    latitude = np.arctan2(rays[..., 1], np.hypot(rays[..., 0], rays[..., 2]))
    column = (longitude / (2 * np.pi) + 0.5) * width - 0.5 + _MARGIN
    row = (latitude / np.pi + 0.5) * (width / 2) - 0.5
    return column.astype(np.float32), row.astype(np.float32)


def _rig_camera(yaw_deg: float, focal: float, side: int) -> dict[str, object]:
    camera: dict[str, object] = {
        "image_prefix": f"{yaw_deg:03.0f}/",
        "camera_model_name": "PINHOLE",
        "camera_params": [focal, focal, side / 2, side / 2],  # of COLMAP's frame: the middle is half of the size
    }
    if yaw_deg == 0:
        return camera | {"ref_sensor": True}
    half = math.radians(yaw_deg) / 2
    turn = [math.cos(half), 0.0, -math.sin(half), 0.0]
    return camera | {"cam_from_rig_rotation": turn, "cam_from_rig_translation": [0.0, 0.0, 0.0]}
