"""Small pictures become training batches: two views of each, cropped, mirrored and recoloured at random.

Everything random in a batch is a function of the seed and the batch's number, as for patches. Pixels are changed where
the pictures are, which may be a GPU.

Source of the changes: Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kornia_bingan.train.jitter import per_row

_GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class PictureJitter:
    """Random changes of one view of a picture.

    Attributes:
        least_crop: least share of the area that a crop keeps; 1 keeps the picture whole.
        mirror: share of the views that are mirrored.
        colour: share of the views whose colours change.
        brightness: largest relative change of brightness.
        contrast: largest relative change of contrast.
        saturation: largest relative change of saturation.
        hue: largest turn of the hue, 1 = the whole circle.
        grey: share of the views that become grey.
        blur: share of the views that are blurred by up to the filter (1, 2, 1) / 4 each way.
        side: side of the views, in pixels. Objects in crops are larger than in whole pictures if both have the same
            side; smaller views cost less.
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


def draw_views(pictures: Tensor, jitter: PictureJitter, rng: np.random.Generator) -> Tensor:
    """Make one view of each picture.

    Args:
        pictures: RGB, uint8 (B, 32, 32, 3), on any device.
        jitter: random changes.
        rng: every random number comes from it.

    Returns:
        float32 in [0, 1], shape (B, 3, side, side).
    """
    views = crop_and_mirror(pictures.permute(0, 3, 1, 2).float() / 255, jitter, rng)
    count = len(views)
    if jitter.colour > 0:
        views = _where(rng.random(count) < jitter.colour, recolour(views, jitter, rng), views)
    if jitter.grey > 0:
        views = _where(rng.random(count) < jitter.grey, _grey(views).expand_as(views), views)
    if jitter.blur > 0:
        weights = rng.uniform(0, 0.25, count) * (rng.random(count) < jitter.blur)
        views = blurred(views, weights)
    return views


def _where(chosen: NDArray[np.bool_], changed: Tensor, views: Tensor) -> Tensor:
    return torch.where(torch.from_numpy(chosen).to(views.device)[:, None, None, None], changed, views)


def _grey(views: Tensor) -> Tensor:
    red, green, blue = views.unbind(1)
    return (_GREY[0] * red + _GREY[1] * green + _GREY[2] * blue)[:, None]


def blurred(views: Tensor, weights: NDArray[np.float64]) -> Tensor:
    """Mix every pixel with its neighbours, first down, then across: (w, 1 - 2 w, w), the border repeated.

    Args:
        views: float32 (B, 3, H, W).
        weights: w of each view, (B,).
    """
    weight = per_row(weights, views)
    height, width = views.shape[2:]
    for padding in ((0, 0, 1, 1), (1, 1, 0, 0)):
        padded = F.pad(views, padding, "replicate")
        sides = padded[..., :height, :width] + padded[..., -height:, -width:]
        views = views + weight * (sides - 2 * views)
    return views


def crop_and_mirror(pictures: Tensor, jitter: PictureJitter, rng: np.random.Generator) -> Tensor:
    """Crop at random (area and aspect, 3:4 to 4:3), resize, mirror some; (B, 3, H, H) becomes (B, 3, side, side)."""
    count, side = len(pictures), jitter.side
    mirrored = np.where(rng.random(count) < jitter.mirror, -1.0, 1.0)
    if jitter.least_crop >= 1 and side == pictures.shape[2]:
        return _where(mirrored < 0, pictures.flip(3), pictures)
    area = rng.uniform(min(jitter.least_crop, 1), 1, count)
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), count))
    half_width, half_height = (np.minimum(1, np.sqrt(area * ratio)) for ratio in (aspect, 1 / aspect))
    # the middle of the crop, in halves of the picture's side from its middle
    x, y = ((1 - half) * rng.uniform(-1, 1, count) for half in (half_width, half_height))
    numbers = np.stack([mirrored * half_width, x, half_height, y]).astype(np.float32)
    along, middle_x, down, middle_y = torch.from_numpy(numbers).to(pictures.device)[:, :, None, None]
    cells = ((2 * torch.arange(side, device=pictures.device) + 1) / side - 1).to(pictures.dtype)
    across = (middle_x + along * cells).expand(count, side, side)
    below = (middle_y + down * cells[:, None]).expand(count, side, side)
    return F.grid_sample(pictures, torch.stack([across, below], 3), "bilinear", "border", align_corners=False)


def recolour(views: Tensor, jitter: PictureJitter, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue at random, float32 in [0, 1], (B, 3, H, W)."""
    count = len(views)

    def factor(deviation: float) -> Tensor:
        return per_row(rng.uniform(1 - deviation, 1 + deviation, count), views)

    lit = views * factor(jitter.brightness)
    mean = _grey(lit).mean((2, 3), keepdim=True)
    lit = mean + (lit - mean) * factor(jitter.contrast)
    grey = _grey(lit)
    saturated = grey + (lit - grey) * factor(jitter.saturation)
    # A turn about the grey axis by Rodrigues' formula: a hue change without a colour space.
    angle = 2 * np.pi * rng.uniform(-jitter.hue, jitter.hue, count)
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    turn = (cos * np.eye(3) + sin * cross + (1 - cos) * np.outer(axis, axis)).astype(np.float32)
    turned = torch.from_numpy(turn).to(views.device) @ saturated.flatten(2)
    return turned.view_as(views).clamp(0, 1)
