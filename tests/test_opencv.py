"""Truth: turned and shifted pictures, the array path of the package, and OpenCV's own matcher and answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from kornia_bingan import BinGAN, keypoints, weights
from kornia_bingan.descriptor import describe
from kornia_bingan.errors import UsageError
from kornia_bingan.files import sha256_of, write_json
from kornia_bingan.network import PatchTrunk
from kornia_bingan.opencv import BinGANExtractor
from kornia_bingan.weights import save_weights
from tests.conftest import texture


def small(bits: int = 256) -> BinGAN:
    torch.manual_seed(0)
    return BinGAN(PatchTrunk(bits, layers=((8, 2), (16, 2))))


def detectors() -> dict[str, Any]:
    moved = {name: getattr(cv2, name, None) or getattr(cv2.xfeatures2d, name) for name in ("AKAZE", "BRISK")}
    return {
        "ORB": cv2.ORB.create(200),
        "SIFT": cv2.SIFT.create(200),
        "FAST": cv2.FastFeatureDetector.create(10),
        "GFTT": cv2.GFTTDetector.create(200),
        "MSER": cv2.MSER.create(),
    } | {name: cls.create() for name, cls in moved.items()}


@pytest.fixture(scope="module")
def extractor() -> BinGANExtractor:
    return BinGANExtractor(small())


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return texture(240, 320)


def test_answers_of_a_feature2d(extractor: BinGANExtractor) -> None:
    orb = cv2.ORB.create()
    for name in ("descriptorSize", "descriptorType", "defaultNorm"):
        assert getattr(extractor, name)() == getattr(orb, name)(), name
    assert (extractor.descriptorSize(), extractor.descriptorType(), extractor.defaultNorm()) == (32, cv2.CV_8U, 6)
    assert extractor.getDefaultName() == "Feature2D.BinGAN"
    assert extractor.empty() is False
    assert BinGANExtractor(small(64)).descriptorSize() == 8
    assert not isinstance(extractor, cv2.Feature2D)


@pytest.mark.parametrize("name", list(detectors()))
def test_keypoints_of_any_detector_keep_their_number_and_order(
    name: str, extractor: BinGANExtractor, image: np.ndarray
) -> None:
    found = detectors()[name].detect(image, None)
    assert len(found) > 20
    described, codes = extractor.compute(image, found)
    assert isinstance(described, tuple)
    assert all(a is b for a, b in zip(found, described, strict=True))
    assert codes.dtype == np.uint8
    assert codes.shape == (len(found), 32)
    assert codes.flags.c_contiguous
    assert np.array_equal(codes, describe(extractor.model, image, keypoints.from_opencv(found)))
    _, last = extractor.compute(image, found[-1:])
    assert np.array_equal(last, codes[-1:])
    both, same = BinGANExtractor(extractor.model, detector=detectors()[name]).detectAndCompute(image, None)
    assert [k.pt for k in both] == [k.pt for k in found]
    assert np.array_equal(same, codes)


def test_default_detector_is_the_one_of_the_package(extractor: BinGANExtractor, image: np.ndarray) -> None:
    expected = keypoints.detect(image, "dog")
    found = extractor.detect(image)
    assert np.array_equal(keypoints.from_opencv(found).xy, expected.xy)
    both, codes = extractor.detectAndCompute(image, None)
    assert np.array_equal(keypoints.from_opencv(both).octave, expected.octave)
    assert np.array_equal(codes, describe(extractor.model, image, expected))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_picture_is_matched_by_opencv(turns: int, extractor: BinGANExtractor, image: np.ndarray) -> None:
    """A quarter turn moves every pixel exactly, so nearly every match has to lie where the pixel went."""
    turned = np.ascontiguousarray(np.rot90(image, turns))
    found0, codes0 = extractor.detectAndCompute(image, None)
    found1, codes1 = extractor.detectAndCompute(turned, None)
    matches = cv2.BFMatcher(extractor.defaultNorm(), crossCheck=True).match(codes0, codes1)
    xy0 = np.array([found0[m.queryIdx].pt for m in matches])
    xy1 = np.array([found1[m.trainIdx].pt for m in matches])
    height, width = image.shape
    for _ in range(turns):
        xy0 = np.column_stack([xy0[:, 1], width - 1 - xy0[:, 0]])
        height, width = width, height
    right = np.linalg.norm(xy0 - xy1, axis=1) < 1
    assert right.sum() > 100
    assert right.mean() > 0.8


def test_knn_match_of_opencv(extractor: BinGANExtractor, image: np.ndarray) -> None:
    _, codes = extractor.detectAndCompute(image, None)
    unique = np.unique(codes, axis=0)
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(unique, unique, k=2)
    assert all(first.distance == 0 and first.trainIdx == i for i, (first, _) in enumerate(pairs))


def test_grey_column_and_colour_pictures_agree(extractor: BinGANExtractor, image: np.ndarray) -> None:
    found, codes = extractor.detectAndCompute(image)
    for same in (image[:, :, None], np.repeat(image[:, :, None], 3, 2), np.asfortranarray(image), image[::-1][::-1]):
        others, other_codes = extractor.detectAndCompute(same)
        assert [k.pt for k in others] == [k.pt for k in found]
        assert np.array_equal(other_codes, codes)


def test_colours_are_in_opencvs_order(extractor: BinGANExtractor) -> None:
    colour = np.dstack([texture(120, 160, seed) for seed in range(3)])
    grey = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
    found, codes = extractor.detectAndCompute(grey)
    assert np.array_equal(extractor.compute(colour, found)[1], codes)
    assert not np.array_equal(extractor.compute(colour[:, :, ::-1], found)[1], codes)


def test_no_keypoints_give_opencvs_answer(extractor: BinGANExtractor, image: np.ndarray) -> None:
    uniform = np.full((480, 640), 128, np.uint8)
    assert cv2.ORB.create().detectAndCompute(uniform, None) == ((), None)
    assert extractor.detect(uniform) == ()
    assert extractor.detectAndCompute(uniform, None) == ((), None)
    for nothing in ((), []):
        assert extractor.compute(image, nothing) == ((), None)
    for size in ((1, 1), (2, 3), (16, 16)):
        assert extractor.detectAndCompute(np.zeros(size, np.uint8)) == ((), None)


def test_mask(extractor: BinGANExtractor, image: np.ndarray) -> None:
    mask = np.full(image.shape, 255, np.uint8)
    mask[:, :160] = 0
    for one in (extractor, BinGANExtractor(extractor.model, detector=cv2.ORB.create())):
        found = one.detect(image, mask)
        assert found
        assert min(k.pt[0] for k in found) >= 159.5  # pixel 160 begins there
        assert len(one.detectAndCompute(image, mask)[1]) == len(found)


@pytest.mark.parametrize("mask", [np.zeros((100, 100), np.uint8), np.ones((240, 320), bool), "mask"])
def test_refuses_other_masks(mask: Any, extractor: BinGANExtractor, image: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"the mask is .*; give uint8 .240, 320."):
        extractor.detect(image, mask)


def test_unset_angle_is_upright(extractor: BinGANExtractor, image: np.ndarray) -> None:
    codes = [extractor.compute(image, [cv2.KeyPoint(100, 80, 9, angle)])[1] for angle in (-1, 0, 90)]
    assert np.array_equal(codes[0], codes[1])
    assert not np.array_equal(codes[0], codes[2])


def test_border_keypoints_are_described(extractor: BinGANExtractor, image: np.ndarray) -> None:
    corners = [cv2.KeyPoint(x, y, 40, 30) for x in (-0.5, 319.5) for y in (-0.5, 239.5)]
    _, codes = extractor.compute(image, corners)
    assert codes.shape == (4, 32)
    assert len(np.unique(codes, axis=0)) == 4


GOOD = cv2.KeyPoint(10, 10, 5, 0)
NAN = float("nan")


@pytest.mark.parametrize(
    "bad",
    [
        cv2.KeyPoint(-1, 10, 5),
        cv2.KeyPoint(10, 240, 5),
        cv2.KeyPoint(320, 10, 5),
        cv2.KeyPoint(NAN, 10, 5),
        cv2.KeyPoint(10, NAN, 5),
        cv2.KeyPoint(10, float("inf"), 5),
        cv2.KeyPoint(10, 10, NAN),
        cv2.KeyPoint(10, 10, 0),
        cv2.KeyPoint(10, 10, -5),
        cv2.KeyPoint(10, 10, float("inf")),
        cv2.KeyPoint(10, 10, 5, NAN),
    ],
)
def test_names_the_keypoint_that_it_refuses(bad: cv2.KeyPoint, extractor: BinGANExtractor, image: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"^keypoint 2 at .* inside the image of 320 x 240 pixels"):
        extractor.compute(image, [GOOD, GOOD, bad, GOOD])


def test_refuses_what_are_no_keypoints(extractor: BinGANExtractor, image: np.ndarray) -> None:
    with pytest.raises(UsageError, match="keypoint 1 is tuple"):
        extractor.compute(image, [GOOD, (1, 2)])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((20, 30), np.float32), r"numpy float32 .20, 30."),
        (np.zeros((20, 30), bool), "numpy bool"),
        (np.zeros((20, 30, 4), np.uint8), r"numpy uint8 .20, 30, 4."),
        (np.zeros((2, 20, 30, 3), np.uint8), r"numpy uint8 .2, 20, 30, 3."),
        (np.zeros((0, 30), np.uint8), r"numpy uint8 .0, 30."),
        (np.zeros(30, np.uint8), r"numpy uint8 .30,."),
        (torch.zeros(20, 30, dtype=torch.uint8), r"torch uint8 .20, 30."),
        (None, "NoneType"),
        ("photo.jpg", "str"),
    ],
)
def test_refuses_other_images(wrong: Any, words: str, extractor: BinGANExtractor) -> None:
    for call in (extractor.detect, extractor.detectAndCompute, lambda x: extractor.compute(x, [GOOD])):
        with pytest.raises(UsageError, match=f"the image must be uint8.*{words}"):
            call(wrong)


def test_refuses_a_model_in_training_mode(image: np.ndarray) -> None:
    model = small().train()
    with pytest.raises(UsageError, match="training mode"):
        BinGANExtractor(model).compute(image, [GOOD])


def test_refuses_a_detector_without_detect() -> None:
    with pytest.raises(UsageError, match=r"detect.image, mask., got str"):
        BinGANExtractor(small(), detector="ORB")  # type: ignore[arg-type]


def test_a_detector_of_ones_own(image: np.ndarray) -> None:
    class Grid:
        def detect(self, image: np.ndarray, mask: np.ndarray | None) -> Sequence[cv2.KeyPoint]:
            assert image.ndim == 2
            return [cv2.KeyPoint(x, y, 8) for y in range(20, 200, 40) for x in range(20, 300, 40)]

    found, codes = BinGANExtractor(small(), detector=Grid()).detectAndCompute(image[:, :, None])
    assert len(found) == 35
    assert codes.shape == (35, 32)


def test_weights_by_file_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: np.ndarray) -> None:
    model = small()
    path = tmp_path / "bingan256.safetensors"
    save_weights(path, model.network, {})
    row = {"bits": 256, "multiply_adds": 1, "sha256": sha256_of(path), "summary": "made by a test"}
    write_json(tmp_path / "manifest.json", {"bingan256": row})
    monkeypatch.setattr(weights, "weights_folder", lambda: tmp_path)
    _, expected = BinGANExtractor(BinGAN.from_pretrained(path, precision="auto")).detectAndCompute(image)
    for given in ((), ("bingan256",), (path,), (str(path),)):
        assert np.array_equal(BinGANExtractor(*given).detectAndCompute(image)[1], expected)
    with pytest.raises(UsageError, match="no weights 'absent'"):
        BinGANExtractor("absent")


def test_photo(shared_data: Path, extractor: BinGANExtractor) -> None:
    """A real photo and its half: most matches that pass the ratio test lie where the scaling puts them."""
    photo = cv2.imread(str(sorted(shared_data.glob("validate/fox/**/*.jpg"))[0]))
    half = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    found0, codes0 = extractor.detectAndCompute(photo)
    found1, codes1 = extractor.detectAndCompute(half)
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(codes1, codes0, k=2)
    kept = [a for a, b in pairs if a.distance < 0.8 * b.distance]
    xy1 = np.array([found1[m.queryIdx].pt for m in kept])
    xy0 = np.array([found0[m.trainIdx].pt for m in kept])
    right = np.linalg.norm((xy1 + 0.5) * 2 - 0.5 - xy0, axis=1) < 3
    assert right.sum() > 100
    assert right.mean() > 0.9
