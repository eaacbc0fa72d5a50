"""Several calibrated cameras of one size; poses that are known; rigs."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_bingan.cli import entry
from kornia_bingan.colmap import read_model
from kornia_bingan.colmap.types import Camera
from kornia_bingan.datasets.poses import PosedCamera, pose_errors
from kornia_bingan.datasets.rendered import Scene, room
from kornia_bingan.errors import UsageError
from kornia_bingan.images.exif import Exif
from kornia_bingan.reconstruct.cameras import cameras_of, check_names, check_sizes, matches, with_poses, without_base
from kornia_bingan.reconstruct.options import CameraOptions, ReconstructOptions, check_options
from kornia_bingan.reconstruct.pipeline import reconstruct_photos
from tests.helpers.image_bytes import encode, exif, with_exif
from tests.helpers.known_scene import trace, write_text_model
from tests.helpers.scenes import copy_scene

SIZE = (700, 520)
PLAIN = ["--descriptor", "bingan256-lite", "--max-keypoints", "600", "--matcher", "ratio", "--no-align"]


@pytest.fixture(scope="module")
def two_cameras(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scene]:
    """Photos of one scene by two cameras of one size, whose principal points are 100 and 80 pixels apart."""
    folder = tmp_path_factory.mktemp("two")
    scene = copy_scene(folder / "scene", 4)
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
    words += [*PLAIN, "--json"]
    assert entry.main([*words, "--camera-of", "left=1", "right/*.jpg=2"]) == 2
    assert "camera-of 'right/*.jpg=2': no photo matches 'right/*.jpg'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert entry.main([*words, "--camera-of", "left=1", "right/*.png=2"]) == 0
    assert json.loads(capsys.readouterr().out)["registered"] == 4
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


def test_known_intrinsics_are_those_of_one_size() -> None:
    known = CameraOptions(intrinsics=(700.0, 710.0, 349.5, 259.5))
    cameras = cameras_of({"a.jpg": SIZE, "b.jpg": SIZE}, {"a.jpg": Exif(focal_diagonal=2.0)}, known)
    assert cameras["a.jpg"] is cameras["b.jpg"]
    assert cameras["a.jpg"].params == (700, 710, 349.5, 259.5)
    for other in ((520, 700), (800, 520), (700, 300)):
        with pytest.raises(UsageError, match=rf"a\.jpg is 700 x 520 and b\.jpg is {other[0]} x {other[1]}; give a"):
            cameras_of({"a.jpg": SIZE, "b.jpg": other}, {}, known)


def test_a_focal_length_that_is_given_counts_more_than_that_of_the_file() -> None:
    sizes, found = dict.fromkeys(["a.jpg", "b.jpg"], (400, 300)), {"a.jpg": Exif(focal_diagonal=2.0), "b.jpg": Exif()}
    said = cameras_of(sizes, found, CameraOptions())
    assert (said["a.jpg"].focal_px, said["b.jpg"].focal_px) == (1000, None)
    given = cameras_of(sizes, found, CameraOptions(focal_px=450))
    assert (given["a.jpg"].focal_px, given["b.jpg"].focal_px) == (450, 450)


@pytest.mark.parametrize(("orientation", "upright"), [(3, (80, 60)), (4, (80, 60)), (5, (60, 80)), (6, (60, 80))])
def test_sizes_are_those_of_upright_photos(orientation: int, upright: tuple[int, int], tmp_path: Path) -> None:
    picture = encode(".jpg", np.zeros((60, 80, 3), np.uint8))
    (tmp_path / "a.jpg").write_bytes(with_exif(picture, exif(orientation), (60, 80)))
    for size in ((80, 60), (60, 80)):
        (tmp_path / "cameras.txt").write_text(f"1 PINHOLE {size[0]} {size[1]} 90 90 40 30\n")
        known = CameraOptions(cameras=tmp_path / "cameras.txt")
        if size == upright:
            check_sizes(tmp_path, ["a.jpg"], known)
        else:
            with pytest.raises(UsageError, match=f"a.jpg is {upright[0]} x {upright[1]}, but"):
                check_sizes(tmp_path, ["a.jpg"], known)


def test_cameras_of_need_cameras() -> None:
    with pytest.raises(UsageError, match="give cameras, too"):
        check_options(ReconstructOptions(cameras=CameraOptions(camera_of=("left=1",))))


@pytest.fixture(scope="module")
def posed(two_cameras: tuple[Path, Scene]) -> dict[str, PosedCamera]:
    """The cameras of three of the four photos, in ``FOLDER/poses`` as text, without points."""
    folder, scene = two_cameras
    cameras = {}
    for name in sorted(path.relative_to(folder / "photos").as_posix() for path in folder.glob("photos/*/*"))[1:]:
        camera = scene.cameras[Path(name).stem]
        x, y = (0, 0) if name.startswith("left") else (100, 80)
        K = camera.K - [[0, 0, x], [0, 0, y], [0, 0, 0]]
        cameras[name] = PosedCamera(K, camera.R, camera.t, *SIZE)
    write_text_model(folder / "poses", cameras, np.zeros((0, 3)), [])
    return cameras


def test_known_poses_are_kept(
    two_cameras: tuple[Path, Scene],
    posed: dict[str, PosedCamera],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Points get their places in the frame of the poses; the photo without a pose is named."""
    folder, planes = two_cameras[0], room(0)
    words = ["reconstruct", str(folder / "photos"), str(tmp_path / "out"), "--poses", str(folder / "poses")]
    words += PLAIN
    assert entry.main([*words, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["images"] == summary["registered"] == 3
    assert summary["skipped"] == [{"name": "left/view_000.jpg.png", "reason": f"has no pose in {folder / 'poses'}"}]
    model = read_model(tmp_path / "out" / "model")
    assert list(model.names) == list(posed)
    for row, (name, camera) in enumerate(posed.items()):
        np.testing.assert_allclose(model.rotations[row], camera.R, atol=1e-9)
        np.testing.assert_allclose(model.translations[row], camera.t, atol=1e-9)
        assert model.cameras[row].params == pytest.approx((700, 700, *camera.K[:2, 2]))
        seen = camera.project(model.xyz)
        _, there = trace(planes, camera, seen)
        assert np.median(np.linalg.norm(there - model.xyz, axis=1)) < 0.02, name  # metres, of a room of 14
    assert len(model.xyz) > 100
    assert model.rgb.any()
    assert entry.main(words) == 0, "a finished run"
    assert f"left/view_000.jpg.png: has no pose in {folder / 'poses'}" in capsys.readouterr().out


def test_poses_that_do_not_fit_the_photos_are_refused(
    two_cameras: tuple[Path, Scene], posed: dict[str, PosedCamera], tmp_path: Path
) -> None:
    folder, _ = two_cameras
    first, *others = posed
    options = ReconstructOptions(cameras=CameraOptions(poses=folder / "poses"))
    for gone, sentence in (
        ([first], f"has a pose of {first}, but there is no such photo"),
        ([first, others[0]], f"has a pose of {first} and of 1 others, but"),
    ):
        with pytest.raises(UsageError, match=sentence):
            with_poses([name for name in ["left/view_000.jpg.png", *posed] if name not in gone], options.cameras)
    with pytest.raises(UsageError, match=f"none of 1 photos has a pose in .*; its first is of {first}"):
        with_poses(["left/view_000.jpg.png"], options.cameras)
    with pytest.raises(UsageError, match=r"2 is 520 x 700, but its camera in .* is 700 x 520".replace("2", first, 1)):
        cameras_of(dict.fromkeys(posed, SIZE) | {first: (520, 700)}, {}, options.cameras)
    (tmp_path / "photos" / "left").mkdir(parents=True)
    for number, name in enumerate(posed):
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True)
        picture = np.zeros((SIZE[0], SIZE[1]) if number == 1 else (SIZE[1], SIZE[0]), np.uint8) + number
        cv2.imwrite(str(tmp_path / "photos" / name), picture)
    with pytest.raises(UsageError, match=f"{others[0]} is 520 x 700"):
        reconstruct_photos(tmp_path / "photos", tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="nothing to do for the global mapper"):
        check_options(replace(options, mapper="global"))
    with pytest.raises(UsageError, match="cameras and poses say the same thing"):
        check_options(replace(options, cameras=replace(options.cameras, cameras=folder / "cameras.txt")))
    with pytest.raises(UsageError, match="poses say all about the camera"):
        check_options(replace(options, cameras=replace(options.cameras, focal_px=700.0)))


def test_photos_of_a_rig(tmp_path: Path) -> None:
    """Two cameras in one place, one beside them."""
    pinhole = {"camera_model_name": "PINHOLE", "camera_params": [70, 70, 40, 30]}
    turned = {"cam_from_rig_rotation": [0, 0, 1, 0], **pinhole}
    cameras = [
        {"image_prefix": "a/", "ref_sensor": True, **pinhole},
        {"image_prefix": "b/", "cam_from_rig_translation": [0, 0, 0], **turned},
        {"image_prefix": "c/", "cam_from_rig_translation": [0, 0, 1], **turned},
    ]
    path = tmp_path / "rig.json"
    path.write_text(json.dumps([{"cameras": cameras}]))
    options = CameraOptions(rig=path)
    check_options(ReconstructOptions(cameras=options))
    sizes = dict.fromkeys(["a/1.jpg", "a/2.jpg", "b/1.jpg", "c/1.jpg"], (80, 60))
    found = cameras_of(sizes, {}, options)
    assert found["a/1.jpg"] is found["a/2.jpg"]
    assert len({id(camera) for camera in found.values()}) == 3
    assert {camera.params for camera in found.values()} == {(70, 70, 39.5, 29.5)}
    assert {(camera.width, camera.height) for camera in found.values()} == {(80, 60)}
    with pytest.raises(UsageError, match=r"d/1\.jpg has no camera in .*rig\.json: it begins with none of its prefixes"):
        cameras_of(sizes | {"d/1.jpg": (80, 60)}, {}, options)
    with pytest.raises(UsageError, match=r"a/2\.jpg is 60 x 80, but a/1\.jpg of the same camera in .* is 80 x 60"):
        cameras_of(sizes | {"a/2.jpg": (60, 80)}, {}, options)
    pairs = list(combinations(sizes, 2))
    assert set(pairs) - set(without_base(pairs, options)) == {("a/1.jpg", "b/1.jpg")}
    assert without_base(pairs, CameraOptions()) == pairs
    with pytest.raises(UsageError, match="poses and rig say the same thing"):
        check_options(ReconstructOptions(cameras=replace(options, poses=tmp_path)))
