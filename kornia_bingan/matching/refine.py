"""Matched keypoints get exact: that of the second picture moves to where its patch looks most like that of the first.

Inverse-compositional Gauss-Newton steps (Baker and Matthews, IJCV 2004, section 3.2) over the affine frame of the
second keypoint, on patches of equal mean and contrast under a Gaussian window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints, has_region
from kornia_bingan.patches import Pyramid, cut_patches

Floats = NDArray[np.float32]

HALF_SIDE_PX, HALF_SIDE = 8.0, 0.5
"""Half the side of the compared patches: so many pixels, and so many times the size of the keypoints. Large keypoints
are compared by what is in their middle, since a small patch is sampled more finely."""

CELLS, STEPS = 20, 6
MOST_PX = 2.5
"""A keypoint that has moved further, or by more than its size, was not exact but another one; it stays."""

LEAST_GAIN = 0.1
"""Part by which the squared difference of the patches must fall, or the keypoint stays."""

_WINDOW = 0.45  # deviation of the Gaussian window over half the side
_MOST_STEP = 0.3  # of one step, in units of the frame
_CHUNK = 2**12  # matches at a time: 16 MiB for the derivatives of their patches


@dataclass(frozen=True)
class Alignment:
    """How the patches of M matches are made equal.

    Attributes:
        shift: by which the keypoints of image 1 move, pixels, float32 (M, 2).
        before: mean squared difference of the patches, each of mean 0 and variance 1 under the window, float32 (M,):
            0 of equal ones, 2 of those that have nothing in common, infinite where there is no patch.
        after: the same with the keypoint moved, never larger.
    """

    shift: Floats
    before: Floats
    after: Floats


def align(pyramid0: Pyramid, pyramid1: Pyramid, keypoints0: Keypoints, keypoints1: Keypoints) -> Alignment:
    """Align the patches of image 1 with those of image 0.

    Args:
        pyramid0: of image 0, see :func:`kornia_bingan.patches.build_pyramid`.
        pyramid1: of image 1.
        keypoints0: of the matches, M rows.
        keypoints1: of the same matches. Where an angle is unset in either image, both count as upright; without a
            positive size there is no patch.

    Raises:
        UsageError: the keypoints differ in number.
    """
    if len(keypoints0) != len(keypoints1):
        raise UsageError(f"there are {len(keypoints0)} and {len(keypoints1)} keypoints; give both of each match")
    shift = np.zeros((len(keypoints1), 2), np.float32)
    before, after = (np.full(len(shift), np.inf, np.float32) for _ in range(2))
    angles = np.stack([keypoints0.angle_deg, keypoints1.angle_deg])
    angles = np.where((np.isfinite(angles) & (angles >= 0)).all(0), angles, np.float32(0))
    usable = np.ones(len(shift), bool)
    for points, angle in zip((keypoints0, keypoints1), angles, strict=True):
        upright = Keypoints(points.xy, points.size, angle, points.response, points.octave)
        usable &= has_region(upright) & np.isfinite(points.xy).all(1)
    for rows in np.array_split(np.flatnonzero(usable), -(-int(usable.sum()) // _CHUNK) or 1):
        if not len(rows):
            continue
        sizes = [each.size[rows].astype(np.float64) for each in (keypoints0, keypoints1)]
        factor = HALF_SIDE_PX / np.sqrt(sizes[0] * sizes[1]) + HALF_SIDE
        lafs = [
            _lafs(each.xy[rows], angle[rows], factor * size)
            for each, angle, size in zip((keypoints0, keypoints1), angles, sizes, strict=True)
        ]
        found, before[rows], after[rows] = _aligned(pyramid0, pyramid1, lafs[0], lafs[1])
        shift[rows] = found - keypoints1.xy[rows]
    return Alignment(shift, before, after)


def refine(
    pyramid0: Pyramid, pyramid1: Pyramid, keypoints0: Keypoints, keypoints1: Keypoints
) -> tuple[Floats, NDArray[np.bool_]]:
    """Align the keypoints of matches in image 1 with those in image 0.

    Args:
        pyramid0: as in :func:`align`.
        pyramid1: as in :func:`align`.
        keypoints0: as in :func:`align`.
        keypoints1: as in :func:`align`.

    Returns:
        Positions in image 1, float32 (M, 2), and which of them have moved, bool (M,). A keypoint stays where it is if a
        size is no positive number, if the patches cannot be aligned, or if that moves it further than ``MOST_PX`` or
        its size.

    Raises:
        UsageError: the keypoints differ in number.
    """
    found = align(pyramid0, pyramid1, keypoints0, keypoints1)
    far = np.linalg.norm(found.shift, axis=1)
    moved = np.isfinite(found.before) & (far < np.minimum(MOST_PX, keypoints1.size))
    # Patches that are equal but for noise have nothing to gain.
    gain = np.where(moved, found.before, 0) - np.where(moved, found.after, 0)
    moved &= gain > LEAST_GAIN * np.maximum(found.before, np.float32(1e-3))
    return np.where(moved[:, None], keypoints1.xy + found.shift, keypoints1.xy), moved


def _lafs(xy: Floats, angle_deg: Floats, half: NDArray[np.float64]) -> NDArray[np.float64]:
    angle = np.deg2rad(angle_deg.astype(np.float64))
    cos, sin = half * np.cos(angle), half * np.sin(angle)
    x, y = xy.astype(np.float64).T
    return np.stack([np.stack([cos, -sin, x], 1), np.stack([sin, cos, y], 1)], 1)


def _aligned(
    pyramid0: Pyramid, pyramid1: Pyramid, lafs0: NDArray[np.float64], lafs1: NDArray[np.float64]
) -> tuple[Floats, Floats, Floats]:
    """Give the best positions, (M, 2), and the squared differences before and after, (M,)."""
    unit = ((2 * np.arange(CELLS) + 1) / CELLS - 1).astype(np.float32)
    y, x = (each.ravel() for each in np.meshgrid(unit, unit, indexing="ij"))
    window = np.exp(-(x**2 + y**2) / (2 * _WINDOW**2))
    window /= window.sum()

    def look(pyramid: Pyramid, lafs: NDArray[np.float64]) -> tuple[Floats, Floats]:
        patches = cut_patches(pyramid, lafs.astype(np.float32), CELLS)[:, 0]
        flat = patches.reshape(len(lafs), -1)
        flat = flat - np.einsum("mp,p->m", flat, window)[:, None]
        contrast = np.sqrt(np.einsum("mp,mp,p->m", flat, flat, window))[:, None] + np.float32(1e-4)
        return flat / contrast, contrast

    wanted, _ = look(pyramid0, lafs0)
    slope_y, slope_x = (
        each.reshape(len(lafs0), -1) for each in np.gradient(wanted.reshape(-1, CELLS, CELLS), 2 / CELLS, axis=(1, 2))
    )
    # how the patch changes with position, and with the linear part of the frame
    change = np.stack([slope_x, slope_y, slope_x * x, slope_x * y, slope_y * x, slope_y * y], 1)
    change -= np.einsum("mkp,p->mk", change, window)[:, :, None]
    weighted = change * window
    normal = weighted @ change.transpose(0, 2, 1) + np.float32(1e-3) * np.eye(6, dtype=np.float32)
    frames = lafs1.copy()
    misses = look(pyramid1, frames)[0] - wanted
    first = np.einsum("mp,mp,p->m", misses, misses, window)
    least, best = first.copy(), frames[:, :, 2].copy()
    for _ in range(STEPS):
        step = np.linalg.solve(normal, np.einsum("mpc,mc->mp", weighted, misses)[:, :, None])[:, :, 0]
        # No step goes further than this, so that frames keep their area.
        step = np.clip(step.astype(np.float64), -_MOST_STEP, _MOST_STEP)
        frames = _undone(frames, step)
        misses = look(pyramid1, frames)[0] - wanted
        squares = np.einsum("mp,mp,p->m", misses, misses, window)
        better = squares < least
        least, best = np.where(better, squares, least), np.where(better[:, None], frames[:, :, 2], best)
    return best.astype(np.float32), first, least


def _undone(frames: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put the inverse of the step, (M, 6) in units of the frame, before each frame, (M, 2, 3)."""
    change = np.eye(2) + step[:, 2:].reshape(-1, 2, 2)
    linear = frames[:, :, :2] @ np.linalg.inv(change)
    return np.concatenate([linear, frames[:, :, 2:] - linear @ step[:, :2, None]], 2)
