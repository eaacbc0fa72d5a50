"""A seed becomes photos of a made-up room with known cameras.

The room is piecewise planar: two walls that meet in a corner, a floor, two boxes and two tilted panels, each with a
texture of its own. Every pixel of a view is traced to the nearest plane, so occlusion is exact, and textures are read
from an image pyramid at twice the resolution of the view, so nothing is aliased. Positions are therefore true to a few
hundredths of a pixel, which is what a test of matching or of a reconstruction needs.

The camera's frame is OpenCV's: x right, y down, z forward, the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from kornia_bingan.datasets.poses import Array, PosedCamera, write_cameras
from kornia_bingan.errors import UsageError
from kornia_bingan.work.files import atomic_path

_SUPERSAMPLING = 2
_BACKGROUND = 90.0  # grey seen where no plane is hit


@dataclass(frozen=True, eq=False)
class Plane:
    """A textured rectangle: the centre of texel (column i, row j) is at ``corner + i * across + j * down``.

    Attributes:
        corner, across, down: float64 (3,), world units; ``across`` and ``down`` are one texel long.
        texture: grey, uint8 (h, w).
        tint: factors for red, green and blue.
    """

    corner: Array
    across: Array
    down: Array
    texture: NDArray[np.uint8]
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def homography(self, camera: PosedCamera) -> Array:
        """The matrix from texels (i, j, 1) to pixels (u, v, 1) times depth, float64 (3, 3)."""
        axes = np.column_stack([self.across, self.down, self.corner])
        matrix: Array = camera.K @ (camera.R @ axes + np.outer(camera.t, [0.0, 0.0, 1.0]))
        return matrix


@dataclass(frozen=True, eq=False)
class Scene:
    """A rendered scene: where its photos are, and the truth about it.

    Attributes:
        images: the folder of the photos.
        cameras: name of each photo -> its camera, in the order along the arc.
        planes: everything that can be seen.
    """

    images: Path
    cameras: dict[str, PosedCamera]
    planes: tuple[Plane, ...]


def render_scene(folder: Path, num_views: int = 12, seed: int = 0) -> Scene:
    """Render a textured room from ``num_views`` cameras on an arc of 50 degrees, 800 x 600 pixels each.

    Neighbouring views differ by a little exposure, every pixel by sensor noise (2 grey levels). The same seed gives
    the same files on the same versions of OpenCV and numpy, whatever the number of threads.

    Writes ``folder/images/view_000.jpg`` ... and ``folder/cameras.json`` (read it with `load_cameras`).

    Raises:
        UsageError: ``num_views`` is below 1, or ``folder/images`` holds other files, which would be mixed with ours.
    """
    if num_views < 1:
        raise UsageError(f"num_views is {num_views}; a scene needs at least 1 view")
    names = [f"view_{index:03d}.jpg" for index in range(num_views)]
    images = Path(folder) / "images"
    images.mkdir(parents=True, exist_ok=True)
    foreign = sorted({path.name for path in images.iterdir()} - set(names))
    if foreign:
        raise UsageError(f"{images} already holds {foreign[0]}, which is not of this scene; give a new folder")
    planes = room(seed)
    cameras = dict(zip(names, cameras_on_arc(num_views, seed), strict=True))
    for index, (name, camera) in enumerate(cameras.items()):
        rng = np.random.default_rng([seed, 2, index])
        exposure = rng.uniform(0.92, 1.08)
        noise = rng.normal(0.0, 2.0, (camera.height, camera.width, 3))
        rgb = np.clip(render_view(planes, camera) * exposure + noise, 0, 255).round().astype(np.uint8)
        _, data = cv2.imencode(".jpg", rgb[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, 95))
        with atomic_path(images / name) as temporary:
            temporary.write_bytes(data.tobytes())
    write_cameras(Path(folder) / "cameras.json", cameras, f"rendered by kornia_bingan, seed {seed}")
    return Scene(images, cameras, planes)


def room(seed: int) -> tuple[Plane, ...]:
    """Build the planes of the room; lengths are metres, y points down, the cameras stand at negative z."""
    rng = np.random.default_rng([seed, 1])

    def rectangle(corner: ArrayLike, right: ArrayLike, below: ArrayLike, texels_per_metre: int = 150) -> Plane:
        """A rectangle with a corner at its upper left and two sides as vectors."""
        sides = np.asarray(right, np.float64), np.asarray(below, np.float64)
        width, height = (round(float(np.linalg.norm(side)) * texels_per_metre) for side in sides)
        texture = draw_texture(height, width, rng)
        tint = rng.uniform(0.8, 1.1, 3)
        tint /= tint @ [0.299, 0.587, 0.114]  # the grey value stays the texture's
        return Plane(np.asarray(corner, np.float64), sides[0] / width, sides[1] / height, texture, tuple(tint.tolist()))

    def box(center: ArrayLike, size: Sequence[float], yaw_deg: float) -> list[Plane]:
        """The five visible faces of a box that stands on the floor; ``center`` is that of its base."""
        yaw = math.radians(yaw_deg)
        x = np.array([math.cos(yaw), 0.0, math.sin(yaw)]) * size[0]
        y = np.array([0.0, 1.0, 0.0]) * size[1]
        z = np.array([-math.sin(yaw), 0.0, math.cos(yaw)]) * size[2]
        corner = np.asarray(center, np.float64) - x / 2 - y - z / 2  # front, upper, left
        sides = [(corner, x, y), (corner + x, z, y), (corner + x + z, -x, y), (corner + z, -z, y), (corner + z, x, -z)]
        return [rectangle(*side, texels_per_metre=220) for side in sides]

    left, middle, right = np.array([-7.5, -4.2, -0.7]), np.array([0.4, -4.2, 3.0]), np.array([7.5, -4.2, -0.4])
    wall_height = [0.0, 5.7, 0.0]
    return (
        rectangle(left, middle - left, wall_height),
        rectangle(middle, right - middle, wall_height),
        rectangle([-7.0, 1.5, 3.2], [14.0, 0.0, 0.0], [0.0, 0.0, -6.4]),
        *box([-1.4, 1.5, 0.3], (1.3, 1.7, 1.0), 24.0),
        *box([1.5, 1.5, -0.6], (1.1, 1.1, 1.1), -33.0),
        rectangle([0.3, -1.9, 0.6], [1.7, 0.2, -0.5], [-0.1, 1.5, 0.3], 220),
        rectangle([-3.6, -1.6, 0.2], [1.5, -0.2, 0.4], [0.15, 1.6, -0.5], 220),
    )


def draw_texture(height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Make a grey texture with structure at every scale: noise in octaves, blobs, polygons with edges, letters."""
    noise = np.zeros((height, width), np.float32)
    for octave in range(7):
        coarse = rng.standard_normal((max(2, height >> octave), max(2, width >> octave)), dtype=np.float32)
        noise += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(1.25**octave)
    texture: NDArray[np.uint8] = np.clip(120 + 28 * noise / noise.std(), 0, 255).astype(np.uint8)
    for _ in range(height * width // 1500):
        place = rng.integers(0, [width, height])
        radius = min(3.0 * (1 - rng.random()) ** -0.7, 60.0)  # few large, many small, as in nature
        grey = int(rng.integers(10, 246))
        shape = rng.integers(0, 3)
        if shape == 0:
            axes = (radius * rng.uniform(0.5, 1.0, 2)).round().astype(int) + 1
            turn_deg = float(rng.uniform(0, 180))
            cv2.ellipse(texture, place.tolist(), axes.tolist(), turn_deg, 0, 360, grey, -1, cv2.LINE_AA)
        elif shape == 1:
            turns = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
            corners = place + radius * 1.3 * np.column_stack([np.cos(turns), np.sin(turns)])
            cv2.fillPoly(texture, [corners.round().astype(np.int32)], grey, cv2.LINE_AA)
        else:
            letter = chr(rng.integers(ord("A"), ord("Z") + 1))
            font, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(radius / 6))
            cv2.putText(texture, letter, place.tolist(), font, radius / 8, grey, thickness, cv2.LINE_AA)
    return texture


def cameras_on_arc(num_views: int, seed: int) -> list[PosedCamera]:
    """Place cameras on a horizontal arc about the room's middle, 6.3 m away, with a hand's unsteadiness."""
    rng = np.random.default_rng([seed, 3])
    K = np.array([[700.0, 0.0, 399.5], [0.0, 700.0, 299.5], [0.0, 0.0, 1.0]])
    cameras = []
    for angle in np.radians(np.linspace(-25.0, 25.0, num_views) if num_views > 1 else [0.0]):
        distance = 6.3 + rng.uniform(-0.3, 0.3)
        center = np.array([distance * math.sin(angle), -0.7 + rng.uniform(-0.4, 0.4), -distance * math.cos(angle)])
        target = np.array([0.0, -0.2, 0.3]) + rng.uniform(-0.15, 0.15, 3)
        forward = (target - center) / np.linalg.norm(target - center)
        roll = math.radians(rng.uniform(-4.0, 4.0))
        level = np.cross([0.0, 1.0, 0.0], forward)
        level /= np.linalg.norm(level)
        x = math.cos(roll) * level + math.sin(roll) * np.cross(forward, level)
        R = np.stack([x, np.cross(forward, x), forward])
        cameras.append(PosedCamera(K, R, -R @ center, 800, 600))
    return cameras


def render_view(planes: Sequence[Plane], camera: PosedCamera) -> NDArray[np.float32]:
    """Render planes as the camera sees them, without noise.

    Each pixel is the mean of 2 x 2 samples. A sample takes the nearest plane on its ray, and the plane's texture from
    the two pyramid levels between which one texel is as large as the pixel: no alias is left.

    Returns:
        RGB in 0 .. 255, float32, shape (height, width, 3); grey 90 where nothing is hit, so everywhere without planes.
    """
    width, height = camera.width * _SUPERSAMPLING, camera.height * _SUPERSAMPLING
    shift = 0.5 / _SUPERSAMPLING - 0.5
    to_pixel = np.array([[1 / _SUPERSAMPLING, 0, shift], [0, 1 / _SUPERSAMPLING, shift], [0, 0, 1]])
    nearness = np.zeros((height, width), np.float32)  # one over the depth of what is seen so far
    image = np.full((height, width, 3), _BACKGROUND, np.float32)
    for plane in planes:
        matrix = plane.homography(camera)
        if abs(np.linalg.det(matrix / np.linalg.norm(matrix, axis=0))) < 1e-9:
            continue  # seen exactly edge-on
        to_texel = np.linalg.inv(matrix) @ to_pixel
        rows, columns = _bounds(matrix, plane.texture.shape, camera)
        if rows.start == rows.stop or columns.start == columns.stop:
            continue  # out of sight
        corner = np.array([[1, 0, columns.start], [0, 1, rows.start], [0, 0, 1]])
        grey, inverse_depth = _sample(plane.texture, to_texel @ corner, nearness[rows, columns].shape)
        seen = inverse_depth > nearness[rows, columns]
        nearness[rows, columns][seen] = inverse_depth[seen]
        image[rows, columns][seen] = grey[seen][:, None] * np.array(plane.tint, np.float32)
    size = (camera.width, camera.height)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _bounds(matrix: Array, shape: tuple[int, ...], camera: PosedCamera) -> tuple[slice, slice]:
    """Find the rows and columns of samples that a plane can cover: all, if it reaches behind the camera."""
    width, height = camera.width * _SUPERSAMPLING, camera.height * _SUPERSAMPLING
    right, low = shape[1] - 0.5, shape[0] - 0.5
    corners = matrix @ np.array([[-0.5, right, -0.5, right], [-0.5, -0.5, low, low], [1, 1, 1, 1]])
    if corners[2].min() <= 0:
        return slice(0, height), slice(0, width)
    x, y = (corners[:2] / corners[2] + 0.5) * _SUPERSAMPLING - 0.5
    first_row, last_row = np.clip([math.floor(y.min()), math.ceil(y.max()) + 1], 0, height)
    first_column, last_column = np.clip([math.floor(x.min()), math.ceil(x.max()) + 1], 0, width)
    return slice(int(first_row), int(last_row)), slice(int(first_column), int(last_column))


def _sample(
    texture: NDArray[np.uint8], to_texel: Array, shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sample a texture through a homography from samples to texels, with the right pyramid level for each sample.

    Returns:
        Grey values and one over the depth, float32, both of ``shape``; the latter is 0 outside the texture.
    """
    height, width = shape[:2]
    matrix = to_texel.astype(np.float32)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    i, j, inverse_depth = (row[0] * x + (row[1] * y + row[2]) for row in matrix)
    front = inverse_depth > 0
    scale = np.where(front, inverse_depth, 1)
    i, j = i / scale, j / scale
    inside = front & (i > -0.5) & (i < texture.shape[1] - 0.5) & (j > -0.5) & (j < texture.shape[0] - 0.5)
    # texels passed from a pixel to the next, along x and along y, of which the larger one decides
    steps = [np.hypot(matrix[0, k] - i * matrix[2, k], matrix[1, k] - j * matrix[2, k]) for k in (0, 1)]
    level = np.log2(np.maximum(np.maximum(*steps) * (_SUPERSAMPLING / scale), 1))[inside]
    grey = np.zeros(shape, np.float32)
    if level.size:
        values = np.zeros(level.size, np.float32)
        pyramid: NDArray[Any] = texture.astype(np.float32)
        for number in range(math.ceil(level.max()) + 1):
            weight = np.maximum(1 - np.abs(level - number), 0)
            if weight.any():
                smaller = np.diag([0.5**number, 0.5**number, 1]) @ to_texel  # pyrDown keeps the even texels
                flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
                warped = cv2.warpPerspective(
                    pyramid, smaller, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
                )
                values += weight * warped[inside]
            pyramid = cv2.pyrDown(pyramid)
        grey[inside] = values
    return grey, np.where(inside, inverse_depth, 0)
