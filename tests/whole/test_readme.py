"""The README's snippets run; its tables, plots and those of docs/ are what the files say."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eval.show.tables import ROOT, START, contents
from kornia_bingan.keypoints import Keypoints, support_regions
from kornia_bingan.patches import build_pyramid, cut_patches
from tests.helpers.scenes import copy_scene


def snippets(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


SNIPPETS = snippets("README.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    scene = copy_scene(folder / "scene", 5)
    (folder / "photos").mkdir()
    for index, name in enumerate(sorted(scene.cameras)[:3]):
        picture = cv2.imread(str(folder / "scene" / "images" / name), cv2.IMREAD_REDUCED_COLOR_2)
        cv2.imwrite(str(folder / "photos" / f"{index}.jpg"), picture)
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
        assert "3 verified pairs" in printed
        assert "3 registered images" in printed


def test_the_snippets_of_the_documentation_are_those_of_the_readme() -> None:
    def trees(name: str) -> list[str]:
        return sorted(ast.dump(ast.parse(code)) for code in snippets(name))

    assert trees("docs/code.md") == trees("README.md")


def test_the_recipe_of_the_patch_gives_our_patches() -> None:
    recipe: dict[str, Any] = {}
    exec(compile(snippets("docs/patch.md")[0], "docs/patch.md", "exec"), recipe)
    image = np.random.default_rng(0).integers(0, 256, (203, 311), np.uint8)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 1.5), np.uint8)
    rows = np.array([[100, 90, 2.2, -1], [3, 200, 5, 30], [150.3, 77.7, 13, 200], [310, 0, 31, 77]], np.float32)
    zeros = np.zeros(len(rows))
    points = Keypoints(rows[:, :2], rows[:, 2], rows[:, 3], zeros.astype(np.float32), zeros.astype(np.int32))
    expected = cut_patches(build_pyramid(image), support_regions(points, 6.0))[:, 0]
    found = [recipe["cut_patch"](image, *map(float, row)) for row in rows]
    assert np.abs(np.stack(found) - expected).max() < 1e-3  # a quarter of a grey level


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("weights/*.md"), *ROOT.glob("docs/**/*.md")]:
        links = re.findall(r"\]\(([^)\s#]+)|<img\s[^>]*src=\"([^\"]+)", path.read_text(encoding="utf-8"))
        for link in (one or other for one, other in links):
            assert "://" in link or (path.parent / link).exists(), f"{path.name}: {link}"


def test_pictures_of_the_pages_are_small() -> None:
    pictures = [path for path in (ROOT / "docs" / "images").iterdir() if path.is_file()]
    assert {path.name for path in pictures} == {"matches.jpg", "report.jpg", "bytes.svg", "speed.svg"}
    assert max(path.stat().st_size for path in pictures) < 300_000


@pytest.mark.parametrize(("name", "expected"), contents().items())
def test_tables_and_plots_are_generated_from_the_files(name: str, expected: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert START in text or name.endswith(".svg")
    assert text == expected, "run python -m eval tables"
