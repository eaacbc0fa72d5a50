"""Truth: turned and shifted pictures, the array path of the package, and OpenCV's own matcher and answers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from kornia_bingan import BinGAN, keypoints
from kornia_bingan.descriptor import describe
from kornia_bingan.errors import UsageError
from kornia_bingan.images.read import read_image
from kornia_bingan.network import weights
from kornia_bingan.network.published import PatchTrunk
from kornia_bingan.network.weights import save_weights
from kornia_bingan.opencv import BinGANExtractor
from kornia_bingan.work.files import sha256_of, write_json
from tests.helpers.photos import texture


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


def test_codes_that_are_not_packed_are_signs(image: np.ndarray) -> None:
    packed = BinGANExtractor(small(64), max_keypoints=50)
    signs = BinGANExtractor.create(packed.model, max_keypoints=50, packed=False)
    assert (signs.descriptorSize(), signs.descriptorType(), signs.defaultNorm()) == (64, cv2.CV_32F, cv2.NORM_L2)
    points, codes = packed.detectAndCompute(image, None)
    kept, values = signs.compute(image, points)
    assert len(kept) == len(points) == 50
    assert values is not None
    assert (values.dtype, values.shape) == (np.float32, (50, 64))
    np.testing.assert_array_equal(values, 2.0 * np.unpackbits(codes, axis=1) - 1)
    assert signs.compute(np.full((60, 60), 9, np.uint8), []) == ((), None)


@pytest.mark.parametrize("name", list(detectors()))
def test_keypoints_of_any_detector_keep_their_number_and_order(
    name: str, extractor: BinGANExtractor, image: np.ndarray
) -> None:
    found = detectors()[name].detect(image, None)
    assert len(found) > 20
    extractor = BinGANExtractor(extractor.model, detector=detectors()[name])
    described, codes = extractor.compute(image, found)
    assert isinstance(described, tuple)
    assert all(a is b for a, b in zip(found, described, strict=True))
    assert codes.dtype == np.uint8
    assert codes.shape == (len(found), 32)
    assert codes.flags.c_contiguous
    factor = {"ORB": 0.65, "FAST": 2.0, "BRISK": 1.0}.get(name, 6.0)
    assert np.array_equal(codes, describe(extractor.model, image, keypoints.from_opencv(found), factor))
    _, last = extractor.compute(image, found[-1:])
    assert np.array_equal(last, codes[-1:])
    both, same = extractor.detectAndCompute(image, None)
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


@pytest.mark.filterwarnings("ignore:the size of")
def test_unset_angle_is_upright(extractor: BinGANExtractor, image: np.ndarray) -> None:
    codes = [extractor.compute(image, [cv2.KeyPoint(100, 80, 9, angle)])[1] for angle in (-1, 0, 90)]
    assert np.array_equal(codes[0], codes[1])
    assert not np.array_equal(codes[0], codes[2])


@pytest.mark.filterwarnings("ignore:the size of")
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


OUTSIDE = [(-1, 10), (320, 10), (10, 240), (NAN, 10), (10, NAN), (10, float("inf"))]


@pytest.mark.filterwarnings("ignore:the size of")
@pytest.mark.parametrize("xy", OUTSIDE)
def test_a_keypoint_outside_is_left_out_as_by_orb(
    xy: tuple[float, float], extractor: BinGANExtractor, image: np.ndarray
) -> None:
    other = cv2.KeyPoint(100, 90, 8, 0)
    kept, codes = extractor.compute(image, [GOOD, cv2.KeyPoint(*xy, 5), other])
    assert [k.pt for k in kept] == [(10, 10), (100, 90)]
    assert np.array_equal(codes, extractor.compute(image, [GOOD, other])[1])
    assert extractor.compute(image, [cv2.KeyPoint(*xy, 5)]) == ((), None)

    class Finds:
        def detect(self, image: np.ndarray, mask: np.ndarray | None) -> list[cv2.KeyPoint]:
            return [GOOD, cv2.KeyPoint(*xy, 5)]

    assert len(BinGANExtractor(extractor.model, detector=Finds()).detectAndCompute(image)[0]) == 1


def test_the_strongest_are_those_that_the_mask_allows(extractor: BinGANExtractor, image: np.ndarray) -> None:
    """SIFT of OpenCV keeps the strongest of the whole picture first, and then looks at the mask."""
    uneven = image.copy()
    uneven[:, 160:] = 128 + (uneven[:, 160:].astype(np.float32) - 128) * 0.6
    mask = np.zeros_like(image)
    mask[:, 170:] = 255
    akaze = getattr(cv2, "AKAZE", None) or cv2.xfeatures2d.AKAZE
    assert len(cv2.SIFT.create(15).detect(uneven, mask)) < 15
    for unlimited, limited in (
        (cv2.SIFT.create(), cv2.SIFT.create(15)),
        (akaze.create(threshold=1e-5), akaze.create(threshold=1e-5, max_points=15)),
    ):
        expected = unlimited.detect(uneven, mask)
        assert len(expected) > 15
        strongest = sorted(k.response for k in expected)[-15:]
        for one in (
            BinGANExtractor(extractor.model, detector=limited),
            BinGANExtractor(extractor.model, detector=unlimited, max_keypoints=15),
        ):
            assert sorted(k.response for k in one.detect(uneven, mask)) == strongest
        assert len(limited.detect(uneven, None)) == 15  # the caller's detector is as it was
    found = BinGANExtractor(extractor.model, max_keypoints=15).detect(uneven, mask)
    assert [k.pt for k in found] == [k.pt for k in keypoints.to_opencv(keypoints.detect(uneven, "dog", 10**6, mask))][
        :15
    ]


@pytest.mark.parametrize("change", [{}, {"scaleFactor": 1.25}, {"patchSize": 32}, {"firstLevel": 1}])
def test_support_regions_of_any_orb(change: dict[str, float], extractor: BinGANExtractor, image: np.ndarray) -> None:
    """Keypoints of several octaves, also of an enlarged picture, have the region of ORB: 0.65 of its patch."""
    orb = cv2.ORB.create(200, **change)
    known = BinGANExtractor(extractor.model, detector=orb)
    found, codes = known.detectAndCompute(image)
    assert len({k.octave for k in found}) > 3
    arrays = keypoints.from_opencv(found)
    assert np.array_equal(codes, describe(extractor.model, image, arrays, 0.65))
    told = BinGANExtractor(extractor.model, support=0.65)
    assert np.array_equal(told.compute(image, found)[1], codes)
    large = cv2.resize(image, None, fx=2, fy=2)
    points = keypoints.to_opencv(arrays.enlarged((2.0, 2.0)))
    assert np.array_equal(known.compute(large, points)[1], told.compute(large, points)[1])
    if change:
        with pytest.warns(UserWarning, match="default ORB"):
            extractor.compute(image, found)
    else:
        assert np.array_equal(extractor.compute(image, found)[1], codes)


def test_keypoints_of_sift_stay_blobs_beside_another_detector(extractor: BinGANExtractor, image: np.ndarray) -> None:
    found = cv2.SIFT.create(50).detect(image)
    other = BinGANExtractor(extractor.model, detector=cv2.ORB.create())
    assert np.array_equal(other.compute(image, found)[1], extractor.compute(image, found)[1])


def test_positional_arguments_of_a_feature2d(extractor: BinGANExtractor, image: np.ndarray) -> None:
    found, codes = extractor.detectAndCompute(image, None, None, False)
    for again in (
        extractor.detectAndCompute(image, mask=None, descriptors=None, useProvidedKeypoints=False),
        extractor.compute(image, found, None),
        extractor.compute(image, keypoints=list(found), descriptors=None),
    ):
        assert [k.pt for k in again[0]] == [k.pt for k in found]
        assert np.array_equal(again[1], codes)
    with pytest.raises(UsageError, match=r"give those that you have to compute\(\)"):
        extractor.detectAndCompute(image, None, None, True)


def test_lists_of_images(extractor: BinGANExtractor, image: np.ndarray) -> None:
    images = [image, np.full((50, 60), 90, np.uint8), texture(100, 120, seed=2)]
    singles = [extractor.detectAndCompute(one) for one in images]
    found = extractor.detect(images)
    assert isinstance(found, tuple)
    assert [[k.pt for k in one] for one in found] == [[k.pt for k in one] for one, _ in singles]
    kept, codes = extractor.compute(images, found)
    assert isinstance(kept, tuple)
    assert isinstance(codes, tuple)
    assert kept[1] == ()
    assert codes[1] is None
    for one, (_, expected) in zip(codes, singles, strict=True):
        assert np.array_equal(one, expected)
    assert extractor.detect([]) == ()
    assert extractor.compute([], []) == ((), ())
    masks = [np.zeros_like(one) for one in images]
    assert extractor.detect(images, masks) == ((), (), ())
    for call in (lambda: extractor.detect(images, masks[:2]), lambda: extractor.compute(images, found[:2])):
        with pytest.raises(UsageError, match=r"there are 3 images but 2 .*; give one per image"):
            call()


def test_umat_gives_umat_as_orb_does(extractor: BinGANExtractor, image: np.ndarray) -> None:
    found, codes = extractor.detectAndCompute(image)
    on_device = cv2.UMat(image)
    for points, same in (extractor.detectAndCompute(on_device), extractor.compute(on_device, found)):
        assert [k.pt for k in points] == [k.pt for k in found]
        assert isinstance(same, cv2.UMat)
        assert np.array_equal(same.get(), codes)
    mask = cv2.UMat(np.zeros_like(image))
    assert extractor.detect(on_device, mask) == ()
    nothing, none = extractor.detectAndCompute(on_device, mask)
    assert nothing == ()
    assert none.get() is None or not none.get().size


def test_alpha_and_16_bits(extractor: BinGANExtractor, tmp_path: Path) -> None:
    colour = np.dstack([texture(120, 160, seed) for seed in range(3)])
    _, codes = extractor.detectAndCompute(colour)
    with_alpha = np.dstack([colour, texture(120, 160, 5)])
    assert np.array_equal(extractor.detectAndCompute(with_alpha)[1], codes)
    deep = texture(120, 160).astype(np.uint16) * 257
    deep += np.random.default_rng(0).integers(0, 100, deep.shape, np.uint16)
    for pixels in (deep, np.dstack([deep, deep[::-1], deep[:, ::-1]])):
        cv2.imwrite(str(tmp_path / "deep.png"), pixels)
        read = read_image(tmp_path / "deep.png")
        found, codes = extractor.detectAndCompute(read)
        if pixels.ndim == 2:
            assert [k.pt for k in extractor.detect(pixels)] == [k.pt for k in found]
        # OpenCV's decoder weighs colours with another rounding than its cvtColor.
        assert np.bitwise_count(codes ^ extractor.compute(pixels, found)[1]).sum(1).mean() < (pixels.ndim - 2) + 1e-9


def test_mask_with_an_axis_for_its_channel(extractor: BinGANExtractor, image: np.ndarray) -> None:
    mask = np.full(image.shape, 255, np.uint8)
    mask[:, :160] = 0
    expected = [k.pt for k in extractor.detect(image, mask)]
    for same in (mask[:, :, None], mask[::-1].copy()[::-1], np.asfortranarray(mask), mask // 255):
        assert [k.pt for k in extractor.detect(image, same)] == expected


def test_created_as_opencvs_classes_are(extractor: BinGANExtractor, image: np.ndarray) -> None:
    orb = cv2.ORB.create(300)
    made = BinGANExtractor.create(extractor.model, detector=orb, max_keypoints=40, support=0.8)
    assert (made.detector, made.max_keypoints, made.support) == (orb, 40, 0.8)
    found = made.detect(image)
    weakest = min(k.response for k in found)
    assert len(found) == 40
    assert sum(k.response > weakest for k in orb.detect(image)) < 40
    assert len(BinGANExtractor(extractor.model, max_keypoints=40).detect(image)) == 40
    with pytest.raises(UsageError, match="max_keypoints is 0; give 1 or more"):
        BinGANExtractor(extractor.model, max_keypoints=0)
    with pytest.raises(UsageError, match="support is -1; give half the side"):
        BinGANExtractor(extractor.model, support=-1)


def test_refuses_what_are_no_keypoints(extractor: BinGANExtractor, image: np.ndarray) -> None:
    with pytest.raises(UsageError, match="keypoint 1 is tuple"):
        extractor.compute(image, [GOOD, (1, 2)])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((20, 30), np.float32), r"numpy float32 .20, 30."),
        (np.zeros((20, 30), bool), "numpy bool"),
        (np.zeros((20, 30, 2), np.uint8), r"numpy uint8 .20, 30, 2."),
        (np.zeros((20, 30), np.int16), r"numpy int16 .20, 30."),
        ([np.zeros((20, 30), np.float32)], "float32|list"),
        (np.zeros((2, 20, 30, 3), np.uint8), r"numpy uint8 .2, 20, 30, 3."),
        (np.zeros((0, 30), np.uint8), r"numpy uint8 .0, 30."),
        (np.zeros(30, np.uint8), r"numpy uint8 .30,."),
        (torch.zeros(20, 30, dtype=torch.uint8), r"torch uint8 .20, 30."),
        (None, "NoneType; cv2.imread gives None"),
        ("photo.jpg", "str"),
    ],
)
def test_refuses_other_images(wrong: Any, words: str, extractor: BinGANExtractor) -> None:
    points: Any = [[GOOD]] if isinstance(wrong, list) else [GOOD]
    for call in (extractor.detect, extractor.detectAndCompute, lambda x: extractor.compute(x, points)):
        with pytest.raises(UsageError, match=f"the image must be uint8.*({words})"):
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

    with pytest.warns(UserWarning, match="35 of 35 keypoints"):
        found, codes = BinGANExtractor(small(), detector=Grid()).detectAndCompute(image[:, :, None])
    assert len(found) == 35
    assert codes.shape == (35, 32)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*keypoints")  # the small network is untrained, and says so
        _, same = BinGANExtractor(small(), detector=Grid(), support=6).detectAndCompute(image)
    assert np.array_equal(same, codes)


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


@pytest.fixture(scope="module")
def lite() -> BinGANExtractor:
    return BinGANExtractor("bingan256-lite")


def share_found_again(extractor: BinGANExtractor, image: np.ndarray, way: np.ndarray, size: tuple[int, int]) -> float:
    """OpenCV's protocol of invariance: the keypoints are moved with the picture, and each has to find itself.

    Args:
        extractor: describes.
        image: grey.
        way: a similarity, (2, 3), from its pixels to those of the other picture.
        size: width and height of that.
    """
    scale = float(np.hypot(way[0, 0], way[1, 0]))
    turn_deg = float(np.rad2deg(np.arctan2(way[1, 0], way[0, 0])))
    other = cv2.warpAffine(image, way, size, flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    height, width = image.shape
    points = keypoints.detect(image, "dog", 400)
    inner = np.linalg.norm(points.xy - [width / 2, height / 2], axis=1) < min(width, height) / 3
    found0 = keypoints.to_opencv(points[inner])
    found1 = [
        cv2.KeyPoint(*(way @ [*k.pt, 1]).tolist(), scale * k.size, (k.angle + turn_deg) % 360, k.response, k.octave)
        for k in found0
    ]
    _, codes0 = extractor.compute(image, found0)
    _, codes1 = extractor.compute(other, found1)
    assert len(codes0) == len(codes1) > 100
    matches = cv2.BFMatcher(cv2.NORM_HAMMING).match(codes0, codes1)
    return float(np.mean([match.queryIdx == match.trainIdx for match in matches]))


@pytest.mark.parametrize("turn_deg", [15, 75, 130, 180, 225, 290, 345])
def test_invariance_to_rotation_by_opencvs_protocol(turn_deg: float, lite: BinGANExtractor) -> None:
    image = texture(320, 320, 7)
    way = cv2.getRotationMatrix2D((159.5, 159.5), -turn_deg, 1)
    assert share_found_again(lite, image, way, (320, 320)) > 0.98


@pytest.mark.parametrize("scale", [0.4, 0.5, 0.7, 1.5, 2, 2.5])
def test_invariance_to_scale_by_opencvs_protocol(scale: float, lite: BinGANExtractor) -> None:
    side = round(320 * scale)
    # the corner of the picture stays where it is
    way = np.array([[scale, 0, scale / 2 - 0.5], [0, scale, scale / 2 - 0.5]])
    assert share_found_again(lite, texture(320, 320, 7), way, (side, side)) > 0.95
