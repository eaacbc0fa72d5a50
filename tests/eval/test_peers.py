from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import kornia.feature as KF
import numpy as np
import pytest
import torch
from torch import nn

from eval.harness import ours, patch_peers, peer_rows, peers
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints, detect, to_opencv
from kornia_bingan.network.weights import find_weights
from kornia_bingan.work.files import sha256_of
from tests.helpers.photos import texture


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
        assert ours.name_of_weights(copy) == ours.name_of_weights(shipped) == "bingan256-lite"
        copy.write_bytes(b"of a run that is not shipped")
    assert ours.name_of_weights(tmp_path / "long" / "weights.safetensors") == "long"
    assert ours.name_of_weights(tmp_path / "other.safetensors") == "other"


def test_the_scale_of_a_patch_is_read_from_its_summary(tmp_path: Path) -> None:
    assert patch_peers.patch_sigma_of(tmp_path) is None
    path = tmp_path / "summary.json"
    path.write_text('{"options": {"detector": "dog"}}')
    assert patch_peers.patch_sigma_of(tmp_path) == 24
    path.write_text('{"options": {"detector": "orb"}}')
    assert patch_peers.patch_sigma_of(tmp_path) is None
    path.write_text("{}")
    with pytest.raises(UsageError, match="no summary of bingan patches"):
        patch_peers.patch_sigma_of(tmp_path)


BYTES = {"sift": 512, "rootsift": 512, "orb": 32, "brief": 32, "latch": 32, "brisk": 64, "freak": 64}
BYTES |= {"beblid256": 32, "beblid512": 64, "teblid256": 32, "teblid512": 64, "boostdesc": 32, "boostdesc64": 8}


def test_a_row_has_as_many_bytes_as_the_table_says(image: np.ndarray, points: Keypoints) -> None:
    for peer in [*peers.load_peers(list(BYTES), NOWHERE)[0], *ours.load_ours("bingan256")]:
        expected = {**BYTES, "bingan256": 32, "bingan256/float": 1024}[peer.name]
        (row,) = peer.describe(image, points[:1])
        assert (peer.num_bytes, row.nbytes) == (expected, expected), peer.name
        assert peer.describe(image, points[:0]).shape == (0, len(row)), peer.name


def test_a_peer_is_opencvs_class_of_its_name(image: np.ndarray) -> None:
    """Where nothing is resized and no pattern leaves the image, the rows are those of OpenCV's own call."""
    contrib: Any = cv2.xfeatures2d
    made = {
        "brisk": contrib.BRISK_create(),
        "freak": contrib.FREAK_create(),
        "brief": contrib.BriefDescriptorExtractor_create(32, True),
        "latch": contrib.LATCH_create(32, True),
        "beblid256": contrib.BEBLID_create(6.75, contrib.BEBLID_SIZE_256_BITS),
        "teblid256": contrib.TEBLID_create(6.75, contrib.TEBLID_SIZE_256_BITS),
        "boostdesc": contrib.BoostDesc_create(302, True, 6.75),
        "boostdesc64": contrib.BoostDesc_create(300, True, 6.75),
    }
    xy = np.array([[100, 110], [120, 90], [130, 100]], np.float32)
    one = np.ones(3, np.float32)
    middle = Keypoints(xy, 8 * one, 30 * one, one, np.zeros(3, np.int32))
    for peer in peers.load_peers(list(made), NOWHERE)[0]:
        kept, rows = made[peer.name].compute(image, to_opencv(middle))
        assert len(kept) == 3
        np.testing.assert_array_equal(peer.describe(image, middle), rows, err_msg=peer.name)


def test_hash_sift_takes_its_table_from_the_folder_of_peers(
    tmp_path: Path, image: np.ndarray, points: Keypoints
) -> None:
    table = np.random.default_rng(0).normal(size=(256, 129)).astype(np.float32)
    np.save(tmp_path / "hashsift256.npy", table)
    ((peer,), absent) = peers.load_peers(["hashsift256", "hashsift512"], tmp_path)
    assert list(absent) == ["hashsift512"]
    assert (peer.num_bytes, peer.sha256) == (32, sha256_of(tmp_path / "hashsift256.npy"))
    np.testing.assert_array_equal(peer.describe(image, points), peer_rows.hash_sift_rows(table, image, points))


def stored_networks(folder: Path) -> dict[str, nn.Module]:
    """Write weights of the networks as their authors do; they are drawn, since only the layers matter here."""
    torch.manual_seed(0)
    tfeat, hard, hardnet, sosnet = (
        kind(pretrained=False).eval() for kind in (KF.TFeat, KF.TFeat, KF.HardNet, KF.SOSNet)
    )
    torch.save(tfeat.state_dict(), folder / "tfeat-liberty.params")
    of = hard.state_dict()
    stored = {}
    for kind in ("weight", "bias"):
        stored[f"features.0.{kind}"], stored[f"features.3.{kind}"] = of[f"features.1.{kind}"], of[f"features.4.{kind}"]
    stored["classifier.1.weight"] = of["descr.0.weight"].reshape(128, 64, 8, 8)
    torch.save({"state_dict": {**stored, "classifier.1.bias": of["descr.0.bias"]}}, folder / "hardtfeat.pth")
    torch.save({"state_dict": hardnet.state_dict()}, folder / "checkpoint_liberty_with_aug.pth")
    torch.save(sosnet.state_dict(), folder / "sosnet_32x32_liberty.pth")
    return {"tfeat-liberty": tfeat, "hardtfeat": hard, "hardnet": hardnet, "sosnet": sosnet}


def test_patch_networks_are_built_from_the_weights_of_others_and_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: np.ndarray, points: Keypoints
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("a download"))
    names = ["tfeat-liberty", "hardtfeat", "hardnet", "sosnet"]
    assert list(peers.load_peers(names, tmp_path)[1]) == names
    networks = stored_networks(tmp_path)
    for peer in peers.load_peers(names, tmp_path)[0]:
        rows = peer_rows.network_rows(networks[peer.name], 12, image, points)
        if peer.name == "hardtfeat":
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(peer.describe(image, points), rows, atol=1e-6, err_msg=peer.name)
        assert peer.num_bytes == rows[0].nbytes == 512
        assert peer.sha256 is not None


class Touch:
    """What a weights file of somebody else may hold: a call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("name", "file"),
    [("tfeat-liberty", "tfeat-liberty.params"), ("hardtfeat", "hardtfeat.pth"), ("hynet", "HyNet_LIB.pth")],
)
def test_weights_that_hold_code_are_refused_and_run_nothing(name: str, file: str, tmp_path: Path) -> None:
    torch.save({"state_dict": Touch(tmp_path / "touched")}, tmp_path / file)
    with pytest.raises(UsageError, match=f"the weights of {name} in .* cannot be used"):
        peers.load_peers([name], tmp_path)
    assert not (tmp_path / "touched").exists()
