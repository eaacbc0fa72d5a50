"""What peers compute: an image and its DoG keypoints become rows, for a support region of any size.

Every function takes the side of the support region in sigma of the keypoint (size = 2 sigma) and gives row i for
keypoint i; N = 0 gives 0 rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.keypoints import Keypoints, to_opencv
from kornia_bingan.patches import PATCH_SIZE, build_pyramid, cut_patches

Image = NDArray[np.uint8]

SIFT_SIDE_SIGMA = 12.0
"""Side of SIFT's window in sigma of the DoG keypoint: 4 x 4 histograms of 3 sigma each."""

BLID_SIDE_SIGMA = 13.5
"""The same of BEBLID, TEBLID and BoostDesc at scale factor 6.75, which OpenCV documents for SIFT's keypoints."""

BRISK_SIDE_SIGMA = 6.2
FREAK_SIDE_SIGMA = 12.6
"""The same of BRISK and FREAK, whose patterns grow with the size of the keypoint: found by painting around it. FREAK
takes keypoints below 7 px for such of 7 px, so that it sees 44 px at least."""

FIXED_WINDOW_PX = 56
"""BRIEF and LATCH compare places in 48 px, each with the 4 px around it, whatever the size of the keypoint."""
MOSAIC = 400
"""Squares that are described at once."""
FIXED_WINDOW_MARGIN = 40
"""They drop keypoints within 28 px of the border; the image is extended so that none is lost."""

PATCH_SIDE_SIGMA = 12.0
"""Side of the support region of patch networks, in sigma of the DoG keypoint: what they were trained on."""

ORB_SIDE_SIGMA = 12.0
ORB_UPSCALING = 2.0
"""ORB's 31 px patch in sigma of the keypoint, and the enlargement that lets small keypoints have it."""


def aligned(extractor: Any, margin: int, width: int, image: Image, points: Keypoints) -> NDArray[Any]:
    """Compute an OpenCV descriptor and put its rows in the order of the keypoints."""
    if not len(points):
        return np.zeros((0, width), np.uint8)
    found = to_opencv(points)
    for index, keypoint in enumerate(found):
        keypoint.class_id = index
        keypoint.pt = (keypoint.pt[0] + margin, keypoint.pt[1] + margin)
    if margin:
        image = np.asarray(cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT_101), np.uint8)
    kept, rows = extractor.compute(image, found)
    order = np.array([keypoint.class_id for keypoint in kept], np.int64)
    if rows is None or not np.array_equal(np.sort(order), np.arange(len(points))):
        raise JobError(f"{extractor.getDefaultName()} described {len(order)} of {len(points)} keypoints")
    aligned: NDArray[Any] = np.empty_like(rows)
    aligned[order] = rows
    return aligned


def sift_rows(image: Image, points: Keypoints, side_sigma: float = SIFT_SIDE_SIGMA) -> NDArray[np.float32]:
    """Compute SIFT descriptors on the image itself, at each keypoint's octave, values 0 .. 255 as float32 (N, 128).

    Another side makes the window smaller or larger, in the same octave and layer.

    Raises:
        UsageError: a keypoint's octave field does not fit its size, so that OpenCV would sample at a wrong scale.
    """
    octave = (points.octave & 255).astype(np.int8).astype(np.float64)  # OpenCV packs it as a signed byte
    layer = (points.octave >> 8) & 255
    nominal = 2 * 1.6 * 2.0 ** (octave + layer / 3)  # a third of an octave a layer; the rest is subpixel
    wrong = np.abs(np.log2(points.size / nominal)) > 0.5
    if wrong.any():
        index = int(np.argmax(wrong))
        raise UsageError(f"keypoint {index} has size {points.size[index]:g} and octave {points.octave[index]}: no DoG")
    # Without precise upscaling the descriptor is sampled a quarter of a pixel beside the keypoint, and still finds 2 %
    # more matches on the validation scenes: the peer gets its better setting.
    points = replace(points, size=points.size * np.float32(side_sigma / SIFT_SIDE_SIGMA))
    rows = aligned(cv2.SIFT.create(), 0, 128, image, points)
    return rows.astype(np.float32)


def root_sift_rows(image: Image, points: Keypoints, side_sigma: float = SIFT_SIDE_SIGMA) -> NDArray[np.float32]:
    """Take the square root of SIFT vectors of sum 1 (Arandjelovic and Zisserman, CVPR 2012)."""
    rows = sift_rows(image, points, side_sigma)
    return np.asarray(np.sqrt(rows / np.maximum(rows.sum(1, keepdims=True), 1e-9)), np.float32)


def orb_rows(image: Image, points: Keypoints, side_sigma: float = ORB_SIDE_SIGMA) -> NDArray[np.uint8]:
    """Compute ORB's bits for any keypoints.

    ``ORB.compute`` ignores the size of a keypoint and reads its octave: a level of its pyramid in which its patch is
    31 px. So the octave is chosen that makes the patch nearest to ``side_sigma``, in an image enlarged by
    ``ORB_UPSCALING``, since small keypoints would need a level below the first. A level must be larger than the patch:
    an image that is too small for the largest keypoint is extended by reflection, or ORB would see less than it should.
    """
    side = side_sigma / 2 * ORB_UPSCALING * points.size / 31
    octave = np.maximum(np.round(np.log(np.maximum(side, 1e-6)) / np.log(1.2)), 0).astype(np.int32)
    top = int(octave.max(initial=0))
    least = int(np.ceil(64 * 1.2**top / ORB_UPSCALING))
    margin = max(0, (least - min(image.shape) + 1) // 2)
    if margin:
        image = np.asarray(cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT_101), np.uint8)
    height, width = image.shape
    size = (round(width * ORB_UPSCALING), round(height * ORB_UPSCALING))
    factor = np.array(size) / np.array([width, height])
    large = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    moved = Keypoints(
        ((points.xy + margin + 0.5) * factor - 0.5).astype(np.float32),
        points.size,
        np.where(points.angle_deg == -1, 0, points.angle_deg).astype(np.float32),
        points.response,
        octave,
    )
    # Without an edge threshold no keypoint is dropped; ORB extends its levels by reflection.
    return np.asarray(aligned(cv2.ORB.create(nlevels=top + 1, edgeThreshold=0), 0, 32, large, moved), np.uint8)


def sized_rows(
    extractor: Any, width: int, usual_sigma: float, side_sigma: float, image: Image, points: Keypoints
) -> NDArray[np.uint8]:
    """Compute bits of an OpenCV descriptor whose pattern is ``usual_sigma`` wide, for one of ``side_sigma``.

    The image is extended by reflection, since BRISK and FREAK drop keypoints whose pattern reaches out of it.
    """
    sized = replace(points, size=points.size * np.float32(side_sigma / usual_sigma))
    margin = (
        int(np.ceil(side_sigma / 2 * points.size.max(initial=0))) + 16
    )  # twice the half side: corners, and rounding
    return np.asarray(aligned(extractor, margin, width, image, sized), np.uint8)


def fixed_window_rows(extractor: Any, width: int, side_sigma: float, image: Image, points: Keypoints) -> NDArray[Any]:
    """Compute bits of a descriptor with a window of ``FIXED_WINDOW_PX`` for squares of ``side_sigma``.

    The squares are resampled to the size of the window, with a margin, and laid out beside each other; each is
    described in its middle, upright, as it was turned when it was cut.
    """
    pixels = FIXED_WINDOW_PX + 16
    parts = []
    for start in range(0, len(points), MOSAIC):
        chosen = points[start : start + MOSAIC]
        tiles = cut_square_patches(image, chosen, side_sigma * pixels / FIXED_WINDOW_PX, pixels)[:, 0]
        columns = int(np.ceil(np.sqrt(len(tiles))))
        mosaic = np.zeros((pixels * -(-len(tiles) // columns), pixels * columns), np.uint8)
        xy = np.empty((len(tiles), 2), np.float32)
        for index, tile in enumerate(np.round(255 * tiles).astype(np.uint8)):
            y, x = (pixels * k for k in divmod(index, columns))
            mosaic[y : y + pixels, x : x + pixels] = tile
            xy[index] = x + (pixels - 1) / 2, y + (pixels - 1) / 2
        middles = replace(chosen, xy=xy, angle_deg=np.zeros(len(tiles), np.float32))
        parts.append(aligned(extractor, FIXED_WINDOW_MARGIN, width, mosaic, middles))
    return np.concatenate([np.zeros((0, width), np.uint8), *parts])


def hash_sift_rows(
    table: NDArray[np.float32], image: Image, points: Keypoints, side_sigma: float = SIFT_SIDE_SIGMA
) -> NDArray[np.uint8]:
    """Project SIFT vectors by a table (bits, 129) and keep the signs (Suarez et al., RA-L 2021)."""
    rows = sift_rows(image, points, side_sigma)
    return np.packbits(np.column_stack([np.ones(len(rows), np.float32), rows]) @ table.T > 0, axis=1)


def cut_square_patches(
    image: Image, points: Keypoints, side_sigma: float, pixels: int = PATCH_SIZE
) -> NDArray[np.float32]:
    """Cut oriented squares of ``side_sigma`` times sigma around DoG keypoints, float32 (N, 1, 32, 32) in [0, 1]."""
    angle = np.deg2rad(np.where(points.angle_deg == -1, 0.0, points.angle_deg))
    half = side_sigma / 4 * points.size  # size = 2 sigma
    cos, sin = half * np.cos(angle), half * np.sin(angle)
    x, y = points.xy.T
    lafs = np.stack([np.stack([cos, -sin, x], 1), np.stack([sin, cos, y], 1)], 1)
    return cut_patches(build_pyramid(image), lafs.astype(np.float32), pixels)


@torch.no_grad()
def network_rows(net: nn.Module, side_sigma: float, image: Image, points: Keypoints) -> NDArray[np.float32]:
    """Describe square patches by a network that takes (B, 1, 32, 32) in [0, 1]."""
    cut = torch.from_numpy(cut_square_patches(image, points, side_sigma))
    if not len(cut):
        cut = torch.zeros(1, 1, PATCH_SIZE, PATCH_SIZE)
    rows = torch.cat([net(piece) for piece in torch.split(cut, 512)]).float().numpy()
    return np.asarray(rows[: len(points)], np.float32)
