"""Distances, errors and matches become the numbers of the protocols. Pure functions, every rule for ties stated.

A distance is small for a match. What is <= a threshold is accepted, so that equal values are accepted together or not
at all, unless a function says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.train.metrics import fpr95

__all__ = [
    "PrecisionCurve",
    "RocCurve",
    "average_precision",
    "error_auc",
    "fpr95",
    "fpr95_published",
    "matches_at_precision",
    "precision_curve",
    "roc_curve",
]

Floats = NDArray[np.float64]
Ties = Literal["together", "in order"]


def fpr95_published(match_distances: ArrayLike, non_match_distances: ArrayLike) -> float:
    """Compute FPR@95 as the published BinGAN code does, in per cent.

    The threshold is the matching distance at index floor(0.95 n) of the n sorted ones, counted from 0: often one rank
    later than :func:`fpr95` needs, so never smaller. The recall of 95 % is declared, not measured.

    Raises:
        UsageError: as for :func:`fpr95`.

    Source: Zieba et al., NIPS 2018, the evaluation of the published code.
    """
    matches, non_matches = _both(match_distances, non_match_distances)
    threshold = np.sort(matches)[95 * len(matches) // 100]
    return float(100 * np.mean(non_matches <= threshold))


@dataclass(frozen=True, eq=False)
class RocCurve:
    """Rates at every distinct distance, ascending, after the point (0, 0) whose threshold is -inf.

    Attributes:
        thresholds, false_positive_rate, true_positive_rate: float64 (T + 1,).
    """

    thresholds: Floats
    false_positive_rate: Floats
    true_positive_rate: Floats


def roc_curve(match_distances: ArrayLike, non_match_distances: ArrayLike) -> RocCurve:
    """Compute the rates of accepted matches and non-matches; equal distances are one point.

    Raises:
        UsageError: as for :func:`fpr95`.
    """
    matches, non_matches = (np.sort(values) for values in _both(match_distances, non_match_distances))
    thresholds = np.unique(np.concatenate([matches, non_matches]))
    rates = [
        np.concatenate([[0.0], np.searchsorted(values, thresholds, side="right") / len(values)])
        for values in (non_matches, matches)
    ]
    return RocCurve(np.concatenate([[-np.inf], thresholds]), rates[0], rates[1])


def average_precision(distances: ArrayLike, is_match: ArrayLike) -> float:
    """Compute the area under precision over recall, as a sum of steps: one step for each distinct distance.

    Equal distances are accepted together, so the order of the input does not matter; a ranking that is all ties gives
    the share of matches.

    Args:
        distances: shape (N,), small for matches.
        is_match: bool, shape (N,).

    Raises:
        UsageError: the lengths differ, a distance is not finite, or there is no match.
    """
    curve = precision_curve(distances, is_match)
    if not len(curve.num_correct) or curve.num_correct[-1] == 0:
        raise UsageError("average precision needs at least one match")
    gained = np.diff(curve.num_correct, prepend=0)
    return float(np.sum(gained * curve.precision) / curve.num_correct[-1])


def error_auc(errors: ArrayLike, thresholds: Sequence[float]) -> list[float]:
    """Compute the area under the cumulative curve of errors up to each threshold, as a share of the threshold.

    The usual definition: the curve starts at (0, 0), goes in straight lines through (k-th smallest error, k / n), is
    flat after the last error below the threshold, and its trapezoids are summed. All errors 0 give 1.

    Args:
        errors: one for each of n images or pairs, >= 0; inf is a failure and counts in n.
        thresholds: positive, in the unit of the errors.

    Returns:
        One value in [0, 1] a threshold.

    Raises:
        UsageError: no errors, a NaN or negative one, or a threshold that is not positive.

    Source: Sarlin et al., "SuperGlue", CVPR 2020, pose AUC.
    """
    values = np.sort(np.asarray(errors, np.float64).ravel())
    if not len(values) or np.isnan(values).any() or values[0] < 0:
        raise UsageError(f"an AUC needs errors >= 0 (inf for failures), got {len(values)} values, some NaN or negative")
    areas = []
    for threshold in thresholds:
        if not threshold > 0:
            raise UsageError(f"the threshold of an AUC is {threshold}; give a positive one")
        below = values[values < threshold]
        recall = np.arange(len(below) + 1) / len(values)
        x = np.concatenate([[0.0], below, [threshold]])
        areas.append(float(np.trapezoid(np.append(recall, recall[-1]), x) / threshold))
    return areas


@dataclass(frozen=True, eq=False)
class PrecisionCurve:
    """What every threshold accepts, ascending; T = N with ties in order, the number of distinct values otherwise.

    Attributes:
        thresholds: float64 (T,).
        num_accepted: how many values are <= the threshold, float64 (T,) (a resampled set may be weighted).
        num_correct: how many of those are correct.
    """

    thresholds: Floats
    num_accepted: Floats
    num_correct: Floats

    @property
    def precision(self) -> Floats:
        """Correct over accepted, float64 (T,); 0 where nothing is accepted (all weights 0)."""
        share: Floats = self.num_correct / np.maximum(self.num_accepted, 1e-300)
        return share


def precision_curve(
    values: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None, *, ties: Ties = "together"
) -> PrecisionCurve:
    """Count what is accepted and correct at every distinct threshold, or after every row with ties in order.

    Args:
        values: ratios or distances, shape (N,); N = 0 gives an empty curve.
        correct: bool, shape (N,).
        weights: how often each row counts, >= 0, shape (N,); None counts each once.
        ties: see :func:`matches_at_precision`.

    Raises:
        UsageError: lengths differ, or a value is not finite.
    """
    numbers, is_correct = np.asarray(values, np.float64).ravel(), np.asarray(correct, np.bool_).ravel()
    counts = np.ones(len(numbers)) if weights is None else np.asarray(weights, np.float64).ravel()
    if not len(numbers) == len(is_correct) == len(counts):
        raise UsageError(f"{len(numbers)} values, {len(is_correct)} labels and {len(counts)} weights; give one of each")
    if not np.isfinite(numbers).all():
        raise UsageError("ratios and distances must be finite; at least one is NaN or infinite")
    order = np.argsort(numbers, kind="stable")
    numbers, is_correct, counts = numbers[order], is_correct[order], counts[order]
    last = np.arange(len(numbers))
    if ties == "together":
        last = last[np.append(numbers[1:] != numbers[:-1], True)[: len(numbers)]]
    return PrecisionCurve(numbers[last], np.cumsum(counts)[last], np.cumsum(counts * is_correct)[last])


@dataclass(frozen=True)
class AtPrecision:
    """The largest threshold that keeps a precision; ``threshold`` is None where there is none, and the counts are 0."""

    threshold: float | None
    num_accepted: float
    num_correct: float


def matches_at_precision(
    values: ArrayLike,
    correct: ArrayLike,
    precision: float = 0.95,
    weights: ArrayLike | None = None,
    *,
    ties: Ties = "together",
) -> AtPrecision:
    """Find the largest threshold at which the accepted matches have a precision, and count the correct ones: M95.

    Args:
        values: ratio of each match, shape (N,), pooled over the pairs of a scene; N = 0 gives 0 correct.
        correct: bool, shape (N,).
        precision: in (0, 1].
        weights: how often each row counts; None counts each once.
        ties: ``together`` accepts equal values together or not at all, which is what a threshold can do;
            ``in order`` accepts them one after the other in the order of the rows, so that the count may end between
            two equal values. Ratios of Hamming distances are full of ties.

    Raises:
        UsageError: as for :func:`precision_curve`, or a precision outside (0, 1].
    """
    if not 0 < precision <= 1:
        raise UsageError(f"the precision is {precision}; give a share in (0, 1]")
    curve = precision_curve(values, correct, weights, ties=ties)
    enough = np.flatnonzero((curve.precision >= precision) & (curve.num_accepted > 0))
    if not len(enough):
        return AtPrecision(None, 0, 0)
    k = enough[-1]
    return AtPrecision(float(curve.thresholds[k]), float(curve.num_accepted[k]), float(curve.num_correct[k]))


def _both(match_distances: ArrayLike, non_match_distances: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    matches, non_matches = np.ravel(match_distances), np.ravel(non_match_distances)
    if not len(matches) or not len(non_matches):
        raise UsageError(f"pairs of both kinds are needed, got {len(matches)} matches, {len(non_matches)} non-matches")
    if not (np.isfinite(matches).all() and np.isfinite(non_matches).all()):
        raise UsageError("distances must be finite; at least one is NaN or infinite")
    return matches, non_matches
