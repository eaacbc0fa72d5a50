"""Truth by construction: right matches of two known views, and wrong ones."""

from __future__ import annotations

import numpy as np
import pytest

from kornia_bingan.matching.agreement import LEAST_MATCHES, probability_by_agreement
from tests.matching.test_geometry import two_views


def matches(right: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Matches of two views, the wrong ones last."""
    xy0, xy1, _ = two_views(right + wrong)
    xy1[right:] = np.random.default_rng(1).uniform(xy1.min(0), xy1.max(0), (wrong, 2))
    return xy0, xy1


@pytest.mark.parametrize(("right", "wrong"), [(360, 40), (240, 160)])
def test_a_share_that_is_called_wrongly_is_mended(right: int, wrong: int) -> None:
    xy0, xy1 = matches(right, wrong)
    probability = np.where(np.random.default_rng(2).random(right + wrong) < 0.5, 0.75, 0.8)
    mended = probability_by_agreement(probability, xy0, xy1)
    share = right / (right + wrong)
    assert abs(mended.mean() - share) < 0.05 < abs(probability.mean() - share)
    # the order of the matches of a pair, and so which one a keypoint gets, stays
    assert (np.argsort(mended, kind="stable") == np.argsort(probability, kind="stable")).all()


def test_what_is_called_rightly_stays() -> None:
    xy0, xy1 = matches(320, 80)
    mended = probability_by_agreement(np.full(400, 0.8), xy0, xy1)
    np.testing.assert_allclose(mended, 0.8, atol=0.04)


def test_the_order_of_the_matches_changes_nothing() -> None:
    xy0, xy1 = matches(150, 150)
    probability = np.random.default_rng(3).uniform(0.3, 1, 300)
    order = np.random.default_rng(4).permutation(300)
    mended = probability_by_agreement(probability, xy0, xy1)
    assert (mended != probability).any()
    np.testing.assert_array_equal(probability_by_agreement(probability[order], xy0[order], xy1[order]), mended[order])


def test_nothing_moves_where_no_fundamental_matrix_can_be_known() -> None:
    xy0, xy1 = matches(40, 0)
    sure = np.full(40, 0.9)
    few = np.r_[np.full(LEAST_MATCHES - 1, 0.9), np.full(41 - LEAST_MATCHES, 0.4)]
    line = np.column_stack([np.arange(40.0), np.arange(40.0)])
    for probability, first, second in ((few, xy0, xy1), (sure, line, line), (sure[:0], xy0[:0], xy1[:0])):
        np.testing.assert_array_equal(probability_by_agreement(probability, first, second), probability)


def test_certain_matches_stay_probabilities() -> None:
    xy0, xy1 = matches(60, 0)
    mended = probability_by_agreement(np.r_[np.ones(30), np.full(29, 0.6), 0], xy0, xy1)
    assert ((mended >= 0) & (mended <= 1)).all()
