from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.spatial

from kornia_bingan import keypoints
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import (
    BLOB_SUPPORT,
    ORB_SUPPORT,
    check_inside,
    detect,
    from_opencv,
    has_region,
    inside,
    strongest,
    support_half_sides,
    support_regions,
    to_opencv,
)
from kornia_bingan.work.options import Detector
from tests.helpers.photos import texture


@pytest.mark.parametrize("detector", ["dog", "orb"])
def test_detects_strongest_first_within_the_limit_and_the_mask(detector: Detector) -> None:
    image = texture(200, 240)
    keypoints = detect(image, detector, 100)
    assert 50 < len(keypoints) <= 100
    assert (np.diff(keypoints.response) <= 0).all()
    mask = np.zeros_like(image)
    mask[:, 120:] = 255
    masked = detect(image, detector, 1000, mask)
    assert len(masked) > 20
    assert masked.xy[:, 0].min() >= 120


def strong_left(height: int = 200, width: int = 240) -> np.ndarray:
    """Strong structure on the left, weak structure on the right."""
    image = texture(height, width)
    image[:, width // 2 :] = 128 + (image[:, width // 2 :].astype(np.float32) - 128) * 0.3
    return image


def right_only(image: np.ndarray, value: int = 255) -> np.ndarray:
    mask = np.zeros_like(image)
    mask[:, image.shape[1] // 2 + 10 :] = value
    return mask


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("tiled", [False, True])
def test_the_strongest_are_those_that_the_mask_allows(tiled: bool, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if tiled:
        monkeypatch.setattr(keypoints, "MOST_PIXELS", 200 * 240 - 1)
    image = strong_left()
    mask = right_only(image, value)
    everything = detect(image, "dog", 10**6, mask)
    assert len(everything) > 20
    assert detect(image, "dog", 10).xy[:, 0].max() < 130
    found = detect(image, "dog", 10, mask)
    for name in ("xy", "size", "angle_deg", "response", "octave"):
        np.testing.assert_array_equal(getattr(found, name), getattr(everything[:10], name))


def test_the_strongest_of_orb_are_those_that_the_mask_allows() -> None:
    """ORB has a share of the limit for each of its levels, which is filled from the right half alone."""
    image = texture(240, 400)
    image[:, 200:] = 128 + (image[:, 200:].astype(np.float32) - 128) * 0.7
    assert len(detect(image, "orb", 20, right_only(image))) == 20
    unmasked, all_allowed = detect(image, "orb", 20), detect(image, "orb", 20, np.full_like(image, 255))
    np.testing.assert_array_equal(all_allowed.xy, unmasked.xy)


@pytest.mark.parametrize("detector", ["dog", "orb"])
def test_uniform_picture_gives_arrays_with_no_rows(detector: Detector) -> None:
    keypoints = detect(np.full((480, 640), 128, np.uint8), detector)
    assert len(keypoints) == 0
    assert keypoints.xy.shape == (0, 2)
    assert keypoints.xy.dtype == np.float32
    assert support_regions(keypoints).shape == (0, 2, 3)


@pytest.mark.parametrize("detector", ["dog", "orb"])
def test_positions_have_no_bias(detector: Detector) -> None:
    """An unbiased detector finds the mirrored positions on a picture turned by 180 degrees."""
    image = texture(480, 500, seed=3)
    turned = np.ascontiguousarray(image[::-1, ::-1])
    a, b = detect(image, detector, 800).xy, np.array([499, 479]) - detect(turned, detector, 800).xy
    distance = np.linalg.norm(a[:, None] - b, axis=2)
    nearest = distance.argmin(1)
    close = distance.min(1) < 2
    assert close.sum() > 200
    assert np.abs(np.median((a - b[nearest])[close], 0)).max() < 0.05


def test_tiles_find_what_the_whole_picture_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    image = texture(1500, 2300, seed=5)
    whole = detect(image, "dog", 10**6)
    monkeypatch.setattr(keypoints, "MOST_PIXELS", 2**20)
    tiled = detect(image, "dog", 10**6)
    assert len(tiled) == pytest.approx(len(whole), rel=0.02)
    strong = whole[:4000]
    scale = np.float32(8)
    rows = [np.column_stack([k.xy, scale * np.log2(k.size)]) for k in (strong, tiled)]
    distance, index = scipy.spatial.cKDTree(rows[1]).query(rows[0])
    found = distance < 1.5  # pixels, and eighths of an octave
    assert found.mean() > 0.97
    large = strong.size > 24
    assert large.sum() > 100
    assert found[large].mean() > 0.8  # 1.5 pixels are little for a large blob
    assert np.abs(np.median((strong.xy - tiled.xy[index])[found & large], 0)).max() < 0.1
    assert np.mean(strong.octave[found] & 0xFF == tiled.octave[index[found]] & 0xFF) > 0.8


def test_octave_of_tiles_is_that_of_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIFT's size is 3.2 x 2^(octave + (layer + fraction) / 3), with the three packed into the octave field."""
    monkeypatch.setattr(keypoints, "MOST_PIXELS", 600 * 700 - 1)
    found = detect(texture(600, 700, seed=5), "dog", 10**6)
    octave = (found.octave & 0xFF).astype(np.int8)
    layer = (found.octave >> 8) & 0xFF
    fraction = ((found.octave >> 16) & 0xFF) / 255 - 0.5
    assert (found.size > 24).sum() > 10
    assert (found.size < 3).sum() > 10
    np.testing.assert_allclose(found.size, 3.2 * 2.0 ** (octave + (layer + fraction) / 3), rtol=0.005)


def test_describing_twelve_megapixels_takes_the_memory_that_the_readme_states(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    image = np.random.default_rng(0).integers(0, 255, (300, 400), np.uint8).repeat(10, 0).repeat(10, 1)
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), image)
    program = """
import sys
from kornia_bingan.cli import main
assert main(["describe", *sys.argv[1:], "--descriptor", "bingan256-lite"]) == 0
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "photos"), str(tmp_path / "out")]
    # With several threads and heaps, up to 90 MB more or less hang on who runs at the same time.
    one = {"OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **one})
    assert float(done.stdout.split()[-1]) * 1024 < 0.7e9 + 5 * image.size


def test_round_trip_through_opencv_keeps_every_field() -> None:
    keypoints = detect(texture(128, 128), "dog", 50)
    again = from_opencv(to_opencv(keypoints))
    for name in ("xy", "size", "angle_deg", "response", "octave"):
        np.testing.assert_array_equal(getattr(again, name), getattr(keypoints, name))
    assert len(keypoints[:5]) == 5
    assert len(from_opencv([])) == 0


def test_support_region_by_detector() -> None:
    blob = cv2.KeyPoint(10, 20, 4.0, 90.0, 1.0, 257)
    orb = cv2.KeyPoint(10, 20, 31 * 1.2**3, 0.0, 1.0, 3)
    half = support_half_sides(from_opencv([blob, orb]))
    np.testing.assert_allclose(half, [4 * BLOB_SUPPORT, 31 * 1.2**3 * ORB_SUPPORT], rtol=1e-6)


def test_support_region_of_fast_corners() -> None:
    corners = from_opencv(cv2.FastFeatureDetector.create(10).detect(texture(80, 90)))
    assert len(corners)
    np.testing.assert_allclose(support_half_sides(corners), 14)
    other = cv2.KeyPoint(10, 20, 7.0, 30.0, 1.0, 0)
    with pytest.warns(UserWarning, match="is not that of SIFT, default ORB or FAST") as caught:
        np.testing.assert_allclose(support_half_sides(from_opencv([other])), 7 * BLOB_SUPPORT)
    assert caught[0].filename == __file__, "it names the caller's line"


@pytest.mark.parametrize("detector", [cv2.SIFT.create(), cv2.SIFT.create(sigma=2.1, nOctaveLayers=5), cv2.ORB.create()])
def test_keypoints_of_sift_and_default_orb_need_no_argument(detector: cv2.Feature2D) -> None:
    found = from_opencv(detector.detect(texture(150, 160)))
    factor = ORB_SUPPORT if isinstance(detector, cv2.ORB) else BLOB_SUPPORT
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(support_half_sides(found), found.size * factor, rtol=1e-6)


@pytest.mark.parametrize("change", [{"scaleFactor": 1.25}, {"patchSize": 32}, {"firstLevel": 1}])
def test_orb_that_is_not_default_is_not_guessed_by_parts(change: dict[str, float]) -> None:
    """Octave 0 of scaleFactor 1.25 looks like default ORB: half of the set would get another region than the rest."""
    found = from_opencv(cv2.ORB.create(**change).detect(texture(150, 160)))  # type: ignore[call-overload]
    with pytest.warns(UserWarning, match=r"describe.* as blobs.*detector=.*support="):
        factors = support_half_sides(found) / found.size
    np.testing.assert_allclose(factors, BLOB_SUPPORT, rtol=1e-6)
    np.testing.assert_allclose(support_half_sides(found, ORB_SUPPORT), found.size * ORB_SUPPORT, rtol=1e-6)


def test_orb_of_an_enlarged_picture_is_not_taken_for_blobs_silently() -> None:
    found = detect(texture(150, 160), "orb", 100).enlarged((2.0, 2.0))
    with pytest.warns(UserWarning, match="not that of SIFT, default ORB or FAST"):
        support_half_sides(found)


@pytest.mark.parametrize("support", [0, -1.0, float("nan"), float("inf"), "5", True, np.array([5.0, 0.0])])
def test_refuses_a_support_that_is_no_factor(support: Any) -> None:
    found = from_opencv([cv2.KeyPoint(10, 20, 4.0), cv2.KeyPoint(10, 20, 4.0)])
    with pytest.raises(UsageError, match=r"support is .* 6 for blobs or 0\.65 for ORB"):
        support_regions(found, support)


def test_laf_has_opencvs_angle() -> None:
    """OpenCV's angle is clockwise on screen, where y points down: 90 degrees turn the x axis to +y."""
    laf = support_regions(from_opencv([cv2.KeyPoint(10, 20, 2.0, 90.0, 1.0, 257)]))[0]
    np.testing.assert_allclose(laf, [[0, -12, 10], [12, 0, 20]], atol=1e-5)
    upright = support_regions(from_opencv([cv2.KeyPoint(10, 20, 2.0, -1.0, 1.0, 257)]))[0]
    np.testing.assert_allclose(upright, [[12, 0, 10], [0, 12, 20]], atol=1e-5)


def test_angle_follows_a_turned_picture() -> None:
    image = texture(301, 301, seed=5)
    turned = np.ascontiguousarray(np.rot90(image, -1))  # 90 degrees clockwise
    a, b = detect(image, "dog", 300), detect(turned, "dog", 300)
    mapped = np.stack([300 - a.xy[:, 1], a.xy[:, 0]], 1)
    distance = np.linalg.norm(mapped[:, None] - b.xy, axis=2)
    i = np.flatnonzero(distance.min(1) < 0.5)
    turn = (b.angle_deg[distance.argmin(1)[i]] - a.angle_deg[i]) % 360
    assert len(i) > 100
    assert abs(np.median(turn) - 90) < 1


def test_refuses_what_is_no_grey_picture() -> None:
    with pytest.raises(UsageError, match="float32"):
        detect(np.zeros((10, 10), np.float32))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the mask is"):
        detect(np.zeros((10, 10), np.uint8), mask=np.zeros((5, 5), np.uint8))
    with pytest.raises(UsageError, match="choose dog or orb"):
        detect(np.zeros((10, 10), np.uint8), "akaze")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="1 or more"):
        detect(np.zeros((10, 10), np.uint8), max_keypoints=0)


def at(*rows: tuple[float, ...]) -> keypoints.Keypoints:
    """Keypoints of (x, y, size, angle, response)."""
    return from_opencv([cv2.KeyPoint(*row, 0) for row in rows])


def test_equal_strengths_are_ordered_by_y_then_x_then_angle() -> None:
    found = at((3, 1, 4, 0, 1), (2, 1, 4, 9, 1), (2, 1, 4, 5, 1), (9, 0, 4, 0, 1), (5, 5, 4, 0, 2))
    assert strongest(found).tolist() == [4, 3, 2, 1, 0]


def test_an_image_goes_half_a_pixel_beyond_the_centres_of_its_border() -> None:
    found = at(*((x, 1, 4, 0, 1) for x in (-0.5, -0.6, 7.5, 7.6)), *((1, y, 4, 0, 1) for y in (-0.5, -0.6, 5.5, 5.6)))
    assert inside(found, (6, 8)).tolist() == [True, False] * 4
    assert not inside(at((float("nan"), 1, 4, 0, 1)), (6, 8)).any()


def test_a_region_needs_a_size_and_an_angle() -> None:
    nan, inf = float("nan"), float("inf")
    found = at((1, 1, 4, 0, 1), (1, 1, 0, 0, 1), (1, 1, nan, 0, 1), (1, 1, inf, 0, 1), (1, 1, 4, nan, 1))
    assert has_region(found).dtype == np.bool_
    assert has_region(found).tolist() == [True, False, False, False, False]
    check_inside(found[:1], (6, 8))
    for wrong in (found, at((1, 1, 4, 0, 1), (9, 1, 4, 0, 1))):
        with pytest.raises(UsageError, match=r"keypoint 1 at .* must be inside the image of 8 x 6 pixels"):
            check_inside(wrong, (6, 8))
    check_inside(found, (6, 8), np.ones(5, bool))
    with pytest.raises(UsageError, match="keypoint 2 at"):
        check_inside(found, (6, 8), np.arange(5) != 2)


def test_four_thousand_and_ninety_six_keypoints_unless_told() -> None:
    dots = np.zeros((560, 560), np.uint8)
    dots[4::8, 4::8] = 255
    image = cv2.GaussianBlur(dots, (0, 0), 1.5) * 8
    assert len(detect(image, "dog", 10**6)) > 4200
    assert len(detect(image)) == 4096


def test_a_thin_picture_goes_in_tiles_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keypoints, "MOST_PIXELS", 100)
    assert len(detect(np.zeros((3, 400), np.uint8))) == 0
    assert len(detect(np.zeros((400, 3), np.uint8))) == 0
