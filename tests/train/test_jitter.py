from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.train.jitter import NO_JITTER, Batch, Jitter, bend, change_grey_values, jitter_lafs, near_duplicates
from kornia_bingan.train.photos import Photo, cut_from, cut_on_device, draw_batch, load_photos, split_photos
from tests.helpers.photos import texture, write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    return load_photos(write_photos(tmp_path_factory.mktemp("photos"), 4), 200)[0]


def frame(x: float, y: float, half: float, angle_deg: float = 0) -> list[list[float]]:
    cos, sin = half * np.cos(np.deg2rad(angle_deg)), half * np.sin(np.deg2rad(angle_deg))
    return [[cos, -sin, x], [sin, cos, y]]


def drawn(photos: list[Photo], size: int, per_batch: int, jitter: Jitter, seed: int = 0) -> Batch:
    return draw_batch(
        photos, cut_from(photos, torch.device("cpu")), size, per_batch, jitter, np.random.default_rng(seed)
    )


def test_batches_are_a_function_of_the_seed(photos: list[Photo]) -> None:
    a, b, c = (drawn(photos, 30, 4, Jitter(), seed) for seed in (1, 1, 2))
    assert a.patches0.shape == a.patches1.shape == (30, 1, 32, 32)
    assert a.ignore.shape == (30, 30)
    assert a.patches0.dtype == torch.float32
    assert float(a.patches0.min()) >= 0
    assert float(a.patches0.max()) <= 1
    np.testing.assert_array_equal(a.patches0, b.patches0)
    np.testing.assert_array_equal(a.patches1, b.patches1)
    assert not np.array_equal(a.patches0, c.patches0)


def test_without_jitter_both_views_are_the_patch_itself(photos: list[Photo]) -> None:
    batch = drawn(photos, 12, 3, NO_JITTER)
    np.testing.assert_array_equal(batch.patches0, batch.patches1)


def test_views_of_one_keypoint_are_more_alike_than_others(photos: list[Photo]) -> None:
    batch = drawn(photos, 64, 4, Jitter(occlusion=0))

    def standard(patches: np.ndarray) -> np.ndarray:
        flat = patches.reshape(len(patches), -1)
        flat = flat - flat.mean(1, keepdims=True)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    similarity = standard(batch.patches0.numpy()) @ standard(batch.patches1.numpy()).T
    others = similarity[~np.eye(64, dtype=bool)]
    assert np.median(np.diag(similarity)) > 0.5
    assert np.median(others) < 0.2


CHANGES = [field.name for field in dataclasses.fields(Jitter) if field.name != "occlusion_nearest"]


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_changes_the_patches(photos: list[Photo], name: str) -> None:
    jitter = dataclasses.replace(NO_JITTER, **{name: getattr(Jitter(), name) or 0.5})
    batch = drawn(photos, 40, 4, jitter)
    assert not np.array_equal(batch.patches0, batch.patches1)


def test_jitter_of_frames_has_the_stated_size() -> None:
    lafs = np.tile(np.array([frame(50, 60, 10, 30)], np.float32), (4000, 1, 1))
    moved = jitter_lafs(lafs, Jitter(), np.random.default_rng(0))
    octaves = np.log2(np.sqrt(np.abs(np.linalg.det(moved[:, :, :2]))) / 10)
    assert octaves.std() == pytest.approx(0.15, rel=0.1)
    assert (moved[:, :, 2] - [50, 60]).std(0) / 10 == pytest.approx([0.04, 0.04], rel=0.1)
    only_turned = jitter_lafs(lafs, dataclasses.replace(NO_JITTER, rotation_deg=8.0), np.random.default_rng(0))
    angle = np.rad2deg(np.arctan2(only_turned[:, 1, 0], only_turned[:, 0, 0])) - 30
    assert angle.std() == pytest.approx(8, rel=0.1)
    stretched = jitter_lafs(lafs, dataclasses.replace(NO_JITTER, log2_stretch=0.2), np.random.default_rng(0))
    values = np.linalg.svd(stretched[:, :, :2], compute_uv=False)
    assert np.log2(values[:, 0] / values[:, 1]).mean() == pytest.approx(0.2 * np.sqrt(2 / np.pi), rel=0.1)
    np.testing.assert_allclose(values.prod(1), 100, rtol=1e-4)


def test_near_duplicates_by_hand() -> None:
    lafs = np.array(
        [frame(x, 0, half, angle) for x, half, angle in ((0, 10, 0), (0.5, 10, 0), (2, 10, 0), (0, 20, 0), (0, 10, 90))]
        + [frame(0, 0, 10, 358)],
        np.float32,
    )
    assert near_duplicates(torch.from_numpy(lafs))[0].tolist() == [True, True, False, False, False, True]


def test_split_keeps_photos_apart(photos: list[Photo]) -> None:
    learnt, aside = split_photos(photos)
    assert {p.name for p in learnt} | {p.name for p in aside} == {p.name for p in photos}
    assert not {p.name for p in learnt} & {p.name for p in aside}
    assert aside
    assert split_photos(photos[:1]) == (photos[:1], photos[:1])


def test_large_photos_are_reduced_and_bad_ones_are_named(tmp_path: Path) -> None:
    write_photos(tmp_path, 1, (300, 400))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    [photo], _ = load_photos(tmp_path, 100, max_size=200)
    assert photo.pyramid[0].shape == (150, 200)
    assert 16 <= len(photo.lafs) <= 100
    (tmp_path / "copy.png").write_bytes((tmp_path / photo.name).read_bytes())
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((100, 100), 128, np.uint8))
    _, skipped = load_photos(tmp_path, 100)
    reasons = {item.name: item.reason for item in skipped}
    kept = min(photo.name, "copy.png")
    assert reasons.pop({photo.name, "copy.png"}.difference({kept}).pop()) == f"the same file as {kept}"
    assert set(reasons) == {"broken.jpg", "grey.png"}
    assert "not a JPEG" in reasons["broken.jpg"]
    assert reasons["grey.png"] == "it has 0 keypoints; 16 are needed"


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no photos"):
        load_photos(tmp_path, 100)
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((100, 100), 128, np.uint8))
    with pytest.raises(JobError, match="enough texture"):
        load_photos(tmp_path, 100)


def test_few_keypoints_are_drawn_with_replacement() -> None:
    levels = [texture(64, 64)]
    photo = Photo("a", levels, np.array([frame(30, 30, 8), frame(20, 30, 8)], np.float32))
    batch = drawn([photo], 10, 3, Jitter())
    assert len(batch.patches0) == 10
    assert batch.ignore.sum() > 10


def test_bending_keeps_the_middle_and_moves_the_rest() -> None:
    rng = np.random.default_rng(0)
    patches = torch.from_numpy(np.stack([texture(32, 32, seed) for seed in range(8)])[:, None].astype(np.float32) / 255)
    np.testing.assert_allclose(bend(patches, 0.0, rng), patches, atol=1e-5)
    bent = bend(patches, 0.1, rng)
    assert bent.shape == patches.shape
    assert bent.dtype == torch.float32
    change = (bent - patches).abs()[:, 0]
    assert change[:, 14:18, 14:18].mean() < 0.5 * change.mean()
    ramp = torch.arange(32.0).expand(200, 1, 32, 32) / 32
    moved = 32 * (bend(ramp, 0.1, rng) - ramp)[:, 0, 16, 4]  # interpolated between the nodes at the left
    assert 0.7 < moved.std() < 2, "a deviation of 0.1 halves of a side of 32 is 1.6 pixels"


def test_defocus_blurs_like_a_gaussian_and_leaves_most_views_sharp() -> None:
    before = np.random.default_rng(1).random((400, 1, 32, 32)).astype(np.float32)
    jitter = dataclasses.replace(NO_JITTER, defocus=1.6)
    blurred = change_grey_values(torch.from_numpy(before), jitter, np.random.default_rng(0)).numpy()
    sharpness = blurred.std((1, 2, 3)) / before.std((1, 2, 3))
    assert 0.15 < sharpness.min() < 0.3  # 1 / (2 sigma sqrt(pi)) = 0.18 for white noise
    assert 0.2 < (sharpness > 0.95).mean() < 0.7
    most = int(sharpness.argmin())
    expected = cv2.GaussianBlur(before[most, 0], (0, 0), 1.6, borderType=cv2.BORDER_REPLICATE)
    assert np.abs(blurred[most, 0] - expected).max() < 0.02


def test_patches_cut_by_a_gpu_are_those_of_opencv(photos: list[Photo]) -> None:
    """Run where there is no GPU too, since the function does not ask where its tensors are."""
    rng = np.random.default_rng(0)
    photo_of = rng.integers(len(photos), size=300)
    lafs = jitter_lafs(np.stack([photos[n].lafs[rng.integers(len(photos[n].lafs))] for n in photo_of]), Jitter(), rng)
    lafs[::3, :, :2] *= rng.uniform(0.2, 20, (100, 1, 1)).astype(np.float32)  # from every level, and over the border
    lafs[::7, :, 2] -= 100
    expected, found = (cut(photos, torch.device("cpu"))(photo_of, lafs, 32) for cut in (cut_from, cut_on_device))
    difference = (expected - found).abs().flatten(1)
    # OpenCV samples at 32nds of a pixel; a scale between two levels may be taken from the other one by rounding.
    assert difference.amax(1).quantile(0.95) < 0.03
    assert difference.mean() < 0.003
    assert expected.std() > 0.1
