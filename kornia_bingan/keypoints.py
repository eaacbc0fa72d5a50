"""An image becomes keypoints, and keypoints become support regions (LAFs).

The frame is OpenCV's and Kornia's: the centre of the first pixel is (0, 0). Angles are OpenCV's (degrees, clockwise on
screen); Kornia's LAF angle is the negative.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.work.options import Detector

Support = float | NDArray[np.floating[Any]] | None

BLOB_SUPPORT = 6.0
"""Half the side of the support region over OpenCV's ``size`` for blob detectors: 24 sigma a side (size = 2 sigma)."""

ORB_SUPPORT = 0.65
"""The same for ORB, whose ``size`` is the side of its own patch (31 px by default) at the keypoint's pyramid level."""

FAST_SUPPORT = 2.0
"""The same for FAST, which calls every corner 7 px large."""

BRISK_SUPPORT = 1.0
"""The same for BRISK, which calls a corner of its first level 12 px large."""

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
        mask: uint8, shape (H, W); keypoints are only found where it is not 0, and the strongest of those are kept.

    Raises:
        UsageError: the image is not uint8 (H, W), the mask has another size, or the detector's name is unknown.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 2 or image.dtype != np.uint8 or image.size == 0:
        raise UsageError(f"detect needs a grey uint8 image (H, W), not empty, got {_words(image)}")
    if mask is not None and (not isinstance(mask, np.ndarray) or mask.shape != image.shape or mask.dtype != np.uint8):
        raise UsageError(f"the mask is {_words(mask)} but the image is {image.shape}; give uint8 of its size")
    if max_keypoints < 1:
        raise UsageError(f"max_keypoints is {max_keypoints}; give 1 or more")
    if detector == "dog":
        # OpenCV's SIFT applies its limit before the mask (ORB after it), so with a mask it gets none.
        limit = max_keypoints if mask is None else 0
        found = _dog(image, limit, mask) if image.size <= MOST_PIXELS else _dog_in_tiles(image)
    elif detector == "orb":
        found = unbiased_orb(from_opencv(cv2.ORB.create(max_keypoints).detect(image, mask)), image.shape)
    else:
        raise UsageError(f"the detector is '{detector}'; choose dog or orb")
    if mask is not None:
        found = found[_allowed(found.xy, mask)]
    return found[strongest(found)[:max_keypoints]]


def strongest(keypoints: Keypoints) -> NDArray[np.intp]:
    """Give the order from the strongest to the weakest keypoint, int64, shape (N,).

    Ties in response are broken by position, so that the order does not depend on OpenCV's threads.
    """
    return np.lexsort((keypoints.angle_deg, keypoints.xy[:, 0], keypoints.xy[:, 1], -keypoints.response))


def inside(keypoints: Keypoints, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Say which keypoints lie in an image (height, width), bool, shape (N,); a NaN lies outside."""
    height, width = shape
    x, y = keypoints.xy.T
    within: NDArray[np.bool_] = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    return within


def has_region(keypoints: Keypoints) -> NDArray[np.bool_]:
    """Say which keypoints have a positive, finite size and a finite angle, bool, shape (N,)."""
    sized: NDArray[np.bool_] = (keypoints.size > 0) & np.isfinite(keypoints.size) & np.isfinite(keypoints.angle_deg)
    return sized


def check_inside(keypoints: Keypoints, shape: tuple[int, ...], usable: NDArray[np.bool_] | None = None) -> None:
    """Refuse keypoints without a support region in an image (height, width), or those that are not ``usable``.

    Raises:
        UsageError: a keypoint is outside of the image, is not finite, or has no size; the message names the index.
    """
    if usable is None:
        usable = inside(keypoints, shape) & has_region(keypoints)
    if not usable.all():
        index = int(np.argmin(usable))
        x, y = keypoints.xy[index]
        raise UsageError(
            f"keypoint {index} at ({x:g}, {y:g}) with size {keypoints.size[index]:g} and angle "
            f"{keypoints.angle_deg[index]:g} must be inside the image of {shape[1]} x {shape[0]} pixels, with a "
            "positive size and a finite angle"
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


def has_layer(keypoints: Keypoints) -> NDArray[np.bool_]:
    """Say which keypoints are blobs by their octave field, bool, shape (N,).

    SIFT writes its layer (1 or more) into the second byte; :func:`kornia_bingan.kornia.keypoints_from_lafs` writes 255.
    """
    marked: NDArray[np.bool_] = ((keypoints.octave & 0xFF00) != 0) | ((keypoints.octave & 0xFF) == 0xFF)
    return marked


def support_half_sides(keypoints: Keypoints, support: Support = None) -> NDArray[np.float32]:
    """Give half the side of each keypoint's support region in pixels, float32, shape (N,).

    A keypoint says by its fields what its size means: SIFT's octave field names a layer, ORB's default sizes are
    31 x 1.2^octave, and FAST gives size 7 and no angle. Where a set has other keypoints too, none without a layer can
    be told (a few sizes of BRISK look like ORB's, and the first octave of every ORB with 31 px patches does): they all
    count as blobs, with a warning.

    Args:
        keypoints: N keypoints.
        support: half the side over ``size``, for all keypoints or of each (N,); None recognises them as above.

    Raises:
        UsageError: ``support`` is not positive and finite, or has another shape.
    """
    if support is not None:
        return (keypoints.size * check_support(support)).astype(np.float32)
    marked = has_layer(keypoints)
    octave = np.clip(keypoints.octave, 0, 31)
    is_orb = (keypoints.octave == octave) & (
        np.abs(keypoints.size - _ORB_PATCH * _ORB_SCALE**octave) < 0.001 * keypoints.size
    )
    is_fast = (keypoints.size == _FAST_SIZE) & (keypoints.angle_deg == -1) & (keypoints.octave == 0)
    unknown = ~(marked | is_orb | is_fast)
    if unknown.any():
        warnings.warn(
            f"the size of {int((~marked).sum()):,} of {len(keypoints):,} keypoints is not that of SIFT, default ORB or "
            f"FAST, so they are described as blobs, {2 * BLOB_SUPPORT:g} times their size a side; name the detector "
            f"that found them (detector=), or give support= (half a side over the size: {BLOB_SUPPORT:g} for blobs, "
            f"{ORB_SUPPORT:g} for ORB)",
            stacklevel=2,
        )
        marked |= True
    factors = np.where(marked, BLOB_SUPPORT, np.where(is_orb, ORB_SUPPORT, FAST_SUPPORT))
    return (keypoints.size * factors).astype(np.float32)


def check_support(support: float | NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Give ``support`` as float64 if it is a positive, finite factor (or an array of them).

    Raises:
        UsageError: it is not.
    """
    values = np.asarray(support)
    if values.dtype.kind not in "fiu" or not (np.isfinite(values) & (values > 0)).all():
        raise UsageError(
            f"support is {support!r}; give half the side of the support region over the keypoint's size, such as "
            f"{BLOB_SUPPORT:g} for blobs or {ORB_SUPPORT:g} for ORB"
        )
    return values.astype(np.float64)


def support_regions(keypoints: Keypoints, support: Support = None) -> NDArray[np.float32]:
    """Turn keypoints into the LAFs that the network was trained with, float32, shape (N, 2, 3).

    A LAF maps the square [-1, 1]^2 to the support region: half side times rotation, and the centre in the last column.
    ``support`` is that of :func:`support_half_sides`.
    """
    angle = np.deg2rad(np.where(keypoints.angle_deg == -1, 0.0, keypoints.angle_deg))
    half = support_half_sides(keypoints, support)
    cos, sin = half * np.cos(angle), half * np.sin(angle)
    lafs = np.stack([np.stack([cos, -sin, keypoints.xy[:, 0]], 1), np.stack([sin, cos, keypoints.xy[:, 1]], 1)], 1)
    return lafs.astype(np.float32)


def _words(values: object) -> str:
    from kornia_bingan.bits import dtype_and_shape  # loads torch, which the processes of COLMAP do without

    return dtype_and_shape(values)
