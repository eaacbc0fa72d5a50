"""Truth by construction: points seen by two known cameras, and points moved by a known homography."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from kornia_bingan.errors import UsageError
from kornia_bingan.matching.geometry import epipolar_distances, fundamental_inliers, homography_inliers

BOTH = [fundamental_inliers, homography_inliers]
K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
H = np.array([[1.1, 0.2, -30], [-0.1, 0.9, 40], [2e-4, -1e-4, 1]])


def homogeneous(xy: np.ndarray) -> np.ndarray:
    return np.column_stack([xy, np.ones(len(xy))])


def two_views(num: int, noise_px: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of a deep scene in two images, and the true fundamental matrix."""
    generator = np.random.default_rng(seed)
    points = generator.uniform([-3, -2, 5], [3, 2, 9], (num, 3))
    rotation, shift = cv2.Rodrigues(np.array([0.05, -0.1, 0.02]))[0], np.array([1, 0.2, 0.1])
    views = []
    for x in (points, points @ rotation.T + shift):
        pixels = x @ K.T
        views.append(pixels[:, :2] / pixels[:, 2:] + generator.normal(0, noise_px, (num, 2)))
    cross = np.cross(np.eye(3), shift)
    return views[0], views[1], np.linalg.inv(K).T @ cross.T @ rotation @ np.linalg.inv(K)


def warp(xy: np.ndarray) -> np.ndarray:
    mapped = homogeneous(xy) @ H.T
    return mapped[:, :2] / mapped[:, 2:]


def one_plane(num: int, noise_px: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    xy0 = generator.uniform(0, [640, 480], (num, 2))
    return xy0, warp(xy0) + generator.normal(0, noise_px, (num, 2))


def with_outliers(xy1: np.ndarray, every: int = 3) -> tuple[np.ndarray, np.ndarray]:
    outlier = np.arange(len(xy1)) % every == 0
    random = np.random.default_rng(9).uniform(0, [640, 480], xy1.shape)
    return np.where(outlier[:, None], random, xy1), outlier


def line_distances(matrix: np.ndarray, xy0: np.ndarray, xy1: np.ndarray) -> np.ndarray:
    """Distances in pixels of xy1 from the epipolar lines of xy0."""
    lines = homogeneous(xy0) @ matrix.T
    return np.abs((homogeneous(xy1) * lines).sum(1)) / np.linalg.norm(lines[:, :2], axis=1)


def test_the_test_scene_has_the_stated_fundamental_matrix() -> None:
    xy0, xy1, truth = two_views(50, noise_px=0)
    assert line_distances(truth, xy0, xy1).max() < 1e-9


def test_fundamental_of_two_known_cameras() -> None:
    xy0, xy1, _ = two_views(400)
    xy1, outlier = with_outliers(xy1)
    matrix, mask = fundamental_inliers(xy0, xy1)
    assert matrix is not None
    assert (matrix.dtype, matrix.shape, mask.dtype, mask.shape) == (np.float64, (3, 3), np.bool_, (400,))
    assert mask[~outlier].mean() > 0.97
    assert mask[outlier].mean() < 0.1  # a random point lies within 1.5 px of its line now and then
    clean0, clean1, _ = two_views(400, noise_px=0)
    assert np.median(line_distances(matrix, clean0, clean1)) < 0.2
    assert np.abs(np.linalg.det(matrix / np.linalg.norm(matrix))) < 1e-9


def test_homography_of_a_known_plane() -> None:
    xy0, xy1 = one_plane(400)
    xy1, outlier = with_outliers(xy1)
    matrix, mask = homography_inliers(xy0, xy1)
    assert matrix is not None
    assert (matrix.dtype, matrix.shape, mask.dtype, mask.shape) == (np.float64, (3, 3), np.bool_, (400,))
    assert mask[~outlier].mean() > 0.97
    assert mask[outlier].sum() <= 1
    corners = np.array([[0.0, 0], [639, 0], [639, 479], [0, 479]])
    moved = homogeneous(corners) @ matrix.T
    assert np.linalg.norm(moved[:, :2] / moved[:, 2:] - warp(corners), axis=1).max() < 0.5
    assert matrix[2, 2] == pytest.approx(1)


def test_the_threshold_is_in_pixels() -> None:
    xy0, xy1 = one_plane(300, noise_px=0)
    shifted = np.arange(300) % 3 == 0
    xy1[shifted, 0] += 4
    for threshold_px, expected in ((1.5, ~shifted), (12.0, np.ones(300, bool))):
        _, mask = homography_inliers(xy0, xy1, threshold_px)
        assert np.array_equal(mask, expected)


@pytest.mark.parametrize("find", BOTH)
def test_equal_results_whatever_ran_before(find: Callable[..., Any]) -> None:
    xy0, xy1, _ = two_views(200, noise_px=0.5)
    xy1, _ = with_outliers(xy1, every=2)
    matrix, mask = find(xy0, xy1, 1.5, 7)
    cv2.setRNGSeed(123)
    find(xy0[:50], xy1[:50], 3.0, 8)
    again, mask_again = find(xy0.astype(np.float64), xy1, 1.5, 7)
    assert np.array_equal(matrix, again)
    assert np.array_equal(mask, mask_again)


@pytest.mark.parametrize("find", BOTH)
def test_the_seed_is_used(find: Callable[..., Any]) -> None:
    xy0, xy1, _ = two_views(200, noise_px=0.5)
    xy1, _ = with_outliers(xy1, every=2)
    assert len({find(xy0, xy1, 1.5, seed)[0].tobytes() for seed in range(8)}) > 1


@pytest.mark.parametrize(
    ("find", "name"), [(fundamental_inliers, "findFundamentalMat"), (homography_inliers, "findHomography")]
)
def test_threshold_and_seed_reach_magsac(find: Callable[..., Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def spy(_xy0: np.ndarray, _xy1: np.ndarray, params: Any) -> tuple[None, None]:
        given.append((params.threshold, params.randomGeneratorState, params.confidence, params.maxIterations))
        given.append((params.score, params.loMethod, params.final_polisher))
        return None, None

    monkeypatch.setattr(cv2, name, spy)
    xy0, xy1 = one_plane(20)
    find(xy0, xy1)
    find(xy0, xy1, 2.5, 7)
    magsac = (cv2.SCORE_METHOD_MAGSAC, cv2.LOCAL_OPTIM_SIGMA, cv2.MAGSAC)
    assert given == [(1.5, 0, 0.9999, 10_000), magsac, (2.5, 7, 0.9999, 10_000), magsac]


@pytest.mark.parametrize(("find", "min_matches"), [(fundamental_inliers, 8), (homography_inliers, 4)])
def test_the_number_of_matches(find: Callable[..., Any], min_matches: int) -> None:
    xy0, xy1, _ = two_views(10, noise_px=0)
    plane0, plane1 = one_plane(10, noise_px=0)
    for num in range(min_matches):
        matrix, mask = find(xy0[:num], xy1[:num])
        assert matrix is None
        assert mask.shape == (num,)
        assert mask.dtype == np.bool_
        assert not mask.any()
    points0, points1 = (xy0, xy1) if find is fundamental_inliers else (plane0, plane1)
    matrix, mask = find(points0[:min_matches], points1[:min_matches])
    assert matrix is not None
    assert mask.shape == (min_matches,)


@pytest.mark.parametrize("find", BOTH)
@pytest.mark.parametrize("points", ["equal", "line", "noisy line"])
def test_degenerate_matches_give_none(find: Callable[..., Any], points: str) -> None:
    t = np.arange(60.0)
    xy = np.full((60, 2), 7.0) if points == "equal" else np.column_stack([t, 2 * t + 5])
    if points == "noisy line":
        xy += np.random.default_rng(0).normal(0, 0.3, xy.shape)
    matrix, mask = find(xy, xy + 3)
    assert matrix is None
    assert mask.shape == (60,)
    assert not mask.any()


@pytest.mark.parametrize("find", BOTH)
def test_dtypes_and_views(find: Callable[..., Any]) -> None:
    xy0, xy1 = (np.round(x) for x in one_plane(100))
    expected, mask = find(xy0, xy1)
    assert expected is not None
    for dtype in (np.float32, np.int16, np.int32):
        matrix, other = find(xy0.astype(dtype), xy1.astype(dtype))
        assert np.array_equal(matrix, expected)
        assert np.array_equal(mask, other)
    wide = np.column_stack([xy0, xy1])
    matrix, other = find(wide[:, :2], wide[:, 2:])
    assert np.array_equal(matrix, expected)


GOOD = np.zeros((9, 2))
NAN = np.where(np.arange(9)[:, None] == 4, np.nan, GOOD)


@pytest.mark.parametrize("find", BOTH)
@pytest.mark.parametrize(
    ("xy0", "xy1", "words"),
    [
        (GOOD, GOOD[:8], "xy0 has 9 rows and xy1 has 8"),
        (NAN, GOOD, "xy0 must be finite, but row 4 is .nan, nan."),
        (GOOD, np.where(np.isnan(NAN), np.inf, NAN), "xy1 must be finite, but row 4"),
        (np.zeros((9, 3)), GOOD, r"xy0 must be numbers of shape .M, 2., got float64 .9, 3."),
        (np.zeros(18), GOOD, r"xy0 .* float64 .18,."),
        (GOOD, np.zeros((9, 2), bool), r"xy1 .* bool .9, 2."),
        (GOOD, np.zeros((9, 2), complex), r"xy1 .* complex128 .9, 2."),
        (None, GOOD, r"xy0 .* object .."),
    ],
)
def test_refuses_wrong_points(find: Callable[..., Any], xy0: Any, xy1: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        find(xy0, xy1)


@pytest.mark.parametrize("find", BOTH)
@pytest.mark.parametrize("threshold_px", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_wrong_thresholds(find: Callable[..., Any], threshold_px: float) -> None:
    with pytest.raises(UsageError, match="positive number of pixels"):
        find(GOOD, GOOD, threshold_px)


def test_a_sample_without_a_model_is_no_model() -> None:
    # OpenCV 5.0.0 fails on these by an assertion: a keypoint with two orientations, far from a cluster of others
    xy0 = [[796, 21], [791, 26], [813, 5], [809, 4], [758, 71], [768, 53], [824, 11], [781, 73], [567, 86], [567, 86]]
    xy1 = [[779, 382], [775, 387], [797, 365], [794, 364], [740, 435], [750, 416], [809, 372], [763, 440]]
    matrix, inliers = fundamental_inliers(np.array(xy0), np.array([*xy1, [489, 20], [489, 20]]))
    assert inliers.shape == (10,)
    assert matrix is not None or not inliers.any()


def test_distances_from_epipolar_lines() -> None:
    xy0, xy1, truth = two_views(50, noise_px=0.0)
    assert epipolar_distances(truth, xy0, xy1).max() < 1e-6
    # cameras side by side: the lines are rows
    rows = np.array([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    np.testing.assert_allclose(epipolar_distances(rows, np.array([[3.0, 7]]), np.array([[90.0, 9]])), [2])
    # of both distances the larger one, and none from the line of the epipole
    aside = np.diag([1.0, 2, 1]) @ rows
    np.testing.assert_allclose(epipolar_distances(aside, np.array([[0.0, 4]]), np.array([[0.0, 1]])), [2])
    assert epipolar_distances(np.zeros((3, 3)), xy0[:1], xy1[:1]).tolist() == [np.inf]
    assert epipolar_distances(truth, xy0[:0], xy1[:0]).shape == (0,)
