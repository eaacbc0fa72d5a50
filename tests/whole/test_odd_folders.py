"""Folders, names and places as people have them, through the command line: one sentence each, never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_bingan.cli import main
from kornia_bingan.datasets.brown import write_patch_set
from kornia_bingan.images.folders import Skipped, list_images
from kornia_bingan.reconstruct import features
from kornia_bingan.work.files import printable
from kornia_bingan.work.run_folder import LOG, QUIET, log_to
from tests.helpers.photos import texture
from tests.helpers.programs import bingan, run_program
from tests.helpers.scenes import copy_scene

LITE = ("--descriptor", "bingan256-lite", "--max-keypoints", "400")
LATIN = os.fsdecode(b"latin-\xe9")
"""A name that is not UTF-8, as old cameras and archives leave it."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    copy_scene(folder, 3, half=True)
    return folder / "images"


def two_photos(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for seed in range(2):
        cv2.imencode(".png", texture(100, 120, seed))[1].tofile(folder / f"{seed}.png")
    return folder


def shell(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "kornia_bingan.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment}, check=False)


def test_what_a_terminal_cannot_show_is_escaped() -> None:
    assert printable("a b\u00e9\u0301 'q'.jpg") == "a b\u00e9\u0301 'q'.jpg"
    assert printable(f"a\nb\x1b[31m{LATIN}\u2028\ud800") == r"a\nb\x1b[31mlatin-\xe9\u2028\ud800"


def test_names_that_are_not_utf8_or_hold_line_breaks_go_through_every_page(scene: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(scene, photos)
    (photos / f"{LATIN}.jpg").write_bytes(b"x")
    (photos / f"{LATIN}.txt").write_bytes(b"x")
    (photos / "line\nbreak.jpg").write_bytes(b"x")
    for number, path in enumerate(sorted(scene.iterdir())):
        (photos / path.name).rename(photos / ("good\n.jpg", "caf\u00e9.jpg", "cafe\u0301.jpg")[number])
    words = ["reconstruct", str(photos), str(tmp_path / "out"), *LITE]
    of_ascii = "import sys; sys.stdout.reconfigure(encoding='ascii')\n"
    done = run_program(f"{of_ascii}from kornia_bingan.cli import main\nraise SystemExit(main({words!r}))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    lines = done.stdout.splitlines()
    assert "3 files skipped:" in lines
    assert [line.partition(":")[0] for line in lines if line.startswith("skipped ")] == [
        r"skipped latin-\xe9.jpg",
        r"skipped latin-\xe9.txt",
        r"skipped line\nbreak.jpg",
    ]
    assert r"latin-\xe9.jpg" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    log = (tmp_path / "out" / "log" / "bingan.txt").read_text(encoding="utf-8")
    assert r"WARNING skipped latin-\xe9.txt: .txt is not a kind of picture read here" in log
    done = shell("describe", photos, tmp_path / "described", *LITE, LC_ALL="C")
    assert done.returncode == 0, done.stderr.decode()
    assert rb"good\n.jpg" in done.stdout
    assert len(list((tmp_path / "described").glob("*.npz"))) == 3


def test_a_folder_that_is_not_utf8_holds_photos_all_the_same(scene: Path, tmp_path: Path) -> None:
    photos = tmp_path / LATIN
    shutil.copytree(scene, photos)
    assert len(list_images(photos)[0]) == 3
    assert main(["reconstruct", str(photos), str(tmp_path / f"{LATIN} out"), *LITE]) == 0
    first, second = sorted(photos.iterdir())[:2]
    picture = tmp_path / f"{LATIN}.png"
    done = bingan("match", first, second, "--out", picture, *LITE)
    assert done.returncode == 0, done.stderr
    assert cv2.imdecode(np.fromfile(picture, np.uint8), cv2.IMREAD_COLOR) is not None
    assert main(["index", str(photos), str(tmp_path / f"{LATIN} index"), *LITE[:2]]) == 0
    page = tmp_path / f"{LATIN}.html"
    assert main(["search", str(tmp_path / f"{LATIN} index"), str(first), "--out", str(page)]) == 0
    assert page.stat().st_size > 0


@pytest.mark.parametrize("command", ["reconstruct", "describe", "index", "patches"])
def test_a_place_that_cannot_be_written_is_named(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = two_photos(tmp_path / "photos")
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below", photos):
        assert main([command, str(photos), str(place)]) in (1, 2)
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("bingan: ")
        assert str(place if place == photos else tmp_path / "file") in said
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in photos.iterdir()) == ["0.png", "1.png"]


def test_training_names_what_it_skips_and_refuses_other_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = two_photos(tmp_path / "photos")
    (photos / "half.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "file").write_text("mine")
    words = ["train", "--data", str(photos), "--steps", "1", "--batch-size", "8", "--validation-pairs", "8"]
    assert main([*words, "--out", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert main([*words, "--out", str(photos)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "run"), "--json"]) == 0
    assert [item["name"] for item in json.loads(capsys.readouterr().out)["skipped"]] == ["half.jpg"]
    log = (tmp_path / "run" / "log" / "bingan.txt").read_text()
    assert "WARNING skipped half.jpg: is" in log


def test_results_beside_the_photos_are_not_photos(tmp_path: Path) -> None:
    photos = two_photos(tmp_path / "photos")
    assert main(["describe", str(photos), str(photos / "out"), *LITE]) == 0
    two_photos(photos / "out" / "pictures of a run")
    assert list_images(photos) == (["0.png", "1.png"], [Skipped("out", "results of an earlier run")])
    assert main(["describe", str(photos), str(photos / "out"), *LITE]) == 0


def test_equal_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = two_photos(tmp_path / "photos")
    shutil.copy(photos / "0.png", photos / "copy.png")
    (photos / "z").symlink_to(photos)
    assert main(["describe", str(photos), str(tmp_path / "out"), *LITE]) == 0
    out = capsys.readouterr().out
    assert "3 photos described" in out
    assert "1 files skipped" in out
    assert "copy.png is the same file as 0.png" in out
    assert "skipped z: link to a folder that holds it" in out
    codes = [features.Features.read(tmp_path / "out" / f"{name}.npz").codes for name in ("0.png", "copy.png")]
    np.testing.assert_array_equal(*codes)


def test_the_exit_status_tells_of_unreadable_photos_where_it_is_asked_to(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(scene, photos)
    (photos / "notes.txt").write_text("no photo, and no fault")
    for command in ("describe", "reconstruct"):
        assert main([command, str(photos), str(tmp_path / command), "--strict", *LITE]) == 0
    data = (photos / "view_000.jpg").read_bytes()
    (photos / "half.jpg").write_bytes(data[: len(data) // 2])
    for command in ("describe", "reconstruct"):
        out = tmp_path / f"{command} again"
        assert main([command, str(photos), str(out), *LITE]) == 0
        capsys.readouterr()
        assert main([command, str(photos), str(out), "--strict", *LITE]) == 1
        assert "1 photos cannot be read, and --strict was given" in capsys.readouterr().err


def test_the_log_holds_stages_warnings_and_the_end_also_in_quiet_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = two_photos(tmp_path / "photos")
    monkeypatch.setenv(QUIET, "")
    assert main(["reconstruct", str(photos), str(tmp_path / "out"), "--quiet", *LITE]) == 1
    lines = (tmp_path / "out" / "log" / "bingan.txt").read_text().splitlines()
    assert "started: " in lines[0]
    assert "kornia_bingan 0." in lines[0]
    assert "pycolmap 4." in lines[0]
    assert any("describe: started" in line for line in lines)
    assert any("match: 0." in line for line in lines)
    assert "ERROR ended by NoModelError: " in lines[-1]
    for quiet, count in (("1", 0), ("", 1)):
        monkeypatch.setenv(QUIET, quiet)
        shown: list[object] = []
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            monkeypatch.setattr(warnings, "showwarning", lambda *words: shown.append(words))  # noqa: B023
            with log_to(tmp_path / f"log{quiet}.txt"):
                warnings.warn("of a library", stacklevel=1)
        text = (tmp_path / f"log{quiet}.txt").read_text()
        assert "WARNING UserWarning: of a library" in text
        assert text.endswith("INFO done\n")
        assert len(shown) == count
    assert LOG.handlers == []


def test_a_full_disk_is_a_sentence_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = two_photos(tmp_path / "photos")

    def full(path: Path, **_arrays: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(features.np, "savez", full)
    assert main(["describe", str(photos), str(tmp_path / "out"), *LITE]) == 1
    assert "no space left on device" in capsys.readouterr().err
    assert list((tmp_path / "out").rglob("*.npz")) == []


def test_thousands_of_files_that_are_no_photos_are_named(tmp_path: Path) -> None:
    photos = two_photos(tmp_path / "photos")
    for number in range(3000):
        (photos / f"{number}.jpg").write_bytes(b"no picture %d" % number)
    done = bingan("describe", photos, tmp_path / "out", "--json", *LITE)
    assert done.returncode == 0
    values = json.loads(done.stdout)
    assert len(values["keypoints"]) == 2
    assert len(values["skipped"]) == 3000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["describe", "", "out"], "argument 2 is empty"),
        (["describe", "photos", "out", "--max-size", "5"], "max_size is 5"),
        (["reconstruct", "photos", "out", "--intrinsics", "600,600,nan,300"], "got 600, 600, nan, 300"),
        (["reconstruct", "photos", "out", "--seed", "-1"], "the seed is -1"),
        (["reconstruct", "photos", "out", "--focal-px", "inf"], "the focal length is inf"),
        (["train", "--data", "photos", "--out", "out", "--seed", "-1"], "seed is -1"),
        (["train", "--data", "photos", "--out", "out", "--learning-rate", "nan"], "learning_rate is nan"),
        (["train", "--data", "photos", "--out", "out", "--time-limit", "inf"], "time_limit is inf"),
        (["match", "photos/0.png", "photos/1.png", "--out", "absent/m.png"], "absent/m.png cannot be written"),
        (["match", "photos", "photos/1.png"], "photos is a folder"),
    ],
)
def test_odd_words_are_refused_before_anything_is_written(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_panorama_that_is_too_long_is_skipped_and_max_size_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = two_photos(tmp_path / "photos")
    long = np.tile(texture(60, 4000), 10)
    cv2.imwrite(str(photos / "long.png"), long)
    assert main(["describe", str(photos), str(tmp_path / "out"), "--json", *LITE]) == 0
    values = json.loads(capsys.readouterr().out)
    assert list(values["keypoints"]) == ["0.png", "1.png"]
    assert "40000 x 60; sides must be below 32,767 pixels" in values["skipped"][0]["reason"]
    words = ["describe", str(photos), str(tmp_path / "out2"), "--max-size", "8000", "--json", *LITE]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["keypoints"]["long.png"] > 0


def test_photos_with_the_longest_names_that_there_are_go_to_the_end(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path, length in zip(sorted(scene.iterdir()), (231, 250, 251), strict=True):
        shutil.copy(path, photos / ("a" * length + ".jpg"))
    assert main(["reconstruct", str(photos), str(tmp_path / "out"), "--json", *LITE]) == 0
    assert json.loads(capsys.readouterr().out)["registered"] == 3
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert all("a" * length + ".jpg" in page for length in (231, 250, 251))


def test_linked_folders_are_followed_once_and_not_in_a_circle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = two_photos(tmp_path / "elsewhere")
    two_photos(tmp_path / "disk" / "deep")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "photos")
    (tmp_path / "disk" / "round").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "on").symlink_to(elsewhere)
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, target in (("a", elsewhere), ("b", elsewhere), ("c", tmp_path / "disk"), ("d", tmp_path)):
        (photos / name).symlink_to(target)
    names, skipped = list_images(photos)
    assert names == ["a/0.png", "a/1.png", "c/deep/0.png", "c/deep/1.png"]
    assert skipped == [
        Skipped("b", "link to a folder that is listed as a"),
        Skipped("c/back", "link to a folder that holds it, not followed"),
        Skipped("c/on", "link to a folder that is listed as a"),
        Skipped("c/round", "link to a folder that holds it, not followed"),
        Skipped("d", "link to a folder that holds it, not followed"),
    ]
    assert main(["describe", str(photos), str(tmp_path / "out"), "--json", *LITE]) == 0
    assert list(json.loads(capsys.readouterr().out)["keypoints"]) == names


def test_masks_below_the_photos_are_no_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = two_photos(tmp_path / "photos")
    (photos / "masks").mkdir()
    for name in ("0.png", "1.png.png"):
        cv2.imwrite(str(photos / "masks" / name), np.full((100, 120), 255, np.uint8))
    words = ["describe", str(photos), str(tmp_path / "out"), "--masks", str(photos / "masks"), "--json", *LITE]
    for _ in range(2):
        assert main(words) == 0
        values = json.loads(capsys.readouterr().out)
        assert list(values["keypoints"]) == ["0.png", "1.png"]
        assert values["masked"] == 2
        assert values["skipped"] == [{"name": "masks", "reason": "the folder of masks"}]
    assert list_images(photos)[1] == [Skipped("masks/1.png.png", "the mask of 1.png")], "known without --masks too"
    shutil.copy(photos / "masks" / "0.png", photos / "0.png.png")
    words = ["describe", str(photos), str(tmp_path / "beside"), "--masks", str(photos), "--json", *LITE]
    shutil.rmtree(photos / "masks")
    assert main(words) == 0
    values = json.loads(capsys.readouterr().out)
    assert list(values["keypoints"]) == ["0.png", "1.png"]
    assert values["masked"] == 1


def test_what_this_package_and_storage_boxes_leave_among_photos_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = two_photos(tmp_path / "photos")
    thumbnail = photos / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.png"
    thumbnail.parent.mkdir(parents=True)
    shutil.copy(photos / "0.png", thumbnail)
    write_patch_set(photos / "set", np.zeros((4, 64, 64), np.uint8), np.array([0, 0, 1, 1]), np.zeros(4, np.int64))
    two_photos(photos / "out.photos")
    (photos / "out.photos" / ".fetched.json").write_text("{}")
    assert main(["index", str(photos), str(photos / "index"), *LITE[:2]]) == 0
    capsys.readouterr()
    expected = [
        Skipped("@eaDir", "folder of a storage box or an archive program"),
        Skipped("index", "index of photos"),
        Skipped("out.photos", "photos fetched by an earlier run"),
        Skipped("set", "patch set"),
    ]
    assert list_images(photos) == (["0.png", "1.png"], expected)
    assert list_images(photos / "out.photos")[0] == ["0.png", "1.png"], "a folder that is asked for is read"
    for path in photos.glob("*.png"):
        path.unlink()
    for command in ("reconstruct", "describe", "index", "patches"):
        assert main([command, str(photos), str(tmp_path / command)]) == 2
        assert "of 4 other files and folders none is one (@eaDir: folder of a storage" in capsys.readouterr().err


def test_thermal_photos_have_keypoints_and_the_same_ones_after_a_retry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(2):
        thermal = 29_000 + texture(100, 120, seed).astype(np.uint16) * 3 * (seed + 1)
        cv2.imwrite(str(photos / f"{seed}.png"), thermal)
    assert main(["describe", str(photos), str(tmp_path / "whole"), "--json", *LITE]) == 0
    assert min(json.loads(capsys.readouterr().out)["keypoints"].values()) > 20
    log = (tmp_path / "whole" / "log" / "bingan.txt").read_text()
    assert "WARNING photos of 16 bits use 29000 to 30530 of 65535: all are stretched" in log
    shutil.copytree(tmp_path / "whole", tmp_path / "retry")
    (tmp_path / "retry" / "1.png.npz").unlink()
    assert main(["describe", str(photos), str(tmp_path / "retry"), *LITE]) == 0
    for name in ("0.png.npz", "1.png.npz"):
        assert (tmp_path / "retry" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
