from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eval import patch_peers, peer_rows, peers
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints, detect
from kornia_bingan.weights import find_weights
from tests.conftest import texture


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return texture(200, 240, 3)


@pytest.fixture(scope="module")
def points(image: np.ndarray) -> Keypoints:
    return detect(image, "dog", 40)


def test_root_sift_is_the_root_of_sift_of_sum_one(image: np.ndarray, points: Keypoints) -> None:
    rows, sift = peer_rows.root_sift_rows(image, points), peer_rows.sift_rows(image, points)
    np.testing.assert_allclose(rows**2, sift / sift.sum(1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_hash_sift_adds_its_intercept(image: np.ndarray, points: Keypoints) -> None:
    """The first column of the table stands alone: with nothing else in it, its signs are the bits."""
    table = np.zeros((16, 129), np.float32)
    table[::3, 0], table[1::3, 0] = 1, -1
    bits = np.unpackbits(peer_rows.hash_sift_rows(table, image, points), axis=1)
    assert (bits == (table[:, 0] > 0)).all()
    sift = peer_rows.sift_rows(image, points)
    table[:, 5] = 1
    middle = np.floor(np.median(sift[:, 4])) + 0.5  # the values are whole, so none is a tie
    table[:, 0] = -middle
    bits = np.unpackbits(peer_rows.hash_sift_rows(table, image, points), axis=1)
    np.testing.assert_array_equal(bits[:, 0], sift[:, 4] > middle)
    assert 0 < bits.mean() < 1


OPENCV = ("sift", "orb", "brief", "latch", "brisk", "freak", "beblid256", "teblid256", "boostdesc", "boostdesc64")
NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    return np.stack([texture(64, 64, seed) for seed in range(4)])


def painted(patches: np.ndarray, side: int) -> np.ndarray:
    """Patches with noise outside of the middle square of a side."""
    first, last = 32 - side // 2, 32 + side // 2
    copy = np.random.default_rng(0).integers(0, 256, patches.shape, dtype=np.uint8)
    copy[:, first:last, first:last] = patches[:, first:last, first:last]
    return copy


@pytest.mark.parametrize("name", OPENCV)
def test_every_peer_sees_the_whole_patch(name: str, patches: np.ndarray) -> None:
    """ORB saw 27 of 64 px, because a patch has too few levels of its pyramid."""
    ((seeing,), absent) = patch_peers.patch_peers([name], NOWHERE, {}, None)
    assert not absent
    assert seeing.side_px == 64
    rows = patch_peers.describe_patches(seeing, patches)
    assert rows.shape[0] == len(patches)
    changed = (patch_peers.describe_patches(seeing, painted(patches, 52)) != rows).any(1)
    assert changed.any(), "nothing outside of 52 px is seen"


@pytest.mark.parametrize("name", OPENCV)
def test_a_peer_at_its_best_sees_its_square_only(name: str, patches: np.ndarray) -> None:
    found, _ = patch_peers.patch_peers([name], NOWHERE, {name: 7.0}, 20.0)
    assert [seeing.peer.name for seeing in found] == [name, f"{name}@7"]
    whole, seeing = found
    assert seeing.side_px == pytest.approx(22.4)
    rows = patch_peers.describe_patches(seeing, patches)
    assert (rows != patch_peers.describe_patches(whole, patches)).any()
    if name != "sift":  # its pyramid blurs the whole patch, so that a little of everything reaches the window
        np.testing.assert_array_equal(patch_peers.describe_patches(seeing, painted(patches, 44)), rows)
    assert len(patch_peers.patch_peers([name], NOWHERE, {name: 7.0}, None)[0]) == 1, "a patch of unknown scale"
    assert len(patch_peers.patch_peers([name], NOWHERE, {name: 24.0}, 20.0)[0]) == 1, "no more than the whole"


@pytest.mark.parametrize("name", OPENCV)
def test_a_larger_support_region_looks_further(name: str, image: np.ndarray, points: Keypoints) -> None:
    (usual, wide), _ = peers.load_peers([name, f"{name}@30"], NOWHERE)
    assert wide.name == f"{name}@30"
    assert wide.side_sigma == 30
    assert usual.identity() != wide.identity()
    near = points[(points.size > 7) & (points.size < 30)]  # FREAK makes no difference below 7 px
    assert len(near) > 5
    rows = wide.describe(image, near)
    assert rows.shape == usual.describe(image, near).shape == (len(near), len(rows[0]))
    assert (rows != usual.describe(image, near)).any(1).mean() > 0.9
    assert len(wide.describe(image, near[:0])) == 0


def test_a_window_on_a_square_is_that_of_the_image_where_nothing_is_resampled(image: np.ndarray) -> None:
    """A keypoint whose square has as many pixels as BRIEF's window gets the bits that the image itself gives."""
    sigma = 3.5
    one = np.ones(12, np.float32)
    xy = np.random.default_rng(1).integers(60, 130, (12, 2)).astype(np.float32)
    points = Keypoints(xy, 2 * sigma * one, 0 * one, one, np.zeros(12, np.int32))
    (usual, square), _ = peers.load_peers(["brief", f"brief@{peer_rows.FIXED_WINDOW_PX / sigma:g}"], NOWHERE)
    a, b = (np.unpackbits(peer.describe(image, points), axis=1) for peer in (usual, square))
    # The middle of an even square is between two pixels: half a pixel of the texture's blobs changes few bits.
    assert (a != b).mean() < 0.12


def test_orb_of_a_large_keypoint_in_a_small_image_is_that_of_the_same_image_extended(image: np.ndarray) -> None:
    one = np.ones(1, np.float32)
    point = Keypoints(np.full((1, 2), 31.5, np.float32), 30 * one, 0 * one, one, np.zeros(1, np.int32))
    small = image[:64, :64]
    large = np.pad(small, 400, mode="reflect")
    moved = Keypoints(point.xy + 400, point.size, point.angle_deg, point.response, point.octave)
    a, b = (np.unpackbits(peer_rows.orb_rows(picture, at)) for picture, at in ((small, point), (large, moved)))
    assert (a != b).sum() <= 25, "levels of other rounded sizes change few of 256 bits"


@pytest.mark.parametrize("name", ["orb@", "orb@x", "orb@-3", "orb@0", "orb@nan", "orb@inf"])
def test_a_side_that_is_no_positive_number_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="positive number"):
        peers.load_peers([name], NOWHERE)
    with pytest.raises(UsageError, match="no peer 'surf'"):
        peers.load_peers(["surf@12"], NOWHERE)


def test_weights_are_named_as_they_are_shipped(tmp_path: Path) -> None:
    """Of a run's folder, a copy under another name and the shipped file the table has one name."""
    shipped = find_weights("bingan256-lite")
    (tmp_path / "long").mkdir()
    for copy in (tmp_path / "long" / "weights.safetensors", tmp_path / "other.safetensors"):
        copy.write_bytes(shipped.read_bytes())
        assert peers.name_of_weights(copy) == peers.name_of_weights(shipped) == "bingan256-lite"
        copy.write_bytes(b"of a run that is not shipped")
    assert peers.name_of_weights(tmp_path / "long" / "weights.safetensors") == "long"
    assert peers.name_of_weights(tmp_path / "other.safetensors") == "other"


def test_the_scale_of_a_patch_is_read_from_its_summary(tmp_path: Path) -> None:
    assert patch_peers.patch_sigma_of(tmp_path) is None
    path = tmp_path / "summary.json"
    path.write_text('{"options": {"detector": "dog"}}')
    assert patch_peers.patch_sigma_of(tmp_path) == 20
    path.write_text('{"options": {"detector": "orb"}}')
    assert patch_peers.patch_sigma_of(tmp_path) is None
    path.write_text("{}")
    with pytest.raises(UsageError, match="no summary of bingan patches"):
        patch_peers.patch_sigma_of(tmp_path)
