"""How likely the matches of a pair are right, when it is known how many of them agree with one fundamental matrix.

A model that is fitted on other photos calls too many or too few matches right, depending on the pair: on light, on
repeated structures, on how far the photos are apart. Hardly any wrong match lies on its epipolar line by chance, so the
share of matches that do says by how much. All log odds of a pair are moved by the same number, so that their order, and
which match a keypoint gets, stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.matching.geometry import epipolar_distances, fundamental_inliers

Doubles = NDArray[np.float64]

LEAST_MATCHES, AGREES_PX = 20, 2.5
"""So many matches that are more likely right than wrong are needed; so near to its epipolar line a match agrees."""

RIGHT_AGREES, WRONG_AGREES = 0.97, 0.1
"""Share of right and of wrong matches that agree; wrong ones often lie near the right place."""

DEVIATION, LARGEST, STEP = 0.7, 3.0, 0.1
"""What is known of the move before a look at the matches: its deviation around 0, the largest, and how fine it is."""

_LEAST_ODDS = 1e-6


def probability_by_agreement(probability: Doubles, xy0: NDArray[Any], xy1: NDArray[Any]) -> Doubles:
    """Move the probabilities of the matches of one pair of images.

    Args:
        probability: of each match, float64 (M,), in [0, 1]; a keypoint has one match at most.
        xy0: keypoints of the matches in image 0, pixels, shape (M, 2).
        xy1: keypoints of the same matches in image 1, pixels, shape (M, 2).

    Returns:
        float64 (M,); what was given where fewer than ``LEAST_MATCHES`` are likely right, or no fundamental matrix was
        found. The order of the matches changes nothing.
    """
    # The likeliest first, as no row may depend on where a detector put it.
    order = np.lexsort((xy1[:, 1], xy1[:, 0], xy0[:, 1], xy0[:, 0], -probability))
    sure = order[probability[order] > 0.5]
    if len(sure) < LEAST_MATCHES:
        return probability
    matrix, _ = fundamental_inliers(xy0[sure], xy1[sure])
    if matrix is None:
        return probability
    agrees = epipolar_distances(matrix, xy0, xy1) < AGREES_PX
    bounded = np.clip(probability, _LEAST_ODDS, 1 - _LEAST_ODDS)
    log_odds = np.log(bounded) - np.log1p(-bounded)
    move = _likeliest_move(log_odds[order], agrees[order])
    return np.asarray(1 / (1 + np.exp(-(log_odds + move))), np.float64)


def _likeliest_move(log_odds: Doubles, agrees: NDArray[np.bool_]) -> float:
    moves = np.arange(-round(LARGEST / STEP), round(LARGEST / STEP) + 1) * STEP
    expected = WRONG_AGREES + (RIGHT_AGREES - WRONG_AGREES) / (1 + np.exp(-(log_odds + moves[:, None])))
    likelihood = np.log(np.where(agrees, expected, 1 - expected)).sum(1)
    return float(moves[np.argmax(likelihood - (moves / DEVIATION) ** 2 / 2)])
