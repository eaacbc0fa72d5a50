from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_bingan.cli import main
from kornia_bingan.errors import UsageError
from kornia_bingan.images.masks import find_masks
from kornia_bingan.keypoints import detect
from kornia_bingan.reconstruct.features import Features
from tests.helpers.photos import texture


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "sub/a.jpg"):
        cv2.imwrite(str(folder / name), texture(200, 200))
    return folder


def left_black(path: Path, size: int = 200) -> None:
    mask = np.full((size, size), 255, np.uint8)
    mask[:, : size // 2] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), mask)


def test_black_is_ignored_and_the_number_of_masks_is_said(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left_black(tmp_path / "masks" / "a.jpg.png")
    left_black(tmp_path / "masks" / "sub" / "a.png")
    command = ["describe", str(photos), str(tmp_path / "out"), "--masks", str(tmp_path / "masks")]
    assert main([*command, "--descriptor", "bingan256-lite"]) == 0
    assert "2 of 3 photos have a mask" in capsys.readouterr().out
    for name, masked in (("a.jpg", True), ("sub/a.jpg", True), ("b.png", False)):
        xy = Features.read(tmp_path / "out" / f"{name}.npz").keypoints.xy
        assert len(xy) > 20
        assert (xy[:, 0].min() >= 100) == masked
    assert main([*command, "--descriptor", "bingan256-lite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["masked"] == 2
    left_black(tmp_path / "masks" / "b.png")
    assert main([*command, "--descriptor", "bingan256-lite"]) == 2
    assert "another mask of photo b.png" in capsys.readouterr().err


def test_the_strongest_are_those_that_the_mask_allows(tmp_path: Path) -> None:
    """The strong left half is masked out; the weak right half has more keypoints than are asked for."""
    image = texture(200, 200)
    image[:, 100:] = 128 + (image[:, 100:].astype(np.float32) - 128) * 0.3
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), image)
    left_black(tmp_path / "masks" / "a.png")
    command = ["describe", str(tmp_path / "photos"), str(tmp_path / "out"), "--masks", str(tmp_path / "masks")]
    assert main([*command, "--descriptor", "bingan256-lite", "--max-keypoints", "10"]) == 0
    xy = Features.read(tmp_path / "out" / "a.png.npz").keypoints.xy
    assert len(xy) == 10
    assert xy[:, 0].min() >= 100


def test_the_longer_name_wins_and_numbers_stay_true_under_reduction(photos: Path, tmp_path: Path) -> None:
    left_black(tmp_path / "masks" / "a.jpg.png")
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), np.full((200, 200), 255, np.uint8))
    with pytest.raises(UsageError, match=r"a\.png fits no photo"):
        find_masks(photos, ["a.jpg"], tmp_path / "masks")
    (tmp_path / "masks" / "a.png").unlink()
    assert find_masks(photos, ["a.jpg", "b.png"], tmp_path / "masks") == {"a.jpg": tmp_path / "masks" / "a.jpg.png"}
    command = ["describe", str(photos), str(tmp_path / "out"), "--masks", str(tmp_path / "masks"), "--max-size", "120"]
    assert main([*command, "--descriptor", "bingan256-lite"]) == 0
    found = Features.read(tmp_path / "out" / "a.jpg.npz")
    assert found.size == (200, 200)
    assert found.keypoints.xy[:, 0].min() >= 99
    reduced = Features.read(tmp_path / "out" / "b.png.npz").keypoints
    whole = detect(texture(200, 200), "dog")
    coarse = whole[whole.size > 8][:30]
    distance = np.linalg.norm(coarse.xy[:, None] - reduced.xy, axis=2)
    nearest = distance.argmin(1)
    close = distance.min(1) < 1.5
    assert close.mean() > 0.6
    assert np.median(reduced.size[nearest][close] / coarse.size[close]) == pytest.approx(1, abs=0.1)
    assert np.abs(np.median((reduced.xy[nearest] - coarse.xy)[close], 0)).max() < 0.25


def test_wrong_masks_are_named(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    command = ["reconstruct", str(photos), str(tmp_path / "out"), "--masks"]
    assert main([*command, str(masks)]) == 2
    assert "has no mask" in capsys.readouterr().err
    left_black(masks / "a.jpg.png", 100)
    assert main([*command, str(masks)]) == 2
    assert "100 x 100 but a.jpg is 200 x 200" in capsys.readouterr().err
    assert main([*command, str(masks / "a.jpg.png")]) == 2
    assert "is a file; give the folder of masks" in capsys.readouterr().err
    assert main([*command, str(masks), "--max-size", "10"]) == 2
    assert "max_size is 10" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
