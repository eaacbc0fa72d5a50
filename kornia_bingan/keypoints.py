"""An image becomes keypoints, and keypoints become support regions (LAFs).

The frame is OpenCV's and Kornia's: the centre of the first pixel is (0, 0). Angles are OpenCV's (degrees, clockwise on
screen); Kornia's LAF angle is the negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.bits import dtype_and_shape
from kornia_bingan.errors import UsageError

Detector = Literal["dog", "orb"]

BLOB_SUPPORT = 5.0
"""Half the side of the support region over OpenCV's ``size`` for blob detectors: 20 sigma a side (size = 2 sigma)."""

ORB_SUPPORT = 0.65
"""The same for ORB, whose ``size`` is the side of its own 31 px patch at the keypoint's pyramid level."""

FAST_SUPPORT = 2.0
"""The same for FAST, which calls every corner 7 px large."""

MOST_PIXELS = 2**22
"""OpenCV's SIFT doubles the picture and keeps some 11 float32 copies: 176 bytes a pixel. Larger ones go in tiles."""
_TILE, _MARGIN = 1024, 128
_REDUCTION = 4
_FINE_SIZE = 24.0
"""Largest size, in pixels, of the blobs that tiles look for; their orientation needs less than the margin."""

_ORB_PATCH, _FAST_SIZE = 31.0, 7.0
_ORB_SCALE = 1.2


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of one image; all arrays have N rows.

    Attributes:
        xy: pixels, float32, shape (N, 2).
        size: OpenCV's diameter of the keypoint in pixels, float32, shape (N,).
        angle_deg: OpenCV's angle, float32, shape (N,); -1 means unset and is treated as 0 (upright).
        response: strength, float32, shape (N,).
        octave: OpenCV's octave field, int32, shape (N,).
    """

    xy: NDArray[np.float32]
    size: NDArray[np.float32]
    angle_deg: NDArray[np.float32]
    response: NDArray[np.float32]
    octave: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.xy)

    def __getitem__(self, index: slice | NDArray[np.generic]) -> Keypoints:
        return Keypoints(
            self.xy[index], self.size[index], self.angle_deg[index], self.response[index], self.octave[index]
        )

    def enlarged(self, factors: tuple[float, float]) -> Keypoints:
        """Give the same keypoints on a picture whose width and height are so many times larger."""
        xy = (self.xy + 0.5) * np.array(factors, np.float32) - np.float32(0.5)
        size = self.size * np.float32(np.sqrt(factors[0] * factors[1]))
        return Keypoints(xy, size, self.angle_deg, self.response, self.octave)


def from_opencv(keypoints: Sequence[cv2.KeyPoint]) -> Keypoints:
    """Turn OpenCV keypoints into arrays; an empty sequence gives arrays with 0 rows."""
    rows = np.array([(*k.pt, k.size, k.angle, k.response) for k in keypoints], np.float32).reshape(-1, 5)
    octave = np.array([k.octave for k in keypoints], np.int32)
    return Keypoints(rows[:, :2].copy(), rows[:, 2].copy(), rows[:, 3].copy(), rows[:, 4].copy(), octave)


def to_opencv(keypoints: Keypoints) -> list[cv2.KeyPoint]:
    """Turn arrays into OpenCV keypoints, octave included (``SIFT.compute`` needs it)."""
    return [
        cv2.KeyPoint(float(x), float(y), float(size), float(angle), float(response), int(octave))
        for (x, y), size, angle, response, octave in zip(
            keypoints.xy, keypoints.size, keypoints.angle_deg, keypoints.response, keypoints.octave, strict=True
        )
    ]


def detect(
    image: NDArray[np.uint8],
    detector: Detector = "dog",
    max_keypoints: int = 4096,
    mask: NDArray[np.uint8] | None = None,
) -> Keypoints:
    """Find the strongest keypoints of an image, strongest first.

    Args:
        image: grey image, uint8, shape (H, W).
        detector: ``dog`` is OpenCV's SIFT detector without its quarter-pixel bias (precise upscaling), ``orb`` its ORB
            detector with the positions of its rounded pyramid levels corrected. Blobs of pictures over 4 megapixels are
            looked for in tiles, and the large ones on a reduced picture, so that memory stays below 1 GB.
        max_keypoints: upper bound of the number returned.
        mask: uint8, shape (H, W); keypoints are only found where it is not 0.

    Raises:
        UsageError: the image is not uint8 (H, W), the mask has another size, or the detector's name is unknown.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 2 or image.dtype != np.uint8 or image.size == 0:
        raise UsageError(f"detect needs a grey uint8 image (H, W), not empty, got {dtype_and_shape(image)}")
    if mask is not None and (not isinstance(mask, np.ndarray) or mask.shape != image.shape or mask.dtype != np.uint8):
        raise UsageError(f"the mask is {dtype_and_shape(mask)} but the image is {image.shape}; give uint8 of its size")
    if max_keypoints < 1:
        raise UsageError(f"max_keypoints is {max_keypoints}; give 1 or more")
    if detector == "dog":
        found = _dog(image, max_keypoints, mask) if image.size <= MOST_PIXELS else _dog_in_tiles(image)
    elif detector == "orb":
        found = unbiased_orb(from_opencv(cv2.ORB.create(max_keypoints).detect(image, mask)), image.shape)
    else:
        raise UsageError(f"the detector is '{detector}'; choose dog or orb")
    if mask is not None:
        found = found[_allowed(found.xy, mask)]
    # Ties in response are broken by position, so that the order does not depend on OpenCV's threads.
    order = np.lexsort((found.angle_deg, found.xy[:, 0], found.xy[:, 1], -found.response))
    return found[order[:max_keypoints]]


def check_inside(keypoints: Keypoints, shape: tuple[int, ...]) -> None:
    """Refuse keypoints without a support region in an image (height, width).

    Raises:
        UsageError: a keypoint is outside of the image, is not finite, or has no size; the message names the index.
    """
    height, width = shape
    x, y = keypoints.xy.T
    # Comparisons with NaN are false, so that NaN counts as outside and as no size.
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    usable = inside & (keypoints.size > 0) & np.isfinite(keypoints.size) & np.isfinite(keypoints.angle_deg)
    if not usable.all():
        index = int(np.argmin(usable))
        raise UsageError(
            f"keypoint {index} at ({x[index]:g}, {y[index]:g}) with size {keypoints.size[index]:g} and angle "
            f"{keypoints.angle_deg[index]:g} must be inside the image of {width} x {height} pixels, with a positive "
            "size and a finite angle"
        )


def _dog(image: NDArray[np.uint8], max_keypoints: int = 0, mask: NDArray[np.uint8] | None = None) -> Keypoints:
    sift = cv2.SIFT.create(nfeatures=max_keypoints, contrastThreshold=0.02, enable_precise_upscale=True)
    return from_opencv(sift.detect(image, mask))


def _dog_in_tiles(image: NDArray[np.uint8]) -> Keypoints:
    """Find fine blobs in overlapping tiles, each in the middle of one, and coarse ones on a reduced picture."""
    height, width = image.shape
    parts = []
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            y, x = max(0, top - _MARGIN), max(0, left - _MARGIN)
            found = _dog(np.ascontiguousarray(image[y : top + _TILE + _MARGIN, x : left + _TILE + _MARGIN]))
            xy = found.xy + np.array([x, y], np.float32)
            inside = ((xy >= [left - 0.5, top - 0.5]) & (xy < [left + _TILE - 0.5, top + _TILE - 0.5])).all(1)
            found = Keypoints(xy, found.size, found.angle_deg, found.response, found.octave)
            parts.append(found[inside & (found.size <= _FINE_SIZE)])
    small = (max(1, width // _REDUCTION), max(1, height // _REDUCTION))
    reduced = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), np.uint8)
    found = _dog(reduced) if reduced.size <= MOST_PIXELS else _dog_in_tiles(reduced)
    found = found.enlarged((width / small[0], height / small[1]))
    # OpenCV's octave is a signed byte; the reduced picture is two octaves further on.
    octave = (found.octave & ~0xFF) | ((found.octave + 2) & 0xFF)
    coarse = Keypoints(found.xy, found.size, found.angle_deg, found.response, octave)
    parts.append(coarse[coarse.size > _FINE_SIZE])
    fields = ("xy", "size", "angle_deg", "response", "octave")
    return Keypoints(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def _allowed(xy: NDArray[np.float32], mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Say which keypoints have no masked pixel beside them; OpenCV only looks at the nearest one."""
    limit = np.array(mask.shape[::-1]) - 1
    low, high = (np.clip(side(xy).astype(int), 0, limit) for side in (np.floor, np.ceil))
    corners = [mask[y[:, 1], x[:, 0]] != 0 for x in (low, high) for y in (low, high)]
    allowed: NDArray[np.bool_] = np.logical_and.reduce(corners)
    return allowed


def unbiased_orb(keypoints: Keypoints, shape: tuple[int, ...]) -> Keypoints:
    """ORB multiplies level positions by 1.2^octave although the level is a rounded resize: up to 1.7 px off."""
    sizes = np.array([shape[1], shape[0]], np.float64)
    factor = _ORB_SCALE ** keypoints.octave.astype(np.float64)[:, None]
    xy = (keypoints.xy / factor + 0.5) * sizes / np.round(sizes / factor) - 0.5
    return Keypoints(xy.astype(np.float32), keypoints.size, keypoints.angle_deg, keypoints.response, keypoints.octave)


def support_half_sides(keypoints: Keypoints) -> NDArray[np.float32]:
    """Give half the side of each keypoint's support region in pixels, float32, shape (N,).

    ORB keypoints are recognised by their size, 31 x 1.2^octave, and those of FAST by their size 7 without an angle;
    all others count as blobs.
    """
    octave = np.clip(keypoints.octave, 0, 31)
    is_orb = (keypoints.octave == octave) & (
        np.abs(keypoints.size - _ORB_PATCH * _ORB_SCALE**octave) < 0.01 * keypoints.size
    )
    is_fast = (keypoints.size == _FAST_SIZE) & (keypoints.angle_deg == -1) & (keypoints.octave == 0)
    factors = np.where(is_orb, ORB_SUPPORT, np.where(is_fast, FAST_SUPPORT, BLOB_SUPPORT))
    return (keypoints.size * factors).astype(np.float32)


def support_regions(keypoints: Keypoints) -> NDArray[np.float32]:
    """Turn keypoints into the LAFs that the network was trained with, float32, shape (N, 2, 3).

    A LAF maps the square [-1, 1]^2 to the support region: half side times rotation, and the centre in the last column.
    """
    angle = np.deg2rad(np.where(keypoints.angle_deg == -1, 0.0, keypoints.angle_deg))
    half = support_half_sides(keypoints)
    cos, sin = half * np.cos(angle), half * np.sin(angle)
    lafs = np.stack([np.stack([cos, -sin, keypoints.xy[:, 0]], 1), np.stack([sin, cos, keypoints.xy[:, 1]], 1)], 1)
    return lafs.astype(np.float32)
