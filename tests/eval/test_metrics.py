from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import kornia_bingan.train.metrics
from eval.harness import bootstrap
from eval.harness import metrics as m
from kornia_bingan.errors import UsageError

INF = math.inf


def labelled(seed: int, ties: bool) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Distances and labels where matches tend to be small; integers if there are to be ties."""
    rng = np.random.default_rng(seed)
    is_match = rng.random(300) < 0.4
    distances = rng.normal(np.where(is_match, 40, 55), 12)
    return (np.round(distances / 5) if ties else distances), is_match


def test_the_exact_fpr95_is_the_packages() -> None:
    assert m.fpr95 is kornia_bingan.train.metrics.fpr95


def test_published_fpr95_by_hand() -> None:
    # 20 matches 1 .. 20: the exact rank is 19 (0.95 x 20), the published index 19 is the 20th value.
    matches, others = np.arange(1, 21), np.array([0.5, 18.5, 19.5, 20, 21])
    assert m.fpr95(matches, others) == 40  # <= 19: 0.5 and 18.5
    assert m.fpr95_published(matches, others) == 80  # <= 20: all but 21
    # 10 matches: the exact rank is 10, the published index 9 is the same value.
    assert (
        m.fpr95(matches[:10], [9.5, 10, 11]) == m.fpr95_published(matches[:10], [9.5, 10, 11]) == pytest.approx(200 / 3)
    )
    assert m.fpr95_published([3], [1, 3, 4]) == pytest.approx(200 / 3)


@pytest.mark.parametrize("rate", [m.fpr95, m.fpr95_published])
def test_fpr95_extremes(rate: Callable[..., float]) -> None:
    assert rate([1, 2], [3, 4]) == 0
    assert rate([3, 4], [1, 2]) == 100
    assert rate([5] * 4, [5] * 7) == 100
    with pytest.raises(UsageError, match="1 matches, 0 non-matches"):
        rate([1], [])
    with pytest.raises(UsageError, match="finite"):
        rate([1, math.nan], [1])


def test_roc_by_hand_with_ties() -> None:
    curve = m.roc_curve([1, 2, 2], [2, 3])
    assert curve.thresholds.tolist() == [-INF, 1, 2, 3]
    assert curve.true_positive_rate.tolist() == [0, pytest.approx(1 / 3), 1, 1]
    assert curve.false_positive_rate.tolist() == [0, 0, 0.5, 1]


@pytest.mark.parametrize("ties", [False, True])
def test_roc_against_scikit_learn(ties: bool) -> None:
    from sklearn.metrics import roc_curve  # takes seconds, here in one worker, above in all that collect

    distances, is_match = labelled(1, ties)
    ours = m.roc_curve(distances[is_match], distances[~is_match])
    false, true, thresholds = roc_curve(is_match, -distances, drop_intermediate=False)
    np.testing.assert_allclose(ours.false_positive_rate, false)
    np.testing.assert_allclose(ours.true_positive_rate, true)
    np.testing.assert_allclose(ours.thresholds[1:], -thresholds[1:])


def test_average_precision_by_hand_with_ties() -> None:
    assert m.average_precision([1, 2, 3], [True, False, True]) == pytest.approx((1 + 2 / 3) / 2)
    # the two at distance 2 are accepted together: precision 2/3 for both of their steps
    assert m.average_precision([1, 2, 2], [True, False, True]) == pytest.approx((1 + 2 / 3) / 2)
    assert m.average_precision([2, 1, 2], [False, True, True]) == pytest.approx((1 + 2 / 3) / 2)
    assert m.average_precision([7] * 5, [True, False, False, False, True]) == pytest.approx(0.4)
    assert m.average_precision([1, 2], [True, True]) == 1
    with pytest.raises(UsageError, match="at least one match"):
        m.average_precision([1, 2], [False, False])
    with pytest.raises(UsageError, match="at least one match"):
        m.average_precision([], [])


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_against_scikit_learn(ties: bool) -> None:
    from sklearn.metrics import average_precision_score

    distances, is_match = labelled(2, ties)
    expected = average_precision_score(is_match, -distances)
    assert m.average_precision(distances, is_match) == pytest.approx(expected)
    order = np.random.default_rng(0).permutation(len(distances))
    assert m.average_precision(distances[order], is_match[order]) == pytest.approx(expected)


def test_error_auc_by_hand() -> None:
    assert m.error_auc([0, 0], [1, 5]) == [1, 1]
    assert m.error_auc([INF, INF], [1]) == [0]
    # straight to (0.5, 1), flat to 1: 0.25 + 0.5
    assert m.error_auc([0.5], [1]) == [0.75]
    # (0,0) (1,.5) flat to 2: .25 + .5 = .75 of 2; up to 4: (1,.5) (3,1) flat to 4: .25 + 1.5 + 1 = 2.75 of 4
    assert m.error_auc([3, 1], [2, 4]) == [0.375, 0.6875]
    # a failure halves the curve; an error that equals the threshold is not below it
    assert m.error_auc([0, INF], [1]) == [0.5]
    assert m.error_auc([1], [1]) == [0]
    assert m.error_auc([1, 1], [2]) == [pytest.approx((0.25 + 0.0 + 1.0) / 2)]
    assert m.error_auc([1], []) == []


@pytest.mark.parametrize("bad", [[], [math.nan], [1, -1]])
def test_error_auc_refuses(bad: list[float]) -> None:
    with pytest.raises(UsageError, match="errors >= 0"):
        m.error_auc(bad, [1])
    with pytest.raises(UsageError, match="positive"):
        m.error_auc([1], [0])


def test_error_auc_against_a_fine_sum() -> None:
    errors = np.sort(np.random.default_rng(3).exponential(4, 40))
    x = np.linspace(0, 10, 200_001)
    below = errors[errors < 10]
    y = np.interp(x, np.append(0, below), np.arange(len(below) + 1) / 40)
    assert m.error_auc(errors, [10])[0] == pytest.approx(np.mean(y), abs=1e-4)


def test_matches_at_precision_by_hand() -> None:
    # precisions after each: 1, 1, 2/3, 3/4, 4/5, 4/6
    ratios, correct = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [True, True, False, True, True, False]
    assert m.matches_at_precision(ratios, correct, 0.8) == m.AtPrecision(0.5, 5, 4)
    assert m.matches_at_precision(ratios, correct, 0.9) == m.AtPrecision(0.2, 2, 2)
    assert m.matches_at_precision(ratios, correct, 0.5) == m.AtPrecision(0.6, 6, 4)
    assert m.matches_at_precision([0.1, 0.2], [False, False]) == m.AtPrecision(None, 0, 0)
    assert m.matches_at_precision([], []) == m.AtPrecision(None, 0, 0)


def test_a_precision_of_19_in_20_is_enough_for_95_percent() -> None:
    for times in (1, 3, 7, 1000):
        correct = np.tile([True] * 19 + [False], times)
        assert m.matches_at_precision(np.zeros(20 * times), correct).num_correct == 19 * times


def test_ties_are_accepted_together_or_in_order() -> None:
    ratios, correct = [0.5, 0.5, 0.5], [True, True, False]
    assert m.matches_at_precision(ratios, correct, 0.9) == m.AtPrecision(None, 0, 0)
    assert m.matches_at_precision(ratios, correct, 0.9, ties="in order") == m.AtPrecision(0.5, 2, 2)
    assert m.matches_at_precision(ratios[::-1], correct[::-1], 0.9, ties="in order") == m.AtPrecision(None, 0, 0)
    together = m.matches_at_precision([0.1, *ratios], [True, *correct], 0.75)
    assert together == m.matches_at_precision([0.1, *ratios], [True, *correct[::-1]], 0.75) == m.AtPrecision(0.5, 4, 3)


def test_a_weight_counts_a_row_as_often() -> None:
    ratios, correct, weights = np.array([0.3, 0.1, 0.2]), np.array([True, True, False]), np.array([19, 0, 1])
    repeated = m.matches_at_precision(np.repeat(ratios, weights), np.repeat(correct, weights))
    assert m.matches_at_precision(ratios, correct, weights=weights) == repeated == m.AtPrecision(0.3, 20, 19)
    assert m.matches_at_precision(ratios, correct, weights=[0, 0, 0]) == m.AtPrecision(None, 0, 0)


def test_the_precision_curve() -> None:
    curve = m.precision_curve([0.2, 0.1, 0.2, 0.4], [True, True, False, False])
    assert curve.thresholds.tolist() == [0.1, 0.2, 0.4]
    assert curve.num_accepted.tolist() == [1, 3, 4]
    assert curve.num_correct.tolist() == [1, 2, 2]
    assert curve.precision.tolist() == [1, pytest.approx(2 / 3), 0.5]
    assert len(m.precision_curve([], []).thresholds) == 0
    with pytest.raises(UsageError, match="2 values, 1 labels"):
        m.precision_curve([1, 2], [True])
    with pytest.raises(UsageError, match="finite"):
        m.precision_curve([math.nan], [True])
    with pytest.raises(UsageError, match="share"):
        m.matches_at_precision([1], [True], 0)


def test_the_m95_against_a_slow_search_over_thresholds() -> None:
    ratios, is_correct = labelled(4, ties=True)
    best = 0
    for threshold in np.unique(ratios):
        accepted = ratios <= threshold
        if is_correct[accepted].mean() >= 0.8:
            best = int(is_correct[accepted].sum())
    assert best > 0
    assert m.matches_at_precision(ratios, is_correct, 0.8).num_correct == best


def test_resampling_stays_within_strata_and_repeats() -> None:
    counts = bootstrap.resampled_counts([3, 0, 1], 50, seed=5)
    assert counts.shape == (50, 4)
    assert (counts[:, :3].sum(1) == 3).all()
    assert (counts[:, 3] == 1).all()
    assert np.array_equal(counts, bootstrap.resampled_counts([3, 0, 1], 50, seed=5))
    assert not np.array_equal(counts, bootstrap.resampled_counts([3, 0, 1], 50, seed=6))


def test_the_interval_of_a_mean_has_the_width_of_theory() -> None:
    values = np.random.default_rng(6).normal(10, 2, 400)
    low, high = bootstrap.bootstrap_interval(lambda counts: float(counts @ values / counts.sum()), [400], seed=1)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)
    assert (low, high) == bootstrap.bootstrap_interval(lambda c: float(c @ values / c.sum()), [400], seed=1)


def complete(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(i + 1, count)]


def test_a_pair_counts_as_often_as_both_of_its_photos() -> None:
    pairs = complete(5)
    counts = bootstrap.drawn_photos(pairs, ["a"] * 10, 40, seed=3)
    assert counts.shape == (40, 10)
    assert (counts.sum(1) > 0).all()
    of = {pair: counts[:, k] for k, pair in enumerate(pairs)}
    np.testing.assert_array_equal(of[0, 1] * of[2, 3], of[0, 2] * of[1, 3])
    np.testing.assert_array_equal(of[0, 1] * of[2, 3], of[0, 3] * of[1, 2])
    assert len(np.unique(counts, axis=0)) > 20
    assert np.array_equal(counts, bootstrap.drawn_photos(pairs, ["a"] * 10, 40, seed=3))
    assert not np.array_equal(counts, bootstrap.drawn_photos(pairs, ["a"] * 10, 40, seed=4))


def test_photos_are_drawn_within_their_scene() -> None:
    """A scene of one pair always has it once; photos of one name in two scenes are two photos."""
    counts = bootstrap.drawn_photos([(0, 1), *complete(4)], ["b"] + ["a"] * 6, 30, seed=0)
    assert (counts[:, 0] == 1).all()
    assert (counts[:, 1:].sum(1) > 0).all()
    assert len(np.unique(counts[:, 1:], axis=0)) > 5
    with pytest.raises(UsageError, match="2 pairs and 1 scenes"):
        bootstrap.drawn_photos([(0, 1), (1, 2)], ["a"], 3, seed=0)


def test_pairs_that_share_photos_do_not_make_an_interval_narrow() -> None:
    """A pair's value is the sum of its photos' values, so its mean is that of 30 photos, not of 435 pairs."""
    photo = np.random.default_rng(0).normal(0, 1, 30)
    pairs = complete(30)
    values = np.array([photo[i] + photo[j] for i, j in pairs])
    counts = bootstrap.drawn_photos(pairs, [0] * len(pairs), 400, seed=1)
    low, high = bootstrap.interval_of(lambda c: float(c @ values / c.sum()), counts)
    assert high - low == pytest.approx(2 * 1.96 * 2 * photo.std() / np.sqrt(30), rel=0.25)
    naive = bootstrap.bootstrap_interval(lambda c: float(c @ values / c.sum()), [len(values)], 400, seed=1)
    assert naive[1] - naive[0] < (high - low) / 2


def test_a_group_counts_as_a_whole() -> None:
    counts = bootstrap.drawn_groups(["a", "b", "a", "c", "b"], 60, seed=0)
    np.testing.assert_array_equal(counts[:, 0], counts[:, 2])
    np.testing.assert_array_equal(counts[:, 1], counts[:, 4])
    np.testing.assert_array_equal(counts[:, [0, 1, 3]].sum(1), np.full(60, 3))
    assert {0, 1, 2, 3} == set(counts[:, 0])


def test_pairs_that_share_a_photo_over_others_are_one_group() -> None:
    pairs = [("a", "b"), ("c", "d"), ("b", "e"), ("f", "g"), ("d", "c"), ("e", "h")]
    assert bootstrap.connected_photos(pairs) == [0, 1, 0, 2, 1, 0]
    assert bootstrap.connected_photos([("a", "b"), ("c", "d"), ("b", "c")]) == [0, 0, 0], "joined by the last"
    assert bootstrap.connected_photos([]) == []


def test_intervals_of_nothing_and_of_one() -> None:
    assert bootstrap.bootstrap_interval(lambda counts: 7.0 * counts[0], [1]) == (7, 7)
    with pytest.raises(UsageError, match="at least one"):
        bootstrap.bootstrap_interval(lambda counts: 0.0, [])
    with pytest.raises(UsageError, match="not finite"):
        bootstrap.bootstrap_interval(lambda counts: math.nan, [2])
