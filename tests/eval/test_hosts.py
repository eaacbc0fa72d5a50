from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from eval.quality import hosts
from eval.show.tables import ROOT
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.work.provenance import commit


def test_the_homography_leads_from_the_first_picture_to_the_second() -> None:
    first, second, way = hosts.known_pair()
    moved = cv2.warpPerspective(first, way, (640, 480), flags=cv2.INTER_AREA)
    assert first.shape == second.shape == (480, 640)
    assert np.abs(moved.astype(int) - second).mean() < 3


def test_a_host_is_run_and_its_matches_are_counted(tmp_path: Path) -> None:
    before = {"results": [{"host": "Kornia", "lines": 4}, {"host": "OpenCV", "lines": 9}], "provenance": {"seed": 7}}
    (tmp_path / "hosts.json").write_text(json.dumps(before))
    assert hosts.main(["--hosts", "OpenCV", "--out", str(tmp_path / "hosts.json")]) == 0
    other, row = json.loads((tmp_path / "hosts.json").read_text())["results"]
    assert other == {"host": "Kornia", "lines": 4, "provenance": {"seed": 7}}
    assert row["provenance"]["commit"] == commit()
    assert row["version"] == cv2.__version__
    assert row["lines"] == 2
    assert 0.8 * row["matches"] < row["right"] <= row["matches"]
    assert row["matches"] > 400


def test_right_is_within_3_pixels() -> None:
    theirs = "xy0 = np.array([[100.0, 200], [300, 250]])\nxy1 = move(xy0) + [[0, 2.9], [3.1, 0]]"
    ours = "\nmove = lambda xy: cv2.perspectiveTransform(xy[:, None], way)[:, 0]\n"
    before = "from eval.quality.hosts import known_pair\nway = known_pair()[2]"
    found = hosts.measure(hosts.Host("cv2", "", ours, theirs), before)
    assert (found["lines"], found["matches"], found["right"]) == (1, 2, 1)


def test_a_version_is_what_a_module_says_or_the_commit_of_its_checkout(tmp_path: Path) -> None:
    assert hosts.version_of(cv2) == cv2.__version__
    module = ModuleType("other")
    module.__file__ = str(ROOT / "eval" / "__init__.py")
    words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    assert hosts.version_of(module) == (head[:7] or None)
    folder = ModuleType("folder")
    folder.__path__ = [str(ROOT / "eval")]
    folder.__file__ = None
    assert hosts.version_of(folder) == hosts.version_of(module)
    module.__file__ = str(tmp_path / "other.py")
    assert hosts.version_of(module) is None


def test_what_is_absent_or_unknown_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the host is 'Excel'; choose of Kornia"):
        hosts.main(["--hosts", "Excel", "--out", str(tmp_path / "hosts.json")])
    with pytest.raises(JobError, match="no_such_program cannot be imported"):
        hosts.measure(hosts.Host("no_such_program", "", "", ""), "")


def test_a_checkout_that_does_not_compile_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Thirdparty" / "DBoW2").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(JobError, match=f"DBoW2 of {tmp_path} cannot be compiled"):
        hosts.nodes_of(tmp_path / "vocabulary.txt", np.zeros((2, 32), np.uint8))


def test_every_program_is_python_and_short() -> None:
    for name, host in hosts.HOSTS.items():
        ast.parse(host.ours + host.theirs)
        assert host.ours.startswith("\n")
        assert len(host.ours.splitlines()) - 1 <= 5, name


def test_the_page_shows_every_host() -> None:
    text = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in hosts.HOSTS)
