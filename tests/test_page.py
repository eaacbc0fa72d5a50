"""The page of a reconstruction, also in a real browser where there is one."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import cv2
import pytest

from kornia_bingan import page
from kornia_bingan.errors import UsageError
from kornia_bingan.reconstruction import ReconstructOptions, reconstruct_photos
from kornia_bingan.scene import render_scene
from tests.browser import BROWSER, ask

NASTY = '<b>&".jpg'


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    render_scene(folder, 3)
    photos = folder / "images"
    first = sorted(photos.iterdir())[0]
    picture = cv2.imread(str(first))
    assert picture is not None
    first.unlink()
    (photos / NASTY).write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    (photos / "broken.jpg").write_bytes(b"no photo")
    reconstruct_photos(photos, folder / "out", ReconstructOptions(max_keypoints=500))
    return page.write_page(folder / "out", photos)


def test_the_page_stands_alone_and_escapes_names(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["']?https?:""", text.split("</head>")[1])
    assert NASTY not in text
    assert html.escape(NASTY, quote=True).replace("&quot;", "&#34;") in text
    assert "broken.jpg" in text
    assert "3 / 3" in text
    assert report.stat().st_size < 10 * 2**20
    summary = json.loads((report.parent / "summary.json").read_text())
    assert f"{summary['points']:,}" in text


def test_missing_libraries_are_named(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "page_available", lambda: False)
    with pytest.raises(UsageError, match=r"kornia_bingan\[report\]"):
        page.write_page(report.parent, report.parent)


def test_photos_that_are_gone_have_no_thumbnail(tmp_path: Path) -> None:
    assert page.thumbnail(tmp_path / "absent.jpg") == ""
    with pytest.raises(UsageError):
        page.write_page(tmp_path, tmp_path)


SCRIPT = """
const values = () => [...document.querySelectorAll("#photos tbody tr")].map(r => Number(r.cells[3].dataset.value));
const button = document.querySelectorAll("#photos th button")[3];
button.click(); const up = values(); button.click(); const down = values();
const canvas = document.querySelector("#model canvas");
const drawn = canvas ? canvas.width * canvas.height : 0;
return {up, down, drawn, bars: document.querySelectorAll("#seconds .bars path").length};
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_in_a_browser(report: Path, tmp_path: Path) -> None:
    """No errors, a 3D canvas, bars, and a table that a click sorts."""
    answer = ask(report, SCRIPT, tmp_path)
    assert answer["problems"] == []
    assert answer["up"] == sorted(answer["up"])
    assert answer["down"] == sorted(answer["down"], reverse=True)
    assert len(answer["up"]) == 3
    assert answer["drawn"] > 100 * 100
    assert answer["bars"] == 4
