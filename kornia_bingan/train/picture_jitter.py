"""Small pictures become training batches: two views of each, cropped, mirrored and recoloured at random.

Everything random in a batch is a function of the seed and the batch's number, as for patches.

Source of the changes: Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class PictureJitter:
    """Random changes of one view of a picture.

    Attributes:
        least_crop: least share of the area that a crop keeps; 1 keeps the picture whole.
        mirror: share of the views that are mirrored.
        colour: share of the views whose colours change.
        brightness: largest relative change of brightness.
        contrast: of contrast.
        saturation: of saturation.
        hue: largest turn of the hue, 1 = the whole circle.
        grey: share of the views that become grey.
        blur: share of the views that are blurred by up to the filter (1, 2, 1) / 4 each way.
        side: of the views, in pixels. Objects in crops are larger than in whole pictures if both have the same side;
            smaller views cost less.
    """

    least_crop: float = 0.25
    mirror: float = 0.5
    colour: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grey: float = 0.2
    blur: float = 0.0
    side: int = 32


NO_PICTURE_JITTER = PictureJitter(least_crop=1.0, mirror=0.0, colour=0.0, grey=0.0)


def draw_views(pictures: NDArray[np.uint8], jitter: PictureJitter, rng: np.random.Generator) -> Floats:
    """Make one view of each picture.

    Args:
        pictures: RGB, uint8 (B, 32, 32, 3).
        jitter: random changes.
        rng: every random number comes from it.

    Returns:
        float32 in [0, 1], shape (B, 3, side, side).
    """
    views: Floats = crop_and_mirror(pictures, jitter, rng).astype(np.float32) / np.float32(255)
    if jitter.colour > 0:
        chosen = rng.random(len(views)) < jitter.colour
        views[chosen] = recolour(views[chosen], jitter, rng)
    if jitter.grey > 0:
        chosen = rng.random(len(views)) < jitter.grey
        views[chosen] = (views[chosen] @ _GREY)[..., None]
    if jitter.blur > 0:
        chosen = rng.random(len(views)) < jitter.blur
        views[chosen] = blurred(views[chosen], rng.uniform(0, 0.25, int(chosen.sum())))
    return np.ascontiguousarray(views.transpose(0, 3, 1, 2))


def blurred(views: Floats, weights: NDArray[np.float64]) -> Floats:
    """Mix every pixel with its neighbours, first across, then down: (w, 1 - 2 w, w), the border repeated.

    Args:
        views: float32 (B, H, W, 3).
        weights: w of each view, (B,).
    """
    weight = weights.astype(np.float32)[:, None, None, None]
    for axis in (1, 2):
        size = views.shape[axis]
        before, after = np.maximum(np.arange(size) - 1, 0), np.minimum(np.arange(size) + 1, size - 1)
        views = views + weight * (np.take(views, before, axis) + np.take(views, after, axis) - 2 * views)
    return views


def crop_and_mirror(pictures: NDArray[np.uint8], jitter: PictureJitter, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Crop at random (area and aspect, 3:4 to 4:3), resize, mirror some; uint8 (B, side, side, 3)."""
    count, side = pictures.shape[:2]
    mirrored = rng.random(count) < jitter.mirror
    views = pictures.copy()
    views[mirrored] = pictures[mirrored, :, ::-1]
    if jitter.least_crop >= 1 and jitter.side == side:
        return views
    area = rng.uniform(min(jitter.least_crop, 1), 1, count)
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), count))
    half_width, half_height = (np.minimum(side, side * np.sqrt(area * ratio)) / 2 for ratio in (aspect, 1 / aspect))
    x = rng.uniform(half_width, side - half_width)
    y = rng.uniform(half_height, side - half_height)
    cropped = np.empty((count, jitter.side, jitter.side, 3), np.uint8)
    for index in range(count):
        a, b = 2 * half_width[index] / jitter.side, 2 * half_height[index] / jitter.side
        left, top = x[index] - half_width[index], y[index] - half_height[index]
        # pixel centres: the first one of the crop's grid lies half a cell inside its edge
        matrix = np.array([[a, 0, left + a / 2 - 0.5], [0, b, top + b / 2 - 0.5]])
        cropped[index] = cv2.warpAffine(
            np.ascontiguousarray(views[index]),
            matrix,
            (jitter.side, jitter.side),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return cropped


def recolour(views: Floats, jitter: PictureJitter, rng: np.random.Generator) -> Floats:
    """Change brightness, contrast, saturation and hue at random, float32 in [0, 1], (B, H, W, 3)."""

    def factor(deviation: float) -> Floats:
        return rng.uniform(1 - deviation, 1 + deviation, (len(views), 1, 1, 1)).astype(np.float32)

    lit = views * factor(jitter.brightness)
    mean = (lit @ _GREY).mean((1, 2))[:, None, None, None]
    lit = mean + (lit - mean) * factor(jitter.contrast)
    grey = (lit @ _GREY)[..., None]
    saturated = grey + (lit - grey) * factor(jitter.saturation)
    # A turn about the grey axis by Rodrigues' formula: a hue change without a colour space.
    angle = 2 * np.pi * rng.uniform(-jitter.hue, jitter.hue, len(views))
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    turn = (cos * np.eye(3) + sin * cross + (1 - cos) * np.outer(axis, axis)).astype(np.float32)
    turned: Floats = np.einsum("bij,bhwj->bhwi", turn, saturated, optimize=True).astype(np.float32)
    return np.clip(turned, 0, 1, out=turned)
