from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from kornia_bingan.errors import UsageError
from kornia_bingan.reconstruct.describe import describe_folder
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
