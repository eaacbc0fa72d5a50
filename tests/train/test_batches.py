from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kornia_bingan.datasets.brown import read_patch_set, write_patch_set
from kornia_bingan.errors import UsageError
from kornia_bingan.network.weights import read_description
from kornia_bingan.train.batches import open_source, pairs_of_views
from kornia_bingan.train.config import check_config, preset_config
from kornia_bingan.train.jitter import NO_JITTER, Batch, Jitter
from kornia_bingan.train.loop import train
from kornia_bingan.train.tracks import draw_tracks, read_tracks
from tests.helpers.photos import texture, write_photos
from tests.train.test_loop import SMALL, log_of

pytestmark = pytest.mark.usefixtures("_few_initial_patches")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of 40 points with two patches each: the second is the first, brighter."""
    folder = tmp_path_factory.mktemp("sets")
    for seed, name in enumerate(("liberty", "notredame")):
        picture = texture(800, 800, seed)
        first = np.stack([picture[y : y + 64, x : x + 64] for y in range(0, 320, 64) for x in range(0, 512, 64)])
        second = np.clip(first.astype(np.int16) + 20, 0, 255).astype(np.uint8)
        patches = np.stack([first, second], 1).reshape(80, 64, 64)
        points = np.repeat(np.arange(40), 2)
        matches = np.stack([np.arange(0, 40, 2), np.arange(1, 40, 2)], 1)
        others = np.stack([np.arange(0, 40, 2), np.arange(40, 80, 2)], 1)
        pairs = np.stack([matches, others], 1).reshape(-1, 2)
        write_patch_set(
            folder / name, patches, points, pairs={size: (pairs[:size, 0], pairs[:size, 1]) for size in (20, 40)}
        )
    return folder


def test_an_epoch_shows_every_patch_once_and_streams_differ(sets: Path) -> None:
    changes = {**SMALL, "train": "liberty", "validate": "notredame", "batch_size": 20, "validation_pairs": 40}
    source = open_source(preset_config("brown", sets, sets / "run", **changes))
    assert source.contents["patches"] == 80
    epoch = np.concatenate([source.draw(step, 0).patches0 for step in range(4)])
    again = np.concatenate([source.draw(step, 0).patches0 for step in range(4, 8)])
    other = np.concatenate([source.draw(step, 1).patches0 for step in range(4)])

    def content(patches: np.ndarray) -> list[bytes]:
        return sorted(patch.tobytes() for patch in patches)

    assert content(epoch) == content(again) == content(other)
    assert not np.array_equal(epoch, again)
    assert not np.array_equal(epoch, other)
    np.testing.assert_array_equal(source.draw(2, 0).patches0, epoch[40:60])


def test_training_pairs_are_learnt_from_as_often_as_they_are_listed(sets: Path) -> None:
    changes = {**SMALL, "train": "liberty", "validate": "notredame", "batch_size": 20, "validation_pairs": 40}
    config = preset_config("brown", sets, sets / "run", **changes, train_pairs=40)
    source = open_source(config)
    assert source.contents["patches"] == 80
    patch_set = read_patch_set(sets / "liberty")
    index0, index1, _ = patch_set.pairs(40)
    listed = patch_set.patches32(np.concatenate([index0, index1]))
    epoch = np.concatenate([source.draw(step, 0).patches0 for step in range(4)])
    assert sorted(p.tobytes() for p in epoch) == sorted(p.tobytes() for p in listed)
    assert len({p.tobytes() for p in epoch}) < 80, "some patches of the list come twice, others of the set never"
    with pytest.raises(UsageError, match="no such pair file; the set has m50_20_20_0"):
        open_source(preset_config("brown", sets, sets / "run", **changes, train_pairs=30))


def test_the_first_images_initialise_where_asked_for(sets: Path, tmp_path: Path) -> None:
    changes = {**SMALL, "train": "liberty", "validate": "notredame", "batch_size": 6, "validation_pairs": 40}
    assert open_source(preset_config("brown", sets, sets / "run", **changes)).first is None
    first = open_source(preset_config("brown", sets, sets / "run", **changes, initialise_on="first", train_pairs=20))
    patch_set = read_patch_set(sets / "liberty")
    index0, index1, _ = patch_set.pairs(20)
    np.testing.assert_array_equal(first.first, patch_set.patches32(np.stack([index0, index1], 1).ravel()))
    runs = {}
    for way in ("random", "first"):
        run = preset_config("brown", sets, tmp_path / way, **{**changes, "steps": 1}, initialise_on=way)
        train(run)
        runs[way] = log_of(tmp_path / way, "train")[0]["gan"]
    assert runs["random"] != runs["first"]
    for wrong in ({"train_pairs": 20}, {"initialise_on": "first"}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            check_config(preset_config("brown", sets, sets / "run", **wrong))


def test_validation_is_a_pair_file_of_the_other_set(sets: Path) -> None:
    for limit, size in ((1000, 40), (39, 20)):
        changes = {**SMALL, "train": "liberty", "validate": "notredame", "validation_pairs": limit}
        pairs = open_source(preset_config("brown", sets, sets / "run", **changes)).validation
        assert len(pairs.is_match) == size
        assert pairs.is_match.sum() == size // 2
        difference = np.abs(pairs.patches[pairs.index0] - pairs.patches[pairs.index1]).mean((1, 2, 3))
        assert difference[pairs.is_match].max() < 0.09 < difference[~pairs.is_match].max()
    changes["validation_pairs"] = 10
    with pytest.raises(UsageError, match="of at most 10 pairs; it has m50_20_20_0"):
        open_source(preset_config("brown", sets, sets / "run", **changes))


@pytest.mark.parametrize("preset", ["brown", "photos"])
def test_training_on_patch_sets(preset: str, sets: Path, tmp_path: Path) -> None:
    changes = {**SMALL, "train": "liberty", "validate": "notredame", "steps": 2, "batch_size": 10}
    result = train(preset_config(preset, sets, tmp_path / "run", **{**changes, "validation_pairs": 40}))
    assert result["finished"]
    assert len(log_of(tmp_path / "run", "train")) == 2


def test_learning_from_a_set_needs_another_to_validate_on_and_learning_from_photos_may_have_one(
    sets: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="both --train and --validate"):
        open_source(preset_config("brown", sets, sets / "run", **{**SMALL, "train": "liberty"}))
    photos = write_photos(tmp_path, 3)
    changes = {**SMALL, "validate": str(sets / "notredame"), "validation_pairs": 40}
    source = open_source(preset_config("brown", photos, sets / "run", **changes))
    assert source.contents["photos"] == 3
    assert source.contents["validation_pairs"] == len(source.validation.is_match) == 40
    changes = {**SMALL, "train": "liberty", "validate": "notredame", "batch_size": 100}
    with pytest.raises(UsageError, match="fewer than a batch of 100"):
        open_source(preset_config("brown", sets, sets / "run", **changes))


def test_jitter_of_patches_makes_two_different_views(sets: Path) -> None:
    changes = {**SMALL, "train": "liberty", "validate": "notredame", "batch_size": 10, "validation_pairs": 40}
    batch = open_source(preset_config("photos", sets, sets / "run", **changes, jitter=Jitter(occlusion=0))).draw(0, 0)
    assert batch.patches0.shape == (10, 1, 32, 32)
    assert not np.array_equal(batch.patches0, batch.patches1)
    a, b = (
        x.reshape(10, -1) - x.reshape(10, -1).mean(1, keepdims=True)
        for x in (batch.patches0.numpy(), batch.patches1.numpy())
    )
    correlation = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert np.median(correlation) > 0.4


def test_pairs_of_views_leave_out_near_duplicates() -> None:
    patches = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 32, 32)
    ignore = torch.eye(4, dtype=torch.bool)
    ignore[0, 1] = ignore[1, 0] = True
    pairs = pairs_of_views(Batch(patches, patches + 10, ignore))
    values = pairs.patches[:, 0, 0, 0]
    rows = zip(pairs.index0, pairs.index1, pairs.is_match, strict=True)
    found = {(int(values[i]), int(values[j]) - 10, bool(m)) for i, j, m in rows}
    assert found >= {(0, 0, True), (3, 3, True), (1, 2, False), (0, 2, False)}
    assert (0, 1, False) not in found


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 30 points with 1 to 3 patches; the grey value of a patch is 8 x point + observation."""
    folder = tmp_path_factory.mktemp("tracks") / "place"
    points = np.repeat(np.arange(30), np.arange(30) % 3 + 1)
    values = 8 * points + np.concatenate([np.arange(count) for count in np.arange(30) % 3 + 1])
    patches = np.broadcast_to(values[:, None, None], (len(points), 64, 64)).astype(np.uint8)
    interest = np.stack([40.0 * points, 0 * points, 0.1 + 0 * points, 1 + 0 * points], 1)
    interest[points == 4, 0] = 40.0 * 5  # points 4 and 5 lie at one place
    write_patch_set(folder, patches, points, reference=points // 15, interest=interest, pairs={})
    return folder


def test_tracks_give_two_patches_of_one_point(tracks: Path) -> None:
    read = read_tracks(read_patch_set(tracks))
    assert len(read.counts) == 20
    batch = draw_tracks([read], 60, NO_JITTER, np.random.default_rng(0), torch.device("cpu"))
    assert batch.patches0.shape == batch.patches1.shape == (60, 1, 32, 32)
    value0, value1 = (np.round(255 * view[:, 0, 0, 0].numpy()).astype(int) for view in (batch.patches0, batch.patches1))
    np.testing.assert_array_equal(value0 // 8, value1 // 8)
    assert np.all(value0 != value1), "two different observations"
    assert set(value0 // 8) <= {point for point in range(30) if point % 3}
    point = value0 // 8
    same_image = point[:10]  # the first image's points come together
    assert len(set(same_image // 15)) == 1
    pairs = np.argwhere(batch.ignore.numpy() & ~np.eye(60, dtype=bool))
    assert {tuple(sorted((point[i], point[j]))) for i, j in pairs} == {(4, 5)}


def test_photos_and_tracks_share_a_batch(tracks: Path, tmp_path: Path) -> None:
    data = write_photos(tmp_path / "photos", 4)
    changes = {**SMALL, "tracks": (tracks,), "tracks_share": 0.5, "jitter": NO_JITTER, "steps": 2}
    source = open_source(preset_config("photos", data, tmp_path / "run", **changes))
    assert source.contents["tracks"] == 20
    batch = source.draw(3, 0)
    assert len(batch.patches0) == SMALL["batch_size"]
    flat = np.ptp(batch.patches0.flatten(1).numpy(), axis=1) == 0
    np.testing.assert_array_equal(np.flatnonzero(flat), np.arange(12, 24))
    assert not batch.ignore[:12, 12:].any()
    np.testing.assert_array_equal(source.draw(3, 0).patches1, batch.patches1)
    result = train(preset_config("photos", data, tmp_path / "run", **changes))
    assert str(tmp_path) not in json.dumps(read_description(Path(result["weights"])))
    with pytest.raises(UsageError, match=r"tracks_share is 1\.5"):
        train(preset_config("photos", data, tmp_path / "other", **{**changes, "tracks_share": 1.5}))


def test_sets_without_tracks_are_refused(sets: Path) -> None:
    with pytest.raises(UsageError, match=r"liberty has no interest\.txt"):
        read_tracks(read_patch_set(sets / "liberty"))
