"""Distances of matching and non-matching pairs become an error rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from kornia_bingan.errors import UsageError


def fpr95(match_distances: ArrayLike, non_match_distances: ArrayLike) -> float:
    """Compute the false positive rate at 95 % recall, in per cent; smaller is better.

    The threshold is the smallest distance t such that at least 95 % of the matching pairs have a distance <= t; the
    result is the share of non-matching pairs with a distance <= t. Ties count against the descriptor.

    Args:
        match_distances: DISTANCES (not similarities) of matching pairs, shape (P,).
        non_match_distances: distances of non-matching pairs, shape (Q,).

    Raises:
        UsageError: one of the two is empty or has a value that is not finite.
    """
    matches, non_matches = np.ravel(match_distances), np.ravel(non_match_distances)
    if not len(matches) or not len(non_matches):
        raise UsageError(
            f"FPR@95 needs pairs of both kinds, got {len(matches)} matches, {len(non_matches)} non-matches"
        )
    if not (np.isfinite(matches).all() and np.isfinite(non_matches).all()):
        raise UsageError("FPR@95 needs finite distances; at least one is NaN or infinite")
    rank = (95 * len(matches) + 99) // 100  # ceil(0.95 P) in integers
    threshold = np.sort(matches)[rank - 1]
    return float(100 * np.mean(non_matches <= threshold))
