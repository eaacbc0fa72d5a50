"""Hamming distances of queries to a database become mean average precision, by three conventions.

They differ in depth, in what they do with equal distances and in the normaliser, so that their figures cannot be
compared with each other: with 16 bits and 50,000 pictures hundreds of distances are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Histogram:
    """How many pictures of the database lie at each Hamming distance of each query.

    Attributes:
        count: all pictures, int64 (Q, bits + 1).
        relevant: those of the query's class, int64 (Q, bits + 1).
    """

    count: NDArray[np.int64]
    relevant: NDArray[np.int64]


def histogram(distances: NDArray[np.integer], relevant: Bools, bits: int) -> Histogram:
    """Count the distances of queries to a database.

    Args:
        distances: Hamming distances, shape (Q, N).
        relevant: which pictures are of the query's class, shape (Q, N).
        bits: largest distance there can be.
    """
    if distances.shape != relevant.shape or distances.ndim != 2:
        raise UsageError(f"distances and relevance are (Q, N), got {distances.shape} and {relevant.shape}")
    rows = np.arange(len(distances))[:, None] * (bits + 1)
    size = len(distances) * (bits + 1)
    flat = (distances + rows).ravel()
    shape = (len(distances), bits + 1)
    count = np.bincount(flat, minlength=size).reshape(shape)
    return Histogram(count, np.bincount(flat[relevant.ravel()], minlength=size).reshape(shape))


def ranked_average_precision(distances: NDArray[np.integer], relevant: Bools, depth: int) -> Floats:
    """Average precision of the first ``depth`` ranks, equal distances in the order of the database.

    ``AP = 1 / R sum over relevant ranks r <= depth of precision(r)``, R the relevant ones among them; 0 without any.

    Args:
        distances: shape (Q, N).
        relevant: shape (Q, N).
        depth: ranks that count; at most N do.

    Returns:
        One value a query, in [0, 1].

    Source: protocol of Lin et al., "DeepBit", CVPR 2016.
    """
    values = np.zeros(len(distances))
    for row, (distance, right) in enumerate(zip(distances, relevant, strict=True)):
        hits = right[np.argsort(distance, kind="stable")[:depth]]
        places = np.flatnonzero(hits)
        if len(places):
            values[row] = np.mean(np.arange(1, len(places) + 1) / (places + 1))
    return values


def grouped_average_precision(distances: NDArray[np.integer], relevant: Bools, depth: int) -> Floats:
    """Average precision of the first ``depth`` ranks of a stable order, with one step for each distinct distance.

    Args:
        distances: shape (Q, N).
        relevant: shape (Q, N).
        depth: ranks that count; at most N do.

    Returns:
        One value a query, in [0, 1]; 0 without a relevant one among them.

    Source: published code of Zieba et al., NIPS 2018, which scores 10,000 ranks by scikit-learn's average precision.
    """
    values = np.zeros(len(distances))
    for row, (distance, right) in enumerate(zip(distances, relevant, strict=True)):
        order = np.argsort(distance, kind="stable")[:depth]
        counts = np.bincount(distance[order])
        hits = np.bincount(distance[order], weights=right[order])
        total, found = np.cumsum(counts), np.cumsum(hits)
        if found[-1]:
            values[row] = np.sum(hits * found / np.maximum(total, 1)) / found[-1]
    return values


def expected_average_precision(counts: Histogram, depth: int | None = None) -> Floats:
    """Average precision averaged over all orders of equal distances: no order of the database changes it.

    Args:
        counts: of :func:`histogram`.
        depth: ranks that count, with R the relevant ones among them; None counts all.

    Returns:
        One value a query, in [0, 1]; orders without a relevant one among the ranks count as 0.

    Source: McSherry and Najork, ECIR 2008, for whole groups of equal distances; a group that the depth cuts is averaged
    over the number of its relevant pictures that come before the cut (hypergeometric).
    """
    return np.array(
        [_expected(count, relevant, depth) for count, relevant in zip(counts.count, counts.relevant, strict=True)]
    )


def _expected(count: NDArray[np.int64], relevant: NDArray[np.int64], depth: int | None) -> float:
    before, found, total = 0, 0, 0.0
    limit = int(count.sum()) if depth is None else min(depth, int(count.sum()))
    for n, r in zip(count.tolist(), relevant.tolist(), strict=True):
        if n == 0:
            continue
        if before + n <= limit:
            total += float(_group(before, found, n, np.array([r]))[0])
            before, found = before + n, found + r
            continue
        taken = limit - before
        if taken:
            hits = np.arange(max(0, taken - (n - r)), min(r, taken) + 1)
            share = _hypergeometric(n, r, taken, hits)
            relevant_taken = found + hits
            sums = total + _group(before, found, taken, hits)
            return float(np.sum(share * np.where(relevant_taken > 0, sums / np.maximum(relevant_taken, 1), 0)))
        break
    return total / found if found else 0.0


def _group(before: int, found: int, size: int, hits: NDArray[np.int64]) -> Floats:
    """Expected sum of precisions at the relevant ranks of a group in random order, for each number of hits."""
    rank = np.arange(1, size + 1)
    inverse = 1 / (before + rank)
    first, second = float(np.sum(inverse)), float(np.sum((rank - 1) * inverse))
    earlier = (hits - 1) / max(size - 1, 1)
    return np.asarray(hits / size * ((found + 1) * first + earlier * second), np.float64)


def _hypergeometric(n: int, r: int, taken: int, hits: NDArray[np.int64]) -> Floats:
    """Probability of ``hits`` relevant ones among ``taken`` of n pictures with r relevant ones."""

    def log_choose(top: int, below: NDArray[np.int64]) -> Floats:
        return _LOG_FACTORIAL(top) - _LOG_FACTORIAL(below) - _LOG_FACTORIAL(top - below)

    logs = log_choose(r, hits) + log_choose(n - r, taken - hits) - log_choose(n, np.array(taken))
    return np.asarray(np.exp(logs), np.float64)


class _LogFactorial:
    """Logarithms of factorials from one table that grows when needed."""

    def __init__(self) -> None:
        self.table = np.zeros(1)

    def __call__(self, n: int | NDArray[np.int64]) -> Floats:
        largest = int(np.max(n, initial=0))
        if largest >= len(self.table):
            self.table = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 2 * largest + 1)))])
        return np.asarray(self.table[n], np.float64)


_LOG_FACTORIAL = _LogFactorial()


def precision_at(counts: Histogram, depths: list[int]) -> Floats:
    """Expected share of relevant pictures among the first ranks, over all orders of equal distances; (Q, depths)."""
    total, found = np.cumsum(counts.count, 1), np.cumsum(counts.relevant, 1)
    values = np.empty((len(total), len(depths)))
    for column, depth in enumerate(depths):
        rank = np.minimum(depth, total[:, -1])
        last = np.argmax(total >= rank[:, None], axis=1)
        row = np.arange(len(total))
        n, r = counts.count[row, last], counts.relevant[row, last]
        before, hits = total[row, last] - n, found[row, last] - r
        values[:, column] = (hits + (rank - before) * r / np.maximum(n, 1)) / np.maximum(rank, 1)
    return values
