"""Photos that come, go and change after a run; and what is left when that fails or is killed."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import cv2
import pytest

from kornia_bingan.colmap import read_images, read_model, read_verification
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.reconstruct import update
from kornia_bingan.reconstruct.matches import Block, read_blocks
from kornia_bingan.reconstruct.options import MatchOptions, ReconstructOptions
from kornia_bingan.reconstruct.pipeline import reconstruct_photos
from kornia_bingan.reconstruct.summary import Summary
from kornia_bingan.reconstruct.update import place_for
from kornia_bingan.work.files import sha256_of
from kornia_bingan.work.identity import read_identity, write_identity
from kornia_bingan.work.options import FeatureOptions
from tests.conftest import run_and_die
from tests.helpers.photos import texture
from tests.helpers.scenes import copy_scene

pytestmark = pytest.mark.usefixtures("_described_once")

OPTIONS = ReconstructOptions(FeatureOptions(descriptor="bingan256-lite", max_keypoints=600))
NAMES = [f"view_{number:03d}.jpg" for number in range(6)]
FIRST, LATER = [NAMES[1], NAMES[2], NAMES[3], NAMES[5]], [NAMES[0], NAMES[4]]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    copy_scene(folder, 6)
    return folder / "images"


def take(scene: Path, names: list[str], photos: Path) -> None:
    photos.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(scene / name, photos / name)


@pytest.fixture(scope="module")
def finished(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ and out/, a run of four photos."""
    folder = tmp_path_factory.mktemp("finished")
    take(scene, FIRST, folder / "photos")
    reconstruct_photos(folder / "photos", folder / "out", OPTIONS)
    (folder / "out" / "report.html").write_text("of the old model")
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path, dirs_exist_ok=True))


@pytest.fixture(scope="module")
def grown(finished: Path, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, gone on with two photos that nothing disturbed."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("grown") / "all"))
    take(scene, LATER, folder / "photos")
    reconstruct_photos(folder / "photos", folder / "out", OPTIONS)
    return folder


def results(out: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in [*(out / "model").iterdir(), out / "points.ply"]}


def test_added_photos_join_the_model_and_nothing_is_done_twice(
    finished: Path, grown: Path, scene: Path, tmp_path: Path
) -> None:
    before, out = finished / "out", grown / "out"
    summary = Summary.read(out / "summary.json")
    assert summary.images == summary.registered == 6
    assert summary.pairs.tried == 15
    assert read_model(out / "model").names == tuple(NAMES)
    assert set(summary.seconds) == {"describe", "match", "verify", "map"}
    said = (out / "log" / "bingan.txt").read_text()
    assert "2 photos were added since the last run" in said
    assert "goes on from" in said
    for folder, names in (("features", [f"{name}.npz" for name in FIRST]), ("matches", ["000000.npz"])):
        for name in names:
            assert (out / folder / name).read_bytes() == (before / folder / name).read_bytes()
    assert [len(block.pairs) for _, block in read_blocks(out / "matches")] == [6, 9]
    old, new = (read_verification(folder / "database.db").inliers for folder in (before, out))
    assert old.items() <= new.items()
    assert {tuple(sorted(pair)) for pair in new} <= set(combinations(NAMES, 2))
    assert not (out / "next").exists()
    assert not (out / "models").exists()
    assert not (out / "report.html").exists()
    assert sorted(read_identity(out)["photos"]) == NAMES
    whole = reconstruct_photos(scene, tmp_path / "whole", OPTIONS)
    assert whole.registered == 6
    assert summary.points == pytest.approx(whole.points, rel=0.03)
    again = reconstruct_photos(grown / "photos", out, OPTIONS)
    assert again == summary


@pytest.mark.parametrize("reached", ["matches/000001.npz", "next/database.db", "model"])
def test_a_killed_update_goes_on_and_the_old_model_stays_until_then(
    reached: str, copy: Path, finished: Path, grown: Path, scene: Path
) -> None:
    take(scene, LATER, copy / "photos")
    program = (
        "from pathlib import Path\n"
        "from kornia_bingan.reconstruct.options import ReconstructOptions\n"
        "from kornia_bingan.reconstruct.pipeline import reconstruct_photos\n"
        "from kornia_bingan.work.options import FeatureOptions\n"
        f"options = ReconstructOptions({OPTIONS.features!r})\n"
        f"reconstruct_photos(Path({str(copy / 'photos')!r}), Path({str(copy / 'out')!r}), options)\n"
    )
    run_and_die(program, copy / "out" / reached)
    out = copy / "out"
    if reached != "model":
        assert results(out) == results(finished / "out")
        assert Summary.read(out / "summary.json") == Summary.read(finished / "out" / "summary.json")
    assert reconstruct_photos(copy / "photos", out, OPTIONS).registered == 6
    assert results(out) == results(grown / "out")
    assert not (out / "next").exists()


def test_a_photo_that_is_gone_is_said_and_the_model_made_anew(
    copy: Path, scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (copy / "photos" / FIRST[3]).unlink()
    take(scene, LATER[:1], copy / "photos")
    summary = reconstruct_photos(copy / "photos", copy / "out", OPTIONS)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"1 photos of the last run are gone: {FIRST[3]}"]
    assert summary.images == summary.registered == 4
    remain = sorted([*FIRST[:3], *LATER[:1]])
    assert read_images(copy / "out" / "database.db") == remain
    assert sorted(path.name for path in (copy / "out" / "features").iterdir()) == [f"{name}.npz" for name in remain]
    reconstruct_photos(copy / "photos", tmp_path / "fresh", OPTIONS)
    assert results(copy / "out") == results(tmp_path / "fresh")


def test_a_changed_photo_is_described_again(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = copy / "photos" / FIRST[0]
    features = copy / "out" / "features" / f"{FIRST[0]}.npz"
    before = features.read_bytes()
    picture = cv2.imread(str(path))
    assert picture is not None
    cv2.imwrite(str(path), picture[:, :600])
    summary = reconstruct_photos(copy / "photos", copy / "out", OPTIONS)
    assert f"1 photos of the last run have changed: {FIRST[0]}" in caplog.text
    assert features.read_bytes() != before
    cameras = {camera.width for camera in read_model(copy / "out" / "model").cameras}
    assert cameras == {600, 800}
    assert summary.registered == 4


def test_an_update_that_fails_leaves_the_old_model(copy: Path, finished: Path) -> None:
    """Photos of nothing common give no model; with the old photos back, the old summary is given again."""
    photos, out = copy / "photos", copy / "out"
    shutil.rmtree(photos)
    photos.mkdir()
    for seed in (1, 2):
        cv2.imwrite(str(photos / f"{seed}.png"), texture(300, 300, seed))
    with pytest.raises(JobError, match=r"1 pairs tried.*model stays as it was"):
        reconstruct_photos(photos, out, OPTIONS)
    assert results(out) == results(finished / "out")
    with pytest.raises(JobError, match="stays as it was"):
        reconstruct_photos(photos, out, OPTIONS)
    (photos / "2.png").unlink()
    with pytest.raises(JobError, match=r"1 usable photos.*model stays as it was"):
        reconstruct_photos(photos, out, OPTIONS)
    shutil.rmtree(photos)
    shutil.copytree(finished / "photos", photos)
    assert reconstruct_photos(photos, out, OPTIONS) == Summary.read(finished / "out" / "summary.json")
    assert results(out) == results(finished / "out")
    assert not (out / "next").exists()
    assert (out / "report.html").exists()


def test_a_run_without_a_model_goes_on_when_the_missing_photos_come(scene: Path, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for seed in (1, 2):
        cv2.imwrite(str(photos / f"{seed}.png"), texture(300, 300, seed))
    with pytest.raises(JobError, match=r"rejected$"):  # nothing is said of an older model
        reconstruct_photos(photos, out, OPTIONS)
    take(scene, FIRST, photos)
    summary = reconstruct_photos(photos, out, OPTIONS)
    assert [model.photos for model in summary.models] == [FIRST]
    assert [item["name"] for item in summary.unregistered] == ["1.png", "2.png"]
    assert not (out / "next").exists()


def test_other_options_are_refused_with_new_photos_too(copy: Path, scene: Path, finished: Path) -> None:
    take(scene, LATER, copy / "photos")
    with pytest.raises(UsageError, match=r"holds another run \(ratio 0\.8, now 0\.7\)"):
        reconstruct_photos(copy / "photos", copy / "out", replace(OPTIONS, matches=MatchOptions(ratio=0.7)))
    assert results(copy / "out") == results(finished / "out")
    assert not (copy / "out" / "next").exists()


# --- the folder alone -------------------------------------------------------------------------------------------------


def identity(photos: dict[str, str], **more: object) -> dict[str, object]:
    return {"ratio": 0.8, "photos": photos, **more}


def test_before_there_is_a_database_a_run_takes_other_photos_in_its_own_place(tmp_path: Path) -> None:
    write_identity(tmp_path, identity({"a": "1", "b": "2"}))
    (tmp_path / "features").mkdir()
    for name in ("a", "b"):
        (tmp_path / "features" / f"{name}.npz").write_text(name)
    Block((("a", "b"),), ()).write(tmp_path / "matches" / "000000.npz")
    (tmp_path / "unverified.db").write_text("of a and b")
    wanted = identity({"b": "2", "c": "3"})
    assert place_for(tmp_path, wanted, ["b", "c"]) == (tmp_path, None)
    assert read_identity(tmp_path) == wanted
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b.npz", "features", "matches", "run.json"]


def test_without_its_database_a_model_stays_but_is_not_continued(tmp_path: Path) -> None:
    write_identity(tmp_path, identity({"a": "1"}))
    (tmp_path / "summary.json").write_text("{}")
    wanted = identity({"a": "1", "b": "2"})
    assert place_for(tmp_path, wanted, ["a", "b"]) == (tmp_path / "next", None)
    assert place_for(tmp_path, wanted, ["a", "b"]) == (tmp_path / "next", None)
    assert read_identity(tmp_path) == identity({"a": "1"})
    assert read_identity(tmp_path / "next") == wanted


def test_photos_of_an_update_that_was_given_up_are_forgotten(tmp_path: Path) -> None:
    """Else another photo of the name would get their features later."""
    write_identity(tmp_path, identity({"a": "1"}))
    coming = tmp_path / "next"
    coming.mkdir()
    write_identity(coming, identity({"a": "1", "b": "2"}))
    (tmp_path / "features").mkdir()
    for name in ("a", "b"):
        (tmp_path / "features" / f"{name}.npz").write_text(name)
    assert place_for(tmp_path, identity({"a": "1"}), ["a"]) == (tmp_path, None)
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["a.npz"]
    assert not coming.exists()


@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize("steps", range(8))
def test_results_take_their_place_however_often_that_is_killed(
    steps: int, others: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two old models and one or two new ones; after every step, the next call does the rest."""
    coming = tmp_path / "next"
    for folder, word in ((tmp_path, "old"), (coming, "new")):
        for name in ("model/x.bin", "models/1/x.bin", "database.db", "points.ply", "seconds.json", "summary.json"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(word)
    if not others:
        shutil.rmtree(coming / "models" / "1")
    write_identity(tmp_path, identity({"a": "1"}))
    wanted = identity({"a": "1", "b": "2"})
    write_identity(coming, wanted)
    rename, done = os.replace, []

    def rename_or_die(source: Path, target: Path) -> None:
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(target)
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(update.os, "replace", rename_or_die)
        with pytest.raises(KeyboardInterrupt):
            update.take_place(tmp_path)
    assert place_for(tmp_path, wanted, ["a", "b"]) == (tmp_path, None)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    left = {name for name in left if ".partial" not in name}  # open_run removes these
    names = {"model/x.bin", "database.db", "points.ply", "seconds.json", "summary.json", "run.json"}
    assert left == names | ({"models/1/x.bin"} if others else set())
    assert (tmp_path / "models").exists() == others
    assert all((tmp_path / name).read_text() == "new" for name in left - {"run.json"})
    assert read_identity(tmp_path) == wanted
