from __future__ import annotations

import numpy as np
import pytest

from kornia_bingan.errors import UsageError
from kornia_bingan.train.metrics import fpr95


def slow_fpr95(matches: list[float], non_matches: list[float]) -> float:
    for threshold in sorted(matches):
        if sum(d <= threshold for d in matches) >= 0.95 * len(matches):
            return 100 * sum(d <= threshold for d in non_matches) / len(non_matches)
    raise AssertionError("unreachable")


@pytest.mark.parametrize(
    ("matches", "non_matches", "wanted"),
    [
        ([1, 2, 3], [10, 11], 0),
        ([10, 11], [1, 2, 3], 100),
        ([5] * 20, [5] * 7, 100),
        ([1, 2, 3], [0, 2, 4, 5], 50),  # threshold 3
        (list(range(20)), [18, 18, 19, 30], 50),  # 19 of 20 are <= 18
    ],
)
def test_by_hand(matches: list[float], non_matches: list[float], wanted: float) -> None:
    assert fpr95(matches, non_matches) == wanted


def test_equals_the_definition_on_ties_and_ignores_order() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 19, 20, 21, 100, 137):
        matches, non_matches = rng.integers(0, 30, size).tolist(), rng.integers(20, 60, size).tolist()
        assert fpr95(matches, non_matches) == pytest.approx(slow_fpr95(matches, non_matches))
        assert fpr95(matches[::-1], rng.permutation(non_matches)) == fpr95(matches, non_matches)


@pytest.mark.parametrize("count", [1, 19, 20, 21, 39, 40, 41, 60])
def test_the_rank_is_the_first_that_accepts_95_percent(count: int) -> None:
    """Without ties every rank gives another rate, so a rank too early or too late shows."""
    rank = next(k for k in range(count + 1) if 20 * k >= 19 * count)
    assert fpr95(range(count), range(count)) == pytest.approx(100 * rank / count)


@pytest.mark.parametrize(("matches", "non_matches"), [([], [1]), ([1], []), ([np.nan], [1]), ([1], [np.inf])])
def test_refuses_empty_and_not_finite(matches: list[float], non_matches: list[float]) -> None:
    with pytest.raises(UsageError, match="FPR@95 needs"):
        fpr95(matches, non_matches)
