from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_bingan.colmap import read_model
from kornia_bingan.colmap.sift import reconstruct_with_sift
from kornia_bingan.datasets.poses import PosedCamera, pose_errors
from kornia_bingan.datasets.rendered import cameras_on_arc, render_view, room
from kornia_bingan.errors import JobError, UsageError
from tests.helpers.image_bytes import encode, exif, with_exif
from tests.helpers.photos import texture


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, PosedCamera]]:
    """Four views; one lies on its side and has the EXIF orientation that sets it upright; two files are no photos."""
    folder = tmp_path_factory.mktemp("photos")
    planes, cameras = room(0), cameras_on_arc(9, 0)[2:6]
    (folder / "a b").mkdir()
    names = ["a b/0.jpg", "1.JPG", "2.png", "3.jpg"]
    for name, camera in zip(names, cameras, strict=True):
        image = cv2.resize(render_view(planes, camera), (400, 300), interpolation=cv2.INTER_AREA)
        image = np.clip(image, 0, 255).round().astype(np.uint8)[:, :, ::-1]
        data = encode(Path(name).suffix.lower(), image)
        if name == "3.jpg":
            # 6: the first row is shown on the right, so the picture is stored turned to the left
            data = with_exif(encode(".jpg", cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE)), exif(6), (300, 400))
        (folder / name).write_bytes(data)
    (folder / "grey.png").write_bytes(encode(".png", np.full((300, 400), 90, np.uint8)))
    (folder / "short.jpg").write_bytes(encode(".jpg", texture(100, 100))[:-50])
    return folder, dict(zip(names, cameras, strict=True))


def test_photos_become_a_model_of_upright_images(photos: tuple[Path, dict[str, PosedCamera]], tmp_path: Path) -> None:
    folder, cameras = photos
    skipped = reconstruct_with_sift(folder, tmp_path / "model")
    assert [item.name for item in skipped] == ["short.jpg"]
    assert "cut short" in skipped[0].reason
    model = read_model(tmp_path / "model")
    assert sorted(model.names) == sorted(cameras)
    assert {(camera.width, camera.height) for camera in model.cameras} == {(400, 300)}
    poses = zip(model.names, model.rotations, model.translations, strict=True)
    errors = pose_errors({name: (R, t) for name, R, t in poses}, {n: (c.R, c.t) for n, c in cameras.items()})
    assert errors["num_compared"] == 4
    assert errors["median_rotation_deg"] < 0.5
    assert errors["median_position_percent"] < 2
    assert len(model.xyz) > 300
    reconstruct_with_sift(folder, tmp_path / "again")
    for path in (tmp_path / "model").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_photos_that_give_no_model_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        reconstruct_with_sift(tmp_path / "absent", tmp_path / "model")
    (tmp_path / "photos").mkdir()
    with pytest.raises(UsageError, match="photos holds no photos"):
        reconstruct_with_sift(tmp_path / "photos", tmp_path / "model")
    (tmp_path / "photos" / "a.png").write_bytes(encode(".png", texture(120, 160, seed=1)))
    (tmp_path / "photos" / "b.png").write_bytes(b"no picture")
    with pytest.raises(JobError, match=r"only 1 of 2 photos of .*photos can be read; a model needs two"):
        reconstruct_with_sift(tmp_path / "photos", tmp_path / "model")
    (tmp_path / "photos" / "b.png").write_bytes(encode(".png", np.full((120, 160), 90, np.uint8)))
    with pytest.raises(JobError, match=r"no two photos of .*photos have a match; they must show one place"):
        reconstruct_with_sift(tmp_path / "photos", tmp_path / "model")
    (tmp_path / "photos" / "b.png").write_bytes(encode(".png", texture(120, 160, seed=2)))
    with pytest.raises(JobError, match=r"no two photos|none of the 1 matched pairs passed verification"):
        reconstruct_with_sift(tmp_path / "photos", tmp_path / "model")
    assert not (tmp_path / "model").exists()
