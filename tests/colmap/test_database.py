"""What concerns the database and the list of cameras alone; test_colmap has what goes through COLMAP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from kornia_bingan.colmap.database import (
    add_features,
    open_database,
    read_features,
    read_verification,
    write_features,
    write_matches,
)
from kornia_bingan.colmap.half_pixel import read_cameras
from kornia_bingan.colmap.types import Camera
from kornia_bingan.errors import JobError, UsageError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no camera"),
        ("1 PINHOLE 80 60 1 2 3\n", r"line 1: PINHOLE has the parameters fx, fy, cx, cy"),
        ("\n1 LENS 80 60 1 2 3\n", "line 2 is no camera"),
        ("1 PINHOLE 80\n", "line 1 is no camera"),
        ("1 PINHOLE 80 60 0 1 2 3\n", "impossible parameters"),
        ("1 PINHOLE 80 60 a 1 2 3\n", "line 1 is no camera"),
        ("1 PINHOLE 80 60 70 70 40 30\n2 PINHOLE 80 60 0 70 40 30\n", "impossible parameters"),
        ("1 PINHOLE 80 60 70 70 40 30\n1 PINHOLE 80 60 80 70 40 30\n", "line 2: there is a camera 1 before"),
        ("left PINHOLE 80 60 70 70 40 30\n", "line 1 is no camera"),
    ],
)
def test_wrong_cameras_are_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "cameras.txt").write_text(text)
    with pytest.raises(UsageError, match=words):
        read_cameras(tmp_path / "cameras.txt")
    with pytest.raises(UsageError, match="cannot be read"):
        read_cameras(tmp_path / "absent.txt")


def test_cameras_of_an_editor_that_writes_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "cameras.txt").write_text("# mine\n1 PINHOLE 80 60 70 70 40 30\n", encoding="utf-8-sig")
    cameras = read_cameras(tmp_path / "cameras.txt")
    assert {number: (camera.width, camera.height) for number, camera in cameras.items()} == {1: (80, 60)}


def test_folders_on_the_way_to_a_database_are_made(tmp_path: Path) -> None:
    database = tmp_path / "a" / "b" / "d.db"
    write_features(database, {"a": np.array([[1.0, 2.0]])}, Camera(64, 48))
    assert read_features(database)["a"].xy.tolist() == [[1, 2]]


def test_a_database_that_cannot_be_locked_is_not_called_damaged(tmp_path: Path) -> None:
    """A file system without locks and another program that works on it look the same to SQLite."""
    database = tmp_path / "d.db"
    write_features(database, {"a": np.array([[1.0, 2.0]])}, Camera(64, 48))
    program = (
        "import sqlite3\n"
        f"held = sqlite3.connect({str(database)!r}, isolation_level=None)\n"
        "held.execute('PRAGMA locking_mode = EXCLUSIVE')\nheld.execute('BEGIN EXCLUSIVE')\nprint('held', flush=True)\n"
        "input()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(
            UsageError, match=r"d\.db cannot be opened \(database is locked\): another program .* no locks"
        ):
            read_features(database)
        other.communicate("\n")
    assert read_features(database)["a"].xy.tolist() == [[1, 2]]
    database.write_bytes(b"no database" * 99)
    with pytest.raises(UsageError, match=r"d\.db cannot be opened as a COLMAP database; delete it"):
        read_features(database)


def test_a_pair_that_was_compared_and_has_no_match_is_not_counted(tmp_path: Path) -> None:
    """COLMAP's own matcher writes such pairs; here one stands before a pair with matches."""
    database = tmp_path / "d.db"
    write_features(database, dict.fromkeys("abc", np.arange(20.0).reshape(10, 2)), Camera(64, 48))
    db = pycolmap.Database.open(str(database))
    ids = {image.name: image.image_id for image in db.read_all_images()}
    db.write_matches(ids["a"], ids["b"], np.zeros((0, 2), np.uint32))
    db.close()
    state = write_matches(database, {("b", "c"): np.array([[0, 0], [1, 1]])}, verification=False)
    assert state == read_verification(database)
    assert (state.pairs, state.matches, state.inliers) == (1, 2, {("b", "c"): 0})


def test_an_error_while_a_database_is_open_is_told_for_what_it_is(tmp_path: Path) -> None:
    database = tmp_path / "d.db"
    write_features(database, {"a": np.array([[1.0, 2.0]])}, Camera(64, 48))
    damaged = pytest.raises(UsageError, match=r"d\.db is a damaged COLMAP database: disk image is malformed")
    with damaged, open_database(database, existing=True):
        raise RuntimeError("disk image is malformed")
    with pytest.raises(JobError, match=r"^the time is over$"), open_database(database, existing=True):
        raise JobError("the time is over")
    assert read_features(database)["a"].xy.tolist() == [[1, 2]]


def test_added_images_share_a_camera_or_bring_their_own(tmp_path: Path) -> None:
    database = tmp_path / "database.db"
    shared, own = Camera(640, 480, focal_px=500), Camera(320, 240, focal_px=300)
    xy = np.array([[1.0, 2], [30, 40]])
    write_features(database, {"b": xy, "d": xy}, shared)
    positions = {"a": (48.0, 11.0, 500.0)}
    add_features(database, {"c": xy + 1, "a": xy[:1]}, {"a": own, "b": shared, "c": shared}, positions)
    found = read_features(database)
    assert {name: keypoints.xy.tolist() for name, keypoints in found.items()} == {
        "a": [[1, 2]],
        "b": [[1, 2], [30, 40]],
        "c": [[2, 3], [31, 41]],
        "d": [[1, 2], [30, 40]],
    }
    with open_database(database, existing=True) as db:
        cameras = {image.name: image.camera_id for image in db.read_all_images()}
        numbers = {image.name: image.image_id for image in db.read_all_images()}
        assert [prior.position.tolist() for prior in db.read_all_pose_priors()] == [[48.0, 11.0, 500.0]]
    assert numbers == {"b": 1, "d": 2, "a": 3, "c": 4}  # a model of the old ones still fits
    assert cameras["b"] == cameras["c"] == cameras["d"] != cameras["a"]
    assert len(set(cameras.values())) == 2


def test_what_cannot_be_added_leaves_the_database_as_it_is(tmp_path: Path) -> None:
    database, camera = tmp_path / "database.db", Camera(640, 480)
    xy = np.array([[1.0, 2]])
    write_features(database, {"a": xy}, camera)
    with pytest.raises(UsageError, match=r"^a is already in"):
        add_features(database, {"a": xy, "b": xy}, {"a": camera, "b": camera})
    with pytest.raises(UsageError, match="c has keypoints but no camera"):
        add_features(database, {"b": xy, "c": xy}, {"a": camera, "b": camera})
    with pytest.raises(UsageError, match="b"):
        add_features(database, {"b": np.array([[1.0, np.nan]])}, {"b": camera})
    assert {name: keypoints.xy.tolist() for name, keypoints in read_features(database).items()} == {"a": [[1, 2]]}
    with pytest.raises(UsageError, match="no such database"):
        add_features(tmp_path / "absent.db", {"a": xy}, {"a": camera})
    assert [path.name for path in tmp_path.iterdir()] == ["database.db"]
