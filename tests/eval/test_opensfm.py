"""A program that is called as OpenSfM's stands in for it; OpenSfM itself ran for the table of docs/hosts.md."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.quality import opensfm
from eval.show.tables import ROOT
from kornia_bingan.errors import JobError, UsageError

PROGRAM = """
import json, os, sys
from pathlib import Path
step, folder = sys.argv[1], Path(sys.argv[2])
with open(folder / "steps.txt", "a") as file:
    file.write(step + " ")
if step == "match_features" and "SIFT" in (folder / "config.yaml").read_text():
    sys.exit("no SIFT here")
if step == "reconstruct" and os.environ.get("LINE") == "ran":
    assert len(list((folder / "images").iterdir())) == 3
    assert (folder / "config.yaml").read_text() == "feature_type: ORB\\nmatcher_type: BRUTEFORCE\\n"
    models = [{"shots": {"a": 0}}, {"shots": {"b": 0, "c": 0}}]
    (folder / "reconstruction.json").write_text(json.dumps(models))
if step == "compute_statistics":
    (model,) = json.loads((folder / "reconstruction.json").read_text())
    numbers = {"reconstructed_points_count": 100 * len(model["shots"]), "average_track_length": 2.5,
               "reprojection_error_pixels": 0.25}
    (folder / "stats").mkdir()
    (folder / "stats" / "stats.json").write_text(json.dumps({"reconstruction_statistics": numbers}))
    assert (folder / "steps.txt").read_text().split() == [
        "extract_metadata", "detect_features", "match_features", "create_tracks", "reconstruct", "compute_statistics"]
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "opensfm"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "opensfm_main.py").write_text(PROGRAM)
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "sets" / "beach").mkdir(parents=True)
    for index in range(3):
        cv2.imwrite(str(tmp_path / "sets" / "beach" / f"{index}.png"), np.zeros((8, 8), np.uint8))
    settings = {"ours": ("\nimport os\nos.environ['LINE'] = 'ran'\n", opensfm.SETTINGS["bingan256"][1])}
    monkeypatch.setattr(opensfm, "SETTINGS", {**settings, "HAHOG": ("", ""), "SIFT": ("", "feature_type: SIFT\n")})
    return folder


def test_the_largest_model_is_measured(tmp_path: Path, checkout: Path) -> None:
    words = [str(tmp_path / "sets"), "--sets", "beach", "--checkout", str(checkout), "--features", "ours,HAHOG"]
    assert opensfm.main([*words, "--out", str(tmp_path / "out.json")]) == 0
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["opensfm"] == opensfm.commit_of(checkout)
    assert set(record["photos"]["beach"]) == {"0.png", "1.png", "2.png"}
    ours, hahog = record["results"]
    assert (ours["lines"], hahog["lines"]) == (4, None)
    assert (ours["images"], ours["shots"], ours["models"]) == (3, 2, 2)
    assert (ours["points"], ours["track_length"], ours["error_px"]) == (200, 2.5, 0.25)
    assert (hahog["shots"], hahog["points"], hahog["error_px"]) == (0, 0, None)
    assert ours["detect_s"] >= 0


def test_what_fails_or_is_unknown_is_said(tmp_path: Path, checkout: Path) -> None:
    places = ["--checkout", str(checkout), "--out", str(tmp_path / "out.json")]
    words = [str(tmp_path / "sets"), "--sets", "beach", "--features", "HAHOG", "--most", "2", *places]
    with pytest.raises(JobError, match="OpenSfM's match_features failed: no SIFT here"):
        opensfm.main([*words, "--features", "SIFT"])
    with pytest.raises(UsageError, match="the features are 'SURF'; choose of ours, HAHOG"):
        opensfm.main([*words, "--features", "SURF"])
    with pytest.raises(UsageError, match="has no folder town"):
        opensfm.main([*words, "--sets", "town"])
    with pytest.raises(UsageError, match="is no checkout of OpenSfM"):
        opensfm.main([*words, "--checkout", str(tmp_path / "sets")])
    assert not (tmp_path / "out.json").exists()


def test_the_lines_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")
    assert opensfm.OURS in page
