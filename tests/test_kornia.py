"""Truth: the array path of the package, turned pictures, Gaussian blobs, and Kornia's own geometry functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import kornia.feature as KF
import kornia.geometry as KG
import numpy as np
import pytest
import torch
from kornia.feature.scale_space_detector import get_default_detector_config
from torch.utils._python_dispatch import TorchDispatchMode

import kornia_bingan.kornia as adapter
from kornia_bingan import bits, keypoints
from kornia_bingan.descriptor import BinGAN, describe
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints, support_regions
from kornia_bingan.kornia import (
    OpenCVDetector,
    extract_codes,
    keypoints_from_lafs,
    lafs_from_keypoints,
    local_feature,
)
from kornia_bingan.matching import HammingMatcher, hamming, match
from kornia_bingan.network import weights
from kornia_bingan.network.inference import FoldedNetwork
from kornia_bingan.network.published import PatchDiscriminator, PatchTrunk
from kornia_bingan.network.weights import save_weights
from kornia_bingan.work.files import sha256_of, write_json
from tests.helpers.older_kornia import BEFORE_0_9, NO_WIDTH, is_filled, scale_space
from tests.helpers.photos import texture

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def small(output: str = "code") -> BinGAN:
    torch.manual_seed(0)
    return BinGAN(PatchTrunk(layers=((8, 2), (16, 2))), output=output)  # type: ignore[arg-type]


def to_tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images))[:, None].float() / 255


def some_keypoints(num: int, seed: int = 0) -> Keypoints:
    generator = np.random.default_rng(seed)
    return Keypoints(
        xy=generator.uniform(0, 200, (num, 2)).astype(np.float32),
        size=generator.uniform(2, 40, num).astype(np.float32),
        angle_deg=generator.uniform(0, 360, num).astype(np.float32),
        response=generator.uniform(0, 1, num).astype(np.float32),
        octave=np.full(num, 255, np.int32),
    )


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return texture(200, 260)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BinGAN:
    """Stand in for the shipped weights, so that the test does not depend on which are in the checkout."""
    model = small()
    path = tmp_path / "bingan256.safetensors"
    save_weights(path, model.network, {})
    row = {"bits": 256, "multiply_adds": 1, "sha256": sha256_of(path), "summary": "made by a test"}
    write_json(tmp_path / "manifest.json", {"bingan256": row})
    monkeypatch.setattr(weights, "weights_folder", lambda: tmp_path)
    return BinGAN(weights.load_weights(path))


def detectors() -> dict[str, torch.nn.Module]:
    return {
        "dog": OpenCVDetector(),
        "orb": OpenCVDetector("orb", 500),
        "scale space": scale_space(300),
        "kornia's dog": KF.SIFTFeatureScaleSpace(300).detector,
    }


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize("name", list(detectors()))
def test_the_lines_of_the_readme(name: str, image: np.ndarray) -> None:
    detector = detectors()[name]
    image0, image1 = to_tensor(image), to_tensor(np.roll(image, (8, 8), (0, 1)))

    import kornia.feature as KF

    from kornia_bingan import BinGAN, HammingMatcher

    describe = KF.LAFDescriptor(BinGAN.from_pretrained(), patch_size=32)
    matcher = KF.LocalFeatureMatcher(KF.LocalFeature(detector, describe), HammingMatcher("smnn", 0.8))

    with torch.no_grad():
        found = matcher({"image0": image0, "image1": image1})
        lafs, _ = detector(image0)
        codes = describe(image0, lafs)
    assert codes.shape == (1, lafs.shape[1], 256)
    assert set(codes.unique().tolist()) == {-1.0, 1.0}
    moved = found["keypoints1"] - found["keypoints0"]
    right = (moved - 8).norm(dim=1) < 2.5  # a pixel of ORB's coarsest level is 3.6 pixels wide
    assert right.sum() > 20
    assert right.float().mean() > 0.9
    assert found["confidence"].min() >= 0.2 - 1e-6


@pytest.mark.parametrize("num", [0, 1, 2, 50])
def test_lafs_are_kornias_with_the_negative_angle(num: int) -> None:
    found = some_keypoints(num)
    lafs = lafs_from_keypoints(found)
    assert lafs.shape == (1, num, 2, 3)
    assert lafs.dtype == torch.float32
    xy, half, angle = (torch.from_numpy(x) for x in (found.xy, 6 * found.size, found.angle_deg))
    expected = KF.laf_from_center_scale_ori(xy[None], half[None, :, None, None], -angle[None, :, None])
    torch.testing.assert_close(lafs, expected.reshape(1, num, 2, 3), atol=2e-4, rtol=1e-5)
    if num:
        turned = (KF.get_laf_orientation(lafs)[0, :, 0] + angle + 180) % 360 - 180
        assert turned.abs().max() < 1e-3
        torch.testing.assert_close(KF.get_laf_scale(lafs)[0, :, 0, 0], half)


@pytest.mark.parametrize("num", [0, 1, 2, 50])
def test_keypoints_and_lafs_are_inverse(num: int) -> None:
    found = some_keypoints(num)
    back = keypoints_from_lafs(lafs_from_keypoints(found)[0], torch.from_numpy(found.response))
    assert len(back) == num
    for name in ("xy", "size", "angle_deg", "response", "octave"):
        one, other = getattr(found, name), getattr(back, name)
        assert one.dtype == other.dtype
        np.testing.assert_allclose(other, one, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(support_regions(back), support_regions(found), atol=1e-3)


def test_keypoints_of_special_lafs() -> None:
    unset = Keypoints(*(np.float32([x]) for x in ((3, 4), 31, -1, 0)), np.int32([0]))
    assert keypoints_from_lafs(lafs_from_keypoints(unset)[0]).angle_deg.tolist() == [0]
    # A blob whose size is ORB's 31 stays a blob: half a side of 186 px, not 24.8.
    blob = keypoints_from_lafs(torch.tensor([[[186.0, 0, 50], [0, 186, 60]]]))
    assert blob.size.tolist() == [31]
    np.testing.assert_allclose(support_regions(blob)[0], [[186, 0, 50], [0, 186, 60]], rtol=1e-6)
    # An ellipse of half axes 4 and 9 has the area of a square of half side 6.
    assert keypoints_from_lafs(torch.tensor([[[4.0, 0, 0], [0, 9, 0]]])).size.tolist() == pytest.approx([1])
    tiny = keypoints_from_lafs(torch.tensor([[[10.0, 1e-8, 0], [-1e-8, 10, 0]]]))
    assert 0 <= tiny.angle_deg[0] < 360


@pytest.mark.parametrize(
    ("lafs", "responses", "words"),
    [
        (torch.ones(1, 5, 2, 3), None, r"got .1, 5, 2, 3."),
        (torch.ones(5, 3, 2), None, r"got .5, 3, 2."),
        (torch.ones(5, 2, 3), torch.ones(4), r"got .5, 2, 3. and .4,."),
        (torch.stack([torch.eye(2, 3), torch.zeros(2, 3)]), None, "LAF 1 .* no area"),
        (torch.stack([torch.eye(2, 3), torch.eye(2, 3), torch.eye(2, 3) * torch.nan]), None, "LAF 2 is not finite"),
    ],
)
def test_keypoints_from_wrong_lafs(lafs: torch.Tensor, responses: torch.Tensor | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        keypoints_from_lafs(lafs, responses)


@pytest.mark.parametrize("name", ["dog", "orb"])
def test_detector_gives_the_support_regions_of_the_package(name: Any, image: np.ndarray) -> None:
    expected = keypoints.detect(image, name, 150)
    lafs, responses = OpenCVDetector(name, 150)(to_tensor(image))
    assert (lafs.dtype, responses.dtype) == (torch.float32, torch.float32)
    np.testing.assert_array_equal(lafs[0].numpy(), support_regions(expected))
    np.testing.assert_array_equal(responses[0].numpy(), expected.response)


def test_detector_takes_an_object_of_opencv(image: np.ndarray) -> None:
    fast = cv2.FastFeatureDetector.create(10)
    lafs, _ = OpenCVDetector(fast)(to_tensor(image))
    expected = keypoints.from_opencv(fast.detect(image, None))
    np.testing.assert_array_equal(lafs[0].numpy(), support_regions(expected))
    np.testing.assert_allclose(KF.get_laf_scale(lafs), 14)


def test_detector_names_a_keypoint_without_size(image: np.ndarray) -> None:
    class Points:
        def detect(self, image: np.ndarray, mask: np.ndarray | None) -> list[cv2.KeyPoint]:
            return [cv2.KeyPoint(5, 5, 4), cv2.KeyPoint(5, 5, 0)]

    with pytest.raises(UsageError, match=r"keypoint 1 at .* with size 0 "):
        OpenCVDetector(Points())(to_tensor(image))


def test_batch_is_filled_up_with_empty_slots(image: np.ndarray) -> None:
    uniform, other = np.full_like(image, 90), texture(*image.shape, seed=1)
    single = [OpenCVDetector()(to_tensor(x)) for x in (image, uniform, other)]
    lafs, responses = OpenCVDetector()(to_tensor(image, uniform, other))
    counts = [x[0].shape[1] for x in single]
    assert counts[1] == 0
    assert counts[0] != counts[2]
    assert lafs.shape == (3, max(counts), 2, 3)
    assert responses.shape == (3, max(counts))
    assert is_filled(lafs, responses).sum(1).tolist() == counts
    for i, (one, one_responses) in enumerate(single):
        assert torch.equal(lafs[i, : counts[i]], one[0])
        assert torch.equal(responses[i, : counts[i]], one_responses[0])


def test_rgb_and_half_precision_images(image: np.ndarray) -> None:
    grey = to_tensor(image)
    lafs, _ = OpenCVDetector()(grey)
    for same in (grey.repeat(1, 3, 1, 1), grey.double()):
        assert torch.equal(OpenCVDetector()(same)[0], lafs)
    assert OpenCVDetector()(grey.half())[0].dtype == torch.float32
    assert (grey == 1).any()
    assert torch.equal(OpenCVDetector()(torch.where(grey == 1, 1.004, grey))[0], lafs)  # resampling may overshoot


def test_mask(image: np.ndarray) -> None:
    mask = torch.zeros(2, 1, 200, 260)
    mask[0, :, :, 130:] = 0.5
    mask[1, :, :100] = 1
    lafs, responses = OpenCVDetector()(to_tensor(image, image), mask)
    filled = is_filled(lafs, responses)
    assert filled.sum(1).min() > 10
    assert lafs[0, filled[0], 0, 2].min() >= 129.5
    assert lafs[1, filled[1], 1, 2].max() <= 99.5
    one, responses = OpenCVDetector()(to_tensor(image, image), mask[:1].bool())
    assert torch.equal(one[1], one[0])
    assert is_filled(one, responses).sum() == 2 * filled[0].sum()
    for wrong in (mask[:, :, :100], mask[:, 0], mask.repeat(2, 1, 1, 1)):
        with pytest.raises(UsageError, match=r"the mask is .*; give .1, 1, 200, 260."):
            OpenCVDetector()(to_tensor(image, image), wrong)


@pytest.mark.parametrize("name", ["dog", "sift", "kornia"])
def test_the_strongest_are_those_that_the_mask_allows(name: str) -> None:
    """The left half has strong structure and is masked out; its keypoints must not use up the limit."""
    uneven = texture(200, 320)
    uneven[:, 160:] = 128 + (uneven[:, 160:].astype(np.float32) - 128) * 0.6
    mask = torch.zeros(1, 1, 200, 320)
    mask[..., 170:] = 1
    limited, unlimited = {
        "dog": (OpenCVDetector("dog", 12), OpenCVDetector("dog", 10**4)),
        "sift": (OpenCVDetector(cv2.SIFT.create(12)), OpenCVDetector(cv2.SIFT.create())),
        "kornia": (scale_space(12), scale_space(2000)),
    }[name]
    assert limited(to_tensor(uneven))[0][0, :, 0, 2].max() < 170
    lafs, responses = limited(to_tensor(uneven), mask)
    assert int(is_filled(lafs, responses).sum()) == 12
    _, expected = unlimited(to_tensor(uneven), mask)
    torch.testing.assert_close(responses[0].sort().values, expected[0].topk(12).values.flip(0))


def test_orb_that_is_not_default_has_the_regions_of_orb(image: np.ndarray) -> None:
    orb = cv2.ORB.create(scaleFactor=1.25)
    found = keypoints.from_opencv(orb.detect(image))
    assert len(set(found.octave.tolist())) > 2
    lafs, _ = OpenCVDetector(orb)(to_tensor(image))
    np.testing.assert_array_equal(lafs[0].numpy(), support_regions(found, 0.65))
    told, _ = OpenCVDetector(orb, support=0.5)(to_tensor(image))
    np.testing.assert_array_equal(told, lafs_from_keypoints(found, 0.5))


def test_a_keypoint_outside_is_left_out(image: np.ndarray) -> None:
    class Finds:
        def detect(self, image: np.ndarray, mask: np.ndarray | None) -> list[cv2.KeyPoint]:
            return [cv2.KeyPoint(-3, 5, 4), cv2.KeyPoint(30, 50, 4)]

    lafs, _ = OpenCVDetector(Finds(), support=5)(to_tensor(image))
    assert lafs.tolist() == [[[[20, 0, 30], [0, 20, 50]]]]


@pytest.mark.parametrize("output", ["code", "packed", "descriptor"])
def test_codes_are_those_of_describe(output: str, image: np.ndarray) -> None:
    """Kornia cuts patches from other pyramid levels, so codes may differ, but by far less than those of two images."""
    lafs, codes = extract_codes(local_feature(small(output)), to_tensor(image))
    found = keypoints.detect(image)
    np.testing.assert_array_equal(lafs.numpy(), support_regions(found))
    assert codes.dtype == torch.uint8
    differing = np.bitwise_count(codes.numpy() ^ describe(small(), image, found)).sum(1)
    assert np.median(differing) <= 8
    assert np.percentile(differing, 95) <= 48


@pytest.mark.parametrize("turn_deg", [30.0, 135.0, -80.0])
def test_turned_picture(turn_deg: float) -> None:
    """Matches lie where the rotation puts them, and their angles differ by the rotation, in both conventions."""
    image = texture(300, 300)
    matrix = cv2.getRotationMatrix2D((149.5, 149.5), turn_deg, 1.0)  # OpenCV turns counter-clockwise on screen
    turned = cv2.warpAffine(image, matrix, (300, 300), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    feature = local_feature(small())
    lafs0, codes0 = extract_codes(feature, to_tensor(image))
    lafs1, codes1 = extract_codes(feature, to_tensor(turned))
    _, pairs = match(codes0, codes1, "smnn", 0.9)
    expected = lafs0[:, :, 2].double() @ torch.from_numpy(matrix[:, :2]).T + torch.from_numpy(matrix[:, 2])
    right = pairs[(expected[pairs[:, 0]] - lafs1[pairs[:, 1], :, 2]).norm(dim=1) < 1.5]
    assert len(right) > 40
    assert len(right) > 0.7 * len(pairs)
    before, after = lafs0[right[:, 0]], lafs1[right[:, 1]]
    kornia_turn = (KF.get_laf_orientation(after[None]) - KF.get_laf_orientation(before[None])).flatten()
    opencv_turn = keypoints_from_lafs(after).angle_deg - keypoints_from_lafs(before).angle_deg
    for turn, expected_deg in ((kornia_turn, turn_deg), (torch.from_numpy(opencv_turn), -turn_deg)):
        off = (turn - expected_deg + 180) % 360 - 180
        assert off.abs().median() < 3
    # Bringing the pixels of both support regions to the same patch is what the LAF is for.
    patches = [
        KF.extract_patches_from_pyramid(to_tensor(x), lafs[None], 32)[0, :, 0]
        for x, lafs in ((image, before), (turned, after))
    ]
    inside = ((before[:, :, 2] > 80) & (before[:, :, 2] < 220)).all(1)
    assert inside.sum() > 5
    assert (patches[0] - patches[1])[inside].abs().median() < 0.05


BLOBS = ((75.3, 74.6), (222.7, 78.2), (78.4, 224.3), (225.2, 221.8))
"""Centres between the pixels: a blob in the middle of one is symmetric, and rounding decides whether it is found."""


def blobs(sigma: float) -> np.ndarray:
    y, x = np.mgrid[:300, :300]
    shapes = [np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2)) for cx, cy in BLOBS]
    contrasts = (250, 230, 210, 240)
    return sum(c * shape for c, shape in zip(contrasts, shapes, strict=True)).round().astype(np.uint8)


@pytest.mark.parametrize("sigma", [4.0, 6.0, 9.0])
@pytest.mark.parametrize("name", ["scale space", "kornia's dog"])
def test_support_regions_of_kornias_detectors_have_the_size_of_ours(name: str, sigma: float) -> None:
    medians = []
    for detector in (None, detectors()[name]):
        lafs, _ = extract_codes(local_feature(small(), detector), to_tensor(blobs(sigma)))
        off = torch.cdist(torch.tensor(BLOBS), lafs[:, :, 2])
        found = off.min(1).values < 2
        assert found.sum() >= 3
        medians.append(float(KF.get_laf_scale(lafs[None])[0, off.argmin(1)[found]].median()))
    assert medians[1] == pytest.approx(medians[0], rel=0.08)
    assert medians[0] == pytest.approx(12 * 0.885 * sigma, rel=0.02)


def test_scaling_follows_mr_size_and_is_required_elsewhere() -> None:
    with pytest.raises(UsageError, match="Identity is not known; give scaling_coef"):
        local_feature(small(), torch.nn.Identity())
    assert local_feature(small(), torch.nn.Identity(), scaling_coef=1.5).scaling_coef == 1.5
    dog = {"resp_module": KF.BlobDoG(), "scale_space_response": True}
    assert local_feature(small(), KF.ScaleSpaceDetector(9, 12.0, **dog)).scaling_coef == pytest.approx(1)
    assert local_feature(small(), OpenCVDetector()).scaling_coef == 1


def squares(scale: int) -> torch.Tensor:
    """Bright squares on black; their corners are the only structure."""
    picture = np.zeros((160, 160), np.uint8)
    for y, x in ((40, 40), (40, 100), (100, 70)):
        picture[y : y + 16, x : x + 16] = 200
    return to_tensor(picture.repeat(scale, 0).repeat(scale, 1))


@pytest.mark.parametrize("s_mult", [10.0, 22.0])
def test_regions_of_a_detector_on_levels_are_22_pixels_of_its_level(s_mult: float) -> None:
    """A level is the picture divided by a power of the root of two, and what is twice as large is found two further."""
    config = {**get_default_detector_config(), "s_mult": s_mult, "up_levels": 0, "pyramid_levels": 2, "nms_size": 5}
    feature = local_feature(small(), KF.MultiResolutionDetector(KF.CornerGFTT(), 36, config))
    lafs, _ = extract_codes(feature, squares(1))
    half_sides = KF.get_laf_scale(lafs[None]).flatten()
    levels = 22 * torch.tensor([1, 160 / 113, 160 / 80])
    nearest = (half_sides[:, None] / levels - 1).abs()
    assert nearest.min(1).values.max() < 0.02
    assert set(nearest.argmin(1).tolist()) == {0, 1, 2}
    # The same corners, on a picture whose pixels are twice as small, have twice the region two levels further on.
    coarse, _ = extract_codes(feature, squares(2))
    coarse = coarse[(KF.get_laf_scale(coarse[None]).flatten() - 44).abs() < 1]
    fine = lafs[(half_sides - 22).abs() < 0.5]
    assert len(fine) == len(coarse) == 12  # also under noise of a thousandth: no tie decides
    assert torch.cdist(2 * fine[:, :, 2], coarse[:, :, 2]).min(1).values.max() < 3


def test_key_net_is_a_detector_on_levels(image: np.ndarray) -> None:
    torch.manual_seed(0)
    feature = local_feature(small(), KF.KeyNetDetector(pretrained=False, num_features=50).eval())
    assert feature.scaling_coef == 1
    lafs, codes = extract_codes(feature, to_tensor(image))
    assert len(lafs) == len(codes)
    assert (KF.get_laf_scale(lafs[None]) > 15).all()  # 22 pixels of a level that is enlarged by the root of two


@pytest.mark.parametrize("output", ["code", "packed", "descriptor"])
def test_a_uniform_picture_end_to_end(output: str, image: np.ndarray, device: torch.device) -> None:
    """No keypoints give the width, dtype and device that keypoints give."""
    uniform = torch.full((1, 1, 480, 640), 0.5, device=device)
    feature = local_feature(small(output), OpenCVDetector()).to(device)
    with torch.no_grad():
        lafs, responses, descriptors = feature(uniform)
        others = feature(to_tensor(image).to(device))
    assert lafs.shape == (1, 0, 2, 3)
    assert responses.shape == (1, 0)
    assert descriptors.shape == (1, 0, 32 if output == "packed" else 256)
    for empty, full in zip((lafs, responses, descriptors), others, strict=True):
        assert empty.dtype == full.dtype
        assert empty.device == full.device
        assert empty.shape[2:] == full.shape[2:]
    lafs, codes = extract_codes(feature, uniform)
    assert (lafs.shape, codes.shape, codes.dtype) == ((0, 2, 3), (0, 32), torch.uint8)
    assert codes.device.type == device.type
    assert len(keypoints_from_lafs(lafs)) == 0
    matcher = KF.LocalFeatureMatcher(feature, HammingMatcher())
    for pair in ((uniform, uniform), (uniform, to_tensor(image).to(device))):
        found = matcher({"image0": pair[0], "image1": pair[1]})
        assert found["keypoints0"].shape == (0, 2)
    alone = KF.LAFDescriptor(small(output), 32)(to_tensor(image), torch.zeros(1, 0, 2, 3))
    assert alone.shape == (1, 0, NO_WIDTH or descriptors.shape[2])


def test_empty_slots_of_kornias_detectors_are_left_out(image: np.ndarray) -> None:
    feature = local_feature(small(), scale_space(2000))
    with torch.no_grad():
        lafs, responses, descriptors = feature(to_tensor(image))
    filled = is_filled(lafs, responses)[0]
    num_filled = int(filled.sum())
    assert 20 < num_filled <= lafs.shape[1] == 2000
    assert (num_filled < 2000) or BEFORE_0_9  # where weaker slots have what is no maximum
    kept, codes = extract_codes(feature, to_tensor(image))
    assert kept.shape == (num_filled, 2, 3)
    assert codes.shape == (num_filled, 32)
    assert (kept[:, 0, 0] > 0).all()
    assert torch.equal(codes, bits.pack(descriptors[0][filled]))
    lafs, codes = extract_codes(feature, torch.zeros(1, 1, 100, 100))
    assert (lafs.shape, codes.shape) == ((0, 2, 3), (0, 32))


def test_matcher_of_kornia_with_a_scale_change(image: np.ndarray) -> None:
    half = KG.resize(to_tensor(image), (100, 130), antialias=True)
    matcher = KF.LocalFeatureMatcher(local_feature(small()), HammingMatcher("smnn", 0.9))
    with torch.no_grad():
        found = matcher({"image0": to_tensor(image), "image1": half})
    right = ((found["keypoints0"] + 0.5) / 2 - 0.5 - found["keypoints1"]).norm(dim=1) < 1.5
    assert right.sum() > 20
    assert right.float().mean() > 0.7


def test_model_by_name_by_file_and_as_object(shipped: BinGAN, image: np.ndarray) -> None:
    _, expected = extract_codes(local_feature(BinGAN.from_pretrained(precision="auto")), to_tensor(image))
    path = weights.find_weights("bingan256")
    for feature in (local_feature(), local_feature("bingan256"), local_feature(path), local_feature(str(path))):
        assert torch.equal(extract_codes(feature, to_tensor(image))[1], expected)
    with pytest.raises(UsageError, match="no weights 'absent'"):
        local_feature("absent")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (torch.rand(200, 260), r"torch float32 .200, 260."),
        (torch.rand(1, 4, 20, 20), r"torch float32 .1, 4, 20, 20."),
        (torch.zeros(1, 1, 20, 20, dtype=torch.uint8), "torch uint8"),
        (np.zeros((1, 1, 20, 20), np.float32), "numpy float32"),
        (torch.full((1, 1, 20, 20), 255.0), "values from 255 to 255"),
        (torch.full((1, 1, 20, 20), torch.nan), "finite and in .0, 1., got values from nan"),
    ],
)
def test_refuses_other_images(wrong: Any, words: str) -> None:
    for call in (OpenCVDetector(), lambda x: extract_codes(local_feature(small()), x)):
        with pytest.raises(UsageError, match=f"the image must be .*{words}"):
            call(wrong)


def test_extract_codes_takes_one_image(image: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"one image .* got .2, 1, 200, 260."):
        extract_codes(local_feature(small()), to_tensor(image, image))


def test_the_mode_of_the_model_is_kept_and_not_used(image: np.ndarray) -> None:
    _, expected = extract_codes(local_feature(small()), to_tensor(image))
    model = small().train()
    _, codes = extract_codes(local_feature(model), to_tensor(image))
    assert model.training or BEFORE_0_9  # where describing ends a model's training
    assert torch.equal(codes, expected)


def test_refuses_an_unknown_detector() -> None:
    with pytest.raises(UsageError, match=r"dog, orb or an object with detect.image, mask., got 'surf'"):
        OpenCVDetector("surf")  # type: ignore[arg-type]


def test_module_and_library_of_one_name() -> None:
    assert adapter.KF.__name__ == "kornia.feature"


def work_of(call: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, set[torch.dtype]]:
    """Give what a call gives, and the dtypes of the network's convolutions in it."""
    dtypes = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "convolution" in func.name() and len(args[1]) > 1:  # Kornia's blur has one channel
                dtypes.update(x.dtype for x in args[:2])
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():
        return call(), dtypes


@pytest.mark.parametrize("picture", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_is_the_same_inside_kornia(precision: Any, picture: torch.dtype, image: np.ndarray) -> None:
    """Kornia casts descriptors to the dtype of the picture: bfloat16 was as slow as float32, and no more exact."""
    model = BinGAN(FoldedNetwork(small().network, precision), output="descriptor")  # type: ignore[arg-type]
    tensor = to_tensor(image)[:, :, :64, :64].to(picture)
    lafs = KF.laf_from_center_scale_ori(torch.tensor([[[30.2, 31], [20, 40.0]]]), torch.full((1, 2, 1, 1), 8.0))
    lafs = lafs.to(picture)
    cut = KF.extract_patches_from_pyramid(tensor, lafs, 32)[0]
    expected, outside = work_of(lambda: model(cut))
    found, inside = work_of(lambda: KF.LAFDescriptor(model, 32)(tensor, lafs)[0])
    assert inside == outside == {getattr(torch, precision)}
    assert found.dtype == picture
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02 if picture == torch.float16 else 1e-5)
    moved = BinGAN(FoldedNetwork(small().network, precision), output="descriptor")  # type: ignore[arg-type]
    moved.load_state_dict(model.state_dict())
    assert work_of(lambda: moved.double().float()(cut))[1] == {getattr(torch, precision)}


def recorded(host: str, model: BinGAN, example: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    if host == "trace":
        return torch.jit.trace(model, (example,))  # type: ignore[no-any-return]
    if host == "script":
        return torch.jit.script(model)  # type: ignore[no-any-return]
    if host == "export":
        dim = {0: torch.export.Dim.DYNAMIC}
        return torch.export.export(model, (example,), dynamic_shapes=(dim,)).module()
    return torch.compile(model, fullgraph=True, backend="eager", dynamic=True)  # type: ignore[no-any-return]


def network_of(name: str) -> Any:
    if name == "published":
        return PatchDiscriminator(16).eval()
    trunk = PatchTrunk(16, layers=((8, 2), (16, 2))).eval()
    with torch.no_grad():
        trunk.code_normalisation.running_mean.add_(0.01)
    return trunk if name == "trunk" else FoldedNetwork(trunk, name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "output", "host"),
    [
        (name, output, host)
        for name, output in (("trunk", "code"), ("float32", "packed"))
        for host in ("trace", "script", "export", "compile")
    ]
    + [
        (name, output, host)  # what is dear to record is recorded once a kind of network
        for name, output in (("trunk", "descriptor"), ("published", "packed"), ("bfloat16", "packed"))
        for host in ("trace", "script")
    ],
)
def test_graphs_give_the_codes_of_the_module(name: str, output: Any, host: str) -> None:
    """Checks of values, lists of pieces and numpy's packing were refused, or recorded as constants."""
    torch.manual_seed(0)
    model = BinGAN(network_of(name), output=output)
    generator = torch.Generator().manual_seed(0)
    example, patches = (torch.rand(count, 1, 32, 32, generator=generator) for count in (2, 3))
    with torch.no_grad():
        graph = recorded(host, model, example)
        real = BinGAN(model.network, output="descriptor")(patches)
        expected, found = model(patches), graph(patches)
        empty = graph(patches[:0])
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert (empty.dtype, empty.shape) == (expected.dtype, (0, *expected.shape[1:]))
    if output == "descriptor":
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        return
    if output == "packed":
        found, expected = bits.unpack(found), bits.unpack(expected)
    sure = real.abs() > (0.02 if name == "bfloat16" else 1e-4)  # nearer to 0, rounding decides
    assert sure.float().mean() > 0.5
    assert torch.equal(found[sure], expected[sure])
    assert not torch.equal(found[0], found[1])


def test_a_scripted_model_refuses_other_shapes() -> None:
    script = torch.jit.script(small())
    with pytest.raises(torch.jit.Error, match="patches are float"):
        script(torch.rand(2, 1, 64, 64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_half_and_double_precision(dtype: torch.dtype) -> None:
    patches = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = small("descriptor").to(dtype)(patches.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), small("descriptor")(patches), rtol=0, atol=0.02)


def test_gradients_of_double_patches() -> None:
    patches = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = small("descriptor").double()
    assert torch.autograd.gradcheck(model, (patches.requires_grad_(),), fast_mode=True)


@pytest.fixture
def _double_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_double_by_default")
@pytest.mark.parametrize("precision", [None, "float32"])
def test_double_as_the_default_dtype(shipped: BinGAN, precision: Any, image: np.ndarray) -> None:
    """Weights became float64, and describing raised."""
    found = keypoints.detect(image, "dog", 20)
    model = BinGAN.from_pretrained(precision=precision)
    codes = torch.from_numpy(describe(model, image, found))
    differing = np.bitwise_count(codes.numpy() ^ describe(shipped, image, found)).sum(1)
    assert differing.max() <= 2
    lafs, responses = OpenCVDetector("dog", 20)(to_tensor(image).float())
    assert (lafs.dtype, responses.dtype) == (torch.float32, torch.float32)
    for pair in ((codes, codes), (codes, codes[:0])):
        for mode in ("nn", "smnn"):
            assert match(*pair, mode)[0].dtype == torch.float32
    assert hamming._match(codes, codes, "smnn", 0.8, hamming._nearest_products)[0].dtype == torch.float32
