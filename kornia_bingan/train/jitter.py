"""Patches of keypoints become two views: random changes of their support regions and of their grey values.

Numbers of a keypoint are drawn on the processor, and pixels are changed where the patches are, which may be a GPU.
Everything random is a function of the seed and the batch's number, so a resumed run sees the batches that an
undisturbed run sees; the noise of pixels alone is another one on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Jitter:
    """Deviations of the random changes of one view; two views differ by about 1.4 times as much.

    Attributes:
        log2_scale: deviation of the support region's scale, octaves.
        rotation_deg: deviation of its angle, degrees.
        shift: deviation of its centre, in halves of its side.
        log2_stretch: deviation of the affine stretch along a random direction, octaves (its area stays).
        log2_gamma: deviation of the exponent of the grey values, octaves.
        contrast: deviation of the factor on grey values (log2) around the mean of the patch.
        brightness: deviation of the value added, 1 = black to white.
        blur: largest weight of the neighbours in the blur (0 to 0.25; 0.25 halves the resolution).
        defocus: largest standard deviation of a Gaussian blur, patch pixels (32 per side); its square root is uniform,
            so that most views stay sharp.
        noise: largest standard deviation of the sensor noise, 1 = black to white.
        occlusion: share of the views whose far side is replaced by another patch, as at an edge in depth.
        occlusion_nearest: least distance of that edge from the middle, in halves of the side; the largest is 0.9.
        relief: deviation of smooth shifts inside the patch, in halves of its side, as of a surface that is not flat;
            the middle stays.
    """

    log2_scale: float = 0.15
    rotation_deg: float = 8.0
    shift: float = 0.04
    log2_stretch: float = 0.2
    log2_gamma: float = 0.3
    contrast: float = 0.4
    brightness: float = 0.1
    blur: float = 0.25
    noise: float = 0.03
    occlusion: float = 0.3
    occlusion_nearest: float = 0.2
    relief: float = 0.0
    defocus: float = 0.0


NO_JITTER = Jitter(*(0.0,) * 13)
DEFOCUS_LEVELS = 12


@dataclass(frozen=True)
class Batch:
    """Two views of B keypoints.

    Attributes:
        patches0, patches1: float32 in [0, 1], shape (B, 1, 32, 32); row i of both is one keypoint.
        ignore: bool, shape (B, B): pairs of different keypoints too close to call them different.
        change0, change1: how the support region of each view is turned and stretched against the detector's, float32
            (B, 2, 2) of determinant 1; None where that is not known.

    All are on the device that learns.
    """

    patches0: Tensor
    patches1: Tensor
    ignore: Tensor
    change0: Tensor | None = None
    change1: Tensor | None = None


def jitter_lafs(lafs: Floats, jitter: Jitter, rng: np.random.Generator) -> Floats:
    """Move, turn, scale and stretch LAFs at random, float32, shape (N, 2, 3)."""
    count = len(lafs)
    scale = 2 ** (jitter.log2_scale * rng.standard_normal(count))
    turn = _rotation(np.deg2rad(jitter.rotation_deg) * rng.standard_normal(count))
    direction = _rotation(rng.uniform(0, np.pi, count))
    stretch = 2 ** (jitter.log2_stretch * rng.standard_normal(count) / 2)
    diagonal = np.zeros((count, 2, 2))
    diagonal[:, 0, 0], diagonal[:, 1, 1] = stretch * scale, scale / stretch
    change = turn @ direction @ diagonal @ direction.transpose(0, 2, 1)
    shift = jitter.shift * rng.standard_normal((count, 2, 1))
    frames = lafs[:, :, :2]
    return np.concatenate([frames @ change, frames @ shift + lafs[:, :, 2:]], 2).astype(np.float32)


def near_duplicates(lafs: Tensor) -> Tensor:
    """Say which LAFs show the same thing: centres, scales and angles closer than a detector repeats.

    Args:
        lafs: shape (N, 2, 3).

    Returns:
        bool, shape (N, N).
    """
    a, b, x, c, d, y = lafs.double().flatten(1).T
    half = (a * d - b * c).abs().sqrt()
    distance = torch.hypot(x[:, None] - x, y[:, None] - y)
    angle = torch.atan2(c, a)
    turn = ((angle[:, None] - angle + np.pi) % (2 * np.pi) - np.pi).abs()
    octaves = (half[:, None] / half).log2().abs()
    close: Tensor = (distance < 0.1 * half) & (octaves < 0.5) & (turn < np.deg2rad(22.5))
    return close


def _rotation(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1)


def per_row(values: NDArray[np.float64], rows: Tensor) -> Tensor:
    """Bring a number per row (N,) to where the rows are: float32 (N, 1, 1, 1)."""
    return torch.from_numpy(values.astype(np.float32)).to(rows.device).view(-1, 1, 1, 1)


def change_grey_values(patches: Tensor, jitter: Jitter, rng: np.random.Generator) -> Tensor:
    """Occlude, blur, change gamma, contrast and brightness, add noise.

    Args:
        patches: float32 in [0, 1], shape (N, 1, S, S), on any device.
        jitter: random changes of each patch.
        rng: every random number comes from it; the noise of pixels from a generator that it seeds.

    Returns:
        The same form, clipped to [0, 1].
    """
    count, device, side = len(patches), patches.device, patches.shape[-1]
    if jitter.occlusion > 0:
        patches = _occluded(patches, rng.random(count) < jitter.occlusion, jitter.occlusion_nearest, rng)
    if jitter.blur > 0:
        weight = per_row(jitter.blur * rng.random(count), patches)
        for padding in ((0, 0, 1, 1), (1, 1, 0, 0)):
            padded = F.pad(patches, padding, "replicate")
            sides = padded[..., :side, :side] + padded[..., -side:, -side:]
            patches = patches + weight * (sides - 2 * patches)
    if jitter.defocus > 0:
        patches = _defocused(patches, jitter.defocus * rng.random(count) ** 2)
    if jitter.log2_gamma > 0:
        patches = patches.clamp_min(1e-3) ** per_row(2 ** (jitter.log2_gamma * rng.standard_normal(count)), patches)
    if jitter.contrast > 0 or jitter.brightness > 0:
        mean = patches.mean((1, 2, 3), keepdim=True)
        contrast = per_row(2 ** (jitter.contrast * rng.standard_normal(count)), patches)
        brightness = per_row(jitter.brightness * rng.standard_normal(count), patches)
        patches = (patches - mean) * contrast + mean + brightness
    if jitter.noise > 0:
        deviation = per_row(jitter.noise * rng.random(count), patches)
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        patches = patches + deviation * torch.randn(patches.shape, generator=generator, device=device)
    return patches.clamp(0, 1)


def _defocused(patches: Tensor, deviations: NDArray[np.float64]) -> Tensor:
    """Blur every patch by the nearest of a few Gaussians up to the largest deviation, the border repeated."""
    levels = np.linspace(0, deviations.max(initial=0), DEFOCUS_LEVELS + 1)
    nearest = np.abs(deviations[:, None] - levels).argmin(1)
    blurs = [np.eye(patches.shape[-1], dtype=np.float32)]
    for level in levels[1:]:
        kernel = cv2.getGaussianKernel(2 * int(np.ceil(3 * level)) + 1, max(level, 1e-6))
        blur = cv2.sepFilter2D(blurs[0], -1, np.ones(1), kernel, borderType=cv2.BORDER_REPLICATE)
        blurs.append(np.asarray(blur, np.float32))
    of_each = torch.from_numpy(np.stack(blurs)[nearest]).to(patches.device)
    return (of_each @ patches[:, 0] @ of_each.mT)[:, None]


def bend(patches: Tensor, deviation: float, rng: np.random.Generator) -> Tensor:
    """Shift the inside of patches smoothly; the middle and its surroundings stay about where they are.

    Args:
        patches: float32 (N, 1, S, S).
        deviation: of the shifts of a 3 x 3 net over the patch, in halves of its side.
        rng: every random number comes from it.
    """
    side = patches.shape[2]
    net = deviation * rng.standard_normal((len(patches), 2, 3, 3))
    net[:, :, 1, 1] = 0
    shifts = torch.from_numpy(net.astype(np.float32)).to(patches.device)
    shifts = F.interpolate(shifts, (side, side), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    unit = ((2 * torch.arange(side, device=patches.device) + 1) / side - 1).to(patches.dtype)
    straight = torch.stack(torch.meshgrid(unit, unit, indexing="xy"), 2)
    return F.grid_sample(patches, straight + shifts, "bilinear", "reflection", align_corners=False)


def _occluded(patches: Tensor, chosen: NDArray[np.bool_], nearest: float, rng: np.random.Generator) -> Tensor:
    """Replace the far side of a random line by another patch of the batch; the keypoint's own middle stays."""
    rows = np.flatnonzero(chosen)
    angle, distance = rng.uniform(0, 2 * np.pi, len(rows)), rng.uniform(nearest, 0.9, len(rows))
    others = rng.permutation(len(patches))[: len(rows)]
    line = np.stack([np.cos(angle), np.sin(angle), distance], 1).astype(np.float32)
    cos, sin, far = torch.from_numpy(line).to(patches.device).T[:, :, None, None, None]
    side = patches.shape[-1]
    unit = ((2 * torch.arange(side, device=patches.device) + 1) / side - 1).to(patches.dtype)
    index, other = (torch.from_numpy(each).to(patches.device) for each in (rows, others))
    covered = torch.where(cos * unit + sin * unit[:, None] > far, patches[other], patches[index])
    return patches.index_copy(0, index, covered)
