from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.matching import refine as module
from kornia_bingan.matching.refine import refine
from kornia_bingan.patches import build_pyramid
from tests.matching.test_context import keypoints

Pyramid = list[np.ndarray]


def clouds(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth picture that is known at every place, so that it can be turned without resampling."""
    rng = np.random.default_rng(0)
    total = np.zeros_like(x)
    for _ in range(40):
        fx, fy = rng.uniform(-0.35, 0.35, 2)
        total += np.cos(fx * x + fy * y + rng.uniform(0, 6))
    return np.asarray(0.5 + total / 60, np.float32)


def turned_pictures(scale: float, turn_deg: float) -> tuple[Pyramid, Pyramid, Keypoints, Keypoints]:
    """Two pictures of the clouds, the second one turned and enlarged, and 60 exact matches."""
    y, x = np.mgrid[:240, :240].astype(np.float64)
    cos, sin = scale * np.cos(np.deg2rad(turn_deg)), scale * np.sin(np.deg2rad(turn_deg))
    matrix = np.array([[cos, -sin], [sin, cos]])
    back = np.linalg.inv(matrix)
    sx, sy = (back[k, 0] * (x - 120) + back[k, 1] * (y - 120) + 120 for k in (0, 1))
    rng = np.random.default_rng(1)
    here = keypoints(rng.uniform(80, 160, (60, 2)), rng.uniform(6, 9, 60), rng.uniform(0, 360, 60))
    there = keypoints((here.xy - 120) @ matrix.T + 120, here.size * scale, (here.angle_deg + turn_deg) % 360)
    return build_pyramid(clouds(x, y)), build_pyramid(clouds(sx, sy)), here, there


@pytest.mark.parametrize(("scale", "turn_deg"), [(1.0, 0.0), (1.3, 40.0), (0.8, 250.0)])
def test_keypoints_that_are_not_exact_get_exact(scale: float, turn_deg: float) -> None:
    pyramid0, pyramid1, here, there = turned_pictures(scale, turn_deg)
    rng = np.random.default_rng(2)
    rough = keypoints(
        there.xy + rng.uniform(-1, 1, (60, 2)), there.size * rng.uniform(0.95, 1.05, 60), there.angle_deg + 3
    )
    found, moved = refine(pyramid0, pyramid1, here, rough)
    before, after = (np.linalg.norm(xy - there.xy, axis=1) for xy in (rough.xy, found))
    assert found.dtype == np.float32
    assert moved.mean() > 0.9
    assert np.median(after) < 0.1 * np.median(before)
    np.testing.assert_array_equal(found[~moved], rough.xy[~moved])


def test_brightness_and_contrast_change_nothing() -> None:
    pyramid0, pyramid1, here, there = turned_pictures(1.0, 0.0)
    rough = keypoints(there.xy + 0.7, there.size, there.angle_deg)
    expected, _ = refine(pyramid0, pyramid1, here, rough)
    darker, _ = refine(pyramid0, [0.1 + 0.5 * level for level in pyramid1], here, rough)
    np.testing.assert_allclose(darker, expected, atol=0.02)


def test_what_cannot_be_aligned_stays() -> None:
    pyramid0, _, here, there = turned_pictures(1.0, 0.0)
    flat = build_pyramid(np.full((240, 240), 0.5, np.float32))
    for pictures in ((pyramid0, flat), (flat, pyramid0), (flat, flat)):
        found, moved = refine(*pictures, here, there)
        assert np.linalg.norm(found - there.xy, axis=1).max() < module.MOST_PX
        np.testing.assert_array_equal(found[~moved], there.xy[~moved])
    far = keypoints(there.xy + 40, there.size, there.angle_deg)
    found, _ = refine(pyramid0, pyramid0, here, far)
    assert np.linalg.norm(found - far.xy, axis=1).max() < module.MOST_PX


def test_exact_keypoints_stay_where_they_are() -> None:
    pyramid0, _, here, _ = turned_pictures(1.0, 0.0)
    found, moved = refine(pyramid0, pyramid0, here, here)
    assert not moved.any()
    np.testing.assert_array_equal(found, here.xy)


def test_unknown_sizes_stay_and_unknown_angles_are_upright() -> None:
    pyramid0, _, here, _ = turned_pictures(1.0, 0.0)
    rough = keypoints(here.xy + 0.7, here.size, -1.0)
    sizes = here.size.copy()
    sizes[:3] = 0, np.nan, -2
    found, moved = refine(pyramid0, pyramid0, here, replace(rough, size=sizes))
    assert not moved[:3].any()
    assert moved[3:].mean() > 0.9
    assert np.median(np.linalg.norm(found - here.xy, axis=1)[moved]) < 0.1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_matches_and_matches_at_the_border(count: int) -> None:
    pyramid0, _, here, _ = turned_pictures(1.0, 0.0)
    corner = keypoints(np.zeros((count, 2)), 30.0)
    found, moved = refine(pyramid0, pyramid0, corner, corner)
    assert found.shape == (count, 2)
    assert moved.shape == (count,)
    with pytest.raises(UsageError, match=f"there are {count} and 60 keypoints"):
        refine(pyramid0, pyramid0, corner, here)


def test_pieces_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    pyramid0, pyramid1, here, there = turned_pictures(1.3, 40.0)
    rough = keypoints(there.xy + 0.6, there.size, there.angle_deg)
    expected, moved = refine(pyramid0, pyramid1, here, rough)
    monkeypatch.setattr(module, "_CHUNK", 7)
    cv2.setNumThreads(1)
    found, again = refine(pyramid0, pyramid1, here, rough)
    np.testing.assert_array_equal(again, moved)
    np.testing.assert_allclose(found, expected, atol=1e-3)
