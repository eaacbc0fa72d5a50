from __future__ import annotations

import cv2
import kornia.feature as KF
import numpy as np
import pytest
import torch

from kornia_bingan.errors import UsageError
from kornia_bingan.patches import build_pyramid, cut_patches
from tests.helpers.photos import texture


def laf(x: float, y: float, half: float, angle_deg: float = 0.0) -> np.ndarray:
    angle = np.deg2rad(angle_deg)
    cos, sin = half * np.cos(angle), half * np.sin(angle)
    return np.array([[cos, -sin, x], [sin, cos, y]], np.float32)


def test_integer_coordinates_are_pixel_centres_and_scale_is_half_a_side() -> None:
    image = texture(64, 80).astype(np.float32) / 255
    patch = cut_patches(build_pyramid(image), laf(30, 20, 16.5)[None], 33)[0, 0]
    np.testing.assert_allclose(patch, image[4:37, 14:47], atol=1e-6)


@pytest.mark.parametrize("half", [6.0, 14.0, 22.0, 45.0, 90.0])
@pytest.mark.parametrize("size", [(400, 500), (401, 503)])
def test_equals_kornia_on_smooth_pictures(half: float, size: tuple[int, int]) -> None:
    image = cv2.GaussianBlur(texture(*size), (0, 0), 8).astype(np.float32) / 255
    lafs = np.stack([laf(x, y, half, a) for x, y, a in [(200, 150, 0), (250.3, 200.7, 33), (180.5, 210.2, -120)]])
    ours = cut_patches(build_pyramid(image), lafs)
    theirs = KF.extract_patches_from_pyramid(torch.from_numpy(image)[None, None], torch.from_numpy(lafs)[None], 32)
    assert np.abs(ours - theirs[0].numpy()).max() < 0.02


@pytest.mark.parametrize("level_size", [(256, 256), (255, 203)])
def test_no_shift_between_levels(level_size: tuple[int, int]) -> None:
    """A linear ramp has the same value at a place on every level, odd sizes included."""
    height, width = level_size
    ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    for half in (10.0, 30.0, 60.0):
        patch = cut_patches(build_pyramid(ramp), laf(100, 100, half)[None])[0, 0]
        assert abs(float(patch.mean()) - 100 / (width - 1)) < 1e-4


def test_fine_structure_does_not_alias() -> None:
    board = (np.indices((256, 256)).sum(0) % 2).astype(np.uint8) * 255
    for half in (32.0, 40.0, 64.0):
        patch = cut_patches(build_pyramid(board), laf(128, 128, half)[None])[0, 0]
        assert float(patch.std()) < 0.01
        assert abs(float(patch.mean()) - 0.5) < 0.01


def test_border_repeats() -> None:
    image = np.full((40, 40), 0.25, np.float32)
    image[:, 0] = 1.0
    patch = cut_patches(build_pyramid(image), laf(-30, 20, 10)[None])[0, 0]
    np.testing.assert_allclose(patch, 1.0, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 1201])
def test_shapes_and_row_order(count: int) -> None:
    image = texture(100, 120)
    rng = np.random.default_rng(0)
    lafs = np.stack([laf(*rng.uniform(20, 80, 2), rng.uniform(3, 60)) for _ in range(count)] or [laf(0, 0, 1)])[:count]
    pyramid = build_pyramid(image)
    patches = cut_patches(pyramid, lafs)
    assert patches.shape == (count, 1, 32, 32)
    assert patches.dtype == np.float32
    for row in range(0, count, 150):
        np.testing.assert_array_equal(patches[row], cut_patches(pyramid, lafs[row : row + 1])[0])


def test_uint8_levels_are_scaled() -> None:
    image = texture(64, 64)
    exact = cut_patches(build_pyramid(image), laf(32, 32, 10)[None])
    levels = [np.round(level * 255).astype(np.uint8) for level in build_pyramid(image)]
    np.testing.assert_allclose(cut_patches(levels, laf(32, 32, 10)[None]), exact, atol=1 / 255)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_frame_that_is_not_finite_is_named(value: float) -> None:
    lafs = np.stack([laf(10, 10, 5)] * 3)
    lafs[1, 0, 2] = value
    with pytest.raises(UsageError, match="LAF 1 "):
        cut_patches(build_pyramid(texture(32, 32)), lafs)


def test_a_frame_without_area_is_named() -> None:
    lafs = np.stack([laf(10, 10, 5), laf(10, 10, 0)])
    with pytest.raises(UsageError, match="LAF 1 "):
        cut_patches(build_pyramid(texture(32, 32)), lafs)
    with pytest.raises(UsageError, match=r"\(N, 2, 3\)"):
        cut_patches(build_pyramid(texture(32, 32)), np.zeros((3, 6), np.float32))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (5, 7)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    patches = cut_patches(build_pyramid(np.full(size, 51, np.uint8)), laf(0, 0, 20)[None])
    np.testing.assert_allclose(patches, 0.2, atol=1e-6)


def test_refuses_other_pictures() -> None:
    for bad in (np.zeros((4, 4), np.float64), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(UsageError, match="grey image"):
            build_pyramid(bad)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="32,767"):
        build_pyramid(np.zeros((1, 40_000), np.uint8))


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((31, 200), [(31, 200)]),
        ((32, 200), [(32, 200), (16, 100)]),
        ((130, 67), [(130, 67), (65, 33), (32, 16)]),
    ],
)
def test_levels_are_halved_until_the_short_side_is_below_32(
    size: tuple[int, int], wanted: list[tuple[int, int]]
) -> None:
    assert [level.shape for level in build_pyramid(np.zeros(size, np.uint8))] == wanted


@pytest.mark.parametrize("size", [(40, 50), (70, 80)])
def test_the_largest_frames_are_cut_from_the_last_level(size: tuple[int, int]) -> None:
    image = np.full(size, 0.25, np.float32)
    patches = cut_patches(build_pyramid(image), np.stack([laf(20, 20, 5000), laf(20, 20, 0.01)]))
    np.testing.assert_allclose(patches, 0.25, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 2, 2), (3, 1, 3), (3, 3, 3), (3, 2, 4), (2, 3), (1, 3, 2, 3)])
def test_frames_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"\(N, 2, 3\)"):
        cut_patches(build_pyramid(texture(32, 32)), np.ones(shape, np.float32))
