"""Arrays as callers have them: any layout gives the same, nothing of the caller's is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.typing import NDArray
from PIL import Image

from kornia_bingan import BinGAN, match
from kornia_bingan.descriptor import describe
from kornia_bingan.errors import UsageError
from kornia_bingan.images.read import image_size, read_image
from kornia_bingan.keypoints import detect
from kornia_bingan.opencv import BinGANExtractor
from tests.helpers.photos import texture

Array = NDArray[np.uint8]

LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "a view of a larger one": lambda x: np.pad(x, [(3, 5), (4, 2), *[(0, 0)] * (x.ndim - 2)])[3:-5, 4:-2],
    "negative strides": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "Fortran order": np.asfortranarray,
    "every other pixel": lambda x: x.repeat(2, 0).repeat(2, 1)[::2, ::2],
    "read-only": lambda x: x.copy(),
}


@pytest.fixture(scope="module")
def extractor() -> BinGANExtractor:
    return BinGANExtractor("bingan256-lite")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_layouts_of_images_do_not_matter(layout: str, channels: int, extractor: BinGANExtractor) -> None:
    plain = texture(90, 120) if channels == 0 else np.dstack([texture(90, 120, seed) for seed in range(channels)])
    if channels == 1:
        plain = plain.reshape(90, 120, 1)
    given_array = LAYOUTS[layout](plain)
    given_array.flags.writeable = False
    before = given_array.copy()
    keypoints, codes = extractor.detectAndCompute(given_array, None)
    expected_keypoints, expected = extractor.detectAndCompute(np.ascontiguousarray(plain), None)
    assert [point.pt for point in keypoints] == [point.pt for point in expected_keypoints]
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(given_array, before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_do_not_matter_to_describe_and_match(layout: str, extractor: BinGANExtractor) -> None:
    model = BinGAN.from_pretrained("bingan256-lite")
    plain = texture(90, 120)
    image = LAYOUTS[layout](plain)
    keypoints = detect(plain)
    codes = describe(model, image, keypoints)
    np.testing.assert_array_equal(codes, describe(model, plain, keypoints))
    np.testing.assert_array_equal(detect(image).xy, keypoints.xy)
    values, indices = match(LAYOUTS[layout](codes), codes[::-1], "mnn")
    expected = match(codes, np.ascontiguousarray(codes[::-1]), "mnn")
    np.testing.assert_array_equal(values, expected[0])
    np.testing.assert_array_equal(indices, expected[1])


@pytest.mark.parametrize(
    "image",
    [
        texture(40, 50).astype(np.float64),
        texture(40, 50).astype(np.float16),
        texture(40, 50).astype(np.int16),
        np.zeros((3, 40, 50), np.uint8),
        np.zeros((40, 50, 2), np.uint8),
        np.zeros((0, 50), np.uint8),
        texture(40, 50).tolist(),
    ],
)
def test_other_arrays_are_refused_by_name(image: object, extractor: BinGANExtractor) -> None:
    with pytest.raises(UsageError, match=r"must be uint8 or uint16, grey \(H, W\)"):
        extractor.detectAndCompute(image, None)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    channels=st.sampled_from([0, 3, 4]),
    extension=st.sampled_from([".png", ".tif", ".bmp", ".webp", ".ppm"]),
    orientation=st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8]),
    seed=st.integers(0, 2**31),
)
def test_what_is_written_without_loss_is_read_as_a_viewer_shows_it(
    tmp_path_factory: pytest.TempPathFactory,
    height: int,
    width: int,
    channels: int,
    extension: str,
    orientation: int,
    seed: int,
) -> None:
    shape = (height, width, channels) if channels else (height, width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    if channels == 4:
        pixels[..., 3] = 255
    if extension in (".bmp", ".ppm"):
        orientation = 1
        pixels = pixels[..., :3] if channels else pixels
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path_factory.mktemp("any") / f"picture{extension}"
    picture = Image.fromarray(pixels)
    if extension in (".bmp", ".ppm"):
        picture.save(path)
    else:
        picture.save(path, exif=exif, **({"lossless": True, "exact": True} if extension == ".webp" else {}))
    colour = pixels[..., :3] if channels else np.dstack([pixels] * 3)
    shown = np.ascontiguousarray(colour)
    turns: dict[int, Callable[[Array], Array]] = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: x.swapaxes(0, 1)[:, ::-1],
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
        8: lambda x: x.swapaxes(0, 1)[::-1],
    }
    shown = np.ascontiguousarray(turns[orientation](shown))
    grey = read_image(path)
    assert grey.shape == shown.shape[:2]
    assert image_size(path) == (shown.shape[1], shown.shape[0])
    expected = cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY).astype(int)
    assert np.abs(grey.astype(int) - expected).max() <= 2


def test_tiny_and_narrow_pictures_are_described(tmp_path: Path, extractor: BinGANExtractor) -> None:
    for height, width in ((1, 1), (1, 400), (400, 1), (7, 9), (20, 3000)):
        keypoints, codes = extractor.detectAndCompute(texture(max(2, height), max(2, width))[:height, :width], None)
        assert (codes is None and not keypoints) or (codes is not None and len(codes) == len(keypoints))


@pytest.mark.parametrize(
    "image", [None, texture(9, 9).tolist(), torch.zeros(9, 9, dtype=torch.uint8), np.zeros((0, 9))]
)
def test_what_is_no_array_is_named(image: object) -> None:
    for call in (lambda: detect(image), lambda: describe(BinGAN(), image, detect(texture(9, 9)))):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"got (NoneType|list|torch uint8 \(9, 9\)|numpy float64 \(0, 9\))"):
            call()
    with pytest.raises(ValueError, match="patches are a float tensor"):
        BinGAN()(image if not isinstance(image, torch.Tensor) else None)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3, 40, 3), (1, 40, 3), (3, 40, 1), (1, 1, 1)])
def test_shapes_with_channels_first_or_last_are_refused(shape: tuple[int, ...], extractor: BinGANExtractor) -> None:
    with pytest.raises(UsageError, match=r"may have its channels first or last; give grey \(H, W\)"):
        extractor.detectAndCompute(np.zeros(shape, np.uint8), None)
