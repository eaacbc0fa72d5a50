from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from kornia_bingan.colmap import read_features, read_model
from kornia_bingan.datasets.poses import pose_errors
from kornia_bingan.datasets.rendered import Scene
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.reconstruct import pipeline
from kornia_bingan.reconstruct.features import Features, features_path
from kornia_bingan.reconstruct.options import CameraOptions, MatchOptions, ReconstructOptions, check_options
from kornia_bingan.reconstruct.pairs import choose_pairs
from kornia_bingan.reconstruct.pipeline import reconstruct_photos
from kornia_bingan.reconstruct.summary import Summary
from kornia_bingan.work.files import sha256_of
from kornia_bingan.work.options import FeatureOptions, WorkOptions
from tests.conftest import run_and_die
from tests.helpers.photos import texture
from tests.helpers.scenes import copy_scene

pytestmark = pytest.mark.usefixtures("_described_once")

OPTIONS = ReconstructOptions(FeatureOptions(descriptor="bingan256-lite", max_keypoints=600))


def with_features(**changes: Any) -> ReconstructOptions:
    return replace(OPTIONS, features=replace(OPTIONS.features, **changes))


def with_cameras(**changes: Any) -> ReconstructOptions:
    return replace(OPTIONS, cameras=replace(OPTIONS.cameras, **changes))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scene]:
    folder = tmp_path_factory.mktemp("scene")
    made = copy_scene(folder, 5)
    return folder / "images", made


@pytest.fixture(scope="module")
def whole(scene: tuple[Path, Scene], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    reconstruct_photos(scene[0], out, OPTIONS)
    return out


def results(out: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in [*(out / "model").iterdir(), out / "points.ply"]}


def test_a_known_scene_is_found_again(scene: tuple[Path, Scene], whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    wanted = {"images", "registered", "points", "observations", "mean_track_length", "mean_reprojection_error_px"}
    assert set(summary) >= wanted | {"seconds", "descriptor", "sha256", "versions", "skipped"}
    assert summary["registered"] == summary["images"] == 5
    assert summary["points"] > 200
    assert summary["descriptor"] == OPTIONS.features.descriptor
    assert FeatureOptions().descriptor == "bingan256"
    assert set(summary["seconds"]) == {"describe", "match", "verify", "map"}
    model = read_model(whole / "model")
    assert len(model.xyz) == summary["points"]
    poses = dict(zip(model.names, zip(model.rotations, model.translations, strict=True), strict=True))
    errors = pose_errors(poses, {name: (camera.R, camera.t) for name, camera in scene[1].cameras.items()})
    assert errors["median_rotation_deg"] < 0.5
    assert errors["median_position_percent"] < 1
    assert int((whole / "points.ply").read_bytes().split(b"element vertex ")[1].split()[0]) == summary["points"]


def test_keypoints_reach_the_database(scene: tuple[Path, Scene], whole: Path) -> None:
    stored = read_features(whole / "database.db")
    name = sorted(stored)[0]
    features = Features.read(features_path(whole / "features", name))
    moved = np.linalg.norm(stored[name].xy - features.keypoints.xy, axis=1)
    assert 0.01 < np.median(moved) < 0.5, "aligned keypoints move by fractions of a pixel"
    assert (moved < features.keypoints.size).all()
    assert features.codes.shape == (len(features.keypoints), 32)
    assert features.size == (800, 600)


def test_a_finished_run_gives_its_summary_again(
    scene: tuple[Path, Scene], whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.name not in (".lock", "bingan.txt")}

    before, written = results(whole), times()
    for stage in ("describe_photos", "match_photos", "verify_pairs", "map_photos"):
        monkeypatch.setattr(pipeline, stage, None)  # nothing is done again
    again = reconstruct_photos(scene[0], whole, OPTIONS)
    assert times() == written
    assert again.to_json() == Summary.read(whole / "summary.json").to_json()
    assert results(whole) == before


@pytest.mark.parametrize("reached", ["features/{}.npz", "matches/000000.npz", "database.db"])
def test_a_killed_run_ends_with_the_same_model(
    reached: str, scene: tuple[Path, Scene], whole: Path, tmp_path: Path
) -> None:
    photos, made = scene
    out = tmp_path / "out"
    program = (
        "from pathlib import Path\n"
        "from kornia_bingan.reconstruct.options import ReconstructOptions\n"
        "from kornia_bingan.reconstruct.pipeline import reconstruct_photos\n"
        "from kornia_bingan.work.options import FeatureOptions\n"
        f"options = ReconstructOptions({OPTIONS.features!r})\n"
        f"reconstruct_photos(Path({str(photos)!r}), Path({str(out)!r}), options)\n"
    )
    run_and_die(program, out / reached.format(sorted(made.cameras)[0]))
    assert not (out / "summary.json").exists()
    reconstruct_photos(photos, out, OPTIONS)
    assert results(out) == results(whole)


def test_time_limit_stops_between_units_and_goes_on(scene: tuple[Path, Scene], whole: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="0 of 5 photos are described; run it again to resume"):
        reconstruct_photos(scene[0], tmp_path / "out", replace(OPTIONS, work=WorkOptions(time_limit=1e-9)))
    reconstruct_photos(scene[0], tmp_path / "out", OPTIONS)
    assert results(tmp_path / "out") == results(whole)


def test_bad_files_among_good_ones_are_skipped_and_named(scene: tuple[Path, Scene], tmp_path: Path) -> None:
    """A truncated JPEG, a text file, a uniform picture; a 16-bit and an RGBA picture of the scene take part."""
    photos = tmp_path / "photos"
    shutil.copytree(scene[0], photos)
    names = sorted(scene[1].cameras)
    first = cv2.imread(str(photos / names[0]))
    assert first is not None
    (photos / names[0]).unlink()
    cv2.imwrite(str(photos / "deep.png"), first.astype(np.uint16) * 257)
    second = cv2.imread(str(photos / names[1]))
    assert second is not None
    (photos / names[1]).unlink()
    (photos / "sub dir").mkdir()
    cv2.imwrite(str(photos / "sub dir" / "alpha.png"), cv2.cvtColor(second, cv2.COLOR_BGR2BGRA))
    good = cv2.imencode(".jpg", first)[1].tobytes()
    (photos / "half.jpg").write_bytes(good[: len(good) // 2])
    (photos / "notes.txt").write_text("no photo")
    cv2.imwrite(str(photos / "grey.png"), np.full((480, 640), 128, np.uint8))
    summary = reconstruct_photos(photos, tmp_path / "out", OPTIONS)
    assert summary.images == 5
    assert summary.registered == 5
    skipped = {item["name"]: item["reason"] for item in summary.skipped}
    assert set(skipped) == {"half.jpg", "notes.txt", "grey.png"}
    assert "no keypoints" in skipped["grey.png"]
    assert set(read_model(tmp_path / "out" / "model").names) >= {"deep.png", "sub dir/alpha.png"}


def test_no_photos_one_photo_and_no_texture(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(UsageError, match="holds no photos"):
        reconstruct_photos(photos, tmp_path / "out", OPTIONS)
    with pytest.raises(UsageError):
        reconstruct_photos(tmp_path / "absent", tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()
    cv2.imwrite(str(photos / "one.png"), texture(200, 200))
    with pytest.raises(JobError, match="1 usable photos"):
        reconstruct_photos(photos, tmp_path / "one", OPTIONS)
    cv2.imwrite(str(photos / "grey.png"), np.full((200, 200), 90, np.uint8))
    with pytest.raises(JobError, match=r"1 usable photos.*grey\.png: no keypoints"):
        reconstruct_photos(photos, tmp_path / "grey", OPTIONS)


def test_unrelated_photos_give_no_model_but_the_statistics(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in (1, 2):
        cv2.imwrite(str(photos / f"{seed}.png"), texture(300, 300, seed))
    with pytest.raises(JobError, match="1 pairs tried"):
        reconstruct_photos(photos, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out" / "summary.json").exists()
    assert not (tmp_path / "out" / "model").exists()


def test_other_options_and_foreign_folders_are_refused(scene: tuple[Path, Scene], whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ratio 0\.8, now 0\.7"):
        reconstruct_photos(scene[0], whole, replace(OPTIONS, matches=MatchOptions(ratio=0.7)))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        reconstruct_photos(scene[0], tmp_path, OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (with_features(detector="akaze"), "choose dog or orb"),
        (with_features(max_keypoints=0), "give 1 or more"),
        (replace(OPTIONS, matches=MatchOptions(ratio=1.5)), "between 0 and 1"),
        (with_cameras(camera="two"), "choose single"),
        (with_cameras(camera_model="FISH"), "the camera model is 'FISH'"),
        (with_cameras(focal_px=-1.0), "give pixels"),
        (with_cameras(focal_px=500.0, intrinsics=(500.0, 500.0, 399.5, 299.5)), "no focal length"),
    ],
)
def test_impossible_options(options: ReconstructOptions, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_options(options)


def test_known_intrinsics_orb_and_a_list_of_pairs(scene: tuple[Path, Scene], tmp_path: Path) -> None:
    names = sorted(scene[1].cameras)
    K = scene[1].cameras[names[0]].K
    pairs = tmp_path / "pairs.txt"
    lines = [f"{a} {b}\n" for a, b in pairwise(names)]
    pairs.write_text("".join(lines) + f"{names[0]}\t{names[2]}\n")
    intrinsics = (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    options = replace(with_features(detector="orb", max_keypoints=1500), pairs=str(pairs))
    options = replace(options, cameras=CameraOptions(intrinsics=intrinsics))
    summary = reconstruct_photos(scene[0], tmp_path / "out", options)
    assert summary.pairs.tried == 5
    assert summary.registered >= 3
    camera = read_model(tmp_path / "out" / "model").cameras[0]
    assert camera.model == "PINHOLE"
    np.testing.assert_allclose(camera.params, intrinsics, atol=1e-6)


def test_damaged_features_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg.npz"
    path.write_bytes(b"PK nothing")
    with pytest.raises(UsageError, match=r"a\.jpg\.npz is no file of features"):
        Features.read(path)


def test_pairs_by_similarity(scene: tuple[Path, Scene], whole: Path, tmp_path: Path) -> None:
    """With as many others as there are, all pairs; with fewer, fewer pairs and still one model."""
    codes = {name: Features.read(features_path(whole / "features", name)).codes for name in scene[1].cameras}
    every, _ = choose_pairs([("retrieval", 4)], codes, {})
    assert set(every) == set(combinations(sorted(codes), 2))
    few = reconstruct_photos(scene[0], tmp_path / "few", replace(OPTIONS, pairs="retrieval:2"))
    assert 5 <= few.pairs.tried < 10
    assert few.registered == 5
    with pytest.raises(UsageError, match=r"write retrieval:K"):
        reconstruct_photos(scene[0], tmp_path / "none", ReconstructOptions(pairs="retrieval:0"))
    assert not (tmp_path / "none").exists()


def test_equal_files_and_links_to_them_are_used_once(scene: tuple[Path, Scene], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(scene[0], photos)
    names = sorted(path.name for path in photos.iterdir())
    shutil.copy(photos / names[1], photos / "z copy.png")
    (photos / "z link.png").symlink_to(photos / names[2])
    summary = reconstruct_photos(photos, tmp_path / "out", OPTIONS)
    assert summary.images == 5
    assert summary.skipped == [
        {"name": "z copy.png", "reason": f"the same file as {names[1]}"},
        {"name": "z link.png", "reason": f"the same file as {names[2]}"},
    ]


def test_formats_and_orientations_give_the_same_model(scene: tuple[Path, Scene], whole: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    turned = (
        ("png", 6, {}),
        ("tif", 8, {}),
        ("webp", 3, {"lossless": True}),
        ("ppm", 1, {}),
        ("jpg", 6, {"quality": 98}),
    )
    for path, (kind, orientation, options) in zip(sorted(scene[0].iterdir()), turned, strict=True):
        (photos / kind).mkdir(parents=True)
        pixels = np.rot90(np.asarray(Image.open(path)), {1: 0, 3: 2, 6: 1, 8: 3}[orientation])
        exif = Image.Exif()
        exif[274] = orientation
        more = {} if kind == "ppm" else {"exif": exif}
        Image.fromarray(np.ascontiguousarray(pixels)).save(
            photos / kind / f"{path.stem}.{kind.upper()}", **more, **options
        )
    (photos / "not a photo.txt").write_text("words")
    (photos / "half.jpg").write_bytes(
        (photos / "jpg" / next(iter((photos / "jpg").iterdir())).name).read_bytes()[:5000]
    )
    summary = reconstruct_photos(photos, tmp_path / "out", OPTIONS)
    alone = Summary.read(whole / "summary.json")
    assert summary.registered == alone.registered == 5
    # one photo is a JPEG once more: of 437 points, quality 98 changed 0 to 2, 90 would 6; the order of names none
    assert summary.points == pytest.approx(alone.points, rel=0.03)
    assert [item["name"] for item in summary.skipped] == ["half.jpg", "not a photo.txt"]
    assert (summary.turned, alone.turned) == (4, 0)
    cameras = {(camera.width, camera.height) for camera in read_model(tmp_path / "out" / "model").cameras}
    assert cameras == {(camera.width, camera.height) for camera in read_model(whole / "model").cameras}


def test_forty_pictures_of_every_kind_reconstruct_in_one_command(scene: tuple[Path, Scene], tmp_path: Path) -> None:
    photos = tmp_path / "my photos \u00e9 'quoted'"
    photos.mkdir()
    # in half the size, as it is about their number
    views = [np.asarray(Image.open(path).convert("L").reduce(2)) for path in sorted(scene[0].iterdir())]
    good, bad = set(), {}

    def keep(name: str) -> Path:
        good.add(name)
        return photos / name

    def refuse(name: str, reason: str) -> Path:
        bad[name] = reason
        return photos / name

    for number, view in enumerate(views):
        wide = view.astype(np.uint16) * 257
        cv2.imencode(".png", wide)[1].tofile(keep(f"sixteen {number}.PNG"))
        Image.fromarray(view).convert("CMYK").save(keep(f"ink{number}.jpeg"), quality=97)
        Image.merge("RGBA", [Image.fromarray(band) for band in (view, view, view, 255 - view[::-1] // 4)]).save(
            keep(f"alpha\n{number}.webp"), lossless=True, exact=True
        )
        Image.fromarray(view).save(keep(f"umlaut \u00fc{number}.avif"), quality=95)
        Image.fromarray(view).save(keep(f"{number}.bmp"))
    data = (photos / "ink0.jpeg").read_bytes()
    refuse("cut.jpg", "cut short").write_bytes(data[: len(data) // 2])
    refuse("empty.jpg", "empty").write_bytes(b"")
    refuse("words.jpg", "not a JPEG").write_text("words")
    refuse("film.mp4", "not a kind of picture").write_bytes(b"0")
    refuse(".hidden.jpg", "hidden").write_bytes(data)
    refuse("z copy.jpg", "the same file as ink0.jpeg").write_bytes(data)
    refuse("noext", "no extension").write_bytes(data)
    refuse("broken.png", "broken link").symlink_to(photos / "nothing.png")
    png = (photos / "sixteen 0.PNG").read_bytes()
    refuse("damaged.png", "wrong check sum").write_bytes(png[:3000] + b"\0\0" + png[3002:])
    for name, shape in (("dot.png", (1, 1)), ("line.png", (1, 500)), ("flat.png", (300, 400))):
        cv2.imencode(".png", np.full(shape, 77, np.uint8))[1].tofile(refuse(name, "no keypoints"))
    refuse("huge.ppm", "megapixels").write_bytes(b"P5 60000 60000 255\n" + b"0" * 100)
    refuse("float.tif", "samples").write_bytes(cv2.imencode(".tif", views[0].astype(np.float32))[1].tobytes())
    refuse("trash.webp", "cut short").write_bytes((photos / "alpha\n0.webp").read_bytes()[:500])
    assert len(good) + len(bad) == 40
    plain = MatchOptions("ratio", align=False)
    options = replace(with_features(max_keypoints=300), matches=plain, pairs="sequential:6")
    summary = reconstruct_photos(photos, tmp_path / "out", options)
    assert summary.images == summary.registered == len(good) == 25
    reasons = {item["name"]: item["reason"] for item in summary.skipped}
    assert set(reasons) == set(bad)
    for name, reason in bad.items():
        assert reason in reasons[name], (name, reasons[name])


def test_the_global_mapper_finds_the_scene_too(scene: tuple[Path, Scene], whole: Path, tmp_path: Path) -> None:
    K = next(iter(scene[1].cameras.values())).K
    intrinsics = (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    options = replace(with_cameras(intrinsics=intrinsics), mapper="global")
    summary = reconstruct_photos(scene[0], tmp_path / "out", options)
    assert summary.registered == 5
    assert summary.points > 200
    model = read_model(tmp_path / "out" / "model")
    poses = dict(zip(model.names, zip(model.rotations, model.translations, strict=True), strict=True))
    errors = pose_errors(poses, {name: (camera.R, camera.t) for name, camera in scene[1].cameras.items()})
    assert errors["median_rotation_deg"] < 0.5
    np.testing.assert_allclose(model.cameras[0].params, intrinsics, atol=1e-6)
    with pytest.raises(UsageError, match="the mapper is 'fast'"):
        reconstruct_photos(scene[0], tmp_path / "other", replace(OPTIONS, mapper="fast"))  # type: ignore[arg-type]
