"""Cameras of a ``transforms.json`` are those that its own convention says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from kornia_bingan.colmap import read_poses
from kornia_bingan.colmap.half_pixel import camera_to_colmap
from kornia_bingan.colmap.pinhole import Pinhole
from kornia_bingan.errors import UsageError
from kornia_bingan.reconstruct.cameras import cameras_of, with_poses
from kornia_bingan.reconstruct.options import CameraOptions
from kornia_bingan.reconstruct.scene_files import Shot, write_transforms

POINTS = np.random.default_rng(0).uniform([-2, -1, 3], [2, 1, 6], (20, 3))
LENS = {"k1": -0.1, "k2": 0.02, "p1": 0.003, "p2": -0.002}


def pose(degrees: float, x: float, y: float, z: float) -> list[list[float]]:
    """Camera to world, turned about the upright axis."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return [[cos, 0, sin, x], [0, 1, 0, y], [-sin, 0, cos, z], [0, 0, 0, 1]]


def contents(**more: Any) -> dict[str, Any]:
    frames = [
        {"file_path": "./images/right/1.jpg", "transform_matrix": pose(175, 0.5, 0.2, 0)},
        {"file_path": "images/left/1.jpg", "transform_matrix": pose(190, -0.5, 0, 0.1), "fl_x": 410},
    ]
    camera = {"w": 640, "h": 480, "fl_x": 400, "fl_y": 420, "cx": 315.5, "cy": 250}
    return {**camera, "frames": frames, **more}


def write(folder: Path, value: Any) -> Path:
    path = folder / "transforms.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


@pytest.mark.parametrize("lens", [{}, LENS], ids=["pinhole", "lens"])
def test_points_are_projected_as_nerfstudio_does(lens: dict[str, float], tmp_path: Path) -> None:
    value = contents(**lens)
    model = read_poses(write(tmp_path, value))
    assert model.names == ("left/1.jpg", "right/1.jpg")
    assert model.xyz.shape == (0, 3)
    k1, k2, p1, p2 = (lens.get(name, 0) for name in LENS)
    for row, frame in ((0, value["frames"][1]), (1, value["frames"][0])):
        x, y, z = (np.column_stack([POINTS, np.ones(20)]) @ np.linalg.inv(frame["transform_matrix"]).T)[:, :3].T
        assert (z < 0).all()
        x, y = x / -z, -y / -z
        r = x * x + y * y
        u = x * (1 + k1 * r + k2 * r * r) + 2 * p1 * x * y + p2 * (r + 2 * x * x)
        v = y * (1 + k1 * r + k2 * r * r) + p1 * (r + 2 * y * y) + 2 * p2 * x * y
        expected = np.column_stack([frame.get("fl_x", 400) * u + 315.5, 420 * v + 250])
        seen = pycolmap.Rigid3d(np.column_stack([model.rotations[row], model.translations[row]]))
        camera = camera_to_colmap(model.cameras[row])
        found = camera.img_from_cam(np.array([seen * point for point in POINTS]))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert (camera.width, camera.height) == (640, 480)


def test_what_bingan_scene_writes_comes_back(tmp_path: Path) -> None:
    turn = np.asarray(pycolmap.Rotation3d(np.array([0.3, -0.2, 0.9])).matrix())
    shots = [Shot(name, Pinhole(300, 200, 280.0), turn, np.array([1.0, 2, 3])) for name in ("b.jpg", "a b.jpg")]
    write_transforms(tmp_path / "transforms.json", shots, "points.ply")
    model = read_poses(tmp_path / "transforms.json")
    assert model.names == ("a b.jpg", "b.jpg")
    np.testing.assert_allclose(model.rotations, [turn, turn], atol=1e-12)
    np.testing.assert_allclose(model.translations, [[1, 2, 3]] * 2, atol=1e-12)
    assert model.cameras[0] is model.cameras[1], "one camera for both"
    assert model.cameras[0].params == (280, 280, 149.5, 99.5)


def test_fisheye_and_one_focal_length(tmp_path: Path) -> None:
    value = contents(camera_model="OPENCV_FISHEYE", k1=0.1, k4=0.01)
    del value["fl_y"]
    camera = read_poses(write(tmp_path, value)).cameras[1]
    assert camera.model == "OPENCV_FISHEYE"
    assert camera.params == (400, 400, 315, 249.5, 0.1, 0, 0, 0.01)


def test_photos_get_these_cameras(tmp_path: Path) -> None:
    options = CameraOptions(poses=write(tmp_path, contents()))
    kept, left_out = with_poses(["left/1.jpg", "left/2.jpg", "right/1.jpg"], options)
    assert kept == ["left/1.jpg", "right/1.jpg"]
    assert [each.name for each in left_out] == ["left/2.jpg"]
    cameras = cameras_of(dict.fromkeys(kept, (640, 480)), {}, options)
    assert [camera.params[0] for camera in cameras.values() if camera.params] == [410, 400]
    with pytest.raises(UsageError, match=r"left/1.jpg is 480 x 640, but its camera in .*transforms.json is 640 x 480"):
        cameras_of(dict.fromkeys(kept, (480, 640)), {}, options)


FRAME = contents()["frames"][0]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("{", "cannot be read as transforms.json"),
        ([], "cannot be read as transforms.json"),
        ({"frames": 3}, "cannot be read as transforms.json"),
        ({"frames": []}, "has no frame"),
        (contents(frames=[{**FRAME, "file_path": ""}]), "frame 0 has no file_path"),
        (contents(frames=[FRAME, {**FRAME, "file_path": "images//right/1.jpg"}]), "two frames have the picture images"),
        (contents(frames=[{**FRAME, "transform_matrix": [[1, 0], [0, 1]]}]), "needs a transform_matrix"),
        (contents(frames=[{**FRAME, "transform_matrix": "x"}]), "needs a transform_matrix"),
        (contents(frames=[{**FRAME, "transform_matrix": np.diag([2.0, 2, 2, 1]).tolist()}]), "are no rotation"),
        (contents(frames=[{**FRAME, "transform_matrix": np.diag([1.0, 1, -1, 1]).tolist()}]), "are no rotation"),
        (contents(w=None), "1.jpg needs a number w, got None"),
        (contents(w=640.5), "they are whole pixels"),
        (contents(fl_x="long"), "needs a number fl_x, got 'long'"),
        (contents(cx=True), "needs a number cx, got True"),
        (contents(fl_x=-400), "impossible parameters"),
        (contents(camera_model="EQUIRECTANGULAR"), "those that can be read are"),
        (contents(k3=0.1), "1.jpg has k3, which OPENCV does not have here"),
    ],
)
def test_wrong_files(value: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        read_poses(write(tmp_path, value))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read as transforms\.json"):
        read_poses(tmp_path / "transforms.json")
