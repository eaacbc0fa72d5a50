from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pycolmap
import pytest
from PIL import ExifTags, Image

from kornia_bingan.cli import main
from kornia_bingan.colmap import Camera, cameras_for, write_features
from kornia_bingan.colmap.types import fixed_camera
from kornia_bingan.errors import UsageError
from kornia_bingan.images.exif import FILM_DIAGONAL_MM, Exif, Position, _position, position_block, read_exif
from kornia_bingan.images.read import read_image, write_image
from kornia_bingan.keypoints import detect
from tests.helpers.image_bytes import encode, png, png_chunk, with_exif, with_segment
from tests.helpers.photos import texture
from tests.helpers.programs import run_program
from tests.helpers.scenes import copy_scene

TAG = ExifTags.Base
PLAIN = ("--descriptor", "bingan256-lite", "--max-keypoints", "700", "--matcher", "ratio", "--no-align")


def photo(path: Path, camera: dict[int, object], gps: dict[int, object] | None = None, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[TAG.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif).update(camera)
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(texture(60, 80)).save(path, exif=exif)
    return path


def test_focal_length_from_the_equivalent_and_from_the_sensor(tmp_path: Path) -> None:
    equivalent = read_exif(photo(tmp_path / "a.jpg", {TAG.FocalLengthIn35mmFilm: 26}))
    assert equivalent.focal_px((4000, 3000)) == pytest.approx(5000 * 26 / 43.2666, rel=1e-4)
    assert equivalent.focal_px((3000, 4000)) == equivalent.focal_px((4000, 3000))
    # 5 mm before a sensor of 200 pixels a millimetre is 1,000 pixels of the 800 x 600 taken, 100 of the 80 x 60 kept
    sensor = {TAG.FocalLength: 5.0, TAG.FocalPlaneXResolution: 2000.0, TAG.FocalPlaneResolutionUnit: 3}
    taken = {TAG.ExifImageWidth: 800, TAG.ExifImageHeight: 600}
    assert read_exif(photo(tmp_path / "b.jpg", {**sensor, **taken})).focal_px((80, 60)) == pytest.approx(100)
    assert read_exif(photo(tmp_path / "c.jpg", sensor)).focal_px((80, 60)) == pytest.approx(1000)


@pytest.mark.parametrize("camera", [{}, {TAG.FocalLengthIn35mmFilm: 0}, {TAG.FocalLength: 4.2}])
def test_nothing_is_made_of_nothing(tmp_path: Path, camera: dict[int, object]) -> None:
    assert read_exif(photo(tmp_path / "a.jpg", camera)) == Exif()
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:40])
    assert read_exif(tmp_path / "b.jpg") == Exif()
    cv2.imwrite(str(tmp_path / "c.png"), texture(20, 20))
    assert read_exif(tmp_path / "c.png").focal_px((20, 20)) is None


def test_positions_have_their_signs(tmp_path: Path) -> None:
    south_west = {1: "S", 2: (33.0, 52.0, 10.8), 3: "W", 4: (151.0, 12.0, 0.0), 5: b"\x01", 6: 12.5}
    found = read_exif(photo(tmp_path / "a.jpg", {}, south_west)).position
    assert found == pytest.approx((-33.869667, -151.2, -12.5), abs=1e-5)
    assert read_exif(photo(tmp_path / "b.jpg", {}, {1: "N", 2: (95.0, 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)})) == Exif()


@pytest.mark.parametrize("place", [(48.8583, 2.2945, 35.25), (-33.869667, -151.2, -12.5), (0.0, 179.9999, None)])
def test_a_written_position_is_read_again(place: Position, tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", texture(20, 30), position_block(place))
    found = read_exif(tmp_path / "a.jpg").position
    assert found is not None
    assert found[:2] == pytest.approx(place[:2], abs=1e-7)
    assert found[2] == (place[2] if place[2] is None else pytest.approx(place[2]))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg").shape, (20, 30))


@pytest.mark.parametrize(("unit", "millimetres"), [(2, 25.4), (3, 10.0), (4, 1.0), (5, 0.001)])
def test_every_unit_of_the_sensor_resolution(unit: int, millimetres: float, tmp_path: Path) -> None:
    sensor = {TAG.FocalLength: 5.0, TAG.FocalPlaneXResolution: 20.0 * millimetres, TAG.FocalPlaneResolutionUnit: unit}
    assert read_exif(photo(tmp_path / "a.jpg", sensor)).focal_px((80, 60)) == pytest.approx(100, rel=1e-3)
    sensor[TAG.FocalPlaneResolutionUnit] = 1  # none
    assert read_exif(photo(tmp_path / "a.jpg", sensor)) == Exif()


@pytest.mark.parametrize(("film_mm", "known"), [(4, False), (5, True), (2150, True), (2185, False)])
def test_a_focal_length_of_a_tenth_to_fifty_diagonals_makes_sense(film_mm: int, known: bool, tmp_path: Path) -> None:
    found = read_exif(photo(tmp_path / "a.jpg", {TAG.FocalLengthIn35mmFilm: film_mm})).focal_diagonal
    assert found == (pytest.approx(film_mm / FILM_DIAGONAL_MM) if known else None)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({2: (89.5, 0.0, 0.0)}, (89.5, 2.25, 35.0)),
        ({2: (90.5, 0.0, 0.0)}, None),
        ({4: (179.5, 0.0, 0.0)}, (48.5, 179.5, 35.0)),
        ({4: (180.5, 0.0, 0.0)}, None),
        ({2: (48.0, 30.0)}, None),
    ],
)
def test_positions_at_the_edge_of_sense(
    change: dict[int, object], expected: tuple[float, float, float | None] | None, tmp_path: Path
) -> None:
    assert read_exif(photo(tmp_path / "a.jpg", {}, PARIS | change)).position == expected


@pytest.mark.parametrize("reference", [1, b"\x01"])
def test_a_height_below_the_sea_is_told_by_a_number_or_by_a_byte(reference: object) -> None:
    assert _position(PARIS | {5: reference}) == (48.5, 2.25, -35.0)


@pytest.mark.parametrize("height", [-0.5, float("inf"), float("nan"), "high", None])
def test_a_height_that_makes_no_sense_is_none(height: object) -> None:
    assert _position(PARIS | {6: height}) == (48.5, 2.25, None)


def test_positions_and_focal_lengths_reach_the_database(tmp_path: Path) -> None:
    copy_scene(tmp_path / "scene", 3, half=True)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, path in enumerate(sorted((tmp_path / "scene" / "images").iterdir())):
        exif = Image.Exif()
        exif.get_ifd(ExifTags.IFD.Exif)[TAG.FocalLengthIn35mmFilm] = 28
        exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (48.0, 30.0, 0.0), 3: "E", 4: (2.0, 0.0, 36.0 * number)})
        Image.open(path).save(photos / f"{number}.jpg", exif=exif, quality=97)
    for gps, expected in (((), 3), (("--no-gps",), 0)):
        out = tmp_path / f"out{expected}"
        words = ["reconstruct", str(photos), str(out), "--json", *gps]
        assert main([*words, *PLAIN]) == 0
        db = pycolmap.Database.open(str(out / "database.db"))
        priors = [prior for prior in db.read_all_pose_priors() if prior.has_position()]
        camera = db.read_all_cameras()[0]
        db.close()
        assert len(priors) == expected
        assert all(prior.coordinate_system == pycolmap.PosePriorCoordinateSystem.WGS84 for prior in priors)
        found = sorted([round(float(value), 4) for value in prior.position] for prior in priors)
        assert found == [[48.5, 2.0, 0.0], [48.5, 2.01, 0.0], [48.5, 2.02, 0.0]][:expected]
        assert camera.has_prior_focal_length
        size = np.hypot(camera.width, camera.height)
        assert camera.params[0] == pytest.approx(28 / 43.2666 * size, rel=1e-4)


def test_cameras_by_folder_and_by_focal_length() -> None:
    sizes = {"a/1.jpg": (80, 60), "a/2.jpg": (80, 60), "b/1.jpg": (80, 60), "c.jpg": (80, 60)}
    by_folder = cameras_for(sizes, "per-folder", focal_px={"a/1.jpg": 70.0, "a/2.jpg": 90.0, "b/1.jpg": 50.0})
    assert len({id(camera) for camera in by_folder.values()}) == 3
    assert [by_folder[name].focal_px for name in sizes] == [90.0, 90.0, 50.0, None]
    by_size = cameras_for(sizes, focal_px={"a/1.jpg": 70.0, "b/1.jpg": 70.2})
    assert by_size["a/1.jpg"] is by_size["b/1.jpg"]
    assert by_size["c.jpg"] is by_size["a/2.jpg"]
    assert by_size["c.jpg"].focal_px is None
    with pytest.raises(UsageError, match=r"each folder was asked for, but a/1\.jpg is 80 x 60 and a/2\.jpg is 60 x 80"):
        cameras_for({**sizes, "a/2.jpg": (60, 80)}, "per-folder")


def test_known_cameras_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = copy_scene(tmp_path / "scene", 3, half=True)
    photos = tmp_path / "scene" / "images"
    K = next(iter(scene.cameras.values())).K
    height, width = cv2.imread(str(next(iter(photos.iterdir())))).shape[:2]
    params = f"{K[0, 0]} {K[1, 1]} {K[0, 2] + 0.5} {K[1, 2] + 0.5}"
    (tmp_path / "cameras.txt").write_text(
        f"# a comment\n\n1 PINHOLE {width} {height} {params}\n2 PINHOLE 9 9 8 8 4 4\n"
    )
    words = ["reconstruct", str(photos), str(tmp_path / "out"), "--cameras", str(tmp_path / "cameras.txt"), "--json"]
    assert main([*words, *PLAIN]) == 0
    assert json.loads(capsys.readouterr().out)["registered"] == 3
    model = pycolmap.Reconstruction(str(tmp_path / "out" / "model"))
    assert [list(camera.params) for camera in model.cameras.values()] == [[float(word) for word in params.split()]]
    numbers = ",".join(str(value) for value in (K[0, 0], K[1, 1], K[0, 2], K[1, 2], 0.01))
    words = ["reconstruct", str(photos), str(tmp_path / "out2"), "--intrinsics", numbers, "--json"]
    assert main([*words, *PLAIN]) == 0
    camera = next(iter(pycolmap.Reconstruction(str(tmp_path / "out2" / "model")).cameras.values()))
    assert camera.model.name == "OPENCV"
    assert list(camera.params[4:]) == [0.01, 0, 0, 0]


def test_wrong_intrinsics_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for numbers, words in (("1,2,3", "3 numbers were given"), ("a,b,c,d", "intrinsics are numbers"), ("0,1,2,3", "0")):
        assert main(["reconstruct", str(tmp_path), str(tmp_path / "out"), "--intrinsics", numbers]) == 2
        assert words in capsys.readouterr().err
    assert fixed_camera((8, 6), (5, 5, 4, 3)).model == "PINHOLE"


def test_positions_are_optional(tmp_path: Path) -> None:
    image = texture(60, 80)
    write_features(tmp_path / "d.db", {"a": detect(image)}, Camera(80, 60), {"b": (1.0, 2.0, 3.0)})
    db = pycolmap.Database.open(str(tmp_path / "d.db"))
    assert db.num_pose_priors() == 0
    db.close()


def with_camera(focal_mm: int, gps: dict[int, object]) -> Image.Exif:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[TAG.FocalLengthIn35mmFilm] = focal_mm
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    return exif


PARIS: dict[int, object] = {1: "N", 2: (48.0, 30.0, 0.0), 3: "E", 4: (2.0, 15.0, 0.0), 5: b"\x00", 6: 35.0}


def test_the_exif_block_of_a_heic_is_read_before_any_picture_was_decoded(tmp_path: Path) -> None:
    pillow_heif.register_heif_opener()
    Image.fromarray(texture(60, 80)).save(tmp_path / "a.heic", "HEIF", exif=with_camera(24, PARIS))
    program = (
        "from pathlib import Path; from kornia_bingan.images.exif import read_exif; print(read_exif(Path('a.heic')))"
    )
    done = run_program(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(Exif(24 / FILM_DIAGONAL_MM, (48.5, 2.25, 35.0)))


@pytest.mark.parametrize("kind", ["jpeg", "png", "png with the block behind the pixels", "tiff"])
def test_the_exif_block_of_a_picture_beyond_179_megapixels_is_read(kind: str, tmp_path: Path) -> None:
    side = 13_400
    block = with_camera(24, PARIS).tobytes().removeprefix(b"Exif\0\0")
    path = tmp_path / "huge"
    if kind == "jpeg":
        data = bytearray(with_segment(encode(".jpg", texture(60, 80)), 0xE1, b"Exif\0\0" + block))
        size_at = data.index(b"\xff\xc0") + 5
        data[size_at : size_at + 4] = struct.pack(">HH", side, side)
        path.write_bytes(data)
    elif kind == "tiff":
        whole = with_camera(24, PARIS)  # is a TIFF file as soon as it says how its picture is kept
        whole.update({256: side, 257: side, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: side, 279: side * side})
        path.write_bytes(whole.tobytes().removeprefix(b"Exif\0\0"))
    else:
        data = png(side, side, 8, 0, [bytes(side)], *([] if "behind" in kind else [png_chunk(b"eXIf", block)]))
        path.write_bytes(with_exif(data, block, (side, side)) if "behind" in kind else data)
    limit = Image.MAX_IMAGE_PIXELS
    assert read_exif(path) == Exif(24 / FILM_DIAGONAL_MM, (48.5, 2.25, 35.0))
    assert limit == Image.MAX_IMAGE_PIXELS, "other users of Pillow keep its limit"


def test_a_heic_beyond_179_megapixels_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pillow_heif.register_heif_opener()
    Image.fromarray(texture(60, 80)).save(tmp_path / "a.heic", "HEIF", exif=with_camera(24, PARIS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # twice as many pixels are refused
    assert read_image(tmp_path / "a.heic").shape == (60, 80)
    assert read_exif(tmp_path / "a.heic").position == (48.5, 2.25, 35.0)


def test_photos_without_position_or_altitude_are_named_and_reach_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_scene(tmp_path / "scene", 4, half=True)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, path in enumerate(sorted((tmp_path / "scene" / "images").iterdir())):
        place: dict[int, object] = {1: "N", 2: (48.0, 30.0, 0.0), 3: "E", 4: (2.0, 0.0, 0.1 * number)}
        place |= {} if number == 1 else {6: 520.0}
        Image.open(path).save(photos / f"{number}.jpg", exif=with_camera(28, place if number < 3 else {}), quality=97)
    words = ["reconstruct", str(photos), str(tmp_path / "out"), "--pairs", "gps:1"]
    assert main([*words, *PLAIN]) == 0
    assert "photos without a position" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["unplaced"] == ["3.jpg"]
    assert summary["registered"] == 4
    assert summary["place"]["reason"] == "2 photos of the model say their position, 3 are needed"
    log = (tmp_path / "out" / "log" / "bingan.txt").read_text()
    assert "WARNING 3.jpg does not say where it was taken: paired with similar photos instead" in log
    assert "WARNING 1 photos say no altitude" in log
    db = pycolmap.Database.open(str(tmp_path / "out" / "database.db"))
    priors = [prior.position.tolist() for prior in db.read_all_pose_priors() if prior.has_position()]
    db.close()
    assert [prior[2] for prior in priors] == [520.0, 520.0], "a height that nobody said is not written"
