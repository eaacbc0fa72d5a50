from __future__ import annotations

import numpy as np
import pytest

from kornia_bingan.matching import neighbours
from kornia_bingan.matching.neighbours import NEIGHBOURS, Moves, local_maps, moves, neighbourhood, neighbours_of
from tests.matching.test_context import keypoints, scene


@pytest.mark.parametrize(("scale", "turn_deg"), [(1.0, 0.0), (0.4, 200.0), (2.5, 355.0)])
def test_every_neighbour_of_an_exact_transform_agrees(scale: float, turn_deg: float) -> None:
    here, there, _ = scene(50, 0, scale, turn_deg)
    along = moves(here, there)
    for way in (along, along.reversed()):
        rows = neighbours_of(way.here, way.here, np.arange(50))
        assert rows.shape == (50, NEIGHBOURS)
        assert (rows != np.arange(50)[:, None]).all(), "a match is no neighbour of its own"
        assert all(len(set(row)) == NEIGHBOURS for row in rows.tolist())
        each = neighbourhood(way, rows)
        np.testing.assert_allclose(each.positions, 1, atol=1e-4)
        np.testing.assert_allclose(each.frames, 1, atol=1e-4)


def test_agreement_by_hand() -> None:
    """Three matches in a row, 10 px apart; the third went 7 px astray, and is twice as large there."""
    here = keypoints(np.array([[0, 0], [10, 0], [20, 0]]))
    there = keypoints(np.array([[0, 0], [10, 0], [20, 7]]), np.array([8, 8, 16]))
    first = neighbourhood(moves(here, there), np.array([[1, 2], [0, 2], [1, 0]]))
    assert first.positions[0, 0] == pytest.approx(1)
    assert first.positions[0, 1] == pytest.approx(np.exp(-((7 / (0.35 * 23)) ** 2)), rel=1e-5)
    assert first.frames[0, 1] == pytest.approx(np.exp(-((np.log(2) / 0.5) ** 2)), rel=1e-5)
    both, position, near = first.support(np.array([0.5, 0.25, 1.0], np.float32))
    assert near[0] == pytest.approx(1.25)
    assert position[0] == pytest.approx(0.25 + first.positions[0, 1])
    assert both[0] == pytest.approx(0.25 + first.positions[0, 1] * first.frames[0, 1])


def affine_moves(count: int, wrong: int = 0) -> tuple[Moves, np.ndarray]:
    """Matches that an affine map moves (the frames know its mean similarity only), the first ones astray."""
    rng = np.random.default_rng(0)
    here = rng.uniform(0, 500, (count, 2)).astype(np.float32)
    matrix = np.array([[1.1, -0.3, 40], [0.2, 0.8, -15]], np.float32)
    there = here @ matrix[:, :2].T + matrix[:, 2]
    there[:wrong] += rng.uniform(20, 60, (wrong, 2)).astype(np.float32)
    zero = np.zeros(count, np.float32)
    return Moves(here, there, zero - np.float32(0.05), zero + np.float32(0.25)), matrix


def test_an_affine_map_is_found_and_one_neighbour_astray_is_weighed_down() -> None:
    for wrong, limit_px in ((0, 0.2), (1, 1.0)):
        matches, matrix = affine_moves(60, wrong)
        points = np.random.default_rng(1).uniform(100, 400, (20, 2)).astype(np.float32)
        rows = neighbours_of(matches.here, points, np.full(20, -1))
        found = local_maps(points, matches, rows, np.ones(60, np.float32))
        assert np.linalg.norm(found.there - (points @ matrix[:, :2].T + matrix[:, 2]), axis=1).max() < limit_px
        np.testing.assert_allclose(found.turn, 0.25, atol=1e-3)
        np.testing.assert_allclose(found.scale, -0.05, atol=1e-3)
        assert (found.mass[(rows >= wrong).all(1)] > 0.9 * NEIGHBOURS).all()


def test_neighbours_of_no_weight_have_no_say() -> None:
    matches, matrix = affine_moves(60, 20)
    weights = (np.arange(60) >= 20).astype(np.float32)
    rows = neighbours_of(matches.here, matches.here, np.arange(60))
    found = local_maps(matches.here, matches, rows, weights)
    true = matches.here @ matrix[:, :2].T + matrix[:, 2]
    assert np.linalg.norm(found.there - true, axis=1).max() < 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_neighbours_give_a_map_with_little_mass(count: int) -> None:
    matches, _ = affine_moves(count)
    points = np.array([[10, 20], [300, 5]], np.float32)
    rows = neighbours_of(matches.here, points, np.full(2, -1))
    assert rows.shape == (2, max(count - 1, 0))
    found = local_maps(points, matches, rows, np.ones(count, np.float32))
    assert np.isfinite(found.there).all()
    assert np.isfinite(np.stack([found.spread, found.scale, found.turn])).all()
    np.testing.assert_allclose(found.mass, max(count - 1, 0), atol=1e-3)


def test_one_neighbour_moves_a_keypoint_as_its_frame_says() -> None:
    matches, _ = affine_moves(1)
    points = matches.here + np.array([[10, 0]], np.float32)
    found = local_maps(points, matches, np.zeros((1, 1), np.int64), np.ones(1, np.float32))
    shift = np.exp(-0.05) * 10 * np.array([np.cos(0.25), np.sin(0.25)])
    np.testing.assert_allclose(found.there - matches.there, shift[None], atol=1e-2)


def test_sizes_and_angles_that_are_unset_say_nothing() -> None:
    here = keypoints(np.zeros((4, 2)), np.array([2, 0, np.nan, 4]), np.array([10, 20, -1, 350]))
    there = keypoints(np.zeros((4, 2)), np.array([4, 2, 2, 2]), np.array([-1, 50, 30, 20]))
    found = moves(here, there)
    np.testing.assert_allclose(found.scale, [np.log(2), 0, 0, -np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(neighbours.turned(found.turn), np.deg2rad([0, 30, 0, 30]), atol=1e-5)
