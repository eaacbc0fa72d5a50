"""What the matches around a keypoint say about it: who they are, and where their local affine map puts it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.keypoints import Keypoints

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

NEIGHBOURS = 24
"""Matches near a keypoint, in each picture, that decide with it."""

POSITION_SCALE, FRAME_SCALE = 0.35, 0.5
"""Deviations at which agreement falls to 1/e: of positions, relative to the distance of the neighbour, and of frames,
in natural logarithms of the scale and in radians."""

_LEAST_PX = 3.0
"""Added to distances of neighbours, since positions are not more exact than that for frames of this kind."""

_LEAST_SPREAD_PX = np.float32(2)
"""Neighbours that miss their map by less than this are not weighed down."""

_DRAWN = np.float32(0.02)
"""Part of a neighbour that draws the linear part of a map to the mean similarity of their frames."""


@dataclass(frozen=True)
class Moves:
    """How matches go from one picture to the other: positions (M, 2), logarithms of scales and turns (M,)."""

    here: Floats
    there: Floats
    scale: Floats
    turn: Floats

    def reversed(self) -> Moves:
        """Give the way back."""
        return Moves(self.there, self.here, -self.scale, -self.turn)

    def __getitem__(self, rows: Rows) -> Moves:
        return Moves(self.here[rows], self.there[rows], self.scale[rows], self.turn[rows])


def moves(keypoints0: Keypoints, keypoints1: Keypoints) -> Moves:
    """Compare the frames of matched keypoints; an unknown size or angle in either picture counts as equal in both."""
    sizes0, sizes1 = (points.size.astype(np.float32) for points in (keypoints0, keypoints1))
    known = np.isfinite(sizes0) & np.isfinite(sizes1) & (np.minimum(sizes0, sizes1) > 0)
    scale = np.log(np.divide(sizes1, sizes0, out=np.ones_like(sizes0), where=known))
    angles0, angles1 = (points.angle_deg.astype(np.float32) for points in (keypoints0, keypoints1))
    known = np.isfinite(angles0) & np.isfinite(angles1) & (np.minimum(angles0, angles1) >= 0)
    turn = np.deg2rad(np.subtract(angles1, angles0, out=np.zeros_like(angles0), where=known))
    return Moves(keypoints0.xy.astype(np.float32), keypoints1.xy.astype(np.float32), scale, turn)


def turned(angle: Floats) -> Floats:
    """Give angles in radians between -pi and pi."""
    return np.asarray((angle + np.float32(np.pi)) % np.float32(2 * np.pi) - np.float32(np.pi), np.float32)


def nearest(points: Floats, queries: Floats, count: int) -> tuple[Rows, Floats]:
    """Find the nearest points of each query: rows (Q, K) and squared distances, K = min(count, number of points)."""
    count = min(count, len(points))
    if not count or not len(queries):
        return np.zeros((len(queries), count), np.int64), np.zeros((len(queries), count), np.float32)
    # a single k-d tree, which is exact; OpenCV's stubs do not know it
    tree = cv2.flann_Index(np.ascontiguousarray(points), {"algorithm": 4, "leaf_max_size": 16})  # type: ignore[attr-defined]
    rows, distances = tree.knnSearch(np.ascontiguousarray(queries), count, params={"checks": -1})
    return np.asarray(rows, np.int64), np.asarray(distances, np.float32)


def neighbours_of(points: Floats, queries: Floats, own: Rows) -> Rows:
    """Find the nearest points of each query without its own, int64 (Q, min(NEIGHBOURS, number of points - 1)).

    Args:
        points: (M, 2).
        queries: (Q, 2).
        own: row of the point that a query is itself, -1 where it is none of them, shape (Q,).
    """
    rows, _ = nearest(points, queries, NEIGHBOURS + 1)
    if rows.shape[1] == 0:
        return rows
    # Among equal points the point itself need not come first, or at all.
    unwanted = rows == own[:, None]
    unwanted[~unwanted.any(1), -1] = True
    others: Rows = rows[~unwanted].reshape(len(rows), rows.shape[1] - 1)
    return others


@dataclass(frozen=True)
class Neighbourhood:
    """Neighbours of each match in one picture: rows, int64 (M, K), and how well they agree with it, (M, K) each."""

    rows: Rows
    positions: Floats
    frames: Floats

    def support(self, probability: Floats) -> list[Floats]:
        """Sum the probabilities of neighbours: as position and frame agree, as position agrees, and of all."""
        near = probability[self.rows]
        return [(near * self.positions * self.frames).sum(1), (near * self.positions).sum(1), near.sum(1)]


def neighbourhood(matches: Moves, rows: Rows) -> Neighbourhood:
    """Compare where the similarity transform of each match puts its neighbours with where they went.

    Args:
        matches: M of them.
        rows: of the neighbours of each, int64 (M, K).
    """
    near = matches[rows]
    seen, found = near.here - matches.here[:, None], near.there - matches.there[:, None]
    factor, turn = np.exp(matches.scale)[:, None], matches.turn[:, None]
    along, across = factor * np.cos(turn), factor * np.sin(turn)
    miss_x = along * seen[..., 0] - across * seen[..., 1] - found[..., 0]
    miss_y = across * seen[..., 0] + along * seen[..., 1] - found[..., 1]
    reach = POSITION_SCALE * (factor * np.hypot(seen[..., 0], seen[..., 1]) + np.float32(_LEAST_PX))
    positions = np.exp(-(miss_x**2 + miss_y**2) / reach**2)
    frames = (near.scale - matches.scale[:, None]) ** 2 + turned(near.turn - turn) ** 2
    return Neighbourhood(rows, positions, np.exp(-frames / np.float32(FRAME_SCALE**2)))


@dataclass(frozen=True)
class LocalMaps:
    """Where the matches around keypoints put them in the other picture.

    Attributes:
        there: positions, float32 (N, 2).
        spread: root mean square in pixels by which the neighbours miss the map, (N,).
        mass: sum of the weights of the neighbours, (N,).
        scale: mean logarithm of the scale, (N,).
        turn: mean turn in radians, (N,).
    """

    there: Floats
    spread: Floats
    mass: Floats
    scale: Floats
    turn: Floats

    def features(self, matches: Moves, rows: Rows) -> list[Floats]:
        """Give numbers on how well matches (M,) of the keypoints ``rows`` follow the maps: five, each (M,)."""
        miss = np.hypot(*(self.there[rows] - matches.there).T)
        spread = self.spread[rows]
        frame = np.hypot(matches.scale - self.scale[rows], turned(matches.turn - self.turn[rows]))
        relative = np.log(miss / (spread + 2) + np.float32(0.1))
        return [np.log1p(miss), relative, np.log1p(spread), np.log1p(self.mass[rows]), np.minimum(frame, 2)]


def local_maps(keypoints: Floats, matches: Moves, rows: Rows, weights: Floats) -> LocalMaps:
    """Fit an affine map to the neighbours of each keypoint, twice: the second time those that miss it count less.

    The linear part is drawn a little to the mean similarity of the frames of the neighbours, so that few
    neighbours, and neighbours on a line, give a map too.

    Args:
        keypoints: positions, (N, 2).
        matches: M of them.
        rows: of the neighbours among the matches, int64 (N, K).
        weights: of the matches, (M,).
    """
    centre = matches.there.mean(0) if len(matches.there) else np.zeros(2, np.float32)
    x, y = (matches.here[rows, axis] - keypoints[:, axis, None] for axis in (0, 1))
    u, v = (matches.there[rows, axis] - centre[axis] for axis in (0, 1))
    factor = np.exp(matches.scale)
    along, across = (factor * np.cos(matches.turn))[rows], (factor * np.sin(matches.turn))[rows]
    w = weights[rows]
    fitted = _affine(x, y, u, v, along, across, w)
    tolerance = np.maximum(fitted.spread, _LEAST_SPREAD_PX)[:, None]
    fitted = _affine(x, y, u, v, along, across, w / (1 + fitted.squares / tolerance**2) ** 2)
    scale = np.log(np.hypot(fitted.along, fitted.across) + np.float32(1e-6))
    turn = np.arctan2(fitted.across, fitted.along)
    return LocalMaps(fitted.there + centre, fitted.spread, fitted.mass, scale, turn)


@dataclass(frozen=True)
class _Affine:
    there: Floats
    spread: Floats
    mass: Floats
    along: Floats
    across: Floats
    squares: Floats


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.einsum("nk,nk->n", a, b), np.float32)


def _affine(x: Floats, y: Floats, u: Floats, v: Floats, along: Floats, across: Floats, w: Floats) -> _Affine:
    """Weighted least squares of (u, v) over (x, y), each (N, K); the map is asked at (0, 0)."""
    mass = w.sum(1) + np.float32(1e-6)
    share = 1 / mass
    mean_x, mean_y, mean_u, mean_v, along, across = (_dot(w, each) * share for each in (x, y, u, v, along, across))
    wx, wy = w * x, w * y
    xx, xy, yy = _dot(wx, x) * share, _dot(wx, y) * share, _dot(wy, y) * share
    drawn = _DRAWN * (xx + yy) * share + np.float32(1e-3)
    xu, yu, xv, yv = (
        _dot(each, other) * share - a * b
        for other, b in ((u, mean_u), (v, mean_v))
        for each, a in ((wx, mean_x), (wy, mean_y))
    )
    xu, yu, xv, yv = xu + drawn * along, yu - drawn * across, xv + drawn * across, yv + drawn * along
    xx, xy, yy = xx - mean_x**2 + drawn, xy - mean_x * mean_y, yy - mean_y**2 + drawn
    area = 1 / (xx * yy - xy * xy)
    ux, uy, vx, vy = (
        (yy * xu - xy * yu) * area,
        (xx * yu - xy * xu) * area,
        (yy * xv - xy * yv) * area,
        (xx * yv - xy * xv) * area,
    )
    at_u, at_v = mean_u - ux * mean_x - uy * mean_y, mean_v - vx * mean_x - vy * mean_y
    miss_u = u - at_u[:, None] - ux[:, None] * x - uy[:, None] * y
    miss_v = v - at_v[:, None] - vx[:, None] * x - vy[:, None] * y
    squares = miss_u**2 + miss_v**2
    return _Affine(np.stack([at_u, at_v], 1), np.sqrt(_dot(w, squares) * share), mass, along, across, squares)
