"""The README's snippets run; its tables, plots and those of docs/ are what the files say."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import pytest

from eval.show.tables import ROOT, START, contents
from kornia_bingan.datasets.rendered import render_scene

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    scene = render_scene(folder / "scene", 5)
    (folder / "photos").mkdir()
    for index, name in enumerate(sorted(scene.cameras)):
        cv2.imwrite(str(folder / "photos" / f"{index}.jpg"), cv2.imread(str(folder / "scene" / "images" / name)))
    return folder


@pytest.mark.parametrize("library", ["Kornia", "OpenCV", "COLMAP"])
def test_snippet(
    library: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = [
        code for code in SNIPPETS if {"Kornia": "KF.", "OpenCV": "cv2.", "COLMAP": "colmap."}[library] in code
    ]
    monkeypatch.chdir(folder)
    exec(compile(snippet, f"README {library}", "exec"), {})
    printed = capsys.readouterr().out
    if library == "OpenCV":
        assert int(printed) > 100
    if library == "COLMAP":
        assert "10 verified pairs" in printed
        assert "5 registered images" in printed


@pytest.mark.parametrize(("name", "expected"), contents().items())
def test_tables_and_plots_are_generated_from_the_files(name: str, expected: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert START in text or name.endswith(".svg")
    assert text == expected, "run python -m eval tables"
