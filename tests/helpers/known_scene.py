"""A rendered room whose every pixel's place in space is known, and a COLMAP model written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.datasets.poses import PosedCamera
from kornia_bingan.datasets.rendered import Plane, cameras_on_arc, render_view, room
from kornia_bingan.keypoints import detect

Floats = NDArray[np.float64]


def trace(planes: Sequence[Plane], camera: PosedCamera, xy: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The plane that is seen at each pixel (N, 2), -1 for none, and the place seen (N, 3)."""
    pixels = np.column_stack([xy, np.ones(len(xy))])
    nearest, which = np.full(len(xy), np.inf), np.full(len(xy), -1)
    for index, plane in enumerate(planes):
        texel = pixels @ np.linalg.inv(plane.homography(camera)).T
        with np.errstate(all="ignore"):
            i, j, depth = texel[:, 0] / texel[:, 2], texel[:, 1] / texel[:, 2], 1 / texel[:, 2]
        height, width = plane.texture.shape
        hit = (depth > 0) & (depth < nearest) & (i > -0.5) & (j > -0.5) & (i < width - 0.5) & (j < height - 0.5)
        nearest[hit], which[hit] = depth[hit], index
    rays = pixels @ np.linalg.inv(camera.K).T @ camera.R
    return which, camera.center + rays * np.where(which >= 0, nearest, np.nan)[:, None]


def is_seen(planes: Sequence[Plane], camera: PosedCamera, xyz: Floats) -> NDArray[np.bool_]:
    """Whether points (N, 3) on the planes are in the picture and nothing is before them."""
    xy = camera.project(xyz)
    seen = ((xy >= 0) & (xy <= np.array([camera.width - 1, camera.height - 1]))).all(1)
    _, there = trace(planes, camera, xy[seen])
    seen[seen] = np.linalg.norm(there - xyz[seen], axis=1) < 0.02
    return np.asarray(seen)


def affine(plane: Plane, camera0: PosedCamera, camera1: PosedCamera, xy: Floats) -> Floats:
    """The derivative (2, 2), at a pixel of the first image, of the way from it over the plane to the second image."""
    matrix = plane.homography(camera1) @ np.linalg.inv(plane.homography(camera0))
    x, y, z = matrix @ np.array([*xy, 1.0])
    derivative: Floats = matrix[:2, :2] / z - np.outer([x, y], matrix[2, :2]) / z**2
    return derivative


@dataclass(frozen=True, eq=False)
class KnownScene:
    """Photos in ``folder/images``, a text model of known points in ``folder/model``, and the truth.

    Half of the images that see a point are in its track.
    """

    folder: Path
    planes: tuple[Plane, ...]
    cameras: dict[str, PosedCamera]
    xyz: Floats
    tracks: list[list[int]]


def make_known_scene(folder: Path, num_views: int, points_a_view: int, seed: int = 0) -> KnownScene:
    rng = np.random.default_rng(seed)
    planes = room(seed)
    cameras = {f"view_{index}.png": camera for index, camera in enumerate(cameras_on_arc(num_views, seed))}
    (folder / "images").mkdir(parents=True)
    found = []
    for name, camera in cameras.items():
        grey = cv2.cvtColor(render_view(planes, camera), cv2.COLOR_RGB2GRAY) + rng.normal(0, 2, (600, 800))
        image = np.clip(grey, 0, 255).round().astype(np.uint8)
        cv2.imwrite(str(folder / "images" / name), image)
        keypoints = detect(image, "dog", 3 * points_a_view)
        which, xyz = trace(planes, camera, keypoints.xy[rng.permutation(len(keypoints))].astype(np.float64))
        found.append(xyz[which >= 0][:points_a_view])
    xyz = np.concatenate(found)
    seen = np.stack([is_seen(planes, camera, xyz) for camera in cameras.values()], 1)
    seen &= rng.random(seen.shape) < 0.5
    kept = seen.sum(1) >= 2
    tracks = [np.flatnonzero(row).tolist() for row in seen[kept]]
    write_text_model(folder / "model", cameras, xyz[kept], tracks)
    return KnownScene(folder, planes, cameras, xyz[kept], tracks)


def write_text_model(folder: Path, cameras: dict[str, PosedCamera], xyz: Floats, tracks: list[list[int]]) -> None:
    """Write COLMAP's text files. Point p is number p + 1, image i is number 10 (i + 1); names must have no spaces."""
    folder.mkdir(parents=True)
    lines: dict[str, list[str]] = {"cameras": [], "images": [], "points3D": []}
    rows: list[list[int]] = [[] for _ in cameras]
    for point, track in enumerate(tracks):
        places = []
        for view in track:
            places.append(f"{10 * (view + 1)} {len(rows[view])}")
            rows[view].append(point)
        x, y, z = xyz[point].tolist()
        lines["points3D"].append(f"{point + 1} {x} {y} {z} 0 0 0 0.5 {' '.join(places)}")
    for index, (name, camera) in enumerate(cameras.items()):
        (fx, _, cx), (_, fy, cy), _ = camera.K.tolist()
        # COLMAP's frame: the centre of the first pixel is (0.5, 0.5)
        size = f"{camera.width} {camera.height}"
        lines["cameras"].append(f"{index + 1} PINHOLE {size} {fx} {fy} {cx + 0.5} {cy + 0.5}")
        pose = " ".join(map(str, [*quaternion(camera.R), *camera.t.tolist()]))
        lines["images"].append(f"{10 * (index + 1)} {pose} {index + 1} {name}")
        pixels = camera.project(xyz[rows[index]]) + 0.5
        pairs = zip(pixels.tolist(), rows[index], strict=True)
        lines["images"].append(" ".join(f"{x} {y} {point + 1}" for (x, y), point in pairs))
    for name, text in lines.items():
        (folder / f"{name}.txt").write_text("\n".join(text) + "\n")


def quaternion(rotation: Floats) -> list[float]:
    """The unit quaternion (w, x, y, z) of a rotation that turns by less than half a turn."""
    w = np.sqrt(1 + np.trace(rotation)) / 2
    axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    return [float(w), *(axis / (4 * w)).tolist()]
