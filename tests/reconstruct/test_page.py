"""The page of a reconstruction, also in a real browser where there is one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import escape
from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_bingan.colmap.types import Camera, Model
from kornia_bingan.errors import UsageError
from kornia_bingan.reconstruct import page
from kornia_bingan.reconstruct.options import ReconstructOptions
from kornia_bingan.reconstruct.pipeline import reconstruct_photos
from kornia_bingan.reconstruct.summary import ModelPhotos, Summary
from kornia_bingan.report import html
from kornia_bingan.report.html import thumbnail
from kornia_bingan.work.options import FeatureOptions
from tests.helpers.browser import BROWSER, ask
from tests.helpers.scenes import copy_scene

NASTY = '<b>&".jpg'


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    copy_scene(folder, 3)
    photos = folder / "images"
    first = sorted(photos.iterdir())[0]
    picture = cv2.imread(str(first))
    assert picture is not None
    first.unlink()
    (photos / NASTY).write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    (photos / "broken.jpg").write_bytes(b"no photo")
    options = ReconstructOptions(FeatureOptions(descriptor="bingan256-lite", max_keypoints=500))
    reconstruct_photos(photos, folder / "out", options)
    return page.write_page(folder / "out", photos)


def test_the_page_stands_alone_and_escapes_names(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["']?https?:""", text.split("</head>")[1])
    assert NASTY not in text
    assert escape(NASTY, quote=True).replace("&quot;", "&#34;") in text
    assert "broken.jpg" in text
    assert "3 / 3" in text
    assert report.stat().st_size < 10 * 2**20
    summary = json.loads((report.parent / "summary.json").read_text())
    assert f"{summary['points']:,}" in text


def test_each_photo_says_its_model_or_why_it_is_in_none(report: Path) -> None:
    """The first of three is in the second model, the second in none, and of the third nothing is known."""
    out = report.parent
    summary = Summary.read(out / "summary.json")
    first, second, third = summary.models[0].photos
    parted = replace(
        summary,
        models=[ModelPhotos("model", 9, []), ModelPhotos("models/1", 9, [first])],
        unregistered=[{"name": second, "reason": "no matches with any photo"}],
    )
    names = [first, second, third]
    cells = [
        [row[1].text for row in page._photo_rows(names, out / "features", out, one, {})] for one in (summary, parted)
    ]
    assert cells == [["model"] * 3, ["models/1", "none: no matches with any photo", ""]]


def test_missing_libraries_are_named(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "page_available", lambda: False)
    with pytest.raises(UsageError, match=r"kornia_bingan\[report\]"):
        page.write_page(report.parent, report.parent)


def test_photos_that_are_gone_have_no_thumbnail(tmp_path: Path) -> None:
    assert thumbnail(tmp_path / "absent.jpg") == ""
    with pytest.raises(UsageError):
        page.write_page(tmp_path, tmp_path)


def test_cameras_stand_and_look_where_the_model_has_them() -> None:
    """One camera at (1, 2, 3) that looks along x, its picture twice as wide as high; and one at (-4, 0, 0) along z."""
    along_x = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])  # world to camera: right is -z, down is y, ahead is x
    rotations = np.stack([along_x, np.eye(3)])
    centers = np.array([[1.0, 2, 3], [-4, 0, 0]])
    translations = -np.einsum("nij,nj->ni", rotations, centers)
    xyz = np.array([[-4.0, -2, -8], [6, 8, 3], [0, 0, 0]])
    sizes = [Camera(200, 100), Camera(100, 200)]
    rgb = np.array([[255, 0, 1], [2, 3, 4], [5, 6, 7]], np.uint8)
    model = Model(
        ("a.jpg", "b<.jpg"), rotations, translations, tuple(sizes), xyz, rgb, np.zeros(3), np.array([2, 2, 2])
    )
    points, cameras, names = page.model_figure(model, np.array([2]))["data"]
    assert ([points[axis] for axis in "xyz"], points["marker"]["color"]) == ([[0], [0], [0]], ["rgb(5,6,7)"])
    assert [[names[axis][row] for axis in "xyz"] for row in range(2)] == centers.tolist()
    assert names["text"] == ["a.jpg", "b&lt;.jpg"]
    # from the corner (-4, 0, 0) of the bulk to (1, 2, 3): a frustum is 4 % of this long
    size = 0.04 * np.sqrt(5**2 + 2**2 + 3**2)
    wide = [(1, y / 4, -x / 2) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    high = [(x / 4, y / 2, 1) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    rows = list(zip(*(cameras[axis] for axis in "xyz"), strict=True))
    assert len(rows) == 2 * 14
    for number, (center, corners) in enumerate(zip(centers, (wide, high), strict=True)):
        a, b, c, d = (np.array(center) + size * np.array(corner) for corner in corners)
        line = [center, a, b, center, c, d, center, None, a, b, c, d, a, None]
        for found, wanted in zip(rows[14 * number : 14 * number + 14], line, strict=True):
            if wanted is None:
                assert found == (None, None, None)
            else:
                np.testing.assert_allclose(np.array(found, float), wanted, atol=1e-4)


def test_squares_of_pairs_have_their_inliers() -> None:
    (squares,) = page.coverage_figure(["a", "b<", "c"], {("a", "c"): 7, ("c", "b<"): 2, ("a", "gone"): 9})["data"]
    assert squares["z"] == [[0, 0, 7], [0, 0, 2], [7, 2, 0]]
    assert squares["x"] == squares["y"] == ["a", "b&lt;", "c"]


def test_far_points_are_left_out_of_the_view_and_cameras_never_are() -> None:
    rng = np.random.default_rng(0)
    xyz = np.concatenate([rng.uniform(-1, 1, (200, 3)), [[1000, 0, 0]]])
    center = np.array([0, 0, -50.0])
    camera = (Camera(100, 100),)
    colours, ones = np.zeros((201, 3), np.uint8), np.ones(201, np.int64)
    model = Model(("a",), np.eye(3)[None], -center[None], camera, xyz, colours, np.zeros(201), ones)
    points, _, names = page.model_figure(model, np.arange(201))["data"]
    assert 170 < len(points["x"]) <= 200
    assert max(points["x"]) <= 1
    assert (names["x"], names["y"], names["z"]) == ([0], [0], [-50])
    empty = Model(("a",), np.eye(3)[None], -center[None], camera, xyz[:0], colours[:0], np.zeros(0), ones[:0])
    points, _, names = page.model_figure(empty, np.arange(0))["data"]
    assert (points["x"], names["z"]) == ([], [-50])


SCRIPT = """
const values = () => [...document.querySelectorAll("#photos tbody tr")].map(r => Number(r.cells[3].dataset.value));
const button = document.querySelectorAll("#photos th button")[3];
button.click(); const up = values(); button.click(); const down = values();
const canvas = document.querySelector("#model canvas");
const drawn = canvas ? canvas.width * canvas.height : 0;
const squares = document.querySelectorAll("#coverage .heatmaplayer image").length;
return {up, down, drawn, squares, bars: document.querySelectorAll("#seconds .bars path").length};
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
    assert answer["squares"] == 1
