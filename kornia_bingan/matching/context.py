"""Matches get a probability that sees the whole picture: neighbours of a right match move as its two frames say.

Seeds are mutual nearest neighbours in Hamming distance. Distance and ratio give each a first probability. The frames
(position, size, angle) of a seed define a similarity transform, which predicts where the seeds near it went; of a right
one most predictions hold, in both pictures, of a wrong one hardly any: that gives a second probability. Weighted by it,
the seeds near any keypoint say by an affine map where it must lie in the other picture. The most similar code there is
a candidate, too, and a small perceptron judges all candidates by distance, ratios and how well they follow the maps of
both pictures. At last the probabilities of the pair move together, see :mod:`kornia_bingan.matching.agreement`.

Fitted by ``python -m eval context`` on scenes with known cameras.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.matching.agreement import probability_by_agreement
from kornia_bingan.matching.hamming import two_nearest
from kornia_bingan.matching.neighbours import (
    Floats,
    LocalMaps,
    Moves,
    Neighbourhood,
    Rows,
    local_maps,
    moves,
    nearest,
    neighbourhood,
    neighbours_of,
)
from kornia_bingan.network.weights import context_of

Doubles = NDArray[np.float64]

DOUBTFUL = 0.2
"""Least probability of matches that are kept because there are few others."""

SEARCHED, LEAST_PX, MOST_PX, LEAST_MASS = 6, 3.0, 8.0, 0.5
"""Where a map says that a keypoint lies, so many keypoints are compared, within twice its spread but within these
radii; a map needs seeds that together count as much as half a certain one."""


@dataclass(frozen=True)
class ContextModel:
    """Models of how likely a match is right.

    Attributes:
        bits: width of the codes.
        rounds: of seeds, by :func:`features` without and with support: coefficients of two logistic models, the last
            one of each is the intercept.
        layers: of candidates, by :class:`Candidates`: matrices of :func:`perceptron`.
    """

    bits: int
    rounds: tuple[tuple[float, ...], ...]
    layers: tuple[Doubles, ...]

    @classmethod
    def of(cls, shipped: Mapping[str, Any]) -> ContextModel:
        """Read what :func:`kornia_bingan.network.weights.context_of` gives."""
        rounds = tuple(tuple(float(x) for x in each) for each in shipped["rounds"])
        return cls(int(shipped["bits"]), rounds, tuple(np.array(each, np.float64) for each in shipped["layers"]))


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
    min_matches: int = 0,
    agreement: bool = True,
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
        min_matches: where fewer matches are as probable as the threshold, so many of the most probable ones are kept,
            down to a probability of ``DOUBTFUL``.
        agreement: move the probabilities of the pair by how many matches agree with one fundamental matrix, see
            :func:`kornia_bingan.matching.agreement.probability_by_agreement`; False for scenes where most things move.
        model: of the weights that made the codes, see :func:`kornia_bingan.network.weights.context_of`; None takes that
            of ``bingan256``.
        num_threads: of the search; None takes torch's number.

    Returns:
        Probabilities, float32 (M, 1), and indices, int64 (M, 2), sorted by the row of image 0; one-to-one. None where
        an image has fewer than 2 codes, since a ratio needs a second neighbour.

    Raises:
        UsageError: codes and keypoints have different lengths, the codes have another width than the model's, a
            threshold outside [0, 1], or ``min_matches`` below 0.
    """
    for name, codes, keypoints in (("0", codes0, keypoints0), ("1", codes1, keypoints1)):
        if len(codes) != len(keypoints):
            raise UsageError(f"image {name} has {len(codes)} codes and {len(keypoints)} keypoints; give one code each")
    if not 0 <= threshold <= 1:
        raise UsageError(f"the threshold is {threshold}; it is a probability, give one in [0, 1]")
    if min_matches < 0:
        raise UsageError(f"min_matches is {min_matches}; give 0 or more")
    if min(len(codes0), len(codes1)) < 2:
        return np.empty((0, 1), np.float32), np.empty((0, 2), np.int64)
    model = model or _default_model()
    pair = compare(codes0, codes1, keypoints0, keypoints1, num_threads)
    if 8 * codes0.shape[1] != model.bits:
        raise UsageError(f"the codes have {8 * codes0.shape[1]} bits; the model is one of codes of {model.bits}")
    return match_pair(pair, model, threshold, min_matches, agreement)


def match_pair(
    pair: Pair, model: ContextModel, threshold: float, min_matches: int = 0, agreement: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Do the last step of :func:`match_in_context`, with the same results, for two images that were compared."""
    found = candidates(pair, seed_probability(pair, model.rounds))
    probability = perceptron(found.values, model.layers)
    kept = one_to_one(found.rows, probability)
    if agreement:
        xy0, xy1 = (pair.keypoints[side].xy[found.rows[kept, side]] for side in (0, 1))
        probability[kept] = probability_by_agreement(probability[kept], xy0, xy1)
    if fewest := min(min_matches, len(kept)):
        threshold = min(threshold, max(np.sort(probability[kept])[-fewest], DOUBTFUL))
    kept = kept[probability[kept] >= threshold]
    return probability[kept, None].astype(np.float32), found.rows[kept]


@dataclass(frozen=True)
class Pair:
    """What is known of two images before any model.

    Attributes:
        keypoints: of both.
        nearest: of both, row of the nearest descriptor in the other, (N,), and distances of the two nearest, (N, 2).
        distances: gives the distances, float32 (C,), of rows of both, (C, 2).
        width: the largest distance that there can be, of codes their bits.
        seeds: mutual nearest neighbours, int64 (M, 2), sorted by the row of image 0.
        around: of both, the seeds near each keypoint, (N, K); a seed is not near itself.
        moves: of the seeds, from image 0 to image 1 and back.
    """

    keypoints: tuple[Keypoints, Keypoints]
    nearest: tuple[tuple[Rows, Floats], tuple[Rows, Floats]]
    distances: Callable[[Rows], Floats]
    width: float
    seeds: Rows
    around: tuple[Rows, Rows]
    moves: tuple[Moves, Moves]

    def neighbourhoods(self) -> list[Neighbourhood]:
        """Compare each seed with those near it, in both images."""
        return [neighbourhood(self.moves[side], self.around[side][self.seeds[:, side]]) for side in (0, 1)]


def compare(
    codes0: NDArray[np.uint8],
    codes1: NDArray[np.uint8],
    keypoints0: Keypoints,
    keypoints1: Keypoints,
    num_threads: int | None = None,
) -> Pair:
    """Find the seeds of two images with 2 codes or more, and who is near whom."""
    found = two_nearest(codes0, codes1, num_threads), two_nearest(codes1, codes0, num_threads)
    return compare_nearest(found, partial(hamming, codes0, codes1), 8 * codes0.shape[1], keypoints0, keypoints1)


def compare_nearest(
    found: tuple[tuple[Rows, Floats], tuple[Rows, Floats]],
    distances: Callable[[Rows], Floats],
    width: float,
    keypoints0: Keypoints,
    keypoints1: Keypoints,
) -> Pair:
    """Do the same with descriptors of any kind, of which the two nearest are known; see :class:`Pair`."""
    rows0 = np.flatnonzero(found[1][0][found[0][0]] == np.arange(len(keypoints0)))
    seeds = np.stack([rows0, found[0][0][rows0]], 1)
    along = moves(keypoints0[seeds[:, 0]], keypoints1[seeds[:, 1]])
    around = []
    for side, (points, way) in enumerate(((keypoints0, along), (keypoints1, along.reversed()))):
        own = np.full(len(points), -1)
        own[seeds[:, side]] = np.arange(len(seeds))
        around.append(neighbours_of(way.here, points.xy.astype(np.float32), own))
    return Pair(
        (keypoints0, keypoints1), found, distances, width, seeds, (around[0], around[1]), (along, along.reversed())
    )


def ratios(pair: Pair, rows: Rows, distances: NDArray[Any]) -> tuple[Floats, Floats]:
    """Divide distances by that of the nearest other code, for both keypoints of each row (C, 2); at most 2."""
    found = []
    for side in (0, 1):
        nearest_row, two = pair.nearest[side]
        mine = rows[:, side]
        other = np.where(nearest_row[mine] == rows[:, 1 - side], two[mine, 1], two[mine, 0])
        # as in ``match``, two codes at distance 0 are ambiguous
        quotient = np.divide(distances, other, out=np.where(distances == 0, 1.0, 2.0), where=other > 0)
        found.append(np.minimum(quotient, 2).astype(np.float32))
    return found[0], found[1]


def hamming(codes0: NDArray[np.uint8], codes1: NDArray[np.uint8], rows: Rows) -> Floats:
    """Count the bits in which packed codes of both images differ, float32 (C,)."""
    codes = [side[rows[:, k]] for k, side in enumerate((codes0, codes1))]
    if codes[0].shape[1] % 8 == 0:
        codes = [np.ascontiguousarray(each).view(np.uint64) for each in codes]
    counts: Floats = np.bitwise_count(codes[0] ^ codes[1]).sum(1, dtype=np.int64).astype(np.float32)
    return counts


def features(distance: Floats, ratio: Floats, support: Sequence[Floats]) -> Floats:
    """Give the numbers that decide on seeds: of distance (share of the bits), ratio, and support by neighbours.

    Args:
        distance: shape (M,).
        ratio: the larger one of both directions, shape (M,).
        support: none, or three of each picture: by position and frame, by position, and of all that is near.

    Returns:
        float32 (M, 4) or (M, 13).
    """
    columns = [distance, ratio, ratio**2, distance * ratio]
    if support:
        logs = [np.log1p(each) for each in support]
        columns += [*logs, logs[0] * ratio, logs[3] * ratio, np.minimum(logs[0], logs[3])]
    return np.stack(columns, 1).astype(np.float32)


def seed_features(pair: Pair, probability: Doubles | None) -> Floats:
    """Give :func:`features` of the seeds; None leaves out their neighbours."""
    distances = pair.distances(pair.seeds)
    ratio = np.maximum(*ratios(pair, pair.seeds, distances))
    support: list[Floats] = []
    if probability is not None:
        support = [c for each in pair.neighbourhoods() for c in each.support(probability.astype(np.float32))]
    return features(distances / np.float32(pair.width), ratio, support)


def seed_probability(pair: Pair, rounds: Sequence[Sequence[float]]) -> Doubles:
    """Say how likely each seed is right, float64 (M,), by one or two of the rounds of a model."""
    probability = logistic(seed_features(pair, None), rounds[0])
    for coefficients in rounds[1:]:
        probability = logistic(seed_features(pair, probability), coefficients)
    return probability


@dataclass(frozen=True)
class Candidates:
    """Matches to be judged: rows of both images, int64 (C, 2), sorted, and the numbers that decide, float32 (C, 16).

    These do not tell one picture from the other: first come those of the picture whose map is missed by more.
    """

    rows: Rows
    values: Floats


def candidates(pair: Pair, probability: Doubles) -> Candidates:
    """Take the seeds, and the codes most similar to each keypoint near where its neighbours put it.

    Args:
        pair: of images.
        probability: of the seeds, (M,).
    """
    weights = (probability**2).astype(np.float32)
    maps = [
        local_maps(points.xy.astype(np.float32), way, rows, weights)
        for points, way, rows in zip(pair.keypoints, pair.moves, pair.around, strict=True)
    ]
    guided = [_guided(pair, side, maps[side]) for side in (0, 1)]
    count1 = len(pair.keypoints[1])
    keys = np.unique(np.concatenate([rows[:, 0] * count1 + rows[:, 1] for rows in (pair.seeds, *guided)]))
    rows = np.stack([keys // count1, keys % count1], 1)
    distances = pair.distances(rows)
    ratio0, ratio1 = ratios(pair, rows, distances)
    largest, least = np.maximum(ratio0, ratio1), np.minimum(ratio0, ratio1)
    along = moves(pair.keypoints[0][rows[:, 0]], pair.keypoints[1][rows[:, 1]])
    follow = [
        np.stack(maps[side].features(way, rows[:, side]), 1) for side, way in enumerate((along, along.reversed()))
    ]
    swapped = (follow[1][:, 0] > follow[0][:, 0])[:, None]
    worse, better = np.where(swapped, follow[1], follow[0]), np.where(swapped, follow[0], follow[1])
    own = features(distances / np.float32(pair.width), largest, [])
    return Candidates(rows, np.column_stack([own, least, least * largest, worse, better]))


def _guided(pair: Pair, side: int, maps: LocalMaps) -> Rows:
    """Find the most similar code near where each keypoint of one image must lie in the other, int64 (G, 2)."""
    known = np.flatnonzero(maps.mass > LEAST_MASS)
    there, squares = nearest(pair.keypoints[1 - side].xy.astype(np.float32), maps.there[known], SEARCHED)
    radius = np.clip(2 * maps.spread[known], LEAST_PX, MOST_PX)
    query, place = np.nonzero(squares <= radius[:, None] ** 2)
    rows = np.stack([known[query], there[query, place]], 1)
    rows = rows if side == 0 else rows[:, ::-1]
    order = np.lexsort((pair.distances(rows), query))
    _, first = np.unique(query[order], return_index=True)
    chosen: Rows = rows[order[first]]
    return chosen


def one_to_one(rows: Rows, probability: Doubles) -> NDArray[np.int64]:
    """Give the places, sorted, of those of the rows (C, 2) that are the most probable ones of both their keypoints."""
    order = np.lexsort((rows[:, 1], rows[:, 0], -probability))
    first = [order[np.unique(rows[order, side], return_index=True)[1]] for side in (0, 1)]
    kept: NDArray[np.int64] = np.intersect1d(first[0], first[1])
    return kept


def logistic(values: NDArray[Any], coefficients: Sequence[float] | Doubles) -> Doubles:
    """Give probabilities, float64 (M,), of numbers (M, F) and F coefficients with the intercept behind them."""
    log_odds = values.astype(np.float64) @ np.asarray(coefficients[:-1]) + coefficients[-1]
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -30, 30))), np.float64)


def perceptron(values: Floats, layers: Sequence[Doubles]) -> Doubles:
    """Give probabilities, float64 (M,), of numbers (M, F).

    Args:
        values: a row for each match.
        layers: matrices (inputs + 1, outputs), the last row is the bias; the first one has F inputs, the last one 1
            output. Between two of them, negative values become 0.
    """
    x = values.astype(np.float64)
    for layer in layers[:-1]:
        x = np.maximum(x @ layer[:-1] + layer[-1], 0)
    return logistic(x, layers[-1][:, 0])
