"""Several models of one database, and a model that goes on."""

from itertools import combinations
from pathlib import Path

import cv2  # noqa: F401 - before pycolmap
import numpy as np
import pycolmap
import pytest

from kornia_bingan import colmap
from kornia_bingan.colmap.adjustment import limit_px, settle, usual_error_px
from kornia_bingan.colmap.database import open_database
from kornia_bingan.colmap.model import open_model
from kornia_bingan.colmap.types import Camera, Mapper, Model
from kornia_bingan.errors import UsageError
from kornia_bingan.work.files import sha256_of

CAMERA = Camera.pinhole(640, 480, fx=500, fy=500, cx=319.5, cy=239.5)


def views(seed: int, names: list[str]) -> dict[str, np.ndarray]:
    """300 points before cameras in a row that look along z with f = 500."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform([-3, -2, 5], [3, 2, 9], (300, 3))
    seen = {}
    for number, name in enumerate(names):
        x, y, z = (xyz - [number - 2.0, 0.2 * number, 0]).T
        seen[name] = 500 * np.column_stack([x / z, y / z]) + [319.5, 239.5] + rng.normal(0, 0.3, (300, 2))
    return seen


def all_pairs(names: list[str]) -> dict[tuple[str, str], np.ndarray]:
    return {pair: np.repeat(np.arange(300)[:, None], 2, 1) for pair in combinations(names, 2)}


LARGE, SMALL = ["a0", "a1", "a2", "a3", "a4"], ["b0", "b1", "b2"]


@pytest.fixture(scope="module")
def two_places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    database = tmp_path_factory.mktemp("two") / "database.db"
    colmap.write_features(database, views(0, LARGE) | views(1, SMALL) | views(2, ["c0"]), CAMERA)
    colmap.write_matches(database, all_pairs(LARGE) | all_pairs(SMALL))
    return database


def test_two_places_give_two_models(two_places: Path, tmp_path: Path) -> None:
    model = colmap.reconstruct(two_places, None, tmp_path / "model", refine=False, others=tmp_path / "models")
    assert model.names == tuple(LARGE)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["1"]
    second = colmap.read_model(tmp_path / "models" / "1")
    assert second.names == tuple(SMALL)
    assert len(second.xyz) > 250
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "models"]
    alone = colmap.reconstruct(two_places, None, tmp_path / "alone", refine=False)
    assert alone.names == tuple(LARGE)
    assert {path.suffix for path in (tmp_path / "alone").iterdir()} == {".bin"}


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_what_misses_by_far_more_than_most_has_no_say(mapper: Mapper, tmp_path: Path) -> None:
    """A tenth of the keypoints lies 3 to 4 pixels beside its place, which COLMAP allows."""
    rng = np.random.default_rng(5)
    seen, wrong = views(0, LARGE), {name: rng.random(300) < 0.1 for name in LARGE}
    for name, xy in seen.items():
        way = rng.uniform(0, 2 * np.pi, int(wrong[name].sum()))
        xy[wrong[name]] += rng.uniform(3, 3.8, len(way))[:, None] * np.column_stack([np.cos(way), np.sin(way)])
    colmap.write_features(tmp_path / "database.db", seen, CAMERA)
    colmap.write_matches(tmp_path / "database.db", all_pairs(LARGE))
    misses, errors, counted = {}, {}, {}
    for robust in (False, True):
        folder = tmp_path / str(robust)
        model = colmap.reconstruct(
            tmp_path / "database.db", None, folder, refine=False, mapper=mapper, robust=robust, time_limit_s=120
        )
        assert model.names == tuple(LARGE)
        misses[robust], errors[robust] = _missed(model), model.mean_reprojection_error_px
        counted[robust] = sum(
            wrong[image.name][row]
            for image in open_model(folder).images.values()
            for row, point in enumerate(image.points2D)
            if point.has_point3D()
        )
    # the global mapper has a robust loss of its own
    assert misses[True] < (0.9 if mapper == "incremental" else 1.1) * misses[False], (misses, errors, counted)
    assert errors[True] < 0.85 * errors[False]
    assert counted[False] > 100
    assert counted[True] < 0.2 * counted[False]


def test_noise_alone_leaves_nothing_out(tmp_path: Path) -> None:
    """Errors of one kind, small or large, are all allowed: the limit is by how much most of them miss."""
    rng = np.random.default_rng(6)
    for deviation in (0.0, 1.0):
        seen = {name: xy + rng.normal(0, deviation, xy.shape) for name, xy in views(0, LARGE).items()}
        database = tmp_path / f"{deviation}.db"
        colmap.write_features(database, seen, CAMERA)
        colmap.write_matches(database, all_pairs(LARGE))
        colmap.reconstruct(database, None, tmp_path / str(deviation), refine=False)
        model = open_model(tmp_path / str(deviation))
        before = model.compute_num_observations()
        settle(model, refine=False, threads=1)
        assert model.compute_num_observations() >= 0.999 * before > 1000


def test_limits() -> None:
    assert [limit_px(side) for side in (256, 1024, 2048, 4000)] == [0.5, 2, 4, 4]
    assert usual_error_px(pycolmap.Reconstruction()) == 0


def _missed(model: Model) -> float:
    """Mean distance of the cameras from their places in :func:`views`, relative to the steps between them."""
    centres = np.einsum("nji,nj->ni", -model.rotations, model.translations)
    true = np.array([[number - 2.0, 0.2 * number, 0] for number in range(5)])
    a, b = (points - points.mean(0) for points in (centres, true))
    u, d, vt = np.linalg.svd(a.T @ b)
    turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    scale = (d * [1, 1, np.linalg.det(u @ vt)]).sum() / (a**2).sum()
    return float(np.linalg.norm(scale * a @ turn - b, axis=1).mean())


def test_without_a_second_model_there_is_no_folder_of_others(tmp_path: Path) -> None:
    database = tmp_path / "database.db"
    colmap.write_features(database, views(0, LARGE), CAMERA)
    colmap.write_matches(database, all_pairs(LARGE))
    colmap.reconstruct(database, None, tmp_path / "model", refine=False, others=tmp_path / "models")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["database.db", "model"]


def test_a_model_goes_on_with_images_that_were_added(tmp_path: Path) -> None:
    """What has a model keeps its image numbers, and the others join it; the folder of the old model is left alone."""
    database = tmp_path / "database.db"
    seen = views(0, LARGE)
    colmap.write_features(database, {name: seen[name] for name in LARGE[:3]}, CAMERA)
    colmap.write_matches(database, all_pairs(LARGE[:3]))
    before = colmap.reconstruct(database, None, tmp_path / "first", refine=False)
    assert before.names == tuple(LARGE[:3])
    sums = {path.name: sha256_of(path) for path in (tmp_path / "first").iterdir()}
    with open_database(database, existing=True) as db:
        numbers = {image.name: image.image_id for image in db.read_all_images()}
    colmap.add_features(database, {name: seen[name] for name in LARGE[3:]}, dict.fromkeys(LARGE, CAMERA))
    with open_database(database, existing=True) as db:
        assert numbers.items() < {image.name: image.image_id for image in db.read_all_images()}.items()
        assert db.num_cameras() == 1
    known = all_pairs(LARGE[:3]).keys()
    colmap.write_matches(database, {pair: rows for pair, rows in all_pairs(LARGE).items() if pair not in known})
    grown: list[int] = []
    after = colmap.reconstruct(
        database, None, tmp_path / "second", refine=False, start=tmp_path / "first", progress=grown.append
    )
    assert after.names == tuple(LARGE)
    assert grown == [3, 4, 5]  # nothing is registered again
    assert {path.name: sha256_of(path) for path in (tmp_path / "first").iterdir()} == sums
    anew = colmap.reconstruct(database, None, tmp_path / "anew", refine=False)
    assert len(after.xyz) == pytest.approx(len(anew.xyz), rel=0.01)
    assert after.mean_reprojection_error_px == pytest.approx(anew.mean_reprojection_error_px, rel=0.05)


def test_what_joins_no_model_starts_another(two_places: Path, tmp_path: Path) -> None:
    colmap.reconstruct(two_places, None, tmp_path / "first", refine=False)
    grown: list[int] = []
    after = colmap.reconstruct(
        two_places,
        None,
        tmp_path / "second",
        refine=False,
        start=tmp_path / "first",
        others=tmp_path / "others",
        progress=grown.append,
    )
    assert after.names == tuple(LARGE)
    assert colmap.read_model(tmp_path / "others" / "1").names == tuple(SMALL)
    assert grown == [5, 7, 8]


def test_what_cannot_go_on_is_refused(two_places: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the global mapper cannot continue the model"):
        colmap.reconstruct(two_places, None, tmp_path / "model", mapper="global", start=tmp_path)
    with pytest.raises(UsageError, match="holds no readable COLMAP model"):
        colmap.reconstruct(two_places, None, tmp_path / "model", start=tmp_path)
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "mine").write_text("x")
    with pytest.raises(UsageError, match="others exists and is no empty folder"):
        colmap.reconstruct(two_places, None, tmp_path / "model", others=tmp_path / "others")
    assert [path.name for path in tmp_path.iterdir()] == ["others"]


def test_a_camera_that_drives_ahead_gives_a_model_and_its_focal_length(tmp_path: Path) -> None:
    """A wide lens, 0.58 of the longer side, of which nothing is said; COLMAP's own start finds no pair."""
    rng = np.random.default_rng(0)
    count, width, height, focal = 700, 1241, 376, 720.0
    xyz = np.column_stack([rng.uniform(4, 9, count), rng.uniform(-5, 1.6, count), rng.uniform(3, 40, count)])
    xyz[::2, 0] *= -1
    seen, rows, centers = {}, {}, {}
    for number in range(6):
        name, yaw = f"{number}", np.radians(2 * number)
        turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
        centers[name] = np.array([0.02 * number**2, rng.normal(0, 0.02), 0.9 * number])
        x, y, z = ((xyz - centers[name]) @ turn.T).T
        xy = focal * np.column_stack([x / z, y / z]) + [(width - 1) / 2, (height - 1) / 2]
        inside = (z > 0) & (xy > 0).all(1) & (xy < [width, height]).all(1)
        rows[name] = np.flatnonzero(inside)
        seen[name] = xy[inside] + rng.normal(0, 0.5, (int(inside.sum()), 2))
    matches = {}
    for pair in combinations(seen, 2):
        _, first, second = np.intersect1d(rows[pair[0]], rows[pair[1]], return_indices=True)
        matches[pair] = np.column_stack([first, second])
    database = tmp_path / "database.db"
    colmap.write_features(database, seen, Camera(width, height))
    colmap.write_matches(database, matches)
    counted: list[int] = []
    model = colmap.reconstruct(database, None, tmp_path / "model", robust=True, progress=counted.append)
    assert model.names == tuple(seen)
    assert counted[-1] == 6
    assert model.cameras[0].params is not None
    assert model.cameras[0].params[0] == pytest.approx(focal, rel=0.03)
    poses = {name: (model.rotations[row], model.translations[row]) for row, name in enumerate(model.names)}
    way = np.array([-R.T @ t for R, t in poses.values()])
    steps = np.linalg.norm(np.diff(way, axis=0), axis=1)
    true = np.linalg.norm(np.diff(np.array(list(centers.values())), axis=0), axis=1)
    np.testing.assert_allclose(steps / steps.mean(), true / true.mean(), rtol=0.05)
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".bin"}
