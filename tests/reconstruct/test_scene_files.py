from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from kornia_bingan.colmap.pinhole import Pinhole
from kornia_bingan.reconstruct.scene_files import Shot, point_normals, write_ply, write_transforms


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_colmap_reads_the_points(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(count)
    xyz, rgb = rng.normal(size=(count, 3)), rng.integers(0, 256, (count, 3), np.uint8)
    normals = point_normals(xyz, rng.normal(size=(count, 3)))
    for path, more in ((tmp_path / "plain.ply", None), (tmp_path / "normals.ply", normals)):
        write_ply(path, xyz, rgb, more)
        model = pycolmap.Reconstruction()
        model.import_PLY(str(path))
        points = [model.points3D[key] for key in sorted(model.points3D)]
        np.testing.assert_allclose(np.array([p.xyz for p in points]).reshape(-1, 3), xyz, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(np.array([p.color for p in points]).reshape(-1, 3), rgb)


def test_normals_are_those_of_the_surface_on_the_side_that_is_seen() -> None:
    """A floor and a wall, seen from within the room at a slant, far from the origin and with noise."""
    rng = np.random.default_rng(0)
    floor, wall = rng.uniform(0, 4, (2, 400, 3))
    floor[:, 1] = rng.normal(0, 0.002, 400)
    wall[:, 2] = rng.normal(0, 0.002, 400)
    xyz = np.concatenate([floor, wall]) + 100
    camera = np.array([5.0, 6, 7]) + 100
    normals = point_normals(xyz, camera - xyz)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    truth = np.repeat([[0.0, 1, 0], [0, 0, 1]], 400, 0)
    angle_deg = np.degrees(np.arccos(np.clip((normals * truth).sum(1), -1, 1)))
    assert np.median(angle_deg) < 2
    assert (angle_deg < 20).mean() > 0.9  # where floor and wall meet there is no one plane


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_points_for_a_plane_look_at_their_cameras(count: int) -> None:
    towards = np.array([[0.0, 3, 4], [0, 0, 0]])[:count]
    expected = np.array([[0, 0.6, 0.8], [0, 0, 1]])[:count]
    np.testing.assert_allclose(point_normals(np.zeros((count, 3)), towards), expected)


def test_two_cameras_stand_with_their_pictures(tmp_path: Path) -> None:
    """Intrinsics that are shared stand once in transforms.json, others with their picture."""
    still = (np.eye(3), np.zeros(3))
    shots = [Shot("a.jpg", Pinhole(40, 30, 50.0), *still), Shot("b.jpg", Pinhole(30, 40, 50.0), *still)]
    write_transforms(tmp_path / "t.json", shots, "points.ply")
    value = json.loads((tmp_path / "t.json").read_text())
    assert "w" not in value
    assert [(frame["w"], frame["h"], frame["cx"], frame["cy"]) for frame in value["frames"]] == [
        (40, 30, 20, 15),
        (30, 40, 15, 20),
    ]
