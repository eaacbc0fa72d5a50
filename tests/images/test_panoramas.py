"""Panoramas become views of a rig, which is reconstructed as one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from PIL import Image

from kornia_bingan.cli import entry
from kornia_bingan.colmap import read_model
from kornia_bingan.datasets.poses import PosedCamera, pose_errors
from kornia_bingan.datasets.rendered import Plane, render_view, room
from kornia_bingan.errors import UsageError
from kornia_bingan.images.exif import position_block
from kornia_bingan.images.panoramas import cam_from_rig, cut_panoramas, view_of

WIDTH = 900


def write_panorama(path: Path, picture: np.ndarray, exif: bytes = b"") -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(picture[..., ::-1] if picture.ndim == 3 else picture).save(path, exif=exif)


def directions(width: int) -> np.ndarray:
    """The direction, a unit vector, that each pixel of a panorama shows: x right, y down, z to the middle."""
    longitude = (np.arange(width) + 0.5) / width * 2 * np.pi - np.pi
    latitude = ((np.arange(width // 2) + 0.5) / (width // 2) * np.pi - np.pi / 2)[:, None]
    level = np.cos(latitude)
    parts = level * np.sin(longitude), np.sin(latitude) * np.ones(width), level * np.cos(longitude)
    return np.stack(parts, 2)


@pytest.mark.parametrize("views", [6, 7])
def test_views_show_what_their_cameras_see(views: int, tmp_path: Path) -> None:
    """A panorama with the direction as colour, and pycolmap's own idea of the rig that was written."""
    coded = np.rint(directions(1200)[:, :, ::-1] * 100 + 128).astype(np.uint8)
    write_panorama(tmp_path / "panoramas" / "inner" / "a.png", coded)
    (tmp_path / "panoramas" / "notes.txt").write_text("mine")
    done = cut_panoramas(tmp_path / "panoramas", tmp_path / "photos", views=views)
    assert (done.panoramas, done.views, done.skipped) == (1, views, ["notes.txt"])
    (rig,) = pycolmap.read_rig_config(str(tmp_path / "photos" / "rig.json"))
    assert len(rig.cameras) == views
    assert rig.cameras[0].ref_sensor
    seen = []
    for camera in rig.cameras:
        picture = cv2.imread(str(tmp_path / "photos" / camera.image_prefix / "inner" / "a.jpg"))
        assert picture is not None
        assert picture.shape == (done.size_px, done.size_px, 3)
        xy = np.stack(np.meshgrid(np.arange(done.size_px), np.arange(done.size_px)), 2).reshape(-1, 2) + 0.5
        rays = np.column_stack([camera.camera.cam_from_img(xy), np.ones(len(xy))])
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        if not camera.ref_sensor:
            rays = rays @ camera.cam_from_rig.rotation.matrix()
        found = (picture.reshape(-1, 3)[:, ::-1].astype(float) - 128) / 100
        assert np.abs(found - rays).max() < 0.06, camera.image_prefix  # JPEG of smooth colours
        assert np.abs(found - rays).mean() < 0.01
        seen.append(rays[rays[:, 1] ** 2 < 0.01])
    around = np.sort(np.arctan2(*np.concatenate(seen)[:, [0, 2]].T))
    assert np.diff(around).max() < 0.02
    half = np.degrees(np.arctan(done.size_px / 2 / done.focal_px))
    assert 2 * half == pytest.approx(360 / views + 15, abs=0.5)


def test_a_camera_that_looks_to_the_right_sees_what_is_there() -> None:
    np.testing.assert_allclose(cam_from_rig(90) @ [1, 0, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(cam_from_rig(30) @ [0, 1, 0], [0, 1, 0])
    focal, side = view_of(WIDTH, 6)
    assert focal == pytest.approx(WIDTH / 2 / np.pi)
    assert side == round(2 * focal * np.tan(np.radians(37.5)))


def test_what_is_no_panorama_is_refused(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    with pytest.raises(UsageError, match="3 views do not see all around"):
        cut_panoramas(tmp_path, photos, views=3)
    with pytest.raises(UsageError, match="holds no photos"):
        cut_panoramas(tmp_path, photos)
    write_panorama(tmp_path / "p" / "a.png", np.zeros((50, 100), np.uint8))
    write_panorama(tmp_path / "p" / "b.png", np.zeros((60, 100), np.uint8))
    with pytest.raises(UsageError, match=r"^b\.png is 100 x 60; a panorama of all directions is twice as wide as high"):
        cut_panoramas(tmp_path / "p", photos)
    write_panorama(tmp_path / "p" / "b.png", np.zeros((60, 120), np.uint8))
    with pytest.raises(UsageError, match=r"^b\.png is 120 x 60, but others are 100 x 50"):
        cut_panoramas(tmp_path / "p", photos)
    write_panorama(tmp_path / "p" / "a.jpg", np.zeros((50, 100), np.uint8))
    with pytest.raises(UsageError, match=r"two panoramas in .* would become a\.jpg"):
        cut_panoramas(tmp_path / "p", photos)
    assert not photos.exists()
    photos.mkdir()
    (photos / "mine.txt").write_text("")
    with pytest.raises(UsageError, match="is no empty folder"):
        cut_panoramas(tmp_path / "p", photos)


def rendered_panorama(planes: Sequence[Plane], center: list[float], turn: np.ndarray) -> np.ndarray:
    """A panorama of the room, put together from pictures in three directions; nothing is seen above, below, behind."""
    rays = directions(WIDTH)
    picture = np.full((WIDTH // 2, WIDTH, 3), 90, np.float32)
    focal = WIDTH / 2 / np.pi
    side = round(2 * focal)
    K = np.array([[focal, 0, (side - 1) / 2], [0, focal, (side - 1) / 2], [0, 0, 1]])
    for yaw in (-90, 0, 90):
        R = cam_from_rig(yaw) @ turn
        face = render_view(planes, PosedCamera(K, R, -R @ center, side, side))
        x, y, z = np.moveaxis(rays @ cam_from_rig(yaw).T, 2, 0)
        ahead = (z > 0) & (np.abs(x) <= z) & (np.abs(y) <= z)
        depth = np.where(ahead, z, 1)
        places = [(value / depth * focal + (side - 1) / 2).astype(np.float32) for value in (x, y)]
        picture[ahead] = cv2.remap(face, *places, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)[ahead]
    noise = np.random.default_rng(abs(int(1000 * center[0]))).normal(0, 2, picture.shape)
    return np.clip(picture + noise, 0, 255).round().astype(np.uint8)[:, :, ::-1]


def test_panoramas_are_reconstructed_as_a_rig(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = {"p0": [-1.0, -0.5, -2.5], "p1": [0.0, -0.2, -2.9], "p2": [0.9, -0.6, -2.4]}
    planes, truth = room(0), {}
    metres = 10 * np.array([[x, z, -y] for x, y, z in places.values()])
    said = pycolmap.GPSTransform().enu_to_ellipsoid(metres, -33.87, 151.21, 35)
    for number, (name, center) in enumerate(places.items()):
        turn = cam_from_rig(7.0 * number - 10)
        exif = position_block((float(said[number, 0]), float(said[number, 1]), float(said[number, 2])))
        write_panorama(tmp_path / "panoramas" / f"{name}.png", rendered_panorama(planes, center, turn), exif)
        for yaw in range(0, 360, 60):
            R = cam_from_rig(yaw) @ turn
            truth[f"{yaw:03d}/{name}.jpg"] = (R, -R @ center)
    photos, out = tmp_path / "photos", tmp_path / "out"
    assert entry.main(["panoramas", str(tmp_path / "panoramas"), str(photos), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size_px"] == 220
    words = ["reconstruct", str(photos), str(out), "--rig", str(photos / "rig.json"), "--json"]
    assert (
        entry.main(
            [*words, "--descriptor", "bingan256-lite", "--max-keypoints", "300", "--matcher", "ratio", "--no-align"]
        )
        == 0
    )
    said = capsys.readouterr()
    assert "Configured" not in said.err, "COLMAP's log"
    summary = json.loads(said.out)
    behind = [f"180/{name}.jpg" for name in places]  # nothing is there
    assert [item["name"] for item in summary["skipped"]] == behind
    assert summary["pairs"]["tried"] == 5 * 5 * 3, "pairs of photos that were taken in one place are left out"
    model = read_model(out / "model")
    assert {Path(name).stem for name in model.names} == set(places)
    poses = {name: (model.rotations[row], model.translations[row]) for row, name in enumerate(model.names)}
    errors = pose_errors(poses, truth)
    assert errors["median_rotation_deg"] < 0.3
    assert errors["median_position_percent"] < 1
    assert {camera.params for camera in model.cameras} == {model.cameras[0].params}
    found = pycolmap.Reconstruction(str(out / "model"))
    assert found.num_reg_frames() == 3
    assert summary["place"]["reason"] == ""
    there = [-poses[f"000/{name}.jpg"][0].T @ poses[f"000/{name}.jpg"][1] for name in places]
    np.testing.assert_allclose(np.diff(there, axis=0), np.diff(metres, axis=0), atol=0.3)
    for name, (R, t) in poses.items():
        own, first = cam_from_rig(int(name[:3])), poses[f"000/{Path(name).name}"]
        np.testing.assert_allclose(R, own @ first[0], atol=1e-7)
        np.testing.assert_allclose(t, own @ first[1], atol=1e-6)
