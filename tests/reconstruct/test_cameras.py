"""Several calibrated cameras of one size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from kornia_bingan.cli import entry
from kornia_bingan.colmap import read_model
from kornia_bingan.colmap.types import Camera
from kornia_bingan.datasets.poses import pose_errors
from kornia_bingan.datasets.rendered import Scene
from kornia_bingan.errors import UsageError
from kornia_bingan.reconstruct.cameras import cameras_of, check_names, matches
from kornia_bingan.reconstruct.options import CameraOptions, ReconstructOptions, check_options
from tests.helpers.scenes import copy_scene

SIZE = (700, 520)


@pytest.fixture(scope="module")
def two_cameras(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scene]:
    """Photos of one scene by two cameras of one size, whose principal points are 100 and 80 pixels apart."""
    folder = tmp_path_factory.mktemp("two")
    scene = copy_scene(folder / "scene", 5)
    for number, name in enumerate(sorted(scene.cameras)):
        side, x, y = (("left", 0, 0), ("right", 100, 80))[number % 2]
        (folder / "photos" / side).mkdir(parents=True, exist_ok=True)
        picture = cv2.imread(str(scene.images / name))
        assert picture is not None
        cv2.imwrite(str(folder / "photos" / side / f"{name}.png"), picture[y : y + SIZE[1], x : x + SIZE[0]])
    (folder / "cameras.txt").write_text(
        "# number, model, width, height, parameters\n"
        "1 PINHOLE 700 520 700 700 400 300\n"
        "2 PINHOLE 700 520 700 700 300 220\n"
    )
    return folder, scene


def test_each_folder_has_its_calibrated_camera(
    two_cameras: tuple[Path, Scene], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, scene = two_cameras
    words = ["reconstruct", str(folder / "photos"), str(tmp_path / "out"), "--cameras", str(folder / "cameras.txt")]
    words += ["--descriptor", "bingan256-lite", "--max-keypoints", "600", "--json"]
    assert entry.main([*words, "--camera-of", "left=1", "right/*.jpg=2"]) == 2
    assert "camera-of 'right/*.jpg=2': no photo matches 'right/*.jpg'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert entry.main([*words, "--camera-of", "left=1", "right/*.png=2"]) == 0
    assert json.loads(capsys.readouterr().out)["registered"] == 5
    model = read_model(tmp_path / "out" / "model")
    middles = {name: camera.params for name, camera in zip(model.names, model.cameras, strict=True)}
    left, right = (700, 700, 399.5, 299.5), (700, 700, 299.5, 219.5)
    assert middles == {name: left if name.startswith("left/") else right for name in model.names}
    truth = {name: (camera.R, camera.t) for name, camera in scene.cameras.items()}
    poses = {Path(name).stem: (model.rotations[row], model.translations[row]) for row, name in enumerate(model.names)}
    errors = pose_errors(poses, truth)
    assert errors["median_rotation_deg"] < 0.3
    assert errors["median_position_percent"] < 1


def test_a_folder_or_a_pattern() -> None:
    assert matches("left/a.jpg", "left")
    assert matches("left/b/a.jpg", "left/")
    assert matches("left/b/a.jpg", "left/*.jpg")
    assert matches("a_left.jpg", "*_left.jpg")
    assert not matches("left/a.jpg", "lef")
    assert not matches("Left/a.jpg", "left")
    assert not matches("my/left/a.jpg", "left")


def test_which_photo_has_which_camera_is_said_once(two_cameras: tuple[Path, Scene]) -> None:
    path = two_cameras[0] / "cameras.txt"
    known = CameraOptions(cameras=path)
    names = ["left/a.jpg", "right/a.jpg", "right/b.jpg"]
    sizes = dict.fromkeys(names, SIZE)
    for camera_of, sentence in (
        (("left=1", "right=2", "*/b.jpg=1"), "right/b.jpg has two cameras, by camera-of 'right=2' and '*/b.jpg=1'"),
        (("left=1", "*/b.jpg=2"), "right/a.jpg has no camera: it matches none of camera-of left=1, "),
        (("left=1", "right=2", "top=1"), "camera-of 'top=1': no photo matches 'top'"),
    ):
        with pytest.raises(UsageError) as error:
            check_names(names, replace(known, camera_of=camera_of))
        assert str(error.value).startswith(sentence)
    twice = replace(known, camera_of=("left=1", "right=2", "*/b.jpg=2"))
    check_names(names, twice)
    cameras = cameras_of(sizes, {}, twice)
    assert cameras["right/a.jpg"] is cameras["right/b.jpg"]
    assert [cameras[name].params for name in names[:2]] == [(700, 700, 399.5, 299.5), (700, 700, 299.5, 219.5)]
    assert isinstance(cameras["left/a.jpg"], Camera)
    with pytest.raises(UsageError, match=r"left/a\.jpg is 520 x 700, but its camera 1 in .* is 700 x 520"):
        cameras_of(sizes | {"left/a.jpg": (520, 700)}, {}, twice)
    with pytest.raises(UsageError, match="two cameras of 700 x 520; say with camera-of which photo has which"):
        cameras_of(sizes, {}, known)


@pytest.mark.parametrize(
    ("camera_of", "sentence"),
    [
        ("left", "camera-of 'left' is no FOLDER=NUMBER"),
        ("left=one", "camera-of 'left=one' is no"),
        ("=1", "camera-of '=1' is no"),
        ("left=3", r"cameras\.txt has no camera 3 for 'left=3'; it has 1, 2"),
    ],
)
def test_impossible_cameras_of(two_cameras: tuple[Path, Scene], camera_of: str, sentence: str) -> None:
    cameras = CameraOptions(cameras=two_cameras[0] / "cameras.txt", camera_of=(camera_of,))
    with pytest.raises(UsageError, match=sentence):
        check_options(ReconstructOptions(cameras=cameras))


def test_cameras_of_need_cameras() -> None:
    with pytest.raises(UsageError, match="give cameras, too"):
        check_options(ReconstructOptions(cameras=CameraOptions(camera_of=("left=1",))))
