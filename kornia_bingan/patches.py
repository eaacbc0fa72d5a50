"""An image and LAFs become patches: one resampling pass a pyramid level for all support regions.

Cell (i, j) of a patch samples ``c + A (u_j, u_i)`` with ``u_k = (2k + 1) / patch_size - 1``, as Kornia's
``extract_patches_from_pyramid`` does; outside the image the border pixel repeats.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.bits import dtype_and_shape
from kornia_bingan.errors import UsageError

Pyramid = list[NDArray[np.float32]] | list[NDArray[np.uint8]]
"""Levels of a picture, each half as large as the one before: float32 in [0, 1], or bytes in [0, 255]."""

PATCH_SIZE = 32
_CELLS = 2**17  # sampled at a time: their maps stay in the processor's cache

SIDE_LIMIT = 32_767
"""OpenCV cannot sample from pictures with a side of so many pixels."""


def build_pyramid(image: NDArray[np.uint8] | NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Halve a grey image by area averaging until its short side is under 16 pixels.

    Args:
        image: uint8 in [0, 255] or float32 in [0, 1], shape (H, W).

    Returns:
        Levels, float32 in [0, 1]; level 0 is the image itself.

    Raises:
        UsageError: another dtype or shape, or a side of 32,767 pixels and more (OpenCV cannot sample from it).
    """
    if not (isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype in (np.uint8, np.float32) and image.size):
        raise UsageError(f"a grey image (H, W) of uint8 or float32 is needed, got {dtype_and_shape(image)}")
    if max(image.shape) >= SIDE_LIMIT:
        raise UsageError(f"the image is {image.shape[1]} x {image.shape[0]}; resize it below 32,767 pixels a side")
    level = np.ascontiguousarray(image, np.float32)
    if image.dtype == np.uint8:
        level /= np.float32(255)  # in place: a conversion is no view of the caller's image
    levels = [level]
    while min(level.shape) >= 32:
        height, width = level.shape
        level = np.asarray(cv2.resize(level, (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.float32)
        levels.append(level)
    return levels


def cut_patches(pyramid: Pyramid, lafs: NDArray[np.float32], patch_size: int = PATCH_SIZE) -> NDArray[np.float32]:
    """Sample the support regions of LAFs.

    Each region is sampled from the level at which a step of the grid is between 0.71 and 1.41 pixels.

    Args:
        pyramid: levels of :func:`build_pyramid`; bytes are scaled.
        lafs: pixels of level 0, pixel centre at integer coordinates, shape (N, 2, 3).
        patch_size: cells a side.

    Returns:
        Patches, float32 in [0, 1], shape (N, 1, patch_size, patch_size); N = 0 gives (0, 1, patch_size, patch_size).

    Raises:
        UsageError: a LAF has a value that is not finite, or no area; the message names the index.
    """
    lafs = np.asarray(lafs, np.float64)
    if lafs.ndim != 3 or lafs.shape[1:] != (2, 3):
        raise UsageError(f"LAFs have shape (N, 2, 3), got {lafs.shape}")
    area = np.abs(lafs[:, 0, 0] * lafs[:, 1, 1] - lafs[:, 0, 1] * lafs[:, 1, 0])
    bad = ~np.isfinite(lafs).all((1, 2)) | ~(area > 1e-6)
    if bad.any():
        index = int(np.argmax(bad))
        raise UsageError(f"LAF {index} is not finite or has no area: {lafs[index].tolist()}")
    patches = np.empty((len(lafs), 1, patch_size, patch_size), np.float32)
    step = 2 * np.sqrt(area) / patch_size
    level_of = np.clip(np.round(np.log2(step)), 0, len(pyramid) - 1).astype(int)
    unit = ((2 * np.arange(patch_size) + 1) / patch_size - 1).astype(np.float32)
    height, width = pyramid[0].shape
    chunk = max(1, _CELLS // patch_size**2)
    for level in np.unique(level_of):
        source = pyramid[level]
        # The frame is moved to pixel corners for scaling, since levels of odd sizes are not halved exactly.
        scale = np.array([source.shape[1] / width, source.shape[0] / height])
        rows = np.flatnonzero(level_of == level)
        frames = lafs[rows] * scale[:, None]
        frames[:, :, 2] += 0.5 * scale - 0.5
        frames = frames.astype(np.float32)
        for start in range(0, len(rows), chunk):
            maps = []
            for axis in frames[start : start + chunk].transpose(1, 0, 2):
                along, across = axis[:, 0, None] * unit, axis[:, 1, None] * unit + axis[:, 2, None]
                maps.append((across[:, :, None] + along[:, None]).reshape(-1, patch_size))
            cut = cv2.remap(source, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            patches[rows[start : start + chunk], 0] = cut.reshape(-1, patch_size, patch_size)
    if pyramid[0].dtype == np.uint8:
        patches /= 255
    return patches
