"""Points of images whose poses are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kornia_bingan import colmap
from kornia_bingan.colmap.model import open_model
from kornia_bingan.errors import UsageError
from tests.colmap.test_mapping import CAMERA, LARGE, all_pairs, views

POSES = {
    name: np.column_stack([np.eye(3), [2.0 - number, -0.2 * number, 0]])
    for number, name in enumerate([*LARGE, "not in the database"])
}
"""Of :func:`views`; all look along z."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("row") / "database.db"
    colmap.write_features(path, views(0, LARGE), CAMERA)
    colmap.write_matches(path, all_pairs(LARGE))
    return path


@pytest.mark.parametrize("robust", [False, True])
def test_poses_stay_and_points_are_where_they_were(robust: bool, database: Path, tmp_path: Path) -> None:
    known = {name: pose for name, pose in POSES.items() if name != LARGE[2]}
    model = colmap.triangulate(database, None, tmp_path / "model", known, robust=robust)
    assert model.names == (*LARGE[:2], *LARGE[3:])
    for name, rotation, translation in zip(model.names, model.rotations, model.translations, strict=True):
        np.testing.assert_allclose(np.column_stack([rotation, translation]), known[name], atol=1e-12)
    assert {camera.params for camera in model.cameras} == {CAMERA.params}
    assert len(model.xyz) > 290
    assert set(model.track_length) <= {2, 3, 4}
    true = np.random.default_rng(0).uniform([-3, -2, 5], [3, 2, 9], (300, 3))  # as in views
    distance = np.linalg.norm(true[None] - model.xyz[:, None], axis=2).min(1)
    assert np.median(distance) < 0.02
    again = colmap.triangulate(database, None, tmp_path / "again", known, robust=robust)
    np.testing.assert_array_equal(again.xyz, model.xyz)
    assert open_model(tmp_path / "model").num_images() == 4


def test_poses_of_something_else_give_no_points(database: Path, tmp_path: Path) -> None:
    one_place = {name: np.eye(3, 4) for name in POSES}
    for number, poses in enumerate((one_place, {LARGE[0]: POSES[LARGE[0]]}, {})):
        with pytest.raises(colmap.NoModelError, match="no match of two photos fits their poses"):
            colmap.triangulate(database, None, tmp_path / f"{number}", poses)
    assert list(tmp_path.iterdir()) == []


def test_wrong_use(database: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UsageError, match="is no empty folder"):
        colmap.triangulate(database, None, tmp_path, POSES)
    with pytest.raises(UsageError, match=r"a0 is in .* but not in"):
        colmap.triangulate(database, tmp_path, tmp_path / "model", POSES)


def test_a_model_without_a_pose_has_no_poses(tmp_path: Path) -> None:
    for name in ("cameras.txt", "images.txt", "points3D.txt"):
        with pytest.raises(UsageError, match="cameras, images and points3D"):
            colmap.read_poses(tmp_path)
        (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match="has no image with a pose"):
        colmap.read_poses(tmp_path)
