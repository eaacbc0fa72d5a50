"""A folder of a COLMAP model becomes arrays, points in a PLY file, and points with colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2  # noqa: F401 - before pycolmap, see half_pixel
import numpy as np
import pycolmap

from kornia_bingan.colmap.half_pixel import camera_from_colmap, pixels_from_colmap
from kornia_bingan.colmap.transforms import read_transforms
from kornia_bingan.colmap.types import Model
from kornia_bingan.errors import UsageError
from kornia_bingan.images.read import read_color, sample_ranges
from kornia_bingan.work.files import atomic_path


def open_model(folder: Path) -> Any:
    """Read a model, binary or text, as pycolmap's.

    Raises:
        UsageError: the folder holds no readable model.
    """
    try:
        return pycolmap.Reconstruction(str(folder))
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{folder} holds no readable COLMAP model") from error


def read_model(folder: Path) -> Model:
    """Read a model, binary or text, into arrays in this package's frame.

    Raises:
        UsageError: the folder holds no readable model.
    """
    model = open_model(folder)
    images = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    poses = np.array([image.cam_from_world().matrix() for image in images]).reshape(-1, 3, 4)
    cameras = {camera_id: camera_from_colmap(camera) for camera_id, camera in model.cameras.items()}
    points = [model.points3D[key] for key in sorted(model.points3D)]
    return Model(
        names=tuple(image.name for image in images),
        rotations=poses[:, :, :3].copy(),
        translations=poses[:, :, 3].copy(),
        cameras=tuple(cameras[image.camera_id] for image in images),
        xyz=np.array([point.xyz for point in points], np.float64).reshape(-1, 3),
        rgb=np.array([point.color for point in points], np.uint8).reshape(-1, 3),
        error_px=np.array([point.error for point in points], np.float64),
        track_length=np.array([point.track.length() for point in points], np.int64),
    )


def read_poses(path: Path) -> Model:
    """Read the poses and cameras of a model, binary or text, whose points are not needed, or of a ``transforms.json``.

    Raises:
        UsageError: the folder holds no readable model, or no image of it has a pose; or the file is no
            ``transforms.json``.
    """
    if path.suffix == ".json":
        return read_transforms(path)
    try:
        model = read_model(path)
    except UsageError as error:
        raise UsageError(
            f"{path} holds no readable COLMAP model: cameras, images and points3D (it may be empty), .txt or .bin; or "
            "give a transforms.json"
        ) from error
    if not model.names:
        raise UsageError(f"the COLMAP model in {path} has no image with a pose")
    return model


def count_places(folder: Path) -> int:
    """Count the points of a model, those that one pixel position of an image shows as one.

    A detector that gives a keypoint several angles gives a model several points at one place.

    Raises:
        UsageError: the folder holds no readable model.
    """
    model = open_model(folder)
    same = {key: key for key in model.points3D}

    def first(key: int) -> int:
        while same[key] != key:
            key = same[key]
        return key

    for image in model.images.values():
        shown: dict[tuple[float, float], int] = {}
        for point in image.get_observation_points2D():
            key = first(point.point3D_id)
            same[key] = first(shown.setdefault((point.xy[0], point.xy[1]), key))
    return sum(key == other for key, other in same.items())


def write_points(model: Path, path: Path) -> None:
    """Write the points of a model's folder as a PLY file, with colours.

    Raises:
        UsageError: the folder holds no readable model.
    """
    points = open_model(model)
    with atomic_path(path) as temporary:
        points.export_PLY(str(temporary))


def colour_points(folder: Path, images: Path) -> None:
    """Give each point the mean colour of the pixels that see it, in the model's files.

    Not COLMAP's own extraction, which reads photos without their EXIF orientation.
    """
    model = open_model(folder)
    keys = np.array(sorted(model.points3D), np.uint64)
    total, seen = np.zeros((len(keys), 3)), np.zeros(len(keys))
    ranges = sample_ranges(images, [image.name for image in model.images.values()], say=False)
    for image in model.images.values():
        if not image.has_pose:
            continue
        points = image.get_observation_points2D()
        if not points:
            continue
        rgb = read_color(images / image.name, ranges)
        xy = pixels_from_colmap(np.array([point.xy for point in points]))
        x, y = np.rint(xy).astype(int).T
        inside = (x >= 0) & (y >= 0) & (x < rgb.shape[1]) & (y < rgb.shape[0])
        rows = np.searchsorted(keys, np.array([point.point3D_id for point in points], np.uint64))[inside]
        np.add.at(total, rows, rgb[y[inside], x[inside]])
        np.add.at(seen, rows, 1)
    colours = np.rint(total / np.maximum(seen, 1)[:, None]).astype(np.uint8)
    for key, colour in zip(keys, colours, strict=True):
        model.points3D[int(key)].color = colour
    model.write(str(folder))
