"""Several models of one database, and a model that goes on."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from kornia_bingan import colmap
from kornia_bingan.colmap.database import open_database
from kornia_bingan.colmap.types import Camera
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
