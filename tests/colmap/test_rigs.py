"""Cameras that move together."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from kornia_bingan import colmap
from kornia_bingan.colmap.types import Camera, Mapper
from kornia_bingan.errors import UsageError

PINHOLE = {"camera_model_name": "PINHOLE", "camera_params": [500, 500, 320, 240]}
LEFT: dict[str, Any] = {"image_prefix": "left/", "ref_sensor": True, **PINHOLE}
TURN = [np.cos(0.1), 0.0, np.sin(0.1), 0.0]
RIGHT = {"image_prefix": "right/", "cam_from_rig_rotation": TURN, "cam_from_rig_translation": [-0.5, 0, 0], **PINHOLE}
NOTHING = {"image_prefix": "none/", "cam_from_rig_rotation": TURN, "cam_from_rig_translation": [0, 0, 0], **PINHOLE}


def write(path: Path, *cameras: dict[str, Any]) -> Path:
    path.write_text(json.dumps([{"cameras": cameras}]))
    return path


def without(camera: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in camera.items() if key not in keys}


def test_a_rig_is_read_in_the_frame_of_this_package(tmp_path: Path) -> None:
    left, right = colmap.read_rigs(write(tmp_path / "rig.json", LEFT, RIGHT))
    assert (left.rig, left.prefix, right.prefix) == (0, "left/", "right/")
    assert left.camera.params == right.camera.params == (500, 500, 319.5, 239.5)
    assert left.center == (0, 0, 0)
    assert right.center == pytest.approx((0.5 * np.cos(0.2), 0, 0.5 * np.sin(0.2)))


@pytest.mark.parametrize(
    ("cameras", "sentence"),
    [
        ([LEFT, without(RIGHT, "cam_from_rig_rotation", "cam_from_rig_translation")], "'right/' has no cam_from_rig_"),
        ([LEFT, without(RIGHT, "camera_model_name", "camera_params")], "'right/' has no camera_model_name and"),
        ([LEFT | {"camera_model_name": "LENS"}], "'left/' has no camera_model_name and"),
        ([LEFT | {"camera_params": [500, 320, 240]}], "PINHOLE has the parameters fx, fy, cx, cy, but 3"),
        ([LEFT | {"camera_params": [0, 500, 320, 240]}], "impossible parameters"),
        ([LEFT, RIGHT | {"image_prefix": "left/b"}], "what begins with 'left/b' begins with 'left/', too"),
        ([LEFT, RIGHT | {"image_prefix": "left"}], "what begins with 'left/' begins with 'left', too"),
        ([RIGHT], r"rig\.json is no rig_config\.json of COLMAP: .*one reference sensor"),
    ],
)
def test_an_impossible_rig_is_refused(cameras: list[dict[str, Any]], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        colmap.read_rigs(write(tmp_path / "rig.json", *cameras))


@pytest.mark.parametrize("text", ["", "[]", "[1]", "words"])
def test_what_is_no_list_of_rigs_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rig.json"
    with pytest.raises(UsageError, match=r"rig\.json is no rig_config\.json of COLMAP: "):
        colmap.read_rigs(path)
    path.write_text(text)
    with pytest.raises(UsageError, match=r"rig\.json is no rig_config\.json of COLMAP: "):
        colmap.read_rigs(path)


@pytest.mark.parametrize("mapper", ["incremental", "global"])
@pytest.mark.parametrize("reference", ["seen", "not seen"])
def test_cameras_keep_their_places_in_a_rig(mapper: Mapper, reference: str, tmp_path: Path) -> None:
    """The rig has a third camera without any image, which may be its reference; the base line gives the scale."""
    path, database = tmp_path / "rig.json", tmp_path / "database.db"
    if reference == "seen":
        write(path, LEFT, RIGHT, NOTHING)
    else:
        places = {"cam_from_rig_rotation": [1, 0, 0, 0], "cam_from_rig_translation": [0, 0, 0]}
        left = without(LEFT, "ref_sensor") | places
        write(path, {"image_prefix": "none/", "ref_sensor": True, **PINHOLE}, left, RIGHT)
    rng = np.random.default_rng(0)
    xyz = rng.uniform([-3, -2, 5], [3, 2, 9], (300, 3))
    turn = pycolmap.Rotation3d(np.array([0, np.sin(0.1), 0, np.cos(0.1)])).matrix()
    seen, cameras = {}, {}
    sides = {side: Camera.pinhole(640, 480, fx=500, fy=500, cx=319.5, cy=239.5) for side in ("left", "right")}
    for number in range(5):
        moved = xyz - [number - 2.0, 0.2 * number, 0]
        for side, places in (("left", moved), ("right", moved @ turn.T + [-0.5, 0, 0])):
            x, y, z = places.T
            name = f"{side}/{number}.jpg"
            cameras[name] = sides[side]
            seen[name] = 500 * np.column_stack([x / z, y / z]) + [319.5, 239.5] + rng.normal(0, 0.3, (300, 2))
    del seen["right/3.jpg"]
    colmap.write_features(database, seen, cameras)
    colmap.apply_rigs(database, path)
    colmap.write_matches(database, {pair: np.repeat(np.arange(300)[:, None], 2, 1) for pair in combinations(seen, 2)})
    model = colmap.reconstruct(database, None, tmp_path / "model", refine=False, robust=True, mapper=mapper)
    assert set(model.names) == set(seen)
    pose = {name: (model.rotations[row], model.translations[row]) for row, name in enumerate(model.names)}
    for number in (0, 1, 2, 4):
        (R0, t0), (R1, t1) = pose[f"left/{number}.jpg"], pose[f"right/{number}.jpg"]
        np.testing.assert_allclose(R1, turn @ R0, atol=1e-9)
        np.testing.assert_allclose(t1, turn @ t0 + [-0.5, 0, 0], atol=1e-9)
    centers = {name: -R.T @ t for name, (R, t) in pose.items()}
    step = np.linalg.norm(centers["left/4.jpg"] - centers["left/0.jpg"]) / 4
    assert step == pytest.approx(np.hypot(1, 0.2), rel=0.05), "metres, as those of the rig"
