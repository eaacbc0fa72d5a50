"""Support regions are corrected as the frame network says, wherever weights describe keypoints of a picture."""

from __future__ import annotations

import math
from pathlib import Path

import kornia.feature as KF
import numpy as np
import pytest
import torch

from kornia_bingan import BinGAN
from kornia_bingan.descriptor import describe
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import detect, support_regions
from kornia_bingan.kornia import OpenCVDetector, extract_codes, local_feature
from kornia_bingan.network.frames import LARGEST_STRETCH, FrameNetwork, corrections
from kornia_bingan.network.inference import FoldedNetwork
from kornia_bingan.network.onnx import export_onnx
from kornia_bingan.network.published import PatchTrunk, multiply_adds
from kornia_bingan.network.weights import load_weights, read_description, save_weights
from kornia_bingan.opencv import BinGANExtractor
from kornia_bingan.patches import build_pyramid, cut_patches
from tests.helpers.photos import texture

LAYERS = ((8, 2), (16, 2))
TURN_DEG, STRETCH = 90.0, 0.3


def trunk(*, frames: bool = True) -> PatchTrunk:
    """The same trunk with and without a frame network, whose answer is always a quarter turn and a stretch."""
    torch.manual_seed(0)
    network = PatchTrunk(64, LAYERS)
    network.code_normalisation.running_mean = torch.full((64,), 0.01)  # it is not untrained
    if frames:
        network.frames = FrameNetwork()
        with torch.no_grad():
            network.frames.last.bias.copy_(torch.tensor([math.radians(TURN_DEG), STRETCH, 0.0]))
    return network.eval()


def expected_regions(lafs: np.ndarray) -> np.ndarray:
    """A quarter turn, and the sides of the region by reciprocal factors."""
    factor = math.exp(LARGEST_STRETCH * math.tanh(STRETCH))
    corrected = lafs.copy()
    corrected[:, :, 0], corrected[:, :, 1] = lafs[:, :, 1] * factor, -lafs[:, :, 0] / factor
    return corrected


def test_corrections_by_hand() -> None:
    values = torch.tensor([[0, 0, 0], [0.5, 0, 0], [0, 0.3, 0], [0, 0, -0.4], [-1, 3, 4]])
    found = corrections(values).numpy()
    np.testing.assert_allclose(np.linalg.det(found), 1, rtol=1e-5)
    np.testing.assert_allclose(found[0], np.eye(2), atol=1e-6)
    np.testing.assert_allclose(found[1], [[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]], atol=1e-6)
    side = math.exp(LARGEST_STRETCH * math.tanh(0.3))
    np.testing.assert_allclose(found[2], np.diag([side, 1 / side]), rtol=1e-4)
    along = LARGEST_STRETCH * math.tanh(0.4)  # stretched along the falling diagonal
    np.testing.assert_allclose(
        found[3], [[math.cosh(along), -math.sinh(along)], [-math.sinh(along), math.cosh(along)]], rtol=1e-4
    )
    sides = np.linalg.svd(found[4])[1]
    assert sides[0] / sides[1] <= math.exp(2 * LARGEST_STRETCH)
    assert sides[0] / sides[1] > 0.99 * math.exp(2 * LARGEST_STRETCH)
    turn = np.linalg.svd(found[4])
    rotation = turn[0] @ turn[2]
    assert math.atan2(rotation[1, 0], rotation[0, 0]) == pytest.approx(-1, abs=1e-5)


def test_an_untrained_network_leaves_regions_as_they_are() -> None:
    network = FrameNetwork().eval()
    found = network(torch.rand(5, 1, 32, 32))
    torch.testing.assert_close(found, torch.eye(2).expand(5, 2, 2), atol=1e-4, rtol=0)


def test_a_shrunk_network_corrects_less() -> None:
    network = trunk().frames
    assert network is not None
    network.shrink(0.5)
    found = network(torch.rand(1, 1, 32, 32))[0].detach().numpy()
    factor = math.exp(LARGEST_STRETCH * math.tanh(STRETCH / 2))
    half = math.radians(TURN_DEG / 2)
    expected = [[math.cos(half) * factor, -math.sin(half) / factor], [math.sin(half) * factor, math.cos(half) / factor]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_brightness_and_contrast_change_nothing() -> None:
    torch.manual_seed(1)
    network = FrameNetwork().eval()
    torch.nn.init.normal_(network.last.weight)
    patches = torch.rand(4, 1, 32, 32)
    found = network(patches)
    assert (found - torch.eye(2)).abs().max() > 0.01
    torch.testing.assert_close(network(0.3 * patches + 0.5), found, atol=0.02, rtol=0)


@pytest.mark.parametrize("folded", [False, True])
def test_codes_are_those_of_corrected_regions(folded: bool) -> None:
    image = texture(150, 180)
    keypoints = detect(image, "dog", 30)
    network = trunk()
    model = BinGAN(FoldedNetwork(network, "float32") if folded else network, output="packed")
    lafs = support_regions(keypoints)
    pyramid = build_pyramid(image)
    found = model.regions(pyramid, lafs)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected_regions(lafs), rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        expected = BinGAN(trunk(frames=False), output="packed")(torch.from_numpy(cut_patches(pyramid, found))).numpy()
    assert np.bitwise_count(describe(model, image, keypoints) ^ expected).sum() <= 2 * len(keypoints)
    plain = BinGAN(trunk(frames=False))
    assert plain.regions(pyramid, lafs) is lafs
    assert np.bitwise_count(describe(plain, image, keypoints) ^ expected).sum() > 5 * len(keypoints)


def test_no_keypoints_have_no_regions() -> None:
    model = BinGAN(trunk(), output="packed")
    nothing = detect(np.full((80, 90), 128, np.uint8))
    assert describe(model, np.full((80, 90), 128, np.uint8), nothing).shape == (0, 8)


def test_opencv_and_kornia_correct_alike() -> None:
    image = texture(150, 180)
    model = BinGAN(trunk(), output="packed")
    detector = OpenCVDetector(max_keypoints=40)
    feature = local_feature(model, detector)
    picture = torch.from_numpy(image)[None, None].float() / 255
    lafs, codes = extract_codes(feature, picture)
    with torch.no_grad():
        corrected = torch.from_numpy(expected_regions(lafs.numpy()))[None]
        expected = KF.LAFDescriptor(BinGAN(trunk(frames=False), output="packed"), patch_size=32)(picture, corrected)[0]
        plain = KF.LAFDescriptor(BinGAN(trunk(frames=False), output="packed"), patch_size=32)(picture, lafs[None])[0]

    def bits_apart(a: torch.Tensor, b: torch.Tensor) -> int:
        return int(np.bitwise_count(a.numpy() ^ b.numpy()).sum())

    assert bits_apart(codes, expected) <= 2 * len(codes)
    assert bits_apart(codes, plain) > 5 * len(codes)
    in_colour = extract_codes(feature, picture.expand(1, 3, -1, -1))[1]
    assert bits_apart(in_colour, codes) <= 2 * len(codes)
    folded = local_feature(BinGAN(FoldedNetwork(trunk(), "float32"), output="packed"), detector)
    assert bits_apart(extract_codes(folded, picture.double())[1], codes) <= 2 * len(codes), "a picture of doubles"
    _, described = BinGANExtractor(model, max_keypoints=40).detectAndCompute(image, None)
    np.testing.assert_array_equal(described, describe(model, image, detect(image, "dog", 40)))


def test_weights_files_hold_the_frame_network(tmp_path: Path) -> None:
    network = trunk()
    save_weights(tmp_path / "with.safetensors", network, {})
    save_weights(tmp_path / "without.safetensors", trunk(frames=False), {})
    assert read_description(tmp_path / "with.safetensors")["arguments"]["frames"] is True
    assert "frames" not in read_description(tmp_path / "without.safetensors")["arguments"]
    again = load_weights(tmp_path / "with.safetensors")
    assert isinstance(again, PatchTrunk)
    assert again.frames is not None
    patches = torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(again.frames(patches), network.frames(patches), atol=1e-3, rtol=0)  # type: ignore[misc]
    # 77 + 332 + 166 + 110 + 332 + 37 thousand
    cost = multiply_adds(again) - multiply_adds(trunk(frames=False))
    assert cost == 25 * 12 * 256 + 9 * (144 * 256 + 288 * 64 + 768 * 16 + 1536 * 16) + 768 * 48 + 48 * 3
    assert cost < 1e6


def test_a_scripted_module_describes_patches_as_before() -> None:
    model = BinGAN(trunk(), output="packed")
    patches = torch.rand(3, 1, 32, 32)
    scripted = torch.jit.script(model)
    assert torch.equal(scripted(patches), model(patches))


def test_an_onnx_file_would_lack_the_correction(tmp_path: Path) -> None:
    save_weights(tmp_path / "mine.safetensors", trunk(), {})
    with pytest.raises(UsageError, match="corrects support regions"):
        export_onnx(tmp_path / "mine.safetensors", tmp_path / "mine.onnx")
    assert not (tmp_path / "mine.onnx").exists()
