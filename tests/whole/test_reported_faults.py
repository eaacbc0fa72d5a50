"""Faults that people reported of other products in this field: the right behaviour, from Python and from the shell."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import faiss
import kornia.feature as KF
import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image

from eval.harness.data import HomographySequence
from eval.quality import hpatches
from kornia_bingan import BinGAN, colmap, match
from kornia_bingan.cli import main
from kornia_bingan.datasets.brown import read_patch_set
from kornia_bingan.descriptor import describe
from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.images.read import image_size, read_image
from kornia_bingan.keypoints import Keypoints, detect
from kornia_bingan.opencv import BinGANExtractor
from kornia_bingan.reconstruct.features import Features
from kornia_bingan.train.metrics import fpr95
from tests.helpers.older_kornia import NO_WIDTH
from tests.helpers.photos import texture
from tests.helpers.scenes import copy_scene

LITE = ("--descriptor", "bingan256-lite")


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    copy_scene(folder, 3)
    return folder / "images"


def one_keypoint(x: float, y: float) -> Keypoints:
    ones = np.ones(1, np.float32)
    return Keypoints(np.array([[x, y]], np.float32), 8 * ones, 0 * ones, ones, np.zeros(1, np.int32))


@pytest.mark.parametrize(
    ("output", "width", "dtype"), [("descriptor", 256, torch.float32), ("packed", 32, torch.uint8)]
)
def test_no_keypoints_keep_width_dtype_and_device(output: str, width: int, dtype: torch.dtype, tmp_path: Path) -> None:
    model = BinGAN.from_pretrained("bingan256-lite", output=output)  # type: ignore[arg-type]
    with torch.no_grad():
        empty = KF.LAFDescriptor(model, patch_size=32)(torch.rand(1, 1, 64, 64), torch.zeros(1, 0, 2, 3))
        some = model(torch.rand(2, 1, 32, 32))
    if output == "descriptor":
        assert empty.shape == (1, 0, NO_WIDTH or 256)
    assert some.shape == (2, width)
    assert some.dtype == dtype
    assert model(torch.rand(0, 1, 32, 32)).dtype == dtype
    grey = np.full((480, 640), 128, np.uint8)
    assert describe(model, grey, detect(grey)).shape == (0, 32)
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "grey.png"), grey)
    assert main(["describe", str(tmp_path / "photos"), str(tmp_path / "out"), *LITE]) == 0
    found = Features.read(tmp_path / "out" / "grey.png.npz")
    assert found.codes.shape == (0, 32)
    assert found.codes.dtype == np.uint8


def test_codes_of_another_type_are_named(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (5, 32), np.uint8)
    with pytest.raises(UsageError, match=r"numpy float32 \(5, 32\)"):
        match(codes.astype(np.float32), codes)
    with pytest.raises(UsageError, match=r"\(5, 256\).*uint8 \(5, 32\)|uint8 \(5, 256\)"):
        match(np.unpackbits(codes, axis=1), codes)
    for wrong in (codes.astype(bool), codes.astype(np.int64), None):
        with pytest.raises(UsageError):
            match(wrong, codes)  # type: ignore[call-overload]
    _, given = BinGANExtractor("bingan256-lite").detectAndCompute(texture(120, 160), None)
    assert given is not None
    assert given.flags.c_contiguous
    assert (given.dtype, given.shape[1]) == (np.uint8, 32)
    index = faiss.IndexBinaryFlat(256)
    index.add(given)
    assert cv2.BFMatcher(cv2.NORM_HAMMING).match(given, given)[0].distance == 0


@pytest.mark.parametrize("count", [0, 1])
def test_sets_of_no_and_of_one_code_follow_one_rule(count: int) -> None:
    rng = np.random.default_rng(0)
    five, few = rng.integers(0, 256, (5, 32), np.uint8), rng.integers(0, 256, (count, 32), np.uint8)
    for pair in ((five, few), (few, five)):
        for mode in ("snn", "smnn"):
            values, indices = match(*pair, mode, 0.8)  # type: ignore[arg-type]
            assert indices.shape == (len(values), 2)
            assert len(indices) == 0 or (mode == "snn" and len(pair[1]) == 5)
        assert match(*pair, "mnn")[1].shape == (count, 2)


def test_matches_are_verified_before_the_mapper_looks(
    views: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reconstruct", str(views), str(tmp_path / "out"), "--max-keypoints", "700", "--json", *LITE]) == 0
    pairs = json.loads(capsys.readouterr().out)["pairs"]
    assert pairs["verified"] + pairs["rejected"] == pairs["matched"] == 3
    assert pairs["verified"] >= 2
    (tmp_path / "one").mkdir()
    shutil.copy(next(iter(sorted(views.iterdir()))), tmp_path / "one")
    assert main(["reconstruct", str(tmp_path / "one"), str(tmp_path / "out1"), *LITE]) == 1
    assert "1 usable photos, two that overlap are needed" in capsys.readouterr().err
    assert not (tmp_path / "out1" / "model").exists()
    keypoints = {name: detect(read_image(views / name), "dog", 300) for name in list_images(views)[0][:2]}
    colmap.write_features(tmp_path / "raw.db", keypoints, colmap.Camera(800, 600))
    first, second = keypoints
    rows = np.repeat(np.arange(300)[:, None], 2, 1)
    raw = colmap.write_matches(tmp_path / "raw.db", {(first, second): rows}, verification=False)
    assert (raw.pairs, raw.verified, raw.rejected) == (1, 0, 0)
    with pytest.raises(UsageError, match="not verified; call verify"):
        colmap.reconstruct(tmp_path / "raw.db", views, tmp_path / "model")


def test_the_database_holds_the_types_that_colmap_reads(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).uniform(0, 90, (6, 2))
    colmap.write_features(tmp_path / "d.db", {"a": rows, "b": rows.astype(np.float32)}, colmap.Camera(100, 100))
    indices = np.repeat(np.arange(6, dtype=np.int64)[:, None], 2, 1)
    colmap.write_matches(tmp_path / "d.db", {("a", "b"): indices}, verification=False)
    db = pycolmap.Database.open(str(tmp_path / "d.db"))
    ids = {image.name: image.image_id for image in db.read_all_images()}
    keypoints, matches = db.read_keypoints(ids["a"]), db.read_matches(ids["a"], ids["b"])
    db.close()
    assert (keypoints.dtype, keypoints.shape) == (np.float32, (6, 2))
    assert (matches.dtype, matches.shape) == (np.uint32, (6, 2))
    with pytest.raises(UsageError, match=r"\(6, 3\)"):
        colmap.write_features(tmp_path / "e.db", {"a": np.zeros((6, 3))}, colmap.Camera(100, 100))


def test_half_a_pixel_is_added_once_and_taken_back(tmp_path: Path) -> None:
    colmap.write_features(tmp_path / "d.db", {"a": one_keypoint(10, 20)}, colmap.Camera(100, 100))
    db = pycolmap.Database.open(str(tmp_path / "d.db"))
    assert db.read_keypoints(db.read_all_images()[0].image_id)[0, :2].tolist() == [10.5, 20.5]
    db.close()
    assert colmap.read_features(tmp_path / "d.db")["a"].xy.tolist() == [[10, 20]]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_size_keypoints_and_camera_agree_on_the_orientation(orientation: int, tmp_path: Path) -> None:
    shown = texture(120, 160) if orientation < 5 else texture(160, 120)
    stored = np.ascontiguousarray(np.rot90(shown, {1: 0, 3: 2, 6: 1, 8: 3}[orientation]))
    exif = Image.Exif()
    exif[274] = orientation
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(stored).save(photos / "a.jpg", exif=exif, quality=98)
    size = (shown.shape[1], shown.shape[0])
    assert image_size(photos / "a.jpg") == size
    assert read_image(photos / "a.jpg").shape == shown.shape
    assert main(["describe", str(photos), str(tmp_path / "out"), *LITE]) == 0
    found = Features.read(tmp_path / "out" / "a.jpg.npz")
    assert found.size == size
    xy = detect(shown, "dog").xy[:50]
    distance = np.linalg.norm(xy[:, None] - found.keypoints.xy, axis=2).min(1)
    assert np.mean(distance < 1) > 0.8
    cameras = colmap.cameras_for({"a.jpg": found.size})
    assert (cameras["a.jpg"].width, cameras["a.jpg"].height) == size


def test_fpr95_takes_distances_and_divides_by_negatives() -> None:
    assert fpr95(np.array([1, 2]), np.array([3, 4])) == 0
    assert fpr95(np.array([3, 4]), np.array([1, 2])) == 100
    assert fpr95(np.array([1, 1]), np.array([1, 1])) == 100
    assert fpr95(np.array([1, 2, 3]), np.array([0, 2, 4, 5])) == 50
    with pytest.raises(UsageError, match="NaN"):
        fpr95(np.array([1, np.nan]), np.array([1, 2]))


@pytest.mark.parametrize("absent", ["info.txt", "patches0000.bmp", "m50_100_100_0.txt"])
def test_a_missing_file_of_a_patch_set_is_named(
    absent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "liberty"
    folder.mkdir()
    rng = np.random.default_rng(0)
    cv2.imwrite(str(folder / "patches0000.bmp"), rng.integers(0, 256, (1024, 1024), np.uint8))
    (folder / "info.txt").write_text("".join(f"{index // 2} 0\n" for index in range(256)))
    first = np.arange(100)
    second = first ^ 1  # patches 2k and 2k + 1 show one point
    second[50:] = (first[50:] + 7) % 256
    rows = np.column_stack([first, first // 2, 0 * first, second, second // 2, 0 * first])
    (folder / "m50_100_100_0.txt").write_text("".join(f"{' '.join(map(str, row))}\n" for row in rows))
    read_patch_set(folder).pairs(100)
    (folder / absent).unlink()
    with pytest.raises(UsageError, match=re.escape(absent[:5])):
        read_patch_set(folder).pairs(100)
    words = ["--preset", "brown", "--train", "liberty", "--validate", "liberty", "--validation-pairs", "100"]
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "run"), *words]) == 2
    assert str(folder) in capsys.readouterr().err


def test_perfect_matches_of_two_sizes_have_no_error() -> None:
    H = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]], np.float64)
    small = texture(300, 400)
    large = np.asarray(cv2.resize(small, (800, 600), interpolation=cv2.INTER_CUBIC), np.uint8)
    first = detect(small, "dog", 40)
    both = [first, first.enlarged((2, 2))]
    rows = np.random.default_rng(0).integers(0, 256, (len(first), 32), np.uint8)
    sequence = HomographySequence("pair", "other", (small, large), (H,))
    [found] = hpatches.evaluate(lambda _image, _points: rows, "hamming", 0.8, sequence, both)
    assert found.matches == found.correct == len(first)
    assert found.within == (1.0,) * len(found.within)
    assert found.corner_error_px < 0.01


def test_masks_are_found_by_both_names_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(photos / name), texture(200, 200))
    mask = np.full((200, 200), 255, np.uint8)
    mask[:, :100] = 0
    for name in ("a.jpg.png", "b.png"):
        cv2.imwrite(str(masks / name), mask)
    command = ["describe", str(photos), str(tmp_path / "out"), "--masks", str(masks), *LITE]
    assert main(command) == 0
    assert "2 of 2 photos have a mask" in capsys.readouterr().out
    for name in ("a.jpg", "b.jpg"):
        assert Features.read(tmp_path / "out" / f"{name}.npz").keypoints.xy[:, 0].min() >= 100
    assert detect(texture(200, 200), "dog", 500, mask).xy[:, 0].min() >= 100
    cv2.imwrite(str(masks / "b.png"), mask[:100, :100])
    assert main(command) == 2
    assert "100 x 100" in capsys.readouterr().err


def test_hidden_and_foreign_files_are_counted_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    (photos / "empty").mkdir(parents=True)
    for name in ("IMG_1.JPG", "b.PNG", "c.tif"):
        cv2.imwrite(str(photos / name), texture(100, 120))
    (photos / ".DS_Store").write_bytes(b"\0")
    (photos / "notes.txt").write_text("notes")
    names, skipped = list_images(photos)
    assert names == ["IMG_1.JPG", "b.PNG", "c.tif"]
    assert [item.name for item in skipped] == [".DS_Store", "notes.txt"]
    assert main(["describe", str(photos), str(tmp_path / "out"), "--json", *LITE]) == 0
    values = json.loads(capsys.readouterr().out)
    assert list(values["keypoints"]) == names
    assert [item["name"] for item in values["skipped"]] == [".DS_Store", "notes.txt"]
    done = subprocess.run(["ls", str(tmp_path / "out")], capture_output=True, text=True, check=True)
    assert ".DS_Store" not in done.stdout
