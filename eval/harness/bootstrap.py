"""Bootstrap draws and the intervals that they give: what is drawn, and how often each thing counts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError


def resampled_counts(strata: Sequence[int], num_resamples: int, seed: int) -> NDArray[np.int64]:
    """Draw bootstrap samples: how often each unit (pair or scene) is drawn, with replacement, within its stratum.

    Args:
        strata: units in each stratum; within one, as many are drawn as there are. One stratum is the plain bootstrap.
        num_resamples: R.
        seed: the same seed gives the same draws.

    Returns:
        int64, shape (R, sum of strata); each row sums to that too.
    """
    rng = np.random.default_rng(seed)
    parts = [rng.multinomial(n, np.full(n, 1 / n), num_resamples) for n in strata if n]
    return np.concatenate([np.zeros((num_resamples, 0), np.int64), *parts], axis=1)


def drawn_photos(
    pairs: Sequence[tuple[Hashable, Hashable]], strata: Sequence[Hashable], num_resamples: int, seed: int
) -> NDArray[np.int64]:
    """Draw bootstrap samples of photos: how often each pair of photos counts.

    Pairs that share a photo are not independent, so that drawing pairs would give too narrow intervals. The photos of
    a scene are drawn with replacement, and a pair counts as often as the product of the draws of its two photos
    (Owen, "The pigeonhole bootstrap", 2007); one inside a photo, as often as that photo. A draw without any pair of a
    scene is drawn again.

    Args:
        pairs: the two photos of each pair.
        strata: the scene of each pair; photos are drawn within it.
        num_resamples: R.
        seed: the same seed gives the same draws.

    Returns:
        int64, shape (R, number of pairs).
    """
    if len(pairs) != len(strata):
        raise UsageError(f"{len(pairs)} pairs and {len(strata)} scenes; give one scene per pair")
    rng = np.random.default_rng(seed)
    counts = np.zeros((num_resamples, len(pairs)), np.int64)
    for stratum in dict.fromkeys(strata):
        members = np.array([index for index, own in enumerate(strata) if own == stratum])
        inside = [pairs[index] for index in members]
        place = {photo: k for k, photo in enumerate(dict.fromkeys(photo for pair in inside for photo in pair))}
        first, second = np.array([[place[photo] for photo in pair] for pair in inside]).T
        empty = np.arange(num_resamples)
        while len(empty):
            photos = rng.multinomial(len(place), np.full(len(place), 1 / len(place)), len(empty))
            drawn = np.where(first == second, photos[:, first], photos[:, first] * photos[:, second])
            counts[np.ix_(empty, members)] = drawn
            empty = empty[drawn.sum(1) == 0]
    return counts


def drawn_groups(group_of: Sequence[Hashable], num_resamples: int, seed: int) -> NDArray[np.int64]:
    """Draw bootstrap samples of groups (scenes, sequences): all pairs of a group count as often as it is drawn.

    Args:
        group_of: the group of each pair.
        num_resamples: R.
        seed: the same seed gives the same draws.

    Returns:
        int64, shape (R, number of pairs).
    """
    place = {group: k for k, group in enumerate(dict.fromkeys(group_of))}
    counts = resampled_counts([len(place)], num_resamples, seed)
    return counts[:, [place[group] for group in group_of]]


def connected_photos(pairs: Sequence[tuple[Hashable, Hashable]]) -> list[int]:
    """Give each pair the number of its group: pairs that share a photo, also over others, are of one group."""
    parent: dict[Hashable, Hashable] = {}

    def root(photo: Hashable) -> Hashable:
        while parent.setdefault(photo, photo) != photo:
            photo = parent[photo]
        return photo

    for first, second in pairs:
        parent[root(first)] = root(second)
    number = {photo: k for k, photo in enumerate(dict.fromkeys(root(first) for first, _ in pairs))}
    return [number[root(first)] for first, _ in pairs]


def interval_of(
    statistic: Callable[[NDArray[np.int64]], float], counts: NDArray[np.int64], level: float = 0.95
) -> tuple[float, float]:
    """Compute the percentile interval of a statistic over draws, (low, high).

    Args:
        statistic: takes how often each unit counts, int64 (N,), and gives a number.
        counts: one row a draw, int64 (R, N).
        level: share of the draws inside the interval.

    Raises:
        UsageError: no units, or a statistic that is not finite.
    """
    if not counts.shape[1]:
        raise UsageError("a bootstrap needs at least one pair or scene")
    draws = np.array([statistic(row) for row in counts], np.float64)
    if not np.isfinite(draws).all():
        raise UsageError("the resampled statistic is not finite")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], float],
    strata: Sequence[int],
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Compute a percentile bootstrap interval of a statistic.

    Args:
        statistic: takes how often each unit is drawn, int64 (sum of strata,), and gives a number.
        strata: units in each stratum, resampled within it.
        num_resamples: number of draws.
        seed: the same seed gives the same interval; two statistics with one seed see the same draws, so that their
            ratio can be one statistic.
        level: share of the draws inside the interval.

    Returns:
        (low, high); both are the value itself when no resampling changes it, as with one unit.

    Raises:
        UsageError: no units, or a statistic that is not finite.
    """
    return interval_of(statistic, resampled_counts(strata, num_resamples, seed), level)
