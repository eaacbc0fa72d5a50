"""Matched keypoints of many images get exact together: what every match says of two is weighed over whole tracks.

Each match says by how much its second keypoint misses the place that looks like its first
(:func:`kornia_bingan.matching.refine.align`). The shifts of all keypoints that agree best with all matches are a linear
least squares problem, after Dusmanu et al., "Multi-View Optimization of Local Feature Geometry", ECCV 2020; here each
shift is drawn a little to 0, and matches that disagree are left out before the last solution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.keypoints import Keypoints
from kornia_bingan.matching.refine import Alignment

Pair = tuple[str, str]
Complex = NDArray[np.complex64]

MOST_DIFFERENCE = 0.5
"""Patches that differ by more after alignment, see :class:`kornia_bingan.matching.refine.Alignment`, are not equal."""

LEAST_REACH_PX, REACH = 2.0, 0.5
"""A keypoint moves less than its size, and less than the larger one of 2 pixels and half its size."""

LEAST_MISS_PX, MISS = 0.5, 0.1
"""A match whose keypoints, both moved, miss each other by more than the larger one of half a pixel and 0.1 of the
size is left out."""

_TO_STAY = np.float32(0.3)  # weight of no shift; a match weighs 0.2 to 2
_SOLUTIONS, _SWEEPS = 2, 15


@dataclass(frozen=True)
class AlignedMatches:
    """Matches of two images.

    Attributes:
        rows: keypoints in the first and second image, any integer type, (M, 2).
        shift: see :class:`kornia_bingan.matching.refine.Alignment`, float32 (M, 2).
        difference: of the patches after alignment, float32 (M,).
    """

    rows: NDArray[np.integer]
    shift: NDArray[np.float32]
    difference: NDArray[np.float32]

    @classmethod
    def of(cls, rows: NDArray[np.integer], alignment: Alignment) -> AlignedMatches:
        """Take what :func:`kornia_bingan.matching.refine.align` says of the matches."""
        return cls(rows, alignment.shift, alignment.after)


def exact_keypoints(
    keypoints: Mapping[str, Keypoints],
    pairs: Mapping[Pair, AlignedMatches],
    fixed: Mapping[str, Keypoints] | None = None,
) -> tuple[dict[str, Keypoints], dict[Pair, NDArray[np.bool_]]]:
    """Move the keypoints of many images to where their patches agree.

    Args:
        keypoints: of each image.
        pairs: matches of two images each.
        fixed: keypoints of images that are exact already and stay where they are.

    Returns:
        The keypoints, with positions of their own, and for each pair which of its matches agree, bool (M,): those whose
        patches could be aligned, with a shift that other matches of the same keypoints confirm.
    """
    first_row = dict(zip(keypoints, np.cumsum([0, *(len(points) for points in keypoints.values())]), strict=False))
    count = sum(len(points) for points in keypoints.values())
    if not pairs:
        return {**keypoints, **(fixed or {})}, {}
    parts = [_edges(keypoints, first_row, pair, matches) for pair, matches in pairs.items()]
    here, there = (np.concatenate([getattr(part, name) for part in parts]) for name in ("here", "there"))
    shift, turn, weight, tolerance = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("shift", "turn", "weight", "tolerance")
    )
    agree = weight > 0
    stays, staying = np.zeros(count, bool), np.zeros(count, np.complex64)
    for name, points in (fixed or {}).items():
        rows = slice(first_row[name], first_row[name] + len(points))
        offset = points.xy - keypoints[name].xy
        stays[rows], staying[rows] = True, offset[:, 0] + 1j * offset[:, 1]
    for solution in range(_SOLUTIONS):
        moved = staying
        for _ in range(_SWEEPS):
            found = _swept(here, there, shift, turn, np.where(agree, weight, np.float32(0)), moved)
            moved = np.where(stays, staying, found)
        miss = np.abs(shift + turn * moved[here] - moved[there])
        # The first solution is drawn by those that disagree, so its limit is wider.
        agree &= miss < tolerance * (_SOLUTIONS - solution)
    xy = np.stack([moved.real, moved.imag], 1)
    exact = {
        name: replace(points, xy=points.xy + xy[first_row[name] : first_row[name] + len(points)])
        for name, points in keypoints.items()
    }
    ends = np.cumsum([len(matches.rows) for matches in pairs.values()])[:-1]
    return exact, dict(zip(pairs, np.split(agree, ends), strict=True))


@dataclass(frozen=True)
class _Edges:
    """Matches as rows of all keypoints; shifts and turns (with scales) of the plane are complex numbers."""

    here: NDArray[np.int64]
    there: NDArray[np.int64]
    shift: Complex
    turn: Complex
    weight: NDArray[np.float32]
    tolerance: NDArray[np.float32]


def _edges(
    keypoints: Mapping[str, Keypoints], first_row: Mapping[str, int], pair: Pair, matches: AlignedMatches
) -> _Edges:
    rows = matches.rows.astype(np.int64).reshape(-1, 2)
    points0, points1 = keypoints[pair[0]][rows[:, 0]], keypoints[pair[1]][rows[:, 1]]
    angles = [points.angle_deg for points in (points0, points1)]
    known = np.isfinite(angles).all(0) & (np.min(angles, 0) >= 0)
    angle = np.deg2rad(np.subtract(angles[1], angles[0], out=np.zeros(len(rows), np.float32), where=known))
    aligned = matches.difference < MOST_DIFFERENCE  # only where both sizes are positive numbers
    size = np.where(aligned, points1.size, 1).astype(np.float32)
    scale = np.divide(points1.size, points0.size, out=np.ones(len(rows), np.float32), where=aligned)
    far = np.linalg.norm(matches.shift, axis=1)
    usable = aligned & (far < np.minimum(size, np.maximum(LEAST_REACH_PX, REACH * size)))
    weight = np.where(usable, 0.1 / (0.05 + np.where(usable, matches.difference, 0)), 0)
    return _Edges(
        rows[:, 0] + first_row[pair[0]],
        rows[:, 1] + first_row[pair[1]],
        (matches.shift[:, 0] + 1j * matches.shift[:, 1]).astype(np.complex64),
        (scale * np.exp(1j * angle)).astype(np.complex64),
        weight.astype(np.float32),
        np.maximum(LEAST_MISS_PX, MISS * size).astype(np.float32),
    )


def _swept(
    here: NDArray[np.int64],
    there: NDArray[np.int64],
    shift: Complex,
    turn: Complex,
    weight: NDArray[np.float32],
    moved: Complex,
) -> Complex:
    """One sweep of Jacobi's method: each keypoint goes where those that it is matched with want it, complex64 (N,)."""
    count = len(moved)
    total = np.bincount(here, weight, count) + np.bincount(there, weight, count) + _TO_STAY
    forth, back = weight * (shift + turn * moved[here]), weight * ((moved[there] - shift) / turn)
    x = np.bincount(there, forth.real, count) + np.bincount(here, back.real, count)
    y = np.bincount(there, forth.imag, count) + np.bincount(here, back.imag, count)
    swept: Complex = ((x + 1j * y) / total).astype(np.complex64)
    return swept
