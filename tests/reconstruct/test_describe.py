from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_bingan.errors import UsageError
from kornia_bingan.reconstruct.describe import describe_folder
from kornia_bingan.reconstruct.features import Features
from kornia_bingan.work.identity import read_identity
from kornia_bingan.work.options import FeatureOptions
from tests.helpers.photos import texture

OPTIONS = FeatureOptions(descriptor="bingan256-lite", max_keypoints=50)


def times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.npz")}


def test_a_folder_of_features_grows_with_its_photos(tmp_path: Path) -> None:
    """Photo a stays, b is added and changes, c goes and comes back as another photo."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()

    def put(name: str, seed: int) -> None:
        cv2.imwrite(str(photos / name), texture(120, 120, seed))

    put("a.png", 1)
    put("c.png", 3)
    assert set(describe_folder(photos, out, OPTIONS).keypoints) == {"a.png", "c.png"}
    first = times(out)
    put("b.png", 2)
    (photos / "c.png").unlink()
    assert set(describe_folder(photos, out, OPTIONS).keypoints) == {"a.png", "b.png"}
    second = times(out)
    assert second.keys() == {"a.png.npz", "b.png.npz", "c.png.npz"}
    assert {name: second[name] for name in first} == first
    assert set(read_identity(out)["photos"]) == {"a.png", "b.png", "c.png"}
    files = {name: (out / name).read_bytes() for name in second}
    put("b.png", 4)
    put("c.png", 5)
    assert len(describe_folder(photos, out, OPTIONS).keypoints) == 3
    assert times(out)["a.png.npz"] == first["a.png.npz"]
    now = {name: (out / name).read_bytes() for name in second}
    assert {name for name in files if now[name] != files[name]} == {"b.png.npz", "c.png.npz"}
    with pytest.raises(UsageError, match=r"max_keypoints 50, now 60"):
        describe_folder(photos, out, FeatureOptions(descriptor="bingan256-lite", max_keypoints=60))


def test_nothing_is_found_where_a_photo_is_transparent(tmp_path: Path) -> None:
    """Of a picture whose left half is transparent, and with a mask of its upper half, the rest is left."""
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    grey = texture(200, 200)
    alpha = np.full((200, 200), 255, np.uint8)
    alpha[:, :100] = 0
    cv2.imwrite(str(photos / "cut.png"), cv2.merge([grey, grey, grey, alpha]))
    cv2.imwrite(str(photos / "clear.png"), cv2.merge([grey, grey, grey, np.zeros_like(grey)]))
    done = describe_folder(photos, tmp_path / "out", OPTIONS)
    xy = Features.read(tmp_path / "out" / "cut.png.npz").keypoints.xy
    assert len(xy) == done.keypoints["cut.png"] > 20
    assert xy[:, 0].min() > 99
    assert xy[:, 1].min() < 90
    assert [(item.name, item.reason) for item in done.skipped] == [
        ("clear.png", "is transparent everywhere; save it without transparency")
    ]
    mask = np.full((200, 200), 255, np.uint8)
    mask[:100] = 0
    cv2.imwrite(str(masks / "cut.png"), mask)
    describe_folder(photos, tmp_path / "masked", replace(OPTIONS, masks=masks))
    xy = Features.read(tmp_path / "masked" / "cut.png.npz").keypoints.xy
    assert len(xy) > 10
    assert xy.min() > 99
