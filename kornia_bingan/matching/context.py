"""Matches get a probability that sees the whole picture: neighbours of a right match move as its two frames say.

The two frames (position, size, angle) of a match define a similarity transform. It predicts where the matches near the
first keypoint went; of a right match most predictions hold, in both pictures, of a wrong one hardly any. Distance and
ratio give a first probability; two further rounds weigh the agreement of each match with its neighbours by theirs.

Fitted by ``python -m eval context`` on scenes with known cameras.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.matching.hamming import match
from kornia_bingan.network.weights import context_of

Floats = NDArray[np.float64]

NEIGHBOURS = 24
"""Matches near a match, in each picture, that it is compared with."""

POSITION_SCALE, FRAME_SCALE = 0.35, 0.5
"""Deviations at which agreement falls to 1/e: of positions, relative to the distance of the neighbour, and of frames,
in natural logarithms of the scale and in radians."""

_LEAST_PX = 3.0
"""Added to distances of neighbours, since positions are not more exact than that for frames of this kind."""


@dataclass(frozen=True)
class ContextModel:
    """Logistic models, one per round, of how likely a mutual nearest neighbour is right.

    Attributes:
        bits: width of the codes.
        rounds: coefficients of :func:`features` of each round, the last one is the intercept. The first round has
            distance and ratio only.
    """

    bits: int
    rounds: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, shipped: Mapping[str, Any]) -> ContextModel:
        """Read what :func:`kornia_bingan.network.weights.context_of` gives."""
        return cls(int(shipped["bits"]), tuple(tuple(float(x) for x in each) for each in shipped["rounds"]))


@dataclass(frozen=True)
class Neighbourhood:
    """Neighbours of each match in one picture: rows, int64 (M, K), and how well they agree with it, (M, K) each."""

    rows: NDArray[np.int64]
    positions: Floats
    frames: Floats

    def support(self, probability: Floats) -> list[Floats]:
        """Sum the probabilities of neighbours: as position and frame agree, as position agrees, and of all."""
        near = probability[self.rows]
        return [(near * self.positions * self.frames).sum(1), (near * self.positions).sum(1), near.sum(1)]


@lru_cache(maxsize=1)
def _default_model() -> ContextModel:  # read once, not for each pair
    return ContextModel.of(context_of("bingan256"))


def match_in_context(
    codes0: NDArray[np.uint8],
    codes1: NDArray[np.uint8],
    keypoints0: Keypoints,
    keypoints1: Keypoints,
    *,
    threshold: float = 0.5,
    model: ContextModel | None = None,
    num_threads: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Match the keypoints of two images by codes and by their neighbours.

    Args:
        codes0: packed codes of image 0, uint8 (N0, bits / 8).
        codes1: packed codes of image 1.
        keypoints0: of image 0, N0 rows. Sizes that are not positive numbers and angles that are unset count as equal
            in both images.
        keypoints1: of image 1, N1 rows.
        threshold: least probability of a match, in [0, 1].
        model: of the weights that made the codes, see :func:`kornia_bingan.network.weights.context_of`; None takes that
            of ``bingan256``.
        num_threads: of the search; None takes torch's number.

    Returns:
        Probabilities, float32 (M, 1), and indices, int64 (M, 2), sorted by the row of image 0; one-to-one.

    Raises:
        UsageError: codes and keypoints have different lengths, the codes have another width than the model's, or a
            threshold outside [0, 1].
    """
    for name, codes, keypoints in (("0", codes0, keypoints0), ("1", codes1, keypoints1)):
        if len(codes) != len(keypoints):
            raise UsageError(f"image {name} has {len(codes)} codes and {len(keypoints)} keypoints; give one code each")
    if not 0 <= threshold <= 1:
        raise UsageError(f"the threshold is {threshold}; it is a probability, give one in [0, 1]")
    model = model or _default_model()
    ratios, indices = match(codes0, codes1, "smnn", 1.0, num_threads=num_threads)
    if not len(indices):
        return ratios, indices
    if 8 * codes0.shape[1] != model.bits:
        raise UsageError(f"the codes have {8 * codes0.shape[1]} bits; the model is one of codes of {model.bits}")
    rows0, rows1 = indices.T
    distances = np.bitwise_count(codes0[rows0] ^ codes1[rows1]).sum(1)
    probability = context_probability(keypoints0[rows0], keypoints1[rows1], distances, ratios[:, 0], model)
    kept = probability >= threshold
    return probability[kept, None].astype(np.float32), indices[kept]


def context_probability(
    keypoints0: Keypoints,
    keypoints1: Keypoints,
    distances: NDArray[Any],
    ratios: NDArray[Any],
    model: ContextModel,
    around: Sequence[Neighbourhood] = (),
) -> Floats:
    """Say how likely matches are right.

    Args:
        keypoints0: of the matches in image 0, M rows.
        keypoints1: of the same matches in image 1.
        distances: Hamming distances, shape (M,).
        ratios: larger of the ratios of both directions, shape (M,).
        model: of the weights that made the codes.
        around: of :func:`neighbourhoods` of the same keypoints, if it was called before.

    Returns:
        Probabilities, float64 (M,); the order of the matches changes nothing.
    """
    distance, ratio = np.asarray(distances, np.float64) / model.bits, np.asarray(ratios, np.float64)
    probability = _logistic(features(distance, ratio, []), model.rounds[0])
    if len(model.rounds) > 1 and len(distance):
        around = around or neighbourhoods(keypoints0, keypoints1)
        for coefficients in model.rounds[1:]:
            support = [column for each in around for column in each.support(probability)]
            probability = _logistic(features(distance, ratio, support), coefficients)
    return probability


def features(distance: Floats, ratio: Floats, support: Sequence[Floats]) -> Floats:
    """Give the numbers that decide: of distance (share of the bits) and ratio, and of the support by neighbours.

    Args:
        distance: shape (M,).
        ratio: shape (M,).
        support: none, or three of each picture: by position and frame, by position, and of all that is near.

    Returns:
        float64 (M, 4) or (M, 13).
    """
    columns = [distance, ratio, ratio**2, distance * ratio]
    if support:
        logs = [np.log1p(each) for each in support]
        columns += [*logs, logs[0] * ratio, logs[3] * ratio, np.minimum(logs[0], logs[3])]
    return np.stack(columns, 1)


def _logistic(values: Floats, coefficients: Sequence[float]) -> Floats:
    log_odds = values @ np.asarray(coefficients[:-1]) + coefficients[-1]
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -30, 30))), np.float64)


def neighbourhoods(keypoints0: Keypoints, keypoints1: Keypoints) -> list[Neighbourhood]:
    """Compare each match with the matches near it, in image 0 and in image 1."""
    xy0, xy1 = keypoints0.xy.astype(np.float64), keypoints1.xy.astype(np.float64)
    sizes0, sizes1 = (points.size.astype(np.float64) for points in (keypoints0, keypoints1))
    known = np.isfinite(sizes0) & np.isfinite(sizes1) & (np.minimum(sizes0, sizes1) > 0)
    scale = np.log(np.divide(sizes1, sizes0, out=np.ones_like(sizes0), where=known))
    angles0, angles1 = (points.angle_deg.astype(np.float64) for points in (keypoints0, keypoints1))
    known = np.isfinite(angles0) & np.isfinite(angles1) & (np.minimum(angles0, angles1) >= 0)
    turn = np.deg2rad(np.subtract(angles1, angles0, out=np.zeros_like(angles0), where=known))
    return [_neighbourhood(xy0, xy1, scale, turn), _neighbourhood(xy1, xy0, -scale, -turn)]


def _neighbourhood(here: Floats, there: Floats, scale: Floats, turn: Floats) -> Neighbourhood:
    rows = _nearest(here)
    seen, found = here[rows] - here[:, None], there[rows] - there[:, None]
    factor = np.exp(scale)[:, None]
    along, across = factor * np.cos(turn)[:, None], factor * np.sin(turn)[:, None]
    miss_x = along * seen[..., 0] - across * seen[..., 1] - found[..., 0]
    miss_y = across * seen[..., 0] + along * seen[..., 1] - found[..., 1]
    reach = factor * np.hypot(seen[..., 0], seen[..., 1]) + _LEAST_PX
    scales = scale[rows] - scale[:, None]
    turns = (turn[rows] - turn[:, None] + np.pi) % (2 * np.pi) - np.pi
    positions = np.exp(-(miss_x**2 + miss_y**2) / (POSITION_SCALE * reach) ** 2)
    return Neighbourhood(rows, positions, np.exp(-(scales**2 + turns**2) / FRAME_SCALE**2))


def _nearest(points: Floats) -> NDArray[np.int64]:
    """Find the nearest others of each of M points, int64 (M, min(NEIGHBOURS, M - 1))."""
    count = min(NEIGHBOURS, len(points) - 1)
    if count < 1:
        return np.zeros((len(points), 0), np.int64)
    exact = np.ascontiguousarray(points, np.float32)
    # a single k-d tree, which is exact; OpenCV's stubs do not know it
    tree = cv2.flann_Index(exact, {"algorithm": 4, "leaf_max_size": 16})  # type: ignore[attr-defined]
    rows = np.asarray(tree.knnSearch(exact, count + 1, params={"checks": -1})[0], np.int64)
    # Among equal points the point itself need not come first, or at all.
    own = rows == np.arange(len(points))[:, None]
    own[~own.any(1), -1] = True
    others: NDArray[np.int64] = rows[~own].reshape(len(points), count)
    return others
