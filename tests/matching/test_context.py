from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import kornia_bingan
from kornia_bingan import bits
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import BLOB_SUPPORT, Keypoints
from kornia_bingan.kornia import ContextMatcher, lafs_from_keypoints
from kornia_bingan.matching import context
from kornia_bingan.matching.agreement import probability_by_agreement
from kornia_bingan.matching.context import ContextModel, match_in_context
from kornia_bingan.network.weights import context_of
from kornia_bingan.reconstruct.features import Features, features_path
from kornia_bingan.reconstruct.matches import Block, match_unit
from kornia_bingan.reconstruct.options import Context

# Odds fall with distance and ratio, and rise with the logarithm of the support of each picture; those of candidates
# fall with the pixels by which they miss the maps of their neighbours, and hardly with their distance.
FOLLOWS = (-1.0, -0.5, 0.0, 0.5, -0.5)
MODEL = ContextModel(
    256,
    (
        (-8.0, -2.0, 0.0, 0.0, 4.0),
        (-4.0, -1.0, 0.0, 0.0, 1.5, 0.5, -0.5, 1.5, 0.5, -0.5, 0.0, 0.0, 0.5, -1.0),
    ),
    (np.array([-2.0, -0.5, 0.0, 0.0, 0.0, 0.0, *(1.5 * f for f in FOLLOWS), *FOLLOWS, 2.0])[:, None],),
)


def keypoints(xy: np.ndarray, size: float | np.ndarray = 8.0, angle_deg: float | np.ndarray = 30.0) -> Keypoints:
    count = len(xy)
    return Keypoints(
        xy.astype(np.float32),
        np.broadcast_to(np.float32(size), count).copy(),
        np.broadcast_to(np.float32(angle_deg), count).copy(),
        np.ones(count, np.float32),
        np.zeros(count, np.int32),
    )


def moved(points: Keypoints, scale: float, turn_deg: float, shift: tuple[float, float]) -> Keypoints:
    """The same keypoints in a picture that is turned clockwise and enlarged."""
    cos, sin = scale * np.cos(np.deg2rad(turn_deg)), scale * np.sin(np.deg2rad(turn_deg))
    xy = points.xy @ np.array([[cos, sin], [-sin, cos]]) + shift
    return keypoints(xy, points.size * scale, (points.angle_deg + turn_deg) % 360)


def scene(
    count: int, wrong: int, scale: float = 1.4, turn_deg: float = 70.0
) -> tuple[Keypoints, Keypoints, np.ndarray]:
    """``count`` matches of one similarity transform, of which the first ``wrong`` are moved anywhere."""
    rng = np.random.default_rng(0)
    here = keypoints(rng.uniform(0, 800, (count, 2)), rng.uniform(4, 20, count), rng.uniform(0, 360, count))
    there = moved(here, scale, turn_deg, (300, -40))
    there.xy[:wrong] = rng.uniform(there.xy.min(0), there.xy.max(0), (wrong, 2))
    there.angle_deg[:wrong] = rng.uniform(0, 360, wrong)
    return here, there, np.arange(count) >= wrong


def codes_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


def test_matches_of_one_transform_are_told_from_others_that_look_as_good() -> None:
    here, there, right = scene(600, 300)
    codes = codes_of(600)
    probability, indices = match_in_context(codes, codes, here, there, model=MODEL, threshold=0)
    assert np.array_equal(indices[right[indices[:, 0]], 0], np.flatnonzero(right)), "of the right ones none is lost"
    same = indices[:, 0] == indices[:, 1]
    wrong = probability[same & ~right[indices[:, 0]], 0]
    assert probability[right[indices[:, 0]]].min() > 0.5 > np.quantile(wrong, 0.98)
    alone = context.seed_probability(context.compare(codes, codes, here, there), MODEL.rounds[:1])
    assert np.ptp(alone) < 1e-3, "distance and ratio say nothing here"


def test_codes_that_say_nothing_are_matched_where_their_neighbours_put_them() -> None:
    here, there, _ = scene(300, 0)
    codes, others = codes_of(300), codes_of(300)
    others[:30] = codes_of(30, seed=1)
    _, indices = match_in_context(codes, others, here, there, model=MODEL)
    np.testing.assert_array_equal(indices, np.stack([np.arange(300)] * 2, 1))


def test_where_few_matches_are_probable_more_are_kept() -> None:
    here, there, _ = scene(200, 60)
    codes = codes_of(200)
    everything, rows = match_in_context(codes, codes, here, there, model=MODEL, threshold=0)
    kept, _ = match_in_context(codes, codes, here, there, model=MODEL, threshold=1, min_matches=80)
    assert len(kept) == 80
    assert kept.min() >= np.sort(everything[:, 0])[-80]
    found = match_in_context(codes, codes, here, there, model=MODEL, threshold=0.5, min_matches=80)[0]
    assert len(found) > 80
    assert found.min() >= 0.5
    for least in (200, 1000):
        few = match_in_context(codes, codes, here, there, model=MODEL, threshold=0.9, min_matches=least)[1]
        np.testing.assert_array_equal(few, rows[everything[:, 0] >= context.DOUBTFUL])
    nothing = match_in_context(codes[:1], codes, here[:1], there, model=MODEL, min_matches=5)[1]
    assert nothing.shape == (0, 2)
    with pytest.raises(UsageError, match="min_matches is -1"):
        match_in_context(codes, codes, here, there, model=MODEL, min_matches=-1)


def test_the_order_of_keypoints_changes_nothing() -> None:
    here, there, _ = scene(300, 100)
    codes, rng = codes_of(300), np.random.default_rng(1)
    first, second = rng.permutation(300), rng.permutation(300)
    expected, rows = match_in_context(codes, codes, here, there, model=MODEL)
    found, shuffled = match_in_context(codes[first], codes[second], here[first], there[second], model=MODEL)
    back = np.stack([first[shuffled[:, 0]], second[shuffled[:, 1]]], 1)
    order = np.argsort(back[:, 0])
    np.testing.assert_array_equal(back[order], rows)
    np.testing.assert_allclose(found[order], expected, atol=1e-4)


def test_the_order_of_pictures_changes_nothing() -> None:
    here, there, _ = scene(300, 100)
    codes = codes_of(300)
    expected, rows = match_in_context(codes, codes, here, there, model=MODEL)
    found, turned = match_in_context(codes, codes, there, here, model=MODEL)
    order = np.argsort(turned[:, 1])
    np.testing.assert_array_equal(turned[order, ::-1], rows)
    np.testing.assert_allclose(found[order], expected, atol=1e-4)


def test_agreement_with_one_geometry_moves_the_probabilities_of_a_pair_together() -> None:
    here, there, _ = scene(600, 300)
    codes = codes_of(600)
    plain, rows = match_in_context(codes, codes, here, there, model=MODEL, threshold=0, agreement=False)
    moved_ones, same = match_in_context(codes, codes, here, there, model=MODEL, threshold=0)
    np.testing.assert_array_equal(rows, same)
    xy0, xy1 = here.xy[rows[:, 0]], there.xy[rows[:, 1]]
    expected = probability_by_agreement(plain[:, 0].astype(np.float64), xy0, xy1)
    np.testing.assert_allclose(moved_ones[:, 0], expected, atol=1e-4)
    assert np.abs(moved_ones - plain).max() > 0.01


def test_candidates_look_the_same_from_both_pictures() -> None:
    here, there, _ = scene(300, 100)
    codes = codes_of(300)
    pair, turned = context.compare(codes, codes, here, there), context.compare(codes, codes, there, here)
    found = context.candidates(pair, np.full(len(pair.seeds), 0.5))
    back = context.candidates(turned, np.full(len(turned.seeds), 0.5))
    order = np.lexsort(back.rows.T)
    np.testing.assert_array_equal(back.rows[order, ::-1], found.rows)
    np.testing.assert_allclose(back.values[order], found.values, atol=1e-3)
    assert (found.values[:, 6] >= found.values[:, 11]).all(), "first comes the map that is missed by more"
    assert (found.values[:, 6] > found.values[:, 11]).any()


def test_a_perceptron_is_its_layers() -> None:
    layers = (np.array([[1.0, -1], [2, 0], [0.5, 1]]), np.array([[2.0], [-1], [0.25]]))
    found = context.perceptron(np.array([[1.0, -2], [0, 1]], np.float32), layers)
    # the first: 1 - 4 + 0.5 and -1 + 1, both cut at 0; the second: 2.5 and 1
    np.testing.assert_allclose(found, 1 / (1 + np.exp([-0.25, -(5 - 1 + 0.25)])))


def test_each_keypoint_has_one_match() -> None:
    rows = np.array([[0, 0], [0, 1], [1, 1], [2, 1], [3, 3], [4, 3]])
    probability = np.array([0.6, 0.9, 0.8, 0.1, 0.5, 0.5])
    # (0, 1) beats three; of two equals the one first in order stays.
    assert context.one_to_one(rows, probability).tolist() == [1, 4]


def test_ratios_are_over_the_nearest_other_code() -> None:
    codes = np.zeros((3, 32), np.uint8)
    codes[1, 0], codes[2, :2] = 0b1111, 0b11111111
    points = keypoints(np.zeros((3, 2)))
    pair = context.compare(codes, codes[[0, 2]], points, points[:2])
    rows = np.array([[0, 0], [1, 0], [1, 1], [2, 0]])
    distances = pair.distances(rows)
    assert distances.tolist() == [0, 4, 12, 16]
    first, second = context.ratios(pair, rows, distances)
    # code 2 has a twin at distance 0, beside which nothing else is near
    assert first.tolist() == pytest.approx([0, 4 / 12, 2, 2])
    assert second.tolist() == pytest.approx([0, 2, 2, 2])


def test_matching_gives_pairs_with_their_probability() -> None:
    here, there, right = scene(200, 60)
    codes = codes_of(200)
    found, indices = match_in_context(codes, codes[::-1], here, there[np.arange(200)[::-1]], model=MODEL)
    assert found.dtype == np.float32
    assert found.shape == (len(indices), 1)
    assert (indices[:, 0] + indices[:, 1] == 199).all()
    assert right[indices[:, 0]].mean() > 0.95
    everything, _ = match_in_context(codes, codes, here, there, model=MODEL, threshold=0.0)
    assert len(everything) > len(found)
    for threads in (1, 2):
        again = match_in_context(
            codes, codes[::-1], here, there[np.arange(200)[::-1]], model=MODEL, num_threads=threads
        )
        np.testing.assert_array_equal(again[0], found)
        np.testing.assert_array_equal(again[1], indices)


def test_without_a_model_it_is_that_of_the_shipped_codes() -> None:
    here, there, _ = scene(200, 60)
    codes = codes_of(200)
    shipped = ContextModel.of(context_of("bingan256"))
    for found, expected in zip(
        kornia_bingan.match_in_context(codes, codes, here, there),
        match_in_context(codes, codes, here, there, model=shipped, threshold=0.5),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


def test_a_picture_matches_itself() -> None:
    here, _, _ = scene(100, 0)
    _, indices = match_in_context(codes_of(100), codes_of(100), here, here, model=MODEL, threshold=0.9)
    np.testing.assert_array_equal(indices, np.stack([np.arange(100)] * 2, 1))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_fewer_keypoints_than_neighbours(count: int) -> None:
    here, there, _ = scene(max(count, 2), 0)
    here, there, codes = here[:count], there[:count], codes_of(count)
    found, indices = match_in_context(codes, codes, here, there, model=MODEL, threshold=0.0)
    # A code needs a second neighbour for its ratio.
    assert len(found) == len(indices) == (count if count > 1 else 0)
    assert np.isfinite(found).all()


def test_without_seeds_there_is_no_match() -> None:
    """Equal codes: of several nearest neighbours the first one counts, so only one pair is mutual."""
    here, there, _ = scene(40, 0)
    codes = np.zeros((40, 32), np.uint8)
    found, indices = match_in_context(codes, codes, here, there, model=MODEL, threshold=0.0)
    assert indices.tolist() == [[0, 0]]
    assert np.isfinite(found).all()


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(("size", "angle"), [(0.0, -1.0), (np.nan, np.nan), (-3.0, -1.0)])
def test_sizes_and_angles_unknown_in_one_picture_count_as_equal(side: int, size: float, angle: float) -> None:
    here, there, right = scene(300, 100, 1.0, 0.0)
    pair = [here, there]
    pair[side] = replace(pair[side], size=np.full(300, size, np.float32), angle_deg=np.full(300, angle, np.float32))
    probability, indices = match_in_context(codes_of(300), codes_of(300), pair[0], pair[1], model=MODEL)
    np.testing.assert_array_equal(np.intersect1d(indices[:, 0], np.flatnonzero(right)), np.flatnonzero(right))
    assert np.isfinite(probability).all()


def test_all_keypoints_in_one_place() -> None:
    flat = keypoints(np.full((300, 2), 7.0))
    probability, indices = match_in_context(codes_of(300), codes_of(300), flat, flat, model=MODEL, threshold=0.0)
    assert np.isfinite(probability).all()
    assert len(set(indices[:, 0])) == len(set(indices[:, 1])) == len(indices)


def test_wrong_use() -> None:
    here, there, _ = scene(10, 0)
    codes = codes_of(10)
    with pytest.raises(UsageError, match="image 1 has 9 codes and 10 keypoints"):
        match_in_context(codes, codes[:9], here, there, model=MODEL)
    with pytest.raises(UsageError, match=r"the threshold is 1\.5"):
        match_in_context(codes, codes, here, there, model=MODEL, threshold=1.5)
    with pytest.raises(UsageError, match="codes have 128 bits; the model is one of codes of 256"):
        match_in_context(codes[:, :16], codes[:, :16], here, there, model=MODEL)


def test_blocks_of_pairs_are_matched_in_context(tmp_path: Path) -> None:
    here, there, _right = scene(200, 60)
    codes = codes_of(200)
    for name, points in (("a.jpg", here), ("b.jpg", there)):
        Features((800, 800), points, codes).write(features_path(tmp_path, name))
    path = tmp_path / "000000.npz"
    match_unit([("a.jpg", "b.jpg")], str(tmp_path), str(path), 0.8, Context(MODEL, 0.5))
    [rows] = Block.read(path).matches
    _, expected = match_in_context(codes, codes, here, there, model=MODEL, threshold=0.5)
    np.testing.assert_array_equal(rows, expected)
    assert 0 < len(rows) < 200


def test_the_matcher_for_kornia_gives_the_same_as_arrays() -> None:
    here, there, _ = scene(200, 60)
    codes = codes_of(200)
    matcher = ContextMatcher.__new__(ContextMatcher)
    torch.nn.Module.__init__(matcher)
    matcher.model, matcher.threshold, matcher.agreement = MODEL, 0.5, True
    lafs = [lafs_from_keypoints(points, BLOB_SUPPORT) for points in (here, there)]
    expected, rows = match_in_context(codes, codes, here, there, model=MODEL, threshold=0.5)
    for form in (torch.from_numpy(codes), bits.unpack(torch.from_numpy(codes))):
        distances, indices = matcher(form, form, *lafs)
        np.testing.assert_array_equal(indices, rows)
        np.testing.assert_allclose(distances, 1 - expected, atol=1e-3)
    empty = torch.empty(0, 32, dtype=torch.uint8), torch.empty(1, 0, 2, 3)
    distances, indices = matcher(empty[0], torch.from_numpy(codes), empty[1], lafs[1])
    assert distances.shape == (0, 1)
    assert indices.shape == (0, 2)


def test_a_ratio_where_the_other_code_is_at_distance_0() -> None:
    """Two equal codes are ambiguous, as in ``match``; a candidate beside an equal code is as bad as can be."""
    codes0, codes1 = np.zeros((2, 32), np.uint8), np.zeros((2, 32), np.uint8)
    codes0[1] = 255
    points = keypoints(np.array([[0, 0], [5, 5]]))
    pair = context.compare(codes0, codes1, points, points)
    rows = np.array([[0, 0], [1, 0]])
    ratio0, ratio1 = context.ratios(pair, rows, pair.distances(rows))
    assert ratio0.tolist() == [1, 1]
    assert ratio1.tolist() == [0, 2]
