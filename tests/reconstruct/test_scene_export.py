"""The pictures of an export show what its cameras say, whatever the photos were: turned, HEIC, 16 bits, distorted."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pillow_heif
import pycolmap
import pytest
from numpy.typing import NDArray
from PIL import Image

from kornia_bingan import cli
from kornia_bingan.datasets.poses import PosedCamera, pose_errors
from kornia_bingan.datasets.rendered import Plane, cameras_on_arc, render_view, room
from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.reconstruct.options import CameraOptions, ReconstructOptions
from kornia_bingan.reconstruct.page import write_page
from kornia_bingan.reconstruct.pipeline import reconstruct_photos
from kornia_bingan.reconstruct.scene_export import Target, export_scene, picture_names
from kornia_bingan.reconstruct.summary import Summary
from kornia_bingan.work.options import FeatureOptions
from tests.helpers.image_bytes import encode, exif, with_exif

Floats = NDArray[np.float64]

WIDTH, HEIGHT, FOCAL, DISTORTION = 400, 300, 350.0, -0.12
PHOTOS = {"a.jpg": 1, "b.JPG": 6, "my photos/c.jpg": 3, "d.png": 8, "e.heic": 1}
"""EXIF orientation of each photo; d.png has 16 bits."""
PICTURES = {
    "a.jpg": "a.jpg",
    "b.JPG": "b.jpg",
    "my photos/c.jpg": "my_photos_c.jpg",
    "d.png": "d.png",
    "e.heic": "e.jpg",
}
TARGETS = get_args(Target)


@dataclass(frozen=True, eq=False)
class Known:
    photos: Path
    out: Path
    planes: tuple[Plane, ...]
    cameras: dict[str, PosedCamera]
    scenes: dict[str, Path]


def small(camera: PosedCamera, width: int, height: int) -> PosedCamera:
    """A camera of the arc with half its focal length and the principal point in the middle."""
    K = np.array([[FOCAL, 0, width / 2 - 0.5], [0, FOCAL, height / 2 - 0.5], [0, 0, 1]])
    return replace(camera, K=K, width=width, height=height)


def distorted(planes: tuple[Plane, ...], camera: PosedCamera) -> NDArray[np.uint8]:
    """What a lens with distortion would see, RGB."""
    lens = pycolmap.Camera(
        model="SIMPLE_RADIAL", width=WIDTH, height=HEIGHT, params=[FOCAL, WIDTH / 2, HEIGHT / 2, DISTORTION]
    )
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    wide = small(camera, WIDTH + 60, HEIGHT + 60)
    places = lens.cam_from_img(np.column_stack([x.ravel(), y.ravel()])) * FOCAL + wide.K[:2, 2]
    maps = places.reshape(HEIGHT, WIDTH, 2).astype(np.float32)
    seen = cv2.remap(render_view(planes, wide), maps[..., 0], maps[..., 1], cv2.INTER_CUBIC)
    return np.clip(seen, 0, 255).round().astype(np.uint8)


def write_photo(path: Path, shown: NDArray[np.uint8], orientation: int) -> None:
    """Store a picture so that its EXIF orientation gives it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.ascontiguousarray(np.rot90(shown, {1: 0, 3: 2, 6: 1, 8: 3}[orientation]))
    if path.suffix == ".heic":
        data = BytesIO()
        pillow_heif.from_pillow(Image.fromarray(stored)).save(data, quality=95)
        path.write_bytes(data.getvalue())
        return
    bgr = np.ascontiguousarray(stored[:, :, ::-1])
    size = stored.shape[1], stored.shape[0]
    if path.suffix == ".png":
        path.write_bytes(with_exif(encode(".png", bgr.astype(np.uint16) * 257), exif(orientation), size))
    else:
        path.write_bytes(with_exif(encode(".jpg", bgr, cv2.IMWRITE_JPEG_QUALITY, 97), exif(orientation), size))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    folder = tmp_path_factory.mktemp("export")
    planes = room(0)
    cameras = dict(zip(PHOTOS, cameras_on_arc(len(PHOTOS), 0), strict=True))
    for name, orientation in PHOTOS.items():
        write_photo(folder / "photos" / name, distorted(planes, cameras[name]), orientation)
    intrinsics = (FOCAL, FOCAL, WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5, DISTORTION)
    options = ReconstructOptions(
        FeatureOptions(descriptor="bingan256-lite", max_keypoints=800), CameraOptions(intrinsics=intrinsics)
    )
    summary = reconstruct_photos(folder / "photos", folder / "out", options)
    assert summary.registered == len(PHOTOS)
    scenes = {}
    for target in TARGETS:
        scenes[target] = folder / "scenes" / target
        export_scene(folder / "out", scenes[target], target, normals=target == "meshlab")
    return Known(folder / "photos", folder / "out", planes, cameras, scenes)


def model_of(folder: Path) -> tuple[pycolmap.Reconstruction, dict[str, pycolmap.Image]]:
    model = pycolmap.Reconstruction(str(folder))
    return model, {image.name: image for image in model.images.values()}


def expected_places(known: Known) -> tuple[Floats, dict[str, Floats]]:
    """The points of the model, and where its own cameras see them once distortion is taken away, by picture.

    Measured from the middle of the picture.
    """
    model, images = model_of(known.out / "model")
    xyz = np.array([model.points3D[key].xyz for key in sorted(model.points3D)])
    places = {}
    for photo, picture in PICTURES.items():
        camera = model.cameras[images[photo].camera_id]
        pose = images[photo].cam_from_world().matrix()
        rays = camera.cam_from_img(camera.img_from_cam(xyz @ pose[:, :3].T + pose[:, 3]))
        places[picture] = rays * FOCAL
    return xyz, places


@pytest.mark.parametrize("target", TARGETS)
def test_colmap_opens_the_model_and_its_cameras_have_the_pictures_size(target: Target, known: Known) -> None:
    scene = known.scenes[target]
    model, images = model_of(scene / "sparse" / "0")
    assert set(images) == {path.name for path in (scene / "images").iterdir()} == set(PICTURES.values())
    assert len(model.points3D) == Summary.read(known.out / "summary.json").points
    for name, image in images.items():
        camera = model.cameras[image.camera_id]
        assert camera.model.name == "PINHOLE"
        with Image.open(scene / "images" / name) as picture:
            assert picture.size == (camera.width, camera.height)
            assert picture.mode == "RGB"
            assert picture.format == ("PNG" if name.endswith(".png") else "JPEG")
            assert picture.getexif().get(274, 1) == 1
    # keypoints went with the pictures: COLMAP's own error of the new model is that of the old one
    old, _ = model_of(known.out / "model")
    assert model.compute_mean_reprojection_error() == pytest.approx(old.compute_mean_reprojection_error(), rel=0.1)


@pytest.mark.parametrize("photo", PHOTOS)
def test_the_pictures_show_what_the_cameras_say(photo: str, known: Known) -> None:
    """Rendered anew without distortion from the true place, each is the same picture, in colour and to its edges."""
    scene = known.scenes["3dgs"]
    rgb = np.asarray(Image.open(scene / "images" / PICTURES[photo]).convert("RGB"), np.float64)
    truth = render_view(known.planes, small(known.cameras[photo], rgb.shape[1], rgb.shape[0]))
    assert rgb.shape[0] > HEIGHT  # the lens bends much into the picture
    assert np.abs(rgb - truth).mean() < 2.3
    grey = [cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_RGB2GRAY) for picture in (truth, rgb)]
    shift, _ = cv2.phaseCorrelate(grey[0], grey[1])
    assert np.hypot(*shift) < 0.1
    edges = np.concatenate([(rgb - truth)[rows].reshape(-1) for rows in (np.s_[:3], np.s_[-3:])])
    assert np.abs(edges).mean() < 3
    for channel in range(3):
        assert abs((rgb - truth)[..., channel].mean()) < 1
    _, images = model_of(scene / "sparse" / "0")
    poses = {name: images[picture].cam_from_world().matrix() for name, picture in PICTURES.items()}
    true = {name: (camera.R, camera.t) for name, camera in known.cameras.items()}
    errors = pose_errors({name: (pose[:, :3], pose[:, 3]) for name, pose in poses.items()}, true)
    assert errors["median_rotation_deg"] < 0.5


def test_nerfstudio_projects_the_points_where_the_model_has_them(known: Known) -> None:
    scene = known.scenes["nerfstudio"]
    value = json.loads((scene / "transforms.json").read_text())
    points = pycolmap.Reconstruction()
    points.import_PLY(str(scene / value["ply_file_path"]))
    xyz = np.array([points.points3D[key].xyz for key in sorted(points.points3D)])
    model_xyz, places = expected_places(known)
    np.testing.assert_allclose(xyz, model_xyz, rtol=1e-5, atol=1e-5)
    assert "applied_transform" not in value
    assert {frame["file_path"] for frame in value["frames"]} == {f"images/{name}" for name in PICTURES.values()}
    for frame in value["frames"]:
        picture = scene / frame["file_path"]
        with Image.open(picture) as opened:
            assert opened.size == (value["w"], value["h"])
        # nerfstudio: camera to world, the camera looks along -z, y is up
        x, y, z = (np.column_stack([xyz, np.ones(len(xyz))]) @ np.linalg.inv(frame["transform_matrix"]).T)[:, :3].T
        assert (z < 0).all()
        u, v = value["cx"] + value["fl_x"] * x / -z, value["cy"] - value["fl_y"] * y / -z
        expected = places[picture.name] + [value["w"] / 2, value["h"] / 2]
        assert np.abs(np.column_stack([u, v]) - expected).max() < 0.01


def test_openmvs_finds_text_files_without_blanks_in_names(known: Known) -> None:
    """InterfaceCOLMAP reads sparse/*.txt, PINHOLE cameras only, and takes a name up to the first blank."""
    folder = known.scenes["openmvs"] / "sparse"
    cameras = [line.split() for line in (folder / "cameras.txt").read_text().splitlines() if not line.startswith("#")]
    assert [words[1] for words in cameras] == ["PINHOLE"]
    lines = [line for line in (folder / "images.txt").read_text().splitlines() if not line.startswith("#")]
    assert {line.split(" ", 9)[9] for line in lines[::2]} == set(PICTURES.values())
    model, images = model_of(folder)
    assert set(images) == set(PICTURES.values())
    assert len(model.points3D) == len(model_of(folder / "0")[0].points3D)


def test_meshlab_has_the_points_and_sees_them_where_the_model_does(known: Known) -> None:
    """Rows of MeshLab's rotation are the camera's right, up and back; its translation is minus the camera's place."""
    scene = known.scenes["meshlab"]
    project = ET.parse(scene / "scene.mlp").getroot()
    mesh = project.find("MeshGroup/MLMesh")
    assert mesh is not None
    assert (scene / mesh.attrib["filename"]).is_file()
    xyz, places = expected_places(known)
    rasters = project.findall("RasterGroup/MLRaster")
    assert {raster.attrib["label"] for raster in rasters} == set(PICTURES.values())
    for raster in rasters:
        camera, plane = raster.find("VCGCamera"), raster.find("Plane")
        assert camera is not None
        assert plane is not None
        with Image.open(scene / plane.attrib["fileName"]) as opened:
            size = np.array(opened.size)
        said = {key: np.array(value.split(), np.float64) for key, value in camera.attrib.items()}
        np.testing.assert_array_equal(said["ViewportPx"], size)
        right, up, back = said["RotationMatrix"].reshape(4, 4)[:3, :3] @ (xyz + said["TranslationVector"][:3]).T
        assert (back < 0).all()
        scale = said["FocalMm"] / said["PixelSizeMm"][0]
        # the centre counts from the lower left corner, and is the middle
        np.testing.assert_array_equal(said["CenterPx"], size / 2)
        seen = np.column_stack([right, -up]) / -back[:, None] * scale
        assert np.abs(seen - places[raster.attrib["label"]]).max() < 0.01


def test_normals_are_written_where_asked(known: Known) -> None:
    plain, asked = ((known.scenes[t] / "points.ply").read_bytes() for t in ("3dgs", "meshlab"))
    assert b"property float nx" not in plain
    header, data = asked.split(b"end_header\n", 1)
    assert header.count(b"property float") == 6
    table = np.frombuffer(data, [("numbers", "<f4", 6), ("rgb", "u1", 3)])
    np.testing.assert_allclose(np.linalg.norm(table["numbers"][:, 3:], axis=1), 1, atol=1e-5)
    _, images = model_of(known.scenes["meshlab"] / "sparse" / "0")
    centers = np.mean([image.projection_center() for image in images.values()], axis=0)
    facing = (table["numbers"][:, 3:] * (centers - table["numbers"][:, :3])).sum(1)
    assert (facing > 0).mean() > 0.95
    assert table["rgb"].std() > 10


def test_what_became_of_each_photo_is_written_and_the_scene_is_no_folder_of_photos(known: Known) -> None:
    scene = known.scenes["3dgs"]
    assert json.loads((scene / "run.json").read_text())["pictures"] == {new: old for old, new in PICTURES.items()}
    names, skipped = list_images(scene.parent)
    assert names == []
    assert {item.name for item in skipped} == set(TARGETS)


def test_turned_photos_are_said_in_summary_text_and_page(known: Known, tmp_path: Path) -> None:
    summary = Summary.read(known.out / "summary.json")
    assert json.loads((known.out / "summary.json").read_text())["turned"] == summary.turned == 3
    assert summary.photos == str(known.photos.resolve())
    sentence = "3 of 5 photos have an EXIF orientation"
    assert sentence in summary.table()
    assert sentence in write_page(known.out, known.photos).read_text(encoding="utf-8")
    assert "orientation" not in replace(summary, turned=0).table()


def test_names_are_flat_and_different_up_to_the_first_dot() -> None:
    kinds = {
        "a/b.jpg": "JPEG",
        "a b.jpg": "JPEG",
        "A_B.tif": "TIFF",
        "x.1.png": "PNG",
        "x.2.png": "PNG",
        "\u00fc\n.heic": "HEIF",
        "\u00fc" * 120 + ".jpg": "JPEG",
    }
    names = picture_names(kinds)
    assert list(names.values())[:6] == ["a_b.jpg", "a_b-2.jpg", "A_B-3.png", "x_1.png", "x_2.png", "\u00fc_.jpg"]
    assert names["\u00fc" * 120 + ".jpg"] == "\u00fc" * 100 + ".jpg"
    assert picture_names({}) == {}


def run_copy(known: Known, folder: Path) -> tuple[Path, Path]:
    """Copies of the run and of its photos; the run still knows where the first ones are."""
    photos, out = folder / "moved", folder / "out"
    shutil.copytree(known.photos, photos)
    out.mkdir()
    shutil.copytree(known.out / "model", out / "model")
    for name in ("run.json", "summary.json"):
        shutil.copy(known.out / name, out / name)
    return photos, out


def forget(photos: Path, out: Path) -> None:
    value = json.loads((out / "summary.json").read_text())
    (out / "summary.json").write_text(json.dumps({**value, "photos": ""}))


def fill(photos: Path, out: Path) -> None:
    (out.parent / "scene").mkdir()
    (out.parent / "scene" / "mine.txt").write_text("")


def resize(photos: Path, out: Path) -> None:
    """The model was replaced by one of larger photos."""
    model = pycolmap.Reconstruction(str(out / "model"))
    model.cameras[1].rescale(2.0)
    model.write_binary(str(out / "model"))


FAULTS: dict[str, tuple[Callable[[Path, Path], object], bool, str]] = {
    "no run": (lambda photos, out: shutil.rmtree(out), True, "holds no finished reconstruction"),
    "no model": (lambda photos, out: shutil.rmtree(out / "model"), True, "holds no finished reconstruction"),
    "not finished": (lambda photos, out: (out / "summary.json").unlink(), True, "holds no finished reconstruction"),
    "no record": (
        lambda photos, out: (out / "run.json").write_text("{}"),
        True,
        "was not written by bingan reconstruct",
    ),
    "damaged model": (lambda photos, out: (out / "model" / "cameras.bin").unlink(), True, "no readable COLMAP model"),
    "photos unknown": (forget, False, "does not say where its photos are"),
    "photos gone": (lambda photos, out: shutil.rmtree(photos), True, "moved: no such folder"),
    "a photo gone": (lambda photos, out: (photos / "d.png").unlink(), True, "d.png is not in"),
    "a photo changed": (
        lambda photos, out: write_photo(photos / "b.JPG", np.zeros((HEIGHT, WIDTH, 3), np.uint8), 1),
        True,
        "b.JPG is not the photo that was reconstructed",
    ),
    "another size": (resize, True, f"a.jpg is {WIDTH} x {HEIGHT}, its camera in the model {2 * WIDTH} x {2 * HEIGHT}"),
    "a full folder": (fill, True, "exists and is no empty folder"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    fault: str, known: Known, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = run_copy(known, tmp_path)
    do, with_photos, sentence = FAULTS[fault]
    do(photos, out)
    command = ["scene", str(out), str(tmp_path / "scene"), "--for", "3dgs"]
    assert cli.main([*command, "--photos", str(photos)] if with_photos else command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} <= {"moved", "out", "scene"}
    left = [path.name for path in (tmp_path / "scene").iterdir()] if (tmp_path / "scene").exists() else []
    assert left == (["mine.txt"] if fault == "a full folder" else [])


def test_the_command_takes_photos_that_have_moved(
    known: Known, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = run_copy(known, tmp_path)
    command = ["scene", str(out), str(tmp_path / "scene"), "--for", "nerfstudio", "--photos", str(photos), "--json"]
    assert cli.main(command) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["pictures"] == {new: old for old, new in PICTURES.items()}
    assert (value["target"], value["cameras"], value["left_out"]) == ("nerfstudio", 1, 0)
    for name in ("transforms.json", "points.ply", "images/b.jpg"):
        assert (tmp_path / "scene" / name).read_bytes() == (known.scenes["nerfstudio"] / name).read_bytes()
    with pytest.raises(UsageError, match="the scene is for 'blender'"):
        export_scene(out, tmp_path / "other", "blender")  # type: ignore[arg-type]
