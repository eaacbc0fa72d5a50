"""A COLMAP model as images that look at points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.colmap.half_pixel import pixels_from_colmap
from kornia_bingan.colmap.model import open_model
from kornia_bingan.errors import JobError

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class View:
    """A registered image.

    Attributes:
        name: relative to the photos' folder.
        rotation, translation: world to camera, float64, shapes (3, 3) and (3,).
        camera: pycolmap's.
        seen: points that have the image in their track, as rows, int64, ascending.
    """

    name: str
    rotation: Floats
    translation: Floats
    camera: Any
    seen: Rows

    @property
    def center(self) -> Floats:
        """The position of the camera in the world, float64 (3,)."""
        center: Floats = -self.rotation.T @ self.translation
        return center

    def project(self, xyz: Floats) -> Floats:
        """Project points (N, 3) to pixels (N, 2), the centre of the first pixel at 0; points behind give NaN."""
        in_camera = xyz @ self.rotation.T + self.translation
        in_front = in_camera[:, 2] > 0
        pixels = np.full((len(xyz), 2), np.nan)
        if in_front.any():
            pixels[in_front] = pixels_from_colmap(np.asarray(self.camera.img_from_cam(in_camera[in_front])))
        return pixels

    def inside(self, xyz: Floats) -> NDArray[np.bool_]:
        """Say which points (N, 3) lie in front of the camera and project into the picture, shape (N,)."""
        pixels = self.project(xyz)
        size = np.array([self.camera.width, self.camera.height])
        found = np.asarray(((pixels >= -0.5) & (pixels <= size - 0.5)).all(1))
        rows = np.flatnonzero(found)
        if len(rows):
            # Strong distortion folds what is far outside back into the picture: going back must give the same ray.
            in_camera = xyz[rows] @ self.rotation.T + self.translation
            rays = np.asarray(self.camera.cam_from_img(np.asarray(self.camera.img_from_cam(in_camera))))
            folded = ~(np.abs(rays - in_camera[:, :2] / in_camera[:, 2:]).max(1) < 1e-3)
            found[rows[folded]] = False
        return found


@dataclass(frozen=True, eq=False)
class SparseScene:
    """Registered images, sorted by name, and points, float64 (P, 3)."""

    views: tuple[View, ...]
    xyz: Floats


def read_scene(model: Path) -> SparseScene:
    """Read a COLMAP model, binary or text.

    Raises:
        UsageError: the folder holds no readable model.
        JobError: the model has fewer than two registered images, or no points.
    """
    read = open_model(model)
    keys = np.array(sorted(read.points3D), np.uint64)
    views = []
    for image in sorted((image for image in read.images.values() if image.has_pose), key=lambda image: image.name):
        pose = image.cam_from_world().matrix()
        ids = np.array([point.point3D_id for point in image.get_observation_points2D()], np.uint64)
        seen = np.searchsorted(keys, np.unique(ids)).astype(np.int64)
        views.append(View(image.name, pose[:, :3].copy(), pose[:, 3].copy(), read.cameras[image.camera_id], seen))
    if len(views) < 2 or not len(keys):
        raise JobError(f"the model in {model} has {len(views)} registered images and {len(keys)} points; too few")
    return SparseScene(tuple(views), np.array([read.points3D[int(key)].xyz for key in keys], np.float64))


def look(view: View, xyz: Floats) -> tuple[Floats, Floats]:
    """Directions from points to a camera, unit vectors (N, 3), and distances (N,)."""
    to_camera = view.center - xyz
    distance = np.linalg.norm(to_camera, axis=1)
    return to_camera / np.maximum(distance, 1e-12)[:, None], distance
