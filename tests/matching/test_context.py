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
from kornia_bingan.matching.context import ContextModel, context_probability, match_in_context
from kornia_bingan.network.weights import context_of
from kornia_bingan.reconstruct.features import Features, features_path
from kornia_bingan.reconstruct.matches import Block, match_unit

# Odds fall with distance and ratio, and rise with the logarithm of the support of each picture.
MODEL = ContextModel(
    256, ((-8.0, -2.0, 0.0, 0.0, 4.0), (-4.0, -1.0, 0.0, 0.0, 1.5, 0.5, -0.5, 1.5, 0.5, -0.5, 0.0, 0.0, 0.5, -1.0))
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


def test_matches_of_one_transform_are_told_from_others_that_look_as_good() -> None:
    here, there, right = scene(600, 300)
    same = np.full(600, 60.0), np.full(600, 0.85)
    probability = context_probability(here, there, *same, MODEL)
    assert probability[right].min() > 0.5 > np.quantile(probability[~right], 0.98)
    alone = context_probability(here, there, *same, ContextModel(256, MODEL.rounds[:1]))
    assert np.ptp(alone) == 0, "distance and ratio say nothing here"


@pytest.mark.parametrize(("scale", "turn_deg"), [(1.0, 0.0), (0.4, 200.0), (2.5, 355.0)])
def test_every_neighbour_of_an_exact_transform_agrees(scale: float, turn_deg: float) -> None:
    here, there, _ = scene(50, 0, scale, turn_deg)
    for each in context.neighbourhoods(here, there):
        assert each.rows.shape == (50, context.NEIGHBOURS)
        assert (each.rows != np.arange(50)[:, None]).all(), "a match is no neighbour of its own"
        np.testing.assert_allclose(each.positions, 1, atol=1e-4)
        np.testing.assert_allclose(each.frames, 1, atol=1e-4)
        assert all(len(set(row)) == context.NEIGHBOURS for row in each.rows.tolist())


def test_agreement_by_hand() -> None:
    """Three matches in a row, 10 px apart; the third went 7 px astray, and is twice as large there."""
    here = keypoints(np.array([[0, 0], [10, 0], [20, 0]]))
    there = keypoints(np.array([[0, 0], [10, 0], [20, 7]]), np.array([8, 8, 16]))
    first, _ = context.neighbourhoods(here, there)
    place = {int(row): k for k, row in enumerate(first.rows[0])}
    assert first.positions[0, place[1]] == pytest.approx(1)
    assert first.positions[0, place[2]] == pytest.approx(np.exp(-((7 / (0.35 * 23)) ** 2)))
    assert first.frames[0, place[2]] == pytest.approx(np.exp(-((np.log(2) / 0.5) ** 2)))
    both, position, near = first.support(np.array([0.5, 0.25, 1.0]))
    assert near[0] == pytest.approx(1.25)
    assert position[0] == pytest.approx(0.25 + first.positions[0, place[2]])
    assert both[0] == pytest.approx(0.25 + first.positions[0, place[2]] * first.frames[0, place[2]])


def test_the_order_of_matches_changes_nothing() -> None:
    here, there, _ = scene(300, 100)
    rng = np.random.default_rng(1)
    distance, ratio = rng.uniform(20, 100, 300), rng.uniform(0.5, 1, 300)
    order = rng.permutation(300)
    expected = context_probability(here, there, distance, ratio, MODEL)
    shuffled = context_probability(here[order], there[order], distance[order], ratio[order], MODEL)
    np.testing.assert_allclose(shuffled, expected[order], atol=1e-9)


def codes_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


def test_matching_gives_pairs_with_their_probability() -> None:
    here, there, right = scene(200, 60)
    codes = codes_of(200)
    found, indices = match_in_context(codes, codes[::-1], here, there[np.arange(200)[::-1]], model=MODEL)
    assert found.dtype == np.float32
    assert found.shape == (len(indices), 1)
    assert (indices[:, 0] + indices[:, 1] == 199).all()
    assert right[indices[:, 0]].mean() > 0.95
    everything, _ = match_in_context(codes, codes, here, there, model=MODEL, threshold=0.0)
    assert len(everything) == 200
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


def test_keypoints_of_odd_places_sizes_and_angles() -> None:
    _here, _there, right = scene(300, 100)
    same = np.full(300, 60.0), np.full(300, 0.85)
    flat = keypoints(np.full((300, 2), 7.0))
    assert np.isfinite(context_probability(flat, flat, *same, MODEL)).all()
    straight, ahead, right = scene(300, 100, 1.0, 0.0)
    for size, angle in ((0.0, -1.0), (np.nan, np.nan), (-3.0, -1.0)):
        # unknown in one picture: as in the other, which is true here
        unknown = replace(ahead, size=np.full(300, size, np.float32), angle_deg=np.full(300, angle, np.float32))
        for pair in ((straight, unknown), (unknown, straight)):
            probability = context_probability(*pair, *same, MODEL)
            assert np.isfinite(probability).all()
            assert probability[right].mean() > probability[~right].mean() + 0.3


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
    match_unit([("a.jpg", "b.jpg")], str(tmp_path), str(path), 0.8, (MODEL, 0.5))
    [rows] = Block.read(path).matches
    _, expected = match_in_context(codes, codes, here, there, model=MODEL, threshold=0.5)
    np.testing.assert_array_equal(rows, expected)
    assert 0 < len(rows) < 200


def test_the_matcher_for_kornia_gives_the_same_as_arrays() -> None:
    here, there, _ = scene(200, 60)
    codes = codes_of(200)
    matcher = ContextMatcher.__new__(ContextMatcher)
    torch.nn.Module.__init__(matcher)
    matcher.model, matcher.threshold = MODEL, 0.5
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
