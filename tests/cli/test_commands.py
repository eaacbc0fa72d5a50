from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tqdm import tqdm

import kornia_bingan
from kornia_bingan.cli import entry
from kornia_bingan.cli.commands import COMMANDS
from kornia_bingan.work import engine
from kornia_bingan.work.run_folder import QUIET, no_progress
from tests.helpers.photos import texture, write_photos
from tests.helpers.scenes import copy_scene

FEW = ["--descriptor", "bingan256-lite", "--max-keypoints", "500"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    copy_scene(folder, 3, half=True)
    return folder / "images"


def test_version_help_and_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--version"]) == 0
    assert capsys.readouterr().out == f"bingan {kornia_bingan.__version__}\n"
    assert entry.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n  {name} " in listed for name in [*COMMANDS, "train"])
    assert max(map(len, listed.splitlines())) <= 100
    assert entry.main([]) == 2
    assert entry.main(["fly"]) == 2
    assert "Available subcommands: reconstruct" in capsys.readouterr().err
    assert entry.main(["--tyro-print-completion", "bash"]) == 0
    assert "# Bash completion for bingan" in capsys.readouterr().out
    assert entry.main(["describe"]) == 2
    assert "bingan describe --help" in capsys.readouterr().err
    assert entry.main(["train", "--help"]) == 0
    assert "lambda-two-view" in capsys.readouterr().out


def test_help_loads_no_heavy_library() -> None:
    program = "import sys; from kornia_bingan import cli; cli.main(['--help'])\n"
    program += "print([m for m in ('torch', 'cv2', 'pycolmap', 'faiss', 'kornia', 'typeguard') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")


def test_match_draws_a_picture_and_counts(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = sorted(photos.iterdir())[:2]
    picture = tmp_path / "matches.png"
    assert entry.main(["match", str(first), str(second), "--out", str(picture), "--json", *FEW]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["keypoints0"] == counts["keypoints1"] == 500
    assert counts["matches"] >= counts["inliers"] > 30
    drawn = cv2.imread(str(picture))
    assert drawn is not None
    assert drawn.shape == (300, 800, 3)
    assert entry.main(["match", str(first), str(second), *FEW]) == 0
    assert f"{counts['inliers']:,}" in capsys.readouterr().out


def test_match_in_context(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = sorted(photos.iterdir())[:2]
    words = ["match", str(first), str(second), "--json", *FEW, "--descriptor", "bingan256-lite"]
    found = []
    for more in (
        ["--matcher", "ratio"],
        ["--matcher", "context"],
        ["--probability", "0.99", "--min-matches", "0"],
        ["--no-align"],
        [],
    ):
        assert entry.main([*words, *more]) == 0
        found.append(json.loads(capsys.readouterr().out)["matches"])
    assert found[1] != found[0]
    assert 0 < found[2] < found[1] <= found[3]
    assert found[4] == found[1], "shipped weights are matched in context"
    for wrong, said in (
        (["--matcher", "context", "--probability", "1.5"], "the probability is 1.5"),
        (["--min-matches", "-1"], "the least number of matches is -1; give 0 or more"),
        (["--matcher", "context", "--descriptor", "bingan256-published"], "no context for 'bingan256-published'"),
        (["--matcher", "magic"], "magic"),
    ):
        assert entry.main([*words[:-2], *wrong]) == 2
        assert said in capsys.readouterr().err


def test_match_of_unrelated_and_of_uniform_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((480, 640), 128, np.uint8))
    cv2.imwrite(str(tmp_path / "other.png"), texture(200, 200))
    out = tmp_path / "m.png"
    assert (
        entry.main(["match", str(tmp_path / "grey.png"), str(tmp_path / "other.png"), "--out", str(out), "--json"]) == 0
    )
    counts = json.loads(capsys.readouterr().out)
    assert counts["keypoints0"] == counts["matches"] == counts["inliers"] == 0
    assert out.is_file()


def test_wrong_use_is_one_sentence_and_exit_2(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = str(sorted(photos.iterdir())[0])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    for command in (
        ["match", first, str(tmp_path / "absent.jpg"), *FEW],
        ["match", first, str(tmp_path / "text.jpg"), *FEW],
        ["match", first, first, "--out", str(tmp_path / "m.xyz"), *FEW],
        ["match", first, first, "--out", str(tmp_path / "absent" / "m.png"), *FEW],
        ["match", first, first, "--ratio", "3", *FEW],
        ["match", first, first, "--descriptor", "nothing"],
        ["match", first, first, "--descriptor", str(tmp_path / "bad.safetensors")],
        ["reconstruct", str(tmp_path / "empty"), str(tmp_path / "out")],
        ["reconstruct", str(photos), str(tmp_path)],
        ["describe", str(tmp_path / "empty"), str(tmp_path / "out")],
        ["patches", str(tmp_path / "out")],
        ["train", "--data", str(tmp_path / "empty"), "--out", str(tmp_path / "run")],
        ["train", "--data", str(photos), "--out", str(tmp_path / "run"), "--preset", "best"],
    ):
        assert entry.main(command) == 2, command
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.splitlines()[-1].startswith("bingan: "), captured.err
        assert "Traceback" not in captured.err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "run").exists()


def test_describe_writes_one_file_a_photo(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["describe", str(photos), str(tmp_path / "out"), "--json", *FEW]) == 0
    result = json.loads(capsys.readouterr().out)
    names = sorted(path.name for path in photos.iterdir())
    assert result["keypoints"] == dict.fromkeys(names, 500)
    with np.load(tmp_path / "out" / f"{names[0]}.npz") as file:
        assert file["codes"].shape == (500, 32)
        assert file["xy"].shape == (500, 2)
    assert entry.main(["describe", str(photos), str(tmp_path / "out"), *FEW]) == 0
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"x")
    assert entry.main(["describe", str(tmp_path / "broken"), str(tmp_path / "none")]) == 1
    assert "none of the 1 photos" in capsys.readouterr().err


def test_reconstruct_prints_the_summary(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reconstruct", str(photos), str(tmp_path / "out"), *FEW]
    assert entry.main([*command, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["registered"] == 3
    assert entry.main(command) == 0
    assert "registered photos" in capsys.readouterr().out


def test_no_model_is_exit_1_with_the_statistics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in (1, 2):
        cv2.imwrite(str(photos / f"{seed}.png"), texture(300, 300, seed))
    assert entry.main(["reconstruct", str(photos), str(tmp_path / "out"), *FEW]) == 1
    captured = capsys.readouterr()
    assert "pairs tried" in captured.err
    assert captured.out == ""


def test_train_takes_the_settings_of_the_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(tmp_path / "photos", 3)
    command = ["train", "--data", str(tmp_path / "photos"), "--out", str(tmp_path / "run"), "--steps", "1", "--json"]
    command += [
        "--batch-size",
        "8",
        "--photos-per-batch",
        "2",
        "--validation-pairs",
        "20",
        "--layers",
        "8",
        "2",
        "8",
        "2",
    ]
    assert entry.main([*command, "--max-keypoints", "50", "--threads", "1", "--jitter.noise", "0.01"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["finished"]
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert config["layers"] == [[8, 2], [8, 2]]
    assert config["jitter"]["noise"] == 0.01
    assert config["lambda_two_view"] == 1.0


def test_interrupt_is_exit_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "_run", interrupted)
    assert entry.main(["demo"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_quiet_runs_show_no_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(QUIET, "")
    assert no_progress() is None
    photos = write_photos(tmp_path / "photos", 2)
    seen: list[object] = []

    def bar(**settings: Any) -> Any:
        seen.append(settings["disable"])
        return tqdm(**settings)

    monkeypatch.setattr(engine, "tqdm", bar)
    for words in ((), ("--quiet",)):
        out = tmp_path / f"out{len(words)}"
        assert entry.main(["describe", str(photos), str(out), "--descriptor", "bingan256-lite", *words]) == 0
    assert seen == [None, True]
