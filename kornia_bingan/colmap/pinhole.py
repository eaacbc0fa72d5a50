"""The cameras of a COLMAP model become pinhole cameras; pictures, keypoints and the model follow.

A ray through a pixel of the new picture is sent through the old camera, and the photo is read where it arrives. Both
frames are COLMAP's, where the centre of the first pixel is (0.5, 0.5), so the middle of a picture is half its size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2  # before pycolmap, see half_pixel
import numpy as np
import pycolmap
from numpy.typing import NDArray

from kornia_bingan.colmap.types import by
from kornia_bingan.errors import JobError

Floats = NDArray[np.float64]
Places = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]

_TILE = 1024
_KEPT_PIXELS = 32_000_000  # places of so many pixels are kept for the next photo of a camera, 9 bytes each
_SLACK_PX = 1e-3  # a picture of a whole number of pixels must not lose one to rounding
_RETURN_PX = 0.1


@dataclass(frozen=True)
class Pinhole:
    """A camera without distortion, with one focal length and the principal point in the middle.

    Other programs take such a camera all alike; Inria's Gaussian splatting has no other principal point, and MeshLab
    one focal length.
    """

    width: int
    height: int
    focal_px: float

    @property
    def params(self) -> tuple[float, float, float, float]:
        """``fx, fy, cx, cy`` of COLMAP's model PINHOLE."""
        return self.focal_px, self.focal_px, self.width / 2, self.height / 2

    def project(self, rays: Floats) -> Floats:
        """Project rays (N, 2), x and y at depth 1, to positions (N, 2)."""
        positions: Floats = rays * self.focal_px + np.array([self.width / 2, self.height / 2])
        return positions


def pinhole_for(camera: Any) -> Pinhole:
    """Give the largest pinhole camera of a camera's focal length that sees nothing outside of the camera's picture.

    Its view is at most twice as wide and as high as that of the same focal length without distortion, as in COLMAP.

    Args:
        camera: pycolmap's.

    Raises:
        JobError: the camera shows all around, or its principal point lies outside of the picture.
    """
    size = camera.width, camera.height
    if camera.model.name == "EQUIRECTANGULAR":
        raise JobError(f"the panoramas of {by(size)} fit no pinhole camera; cut them by bingan panoramas")
    focal = float(camera.mean_focal_length())
    x, y = np.arange(size[0] + 1.0), np.arange(size[1] + 1.0)
    left, right = (np.asarray(camera.cam_from_img(_columns(edge, y)))[:, 0] for edge in (0.0, float(size[0])))
    top, bottom = (np.asarray(camera.cam_from_img(_columns(x, edge)))[:, 1] for edge in (0.0, float(size[1])))
    half = min(-left.max(), right.min(), size[0] / focal), min(-top.max(), bottom.min(), size[1] / focal)
    width, height = (math.floor(2 * focal * side + _SLACK_PX) for side in half)
    if min(width, height) < 1:
        raise JobError(
            f"the principal point of the {camera.model.name} camera of {by(size)} lies outside of its picture; no "
            "pinhole camera has it in the middle"
        )
    return Pinhole(width, height, focal)


class Undistortion:
    """Pictures of a camera, pycolmap's, become those of a pinhole camera.

    Works in tiles: OpenCV reads no picture with 32,768 pixels on a side, and the places of all pixels at once take more
    memory than the picture.
    """

    def __init__(self, camera: Any, pinhole: Pinhole) -> None:
        self.camera, self.pinhole = camera, pinhole
        self._keep = self.pinhole.width * self.pinhole.height <= _KEPT_PIXELS
        self._known: dict[tuple[int, int], Places] = {}

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Undistort one picture, uint8 (H, W, 3) of the camera's size, to the pinhole camera's size.

        What the camera does not show is black.
        """
        result = np.zeros((self.pinhole.height, self.pinhole.width, 3), np.uint8)
        margin = 3  # of the cubic kernel
        for top in range(0, self.pinhole.height, _TILE):
            for left in range(0, self.pinhole.width, _TILE):
                x, y, outside = self._places(top, left)
                x0, y0 = max(0, math.floor(x.min()) - margin), max(0, math.floor(y.min()) - margin)
                x1, y1 = math.ceil(x.max()) + margin + 1, math.ceil(y.max()) + margin + 1
                source = np.ascontiguousarray(image[y0:y1, x0:x1])
                tile = cv2.remap(source, x - x0, y - y0, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
                tile[outside] = 0
                result[top : top + _TILE, left : left + _TILE] = tile
        return result

    def _places(self, top: int, left: int) -> Places:
        """Where the pixels of a tile are in the photo, its first pixel's centre at 0, and which are not in it."""
        if (top, left) in self._known:
            return self._known[top, left]
        pinhole, camera = self.pinhole, self.camera
        bottom, right = min(top + _TILE, pinhole.height), min(left + _TILE, pinhole.width)
        x, y = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
        offsets = np.column_stack([x.ravel() - pinhole.width / 2, y.ravel() - pinhole.height / 2])
        rays = np.column_stack([offsets / pinhole.focal_px, np.ones(offsets.shape[0])])
        places = np.asarray(camera.img_from_cam(rays)).reshape(*x.shape, 2)
        size = np.array([camera.width, camera.height])
        outside = np.asarray(~((places > -_SLACK_PX) & (places < size + _SLACK_PX)).all(2))
        places = np.clip(np.where(outside[..., None], 0.0, places), 0, size) - 0.5
        found = places[..., 0].astype(np.float32), places[..., 1].astype(np.float32), outside
        if self._keep:
            self._known[top, left] = found
        return found


def undistort_model(model: Any, pinholes: Mapping[int, Pinhole], names: Mapping[str, str]) -> None:
    """Turn a model into one of pinhole cameras, in place.

    An observation that no pinhole camera can have, at 90 degrees from the axis and beyond, is taken out of its track.

    Args:
        model: pycolmap's.
        pinholes: of each camera, by its number.
        names: new name of each registered image.
    """
    for image_id in model.reg_image_ids():
        image = model.images[image_id]
        image.name = names[image.name]
        camera = model.cameras[image.camera_id]
        points = image.points2D
        xy = np.array([point.xy for point in points], np.float64).reshape(-1, 2)
        rays = np.asarray(camera.cam_from_img(xy)).reshape(-1, 2)
        again = np.asarray(camera.img_from_cam(np.column_stack([rays, np.ones(len(rays))]))).reshape(-1, 2)
        lost = ~(np.abs(again - xy).max(1) < _RETURN_PX)
        for point, position in zip(points, pinholes[image.camera_id].project(rays), strict=True):
            point.xy = position
        for index in np.flatnonzero(lost).tolist():
            if image.points2D[index].has_point3D():
                model.delete_observation(image_id, index)
    for camera_id, pinhole in pinholes.items():
        camera = model.cameras[camera_id]
        camera.model = pycolmap.CameraModelId.PINHOLE
        camera.width, camera.height, camera.params = pinhole.width, pinhole.height, pinhole.params
    model.update_point_3d_errors()


def _columns(x: Any, y: Any) -> Floats:
    return np.column_stack(np.broadcast_arrays(x, y)).astype(np.float64)
