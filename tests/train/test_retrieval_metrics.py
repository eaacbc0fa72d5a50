"""Mean average precision against slow references, with ties."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from kornia_bingan.errors import UsageError
from kornia_bingan.train import retrieval_metrics as rm


def slow_ap(hits: list[bool]) -> float:
    precisions = [sum(hits[: r + 1]) / (r + 1) for r in range(len(hits)) if hits[r]]
    return sum(precisions) / len(precisions) if precisions else 0.0


def example(seed: int, size: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, bits + 1, (1, size)), rng.random((1, size)) < 0.4


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 7, None])
@pytest.mark.parametrize("seed", range(6))
def test_expected_precision_is_the_mean_over_all_orders(seed: int, depth: int | None) -> None:
    distances, relevant = example(seed, 7, 2)
    values = []
    for order in permutations(range(7)):
        ranked = sorted(order, key=lambda index: distances[0, index])
        values.append(slow_ap([bool(relevant[0, index]) for index in ranked[:depth]]))
    found = rm.expected_average_precision(rm.histogram(distances, relevant, 2), depth)
    assert found[0] == pytest.approx(np.mean(values), abs=1e-12)


def test_no_order_of_the_database_changes_the_expected_value() -> None:
    rng = np.random.default_rng(1)
    distances, relevant = rng.integers(0, 17, (5, 3000)), rng.random((5, 3000)) < 0.1
    order = rng.permutation(3000)
    for depth in (1000, None):
        a = rm.expected_average_precision(rm.histogram(distances, relevant, 16), depth)
        b = rm.expected_average_precision(rm.histogram(distances[:, order], relevant[:, order], 16), depth)
        np.testing.assert_allclose(a, b, rtol=1e-12)
    ranked = rm.ranked_average_precision(distances, relevant, 1000)
    assert not np.allclose(
        ranked, rm.ranked_average_precision(distances[:, order], relevant[:, order], 1000), rtol=1e-6
    )


def test_ranked_against_the_slow_reference() -> None:
    rng = np.random.default_rng(2)
    distances, relevant = rng.integers(0, 9, (20, 60)), rng.random((20, 60)) < 0.2
    relevant[0] = False
    for depth in (10, 60, 100):
        for row, value in enumerate(rm.ranked_average_precision(distances, relevant, depth)):
            order = sorted(range(60), key=lambda index, row=row: (distances[row, index], index))
            assert value == pytest.approx(slow_ap([bool(relevant[row, index]) for index in order[:depth]]))
    assert rm.ranked_average_precision(distances, relevant, 10)[0] == 0


def test_grouped_is_scikit_learns_average_precision() -> None:
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(3)
    distances, relevant = rng.integers(0, 9, (20, 80)), rng.random((20, 80)) < 0.3
    for depth in (30, 80):
        for row, value in enumerate(rm.grouped_average_precision(distances, relevant, depth)):
            order = np.argsort(distances[row], kind="stable")[:depth]
            expected = average_precision_score(relevant[row, order], -distances[row, order])
            assert value == pytest.approx(expected)
    assert rm.grouped_average_precision(distances[:1], np.zeros((1, 80), bool), 30)[0] == 0


def test_without_ties_all_conventions_agree() -> None:
    rng = np.random.default_rng(4)
    distances = rng.permuted(np.tile(np.arange(65), (6, 1)), axis=1)
    relevant = rng.random((6, 65)) < 0.3
    counts = rm.histogram(distances, relevant, 64)
    ranked = rm.ranked_average_precision(distances, relevant, 20)
    np.testing.assert_allclose(rm.expected_average_precision(counts, 20), ranked)
    np.testing.assert_allclose(rm.grouped_average_precision(distances, relevant, 20), ranked)
    precision = rm.precision_at(counts, [1, 20, 65, 100])
    order = np.argsort(distances, axis=1)
    hits = np.take_along_axis(relevant, order, 1)
    np.testing.assert_allclose(precision[:, 0], hits[:, 0])
    np.testing.assert_allclose(precision[:, 1], hits[:, :20].mean(1))
    np.testing.assert_allclose(precision[:, 2:], hits.mean(1)[:, None].repeat(2, 1))


def test_precision_within_ties_is_expected() -> None:
    counts = rm.histogram(np.array([[0, 1, 1, 1, 2]]), np.array([[True, True, False, False, True]]), 2)
    np.testing.assert_allclose(rm.precision_at(counts, [1, 2, 3, 5])[0], [1, (1 + 1 / 3) / 2, (1 + 2 / 3) / 3, 3 / 5])


def test_shapes_are_checked() -> None:
    with pytest.raises(UsageError, match=r"\(Q, N\)"):
        rm.histogram(np.zeros((2, 3), int), np.zeros((2, 4), bool), 8)
