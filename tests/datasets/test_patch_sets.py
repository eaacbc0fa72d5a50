from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_bingan.datasets.brown import read_patch_set
from kornia_bingan.datasets.patch_options import PatchSetOptions, Tolerances
from kornia_bingan.datasets.patch_pairs import matching_pairs
from kornia_bingan.datasets.patch_sets import make_patch_set
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.read import read_image
from kornia_bingan.train.metrics import fpr95
from tests.helpers.known_scene import KnownScene, is_seen, make_known_scene, trace

OPTIONS = PatchSetOptions(max_keypoints=3000, pair_counts=(100, 400, 10000))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> KnownScene:
    return make_known_scene(tmp_path_factory.mktemp("known") / "room", num_views=5, points_a_view=250)


@pytest.fixture(scope="module")
def made(known: KnownScene) -> Path:
    folder = known.folder / "set"
    make_patch_set(known.folder / "images", known.folder / "model", folder, options=OPTIONS)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """What the files hold, but for the summary, which has the date."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "summary.json"}


def own_keypoints(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The image of each patch, and x, y, size and angle of its keypoint."""
    rows = np.loadtxt(folder / "keypoints.txt", ndmin=2)
    return rows[:, 0].astype(int), rows[:, 1:]


def test_the_set_has_the_official_layout_and_a_summary(known: KnownScene, made: Path, tmp_path: Path) -> None:
    found = read_patch_set(made, tmp_path)
    sheets = [f"patches{number:04d}.bmp" for number in range(-(-len(found) // 256))]
    texts = ["info.txt", "interest.txt", "keypoints.txt", "m50_100_100_0.txt", "m50_400_400_0.txt", "summary.json"]
    assert sorted(path.name for path in made.iterdir()) == sorted(sheets + texts)
    summary = json.loads((made / "summary.json").read_text())
    assert summary["patches"] == len(found) > 800
    assert summary["points"] == len(np.unique(found.point_ids)) == found.point_ids.max() + 1
    assert summary["pair_files"] == [100, 400]
    assert summary["images"] == [[0, name] for name in known.cameras]
    assert summary["options"]["tolerances"]["position_px"] == 5
    assert summary["provenance"]["seed"] == 0
    (scene,) = summary["scenes"]
    assert scene["images"] == 5
    assert scene["model_points"] == len(known.xyz)
    assert scene["in_track"] + scene["by_geometry"] + scene["points"] == scene["patches"] == len(found)
    assert min(scene["in_track"], scene["by_geometry"]) > 100
    counts = np.bincount(found.point_ids)
    assert counts.min() >= 2
    assert summary["matching_pairs"] == (counts * (counts - 1) // 2).sum()


def test_patches_of_a_point_stand_together_and_share_their_reference(made: Path, tmp_path: Path) -> None:
    found = read_patch_set(made, tmp_path)
    assert (np.diff(found.point_ids) >= 0).all()
    assert found.reference is not None
    assert (np.diff(found.reference) >= 0).all()
    image, keypoint = own_keypoints(made)
    first = np.searchsorted(found.point_ids, found.point_ids)
    np.testing.assert_array_equal(image[first], found.reference)
    x, y, size, angle_deg = keypoint[first].T
    expected = np.column_stack([x, y, np.deg2rad(angle_deg), np.log2(size / 2)])
    np.testing.assert_allclose(found.interest, expected, atol=1e-6)
    for point in np.unique(found.point_ids):
        images = image[found.point_ids == point]
        assert len(set(images.tolist())) == len(images), "an image shows a point once"


def test_patches_are_the_support_regions_of_their_keypoints(known: KnownScene, made: Path, tmp_path: Path) -> None:
    """Regions larger than the patch would be blurred first, so only the others are compared with a plain warp."""
    found = read_patch_set(made, tmp_path)
    image, keypoint = own_keypoints(made)
    compared = 0
    for row in range(0, len(found), 7):
        x, y, size, angle_deg = keypoint[row]
        half = 6 * size
        if half > 40:
            continue
        photo = read_image(known.folder / "images" / list(known.cameras)[image[row]])
        turn = np.deg2rad(angle_deg)
        # cell (i, j) shows the keypoint plus half a side times ((2 i + 1) / 64 - 1, (2 j + 1) / 64 - 1), turned
        linear = half / 32 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        matrix = np.column_stack([linear, np.array([x, y]) - linear @ [31.5, 31.5]])
        plain = cv2.warpAffine(photo, matrix, (64, 64), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        assert np.abs(plain.astype(int) - found.patches[row]).mean() < 1
        corners = np.array([x, y]) + np.array([[-32, -32], [-32, 32], [32, -32], [32, 32]]) @ linear.T
        assert (corners >= -0.5).all()
        assert (corners <= [799.5, 599.5]).all()
        compared += 1
    assert compared > 50


def test_pairs_are_true(known: KnownScene, made: Path, tmp_path: Path) -> None:
    """Matches show one place of the rendered room; non-matches places that are 10 pixels apart in every image."""
    found = read_patch_set(made, tmp_path)
    image, keypoint = own_keypoints(made)
    cameras = list(known.cameras.values())
    xy = keypoint[:, :2]
    places = np.empty((len(found), 3))
    for index, camera in enumerate(cameras):
        _, places[image == index] = trace(known.planes, camera, xy[image == index])
    index0, index1, is_match = found.pairs(400)
    assert is_match.sum() == 200
    np.testing.assert_array_equal(found.reference[index0], found.reference[index1])
    first = np.searchsorted(found.point_ids, found.point_ids)
    for index, camera in enumerate(cameras):
        rows = np.flatnonzero(image == index)
        off_px = np.linalg.norm(camera.project(places[first[rows]]) - xy[rows], axis=1)
        assert np.mean(off_px < 5) > 0.99
        assert off_px.max() < 6
        assert is_seen(known.planes, camera, places[first[rows]]).mean() > 0.99
        apart = np.linalg.norm(camera.project(places[index0]) - camera.project(places[index1]), axis=1)[~is_match]
        assert apart.min() > 3, "a keypoint may be off its point by up to 5 pixels"
        assert np.mean(apart > 10) > 0.98
    assert len({tuple(sorted(pair)) for pair in zip(index0.tolist(), index1.tolist(), strict=True)}) == 400
    assert (index0 != index1).all()
    # the small file is half of the pairs of every kind that the large one starts with
    small = {tuple(sorted(pair)) for pair in zip(*(index.tolist() for index in found.pairs(100)[:2]), strict=True)}
    assert small <= {tuple(sorted(pair)) for pair in zip(index0.tolist(), index1.tolist(), strict=True)}


def test_points_that_come_close_in_any_image_are_no_non_matching_pair(known: KnownScene, tmp_path: Path) -> None:
    options = replace(OPTIONS, negative_px=200.0)
    make_patch_set(known.folder / "images", known.folder / "model", tmp_path / "set", options=options)
    found = read_patch_set(tmp_path / "set")
    image, keypoint = own_keypoints(tmp_path / "set")
    index0, index1, is_match = found.pairs(400)
    index0, index1 = index0[~is_match], index1[~is_match]
    assert len(index0) == 200
    for index, camera in enumerate(known.cameras.values()):
        places = np.empty((len(found), 3))
        for other, source in enumerate(known.cameras.values()):
            _, places[image == other] = trace(known.planes, source, keypoint[image == other, :2])
        apart = np.linalg.norm(camera.project(places[index0]) - camera.project(places[index1]), axis=1)
        assert apart.min() > 200 - 15, f"keypoints may be off their points by 5 pixels or a little more, image {index}"


def test_another_descriptor_agrees_with_the_labels(made: Path, tmp_path: Path) -> None:
    """SIFT, which had no part in the labels, finds the rendered room easy."""
    found = read_patch_set(made, tmp_path)
    index0, index1, is_match = found.pairs(400)
    sift = cv2.SIFT_create()
    middle = [cv2.KeyPoint(31.5, 31.5, 64 / 6, 0)]
    described = np.stack([sift.compute(np.ascontiguousarray(patch), middle)[1][0] for patch in found.patches])
    distance = np.linalg.norm(described[index0] - described[index1], axis=1)
    assert fpr95(distance[is_match], distance[~is_match]) < 5
    assert fpr95(-distance[is_match], -distance[~is_match]) > 99


def test_equal_seeds_give_equal_bytes_and_others_other_pairs(known: KnownScene, made: Path, tmp_path: Path) -> None:
    images, model = known.folder / "images", known.folder / "model"
    make_patch_set(images, model, tmp_path / "again", options=OPTIONS)
    assert contents(tmp_path / "again") == contents(made)
    make_patch_set([images], [model], tmp_path / "other", options=replace(OPTIONS, seed=1))
    one, two = contents(made), contents(tmp_path / "other")
    changed = {name for name in one if one[name] != two[name]}
    assert changed == {"m50_100_100_0.txt", "m50_400_400_0.txt"}


def test_jitter_changes_the_patches_and_nothing_else(known: KnownScene, made: Path, tmp_path: Path) -> None:
    still = read_patch_set(made, tmp_path / "cache")
    differences = []
    for amount in (0.5, 2.0):
        options = replace(OPTIONS, jitter_octaves=0.1 * amount, jitter_deg=10 * amount, jitter_shift=0.05 * amount)
        folder = tmp_path / str(amount)
        make_patch_set(known.folder / "images", known.folder / "model", folder, options=options)
        one, two = contents(made), contents(folder)
        assert all(one[name] == two[name] for name in one if name.endswith(".txt"))
        moved = read_patch_set(folder, tmp_path / "cache")
        differences.append(np.abs(moved.patches.astype(int) - still.patches).mean())
    assert 1 < differences[0] < differences[1]


def test_tolerances_decide_what_is_kept(known: KnownScene, tmp_path: Path) -> None:
    images, model = known.folder / "images", known.folder / "model"
    base = make_patch_set(images, model, tmp_path / "base", options=OPTIONS).scenes[0]
    strict = replace(OPTIONS, tolerances=Tolerances(position_px=1.0))
    assert make_patch_set(images, model, tmp_path / "strict", options=strict).patches < base.patches
    border = replace(OPTIONS, whole_regions=False)
    assert make_patch_set(images, model, tmp_path / "border", options=border).patches > base.patches
    orb = replace(OPTIONS, detector="orb", pair_counts=(20,))
    assert make_patch_set(images, model, tmp_path / "orb", options=orb).points >= 10


def test_several_folders_keep_their_ids_apart(known: KnownScene, made: Path, tmp_path: Path) -> None:
    images, model = known.folder / "images", known.folder / "model"
    summary = make_patch_set([images, images], [model, model], tmp_path / "two", options=OPTIONS)
    one, two = read_patch_set(made, tmp_path / "cache"), read_patch_set(tmp_path / "two", tmp_path / "cache")
    assert summary.patches == len(two) == 2 * len(one)
    assert summary.images == tuple((scene, name) for scene in (0, 1) for name in known.cameras)
    points = len(np.unique(one.point_ids))
    np.testing.assert_array_equal(two.point_ids, np.concatenate([one.point_ids, one.point_ids + points]))
    np.testing.assert_array_equal(two.reference, np.concatenate([one.reference, one.reference + 5]))
    np.testing.assert_array_equal(two.patches, np.concatenate([one.patches, one.patches]))
    image, _ = own_keypoints(tmp_path / "two")
    assert image[len(one)] == image[0] + 5
    index0, index1, is_match = two.pairs(400)
    second = index0 >= len(one)
    np.testing.assert_array_equal(second, index1 >= len(one))
    for kind in (is_match, ~is_match):
        assert 0.3 < second[kind].mean() < 0.7


def test_photos_alone_are_enough(tmp_path: Path) -> None:
    """From photos on, with COLMAP's SIFT in between; what is found is checked against the rendered room."""
    known = make_known_scene(tmp_path / "room", num_views=4, points_a_view=1)
    small = tmp_path / "small"
    small.mkdir()
    for name in known.cameras:
        photo = cv2.imread(str(known.folder / "images" / name))
        cv2.imwrite(str(small / name), cv2.resize(photo, (400, 300), interpolation=cv2.INTER_AREA))
    options = PatchSetOptions(pair_counts=(100,))
    summary = make_patch_set(small, None, tmp_path / "set", options=options)
    assert summary.scenes[0].model is None
    assert summary.scenes[0].images == 4
    image, keypoint = own_keypoints(tmp_path / "set")
    found = read_patch_set(tmp_path / "set")
    first = np.searchsorted(found.point_ids, found.point_ids)
    cameras = list(known.cameras.values())
    off_px = []
    for row in np.flatnonzero(first != np.arange(len(first))):
        _, place = trace(known.planes, cameras[image[first[row]]], 2 * keypoint[first[row], None, :2] + 0.5)
        off_px.append(np.linalg.norm(cameras[image[row]].project(place)[0] - 2 * keypoint[row, :2] - 0.5) / 2)
    assert len(off_px) > 200
    assert np.mean(np.array(off_px) < 6) > 0.98
    make_patch_set(small, None, tmp_path / "again", options=options)
    assert contents(tmp_path / "again").items() <= contents(tmp_path / "set").items()


@pytest.mark.parametrize("counts", [[], [1], [2], [3, 1, 2], [4, 2, 3, 2]])
def test_matching_pairs_are_all_of_them_one_of_every_point_first(counts: list[int]) -> None:
    point = np.repeat(np.arange(len(counts)), counts)
    pairs = matching_pairs(point, np.random.default_rng(0))
    expected = {(a, b) for a in range(len(point)) for b in range(a + 1, len(point)) if point[a] == point[b]}
    assert pairs.dtype == np.int64
    assert pairs.shape == (len(expected), 2)
    assert set(map(tuple, pairs.tolist())) == expected
    turns = [point[pairs[:, 0]].tolist()[:row].count(point[pairs[row, 0]]) for row in range(len(pairs))]
    assert turns == sorted(turns)


def test_what_does_not_fit_is_refused_and_leaves_nothing(known: KnownScene, tmp_path: Path) -> None:
    images, model, out = known.folder / "images", known.folder / "model", tmp_path / "set"
    name = next(iter(known.cameras))
    fewer, smaller = tmp_path / "fewer", tmp_path / "smaller"
    for folder in (fewer, smaller):
        shutil.copytree(images, folder)
    (fewer / name).unlink()
    cv2.imwrite(str(smaller / name), np.zeros((300, 400), np.uint8))
    blank = tmp_path / "blank"
    blank.mkdir()
    for each in known.cameras:
        cv2.imwrite(str(blank / each), np.full((600, 800), 90, np.uint8))

    def refused(kind: type[Exception], words: str, *arguments: object, **changes: object) -> None:
        with pytest.raises(kind, match=words):
            make_patch_set(*(arguments or (images, model)), out, options=replace(OPTIONS, **changes))

    refused(UsageError, rf"the model has the image {name}, but .*fewer has not", fewer, model)
    refused(UsageError, rf"{name} is 400 x 300 as a viewer shows it, but 800 x 600 in the model", smaller, model)
    refused(UsageError, r"2 folders of photos and 1 models were given", [images, images], [model])
    refused(UsageError, r"0 folders of photos", [], [])
    refused(UsageError, r"blank holds no readable COLMAP model", images, blank)
    refused(JobError, r"no point of .*blank has two observations; the model has \d+ points", blank, model)
    refused(
        JobError, r"the set has \d+ patches, \d+ matching and \d+ non-matching pairs, too few", pair_counts=(20000,)
    )
    refused(UsageError, r"pair_counts are \(3,\); give even numbers from 2 on", pair_counts=(3,))
    refused(UsageError, r"pair_counts are \(\); give even numbers", pair_counts=())
    refused(UsageError, r"jitter_deg is -1; give a number from 0 on", jitter_deg=-1)
    refused(UsageError, r"scale_octaves is nan; give a number", tolerances=Tolerances(scale_octaves=float("nan")))
    refused(UsageError, r"seed is -1; give a number from 0 on", seed=-1)
    refused(UsageError, r"threads is 0; give 1 or more", threads=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blank", "fewer", "smaller"]
    with pytest.raises(UsageError, match=r"blank exists and is no empty folder"):
        make_patch_set(images, model, blank, options=OPTIONS)
