"""Cameras whose places on the earth are known, with errors as receivers have them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2  # noqa: F401 - before pycolmap
import numpy as np
import pycolmap
import pytest

from kornia_bingan import colmap
from kornia_bingan.colmap.georeference import georeference
from kornia_bingan.colmap.model import open_model
from kornia_bingan.colmap.types import GEOREFERENCE
from tests.colmap.test_mapping import CAMERA, all_pairs, views

NAMES = ["a0", "a1", "a2", "a3", "a4", "a5"]
METRES = 40.0
"""Of a unit of the scene; the cameras of :func:`views` are a row, and a bow here."""
ORIGIN = (47.0, 8.5, 400.0)


def centres() -> np.ndarray:
    """East, north and up in metres: x, z and -y of the scene."""
    return METRES * np.array([[number - 2.0, 0.3 * (number - 2) ** 2, 0.2 * number] for number in range(6)])


def database_with(path: Path, shifts: np.ndarray) -> Path:
    """A database of six views from the places of :func:`centres`; the photos say places that are shifted from there."""
    xyz = np.random.default_rng(0).uniform([-3, -2, 8], [3, 2, 12], (300, 3))
    seen = {}
    for name, (east, north, up) in zip(NAMES, centres() / METRES, strict=True):
        x, y, z = (xyz - [east, -up, north]).T
        seen[name] = 500 * np.column_stack([x / z, y / z]) + [319.5, 239.5]
    said = pycolmap.GPSTransform().enu_to_ellipsoid(centres() + shifts, *ORIGIN)
    positions = {name: (lat, lon, high) for name, (lat, lon, high) in zip(NAMES, said, strict=True)}
    colmap.write_features(path, seen, CAMERA, positions)
    colmap.write_matches(path, all_pairs(NAMES))
    return path


def places(folder: Path, found: dict[str, float]) -> np.ndarray:
    """Where the model's cameras are, in metres from ORIGIN."""
    model = open_model(folder)
    there = np.array([image.projection_center() for image in sorted(model.images.values(), key=lambda i: i.name)])
    on_earth = pycolmap.GPSTransform().enu_to_ellipsoid(there, found["latitude"], found["longitude"], found["altitude"])
    return np.asarray(pycolmap.GPSTransform().ellipsoid_to_enu(on_earth, *ORIGIN))


def test_models_are_in_metres_where_the_photos_say(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    shifts = rng.normal(0, 1.5, (6, 3))
    shifts[4] = 300, -200, 0  # a receiver that was wrong
    database = database_with(tmp_path / "database.db", shifts)
    model = colmap.reconstruct(database, None, tmp_path / "model", refine=False, place=True)
    assert len(model.names) == 6
    found = json.loads((tmp_path / "model" / GEOREFERENCE).read_text())
    assert (found["photos"], found["positions"], found["reason"]) == (5, 6, "")
    assert 0.3 < found["median_error_m"] < 4
    assert found["latitude"] == pytest.approx(ORIGIN[0], abs=0.01)
    misses = np.linalg.norm(places(tmp_path / "model", found) - centres(), axis=1)
    assert misses.max() < 6
    sides = np.linalg.norm(np.diff(places(tmp_path / "model", found), axis=0), axis=1)
    np.testing.assert_allclose(sides, np.linalg.norm(np.diff(centres(), axis=0), axis=1), rtol=0.05)


@pytest.mark.parametrize(
    ("shifts", "reason"),
    [
        (np.random.default_rng(2).uniform(-500, 500, (6, 3)), "agree with the model"),
        (-centres() + np.random.default_rng(3).normal(0, 3, (6, 3)), "positions"),
        (np.where(np.arange(6)[:, None] < 3, centres()[0], centres()[5]) - centres(), "say 2 different positions"),
    ],
)
def test_positions_that_say_nothing_leave_the_model_alone(shifts: np.ndarray, reason: str, tmp_path: Path) -> None:
    """Anywhere, or all of them at one place."""
    database = database_with(tmp_path / "database.db", shifts)
    colmap.reconstruct(database, None, tmp_path / "model", refine=False)
    before = (tmp_path / "model" / "images.bin").read_bytes()
    assert not (tmp_path / "model" / GEOREFERENCE).exists()
    found = georeference(tmp_path / "model", database)
    assert reason in found.reason
    assert found.sentence() == f"no: {found.reason}"
    assert (tmp_path / "model" / "images.bin").read_bytes() == before
    assert json.loads((tmp_path / "model" / GEOREFERENCE).read_text())["reason"] == found.reason


def test_without_positions_there_is_no_file_and_two_are_too_few(tmp_path: Path) -> None:
    names = [f"a{number}" for number in range(5)]
    for count, reason in (
        (0, "no photo of the model says its position"),
        (2, "2 photos of the model say their position"),
    ):
        database = tmp_path / f"{count}.db"
        positions = {name: (47.0, 8.5, 400.0) for name in names[:count]}
        colmap.write_features(database, views(0, names), CAMERA, positions)
        colmap.write_matches(database, all_pairs(names))
        colmap.reconstruct(database, None, tmp_path / str(count), refine=False, place=True)
        assert (tmp_path / str(count) / GEOREFERENCE).exists() == (count > 0)
        assert reason in georeference(tmp_path / str(count), database).reason
