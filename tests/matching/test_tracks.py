from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from kornia_bingan.keypoints import Keypoints
from kornia_bingan.matching.refine import align
from kornia_bingan.matching.tracks import LEAST_MISS_PX, MOST_DIFFERENCE, AlignedMatches, exact_keypoints
from tests.matching.test_context import keypoints
from tests.matching.test_refine import turned_pictures

COUNT = 40


def tracks(scales: list[float], turns_deg: list[float], noise_px: float) -> tuple[dict[str, Keypoints], dict, dict]:
    """Keypoints of tracks that lie wrong by some noise, what exact matches say of them, and the noise."""
    rng = np.random.default_rng(0)
    found, noise = {}, {}
    for number, (scale, turn) in enumerate(zip(scales, turns_deg, strict=True)):
        noise[str(number)] = rng.normal(0, noise_px, (COUNT, 2)).astype(np.float32)
        xy = rng.uniform(20, 200, (COUNT, 2)).astype(np.float32)
        found[str(number)] = keypoints(xy + noise[str(number)], 4 * scale, turn)
    rows = np.repeat(np.arange(COUNT)[:, None], 2, 1)
    pairs = {}
    for a, b in combinations(found, 2):
        turn = np.deg2rad(turns_deg[int(b)] - turns_deg[int(a)])
        scale = scales[int(b)] / scales[int(a)]
        matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        shift = (noise[a] @ matrix.T - noise[b]).astype(np.float32)
        pairs[a, b] = AlignedMatches(rows, shift, np.zeros(COUNT, np.float32))
    return found, pairs, noise


def misses(found: dict[str, Keypoints], pairs: dict, moved: dict[str, Keypoints]) -> np.ndarray:
    """By how many pixels matches miss each other, once both of their keypoints have moved."""
    every = []
    for (a, b), matches in pairs.items():
        shift = {name: moved[name].xy - found[name].xy for name in (a, b)}
        turn = np.deg2rad(found[b].angle_deg - found[a].angle_deg)
        factor = found[b].size / found[a].size * np.exp(1j * turn)
        here, there = (shift[name] @ np.array([1, 1j]) for name in (a, b))
        every.append(np.abs(matches.shift @ np.array([1, 1j]) + factor * here - there))
    return np.concatenate(every)


@pytest.mark.parametrize(("scales", "turns"), [([1, 1, 1], [0, 0, 0]), ([1, 1.5, 0.7, 1.2], [10, 100, 350, 200])])
def test_tracks_agree_once_their_keypoints_have_moved(scales: list[float], turns: list[float]) -> None:
    found, pairs, noise = tracks(scales, turns, 0.3)
    moved, agree = exact_keypoints(found, pairs)
    before, after = misses(found, pairs, found), misses(found, pairs, moved)
    assert np.median(after) < 0.15 * np.median(before)
    assert all(rows.all() for rows in agree.values())
    for name, points in moved.items():
        assert points.xy.dtype == np.float32
        np.testing.assert_array_equal(points.size, found[name].size)
        # nobody moves further than all that lie wrong together can ask for
        assert np.linalg.norm(points.xy - found[name].xy, axis=1).max() < 4 * np.linalg.norm(noise[name], axis=1).max()


def test_matches_that_disagree_are_left_out() -> None:
    found, pairs, _ = tracks([1, 1, 1, 1], [0, 0, 0, 0], 0.2)
    wrong = pairs["0", "1"].shift.copy()
    wrong[:5] += (1.9, 0)
    pairs["0", "1"] = replace(pairs["0", "1"], shift=wrong)
    moved, agree = exact_keypoints(found, pairs)
    assert not agree["0", "1"][:5].any()
    assert agree["0", "1"][5:].all()
    assert all(rows.all() for pair, rows in agree.items() if pair != ("0", "1"))
    kept = np.concatenate(list(agree.values()))
    assert misses(found, pairs, moved)[kept].max() < LEAST_MISS_PX


def test_what_cannot_be_aligned_is_left_out_and_stays() -> None:
    found, pairs, _ = tracks([1, 1], [0, 0], 0.2)
    difference = np.zeros(COUNT, np.float32)
    difference[:3] = MOST_DIFFERENCE, 1.5, np.inf
    shift = pairs["0", "1"].shift.copy()
    shift[3], shift[4] = (2.5, 0), (0, -4.5)
    pairs["0", "1"] = AlignedMatches(pairs["0", "1"].rows, shift, difference)
    moved, agree = exact_keypoints(found, pairs)
    np.testing.assert_array_equal(agree["0", "1"], np.arange(COUNT) >= 5)
    for name, points in moved.items():
        np.testing.assert_array_equal(points.xy[:5], found[name].xy[:5])
        assert (points.xy[5:] != found[name].xy[5:]).any(1).all()


def test_large_keypoints_may_move_further_and_miss_by_more() -> None:
    found, pairs, _ = tracks([5, 5], [0, 0], 0.0)
    shift = np.zeros((COUNT, 2), np.float32)
    shift[:, 0] = np.linspace(0, 20, COUNT)
    _, agree = exact_keypoints(found, {("0", "1"): replace(pairs["0", "1"], shift=shift)})
    # half of the size of 20 px
    np.testing.assert_array_equal(agree["0", "1"], shift[:, 0] < 10)


def test_the_order_of_matches_and_pairs_changes_nothing() -> None:
    found, pairs, _ = tracks([1, 1.5, 0.7], [10, 100, 350], 0.3)
    moved, agree = exact_keypoints(found, pairs)
    order = np.random.default_rng(1).permutation(COUNT)
    mixed = {
        pair: AlignedMatches(m.rows[order], m.shift[order], m.difference[order]) for pair, m in reversed(pairs.items())
    }
    again, agree_again = exact_keypoints(dict(reversed(found.items())), mixed)
    for name in found:
        np.testing.assert_allclose(again[name].xy, moved[name].xy, atol=1e-4)
    for pair, kept in agree_again.items():
        np.testing.assert_array_equal(kept, agree[pair][order])


def test_fixed_images_stay_and_the_others_come_to_them() -> None:
    found, pairs, noise = tracks([1, 1.5, 0.7], [10, 100, 350], 0.3)
    exact = {"0": replace(found["0"], xy=found["0"].xy - noise["0"])}
    moved, agree = exact_keypoints(found, pairs, exact)
    np.testing.assert_allclose(moved["0"].xy, exact["0"].xy, atol=1e-5)
    for name in ("1", "2"):
        before, after = (np.linalg.norm(k[name].xy - found[name].xy + noise[name], axis=1) for k in (found, moved))
        assert np.median(after) < 0.4 * np.median(before)
    assert all(rows.all() for rows in agree.values())
    assert exact_keypoints(found, {}, exact)[0]["0"] is exact["0"]


def test_images_without_matches_and_unknown_frames() -> None:
    found, pairs, _ = tracks([1, 1], [0, 0], 0.2)
    found["alone"], found["empty"] = found["0"], found["0"][:0]
    found["1"] = replace(found["1"], angle_deg=np.full(COUNT, -1, np.float32))
    nothing = AlignedMatches(np.zeros((0, 2), np.int32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    moved, agree = exact_keypoints(found, {**pairs, ("alone", "empty"): nothing})
    np.testing.assert_array_equal(moved["alone"].xy, found["alone"].xy)
    assert moved["empty"].xy.shape == (0, 2)
    assert agree["0", "1"].all()
    assert agree["alone", "empty"].shape == (0,)
    moved, agree = exact_keypoints(found, {})
    assert agree == {}
    np.testing.assert_array_equal(moved["0"].xy, found["0"].xy)


def test_pictures_of_one_plane_get_exact() -> None:
    pyramid0, pyramid1, here, there = turned_pictures(1.3, 40.0)
    rng = np.random.default_rng(3)
    rough = {
        name: keypoints(points.xy + rng.normal(0, 0.3, (60, 2)), points.size, points.angle_deg)
        for name, points in (("0", here), ("1", there))
    }
    rows = np.repeat(np.arange(60)[:, None], 2, 1)
    matches = AlignedMatches.of(rows, align(pyramid0, pyramid1, rough["0"], rough["1"]))
    moved, agree = exact_keypoints(rough, {("0", "1"): matches})

    def error(points: dict[str, Keypoints]) -> float:
        turn = np.deg2rad(40.0)
        matrix = 1.3 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        return float(np.median(np.linalg.norm((points["0"].xy - 120) @ matrix.T + 120 - points["1"].xy, axis=1)))

    assert agree["0", "1"].mean() > 0.9
    assert error(moved) < 0.3 * error(rough)
