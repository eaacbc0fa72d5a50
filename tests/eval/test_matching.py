from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import kornia_bingan
from eval.harness.matching import mutual_matches
from kornia_bingan.errors import UsageError


def codes(*values: int) -> NDArray[np.uint8]:
    return np.array(values, np.uint8)[:, None]


def test_hamming_by_hand() -> None:
    # distances: row 0: 1, 3, 8; row 1: 7, 5, 0; row 2: 3, 1, 4
    matches = mutual_matches(codes(0, 255, 15), codes(1, 7, 255), "hamming")
    assert matches.indices.tolist() == [[0, 0], [1, 2], [2, 1]]
    np.testing.assert_allclose(matches.ratio, [1 / 3, 0, 1 / 3], rtol=1e-6)
    # back: column 0: 1, 7, 3; column 1: 3, 5, 1; column 2: 8, 0, 4
    np.testing.assert_allclose(matches.ratio_two_way, [1 / 3, 0, 1 / 3], rtol=1e-6)


def test_one_way_and_two_way_ratios_differ() -> None:
    # distances: row 0: 1, 8; row 1: 2, 7. Column 0 is nearest for both rows, and row 0 is its nearest.
    matches = mutual_matches(codes(0, 3), codes(1, 255), "hamming")
    assert matches.indices.tolist() == [[0, 0]]
    np.testing.assert_allclose(matches.ratio, [1 / 8], rtol=1e-6)
    np.testing.assert_allclose(matches.ratio_two_way, [1], rtol=1e-6)


def test_euclidean_by_hand() -> None:
    a, b = np.array([[0.0, 0], [10, 0]], np.float32), np.array([[0.0, 1], [7, 4]], np.float32)
    matches = mutual_matches(a, b, "l2")
    assert matches.indices.tolist() == [[0, 0], [1, 1]]
    np.testing.assert_allclose(matches.ratio, [1 / np.sqrt(65), 5 / np.sqrt(101)], rtol=1e-6)
    np.testing.assert_allclose(matches.ratio_two_way, [1 / np.sqrt(65), 5 / np.sqrt(65)], rtol=1e-6)


def test_ties_go_to_the_lowest_index_and_two_equal_rows_are_ambiguous() -> None:
    matches = mutual_matches(codes(9, 9), codes(9, 9), "hamming")
    assert matches.indices.tolist() == [[0, 0]]
    assert matches.ratio.tolist() == matches.ratio_two_way.tolist() == [1]
    same = np.full((2, 128), 13.7, np.float32)
    assert mutual_matches(same, same, "l2").ratio.tolist() == [1]


@pytest.mark.parametrize("threshold", [0.7, 0.9, 1.0])
def test_against_the_packages_matcher(threshold: float) -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (80, 4), np.uint8)
    b = a[rng.permutation(80)] ^ (np.uint8(1) << rng.integers(0, 8, (80, 4)).astype(np.uint8))
    ours = mutual_matches(a, b, "hamming")
    ratios, indices = kornia_bingan.match(a, b, "smnn", threshold)
    kept = ours.ratio_two_way <= threshold
    assert 20 < kept.sum() <= 80
    assert np.array_equal(ours.indices[kept], indices)
    np.testing.assert_allclose(ours.ratio_two_way[kept], ratios[:, 0], rtol=1e-6)


def test_signs_match_alike_in_both_norms() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 256, (50, 8), np.uint8) for _ in range(2))
    real = [np.unpackbits(x, axis=1).astype(np.float32) * 2 - 1 for x in (a, b)]
    hamming, euclidean = mutual_matches(a, b, "hamming"), mutual_matches(*real, "l2")
    assert np.array_equal(hamming.indices, euclidean.indices)
    np.testing.assert_allclose(np.sqrt(hamming.ratio), euclidean.ratio, rtol=1e-5)


@pytest.mark.parametrize(("num0", "num1"), [(0, 0), (0, 5), (1, 5), (5, 1), (5, 0)])
def test_no_ratio_without_a_second_neighbour(num0: int, num1: int) -> None:
    for width, dtype, norm in ((4, np.uint8, "hamming"), (4, np.float32, "l2")):
        matches = mutual_matches(np.ones((num0, width), dtype), np.ones((num1, width), dtype), norm)  # type: ignore[arg-type]
        assert matches.indices.shape == (0, 2)
        assert len(matches.ratio) == len(matches.ratio_two_way) == 0


def test_wrong_input() -> None:
    real = np.ones((3, 4), np.float32)
    with pytest.raises(UsageError, match="uint8"):
        mutual_matches(real, real, "hamming")
    with pytest.raises(UsageError, match="real values"):
        mutual_matches(codes(1, 2), codes(1, 2), "l2")
    with pytest.raises(UsageError, match="finite"):
        mutual_matches(real * np.nan, real, "l2")
    with pytest.raises(UsageError, match="two widths"):
        mutual_matches(real, real[:, :3], "l2")
    with pytest.raises(UsageError, match="choose hamming or l2"):
        mutual_matches(real, real, "l1")  # type: ignore[arg-type]
