"""The page of a reconstruction, also in a real browser where there is one."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest
from numpy.typing import NDArray

from kornia_bingan import colmap
from kornia_bingan.colmap import write_features, write_matches
from kornia_bingan.colmap.types import Camera, Model
from kornia_bingan.errors import UsageError
from kornia_bingan.reconstruct import drawings, page
from kornia_bingan.reconstruct.features import features_path
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
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(page, "ROWS", 2)
        patched.setattr(drawings, "LINES_A_PAIR", 40)
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
    skipped = replace(parted, skipped=[{"name": third, "reason": "no keypoints were found"}])
    cells = [
        [row[1].text for row in page._photo_rows(names, [0] * 3, out, one, {})] for one in (summary, parted, skipped)
    ]
    unmatched = ["models/1", "none: no matches with any photo"]
    assert cells == [["model"] * 3, [*unmatched, ""], [*unmatched, "none: no keypoints were found"]]


def drawn(report: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="drawings">(.*?)</script>', report.read_text(), re.DOTALL)
    assert found
    answer: dict[str, Any] = json.loads(found[1])
    return answer


def numbers(text: str, columns: int) -> NDArray[np.uint16]:
    return np.frombuffer(base64.b64decode(text), "<u2").reshape(-1, columns)


def test_the_page_draws_the_inlier_matches_of_the_database(report: Path) -> None:
    """Read a second time by pycolmap: every line of a pair is an inlier match, in whole pixels, at most 40 of them."""
    found = drawn(report)
    with pycolmap.Database.open(str(report.parent / "database.db")) as db:
        ids = {image.name: image.image_id for image in db.read_all_images()}
        names = sorted(ids)
        xy = {name: np.rint(db.read_keypoints(ids[name])[:, :2] - 0.5).astype(int) for name in names}
        is_inlier = {name: np.zeros(len(xy[name]), bool) for name in names}
        assert sorted(pair["photos"] for pair in found["pairs"]) == [[0, 1], [0, 2], [1, 2]]
        for pair in found["pairs"]:
            a, b = (names[row] for row in pair["photos"])
            rows = db.read_two_view_geometry(ids[a], ids[b]).inlier_matches
            matches = np.hstack([xy[a][rows[:, 0]], xy[b][rows[:, 1]]]).tolist()
            lines = numbers(pair["lines"], 4).tolist()
            assert pair["inliers"] == len(matches) > 40 == len(lines)
            assert (lines[0], lines[-1]) == (matches[0], matches[-1])
            assert all(line in matches for line in lines)
            is_inlier[a][rows[:, 0]] = is_inlier[b][rows[:, 1]] = True
    assert len(found["photos"]) == 3
    for name, photo in zip(names, found["photos"], strict=True):
        assert (photo["width"], photo["height"], photo["keypoints"]) == (800, 600, len(xy[name]))
        circles, inliers = numbers(photo["circles"], 3)[:, :2].tolist(), photo["inliers"]
        assert circles[:inliers] == xy[name][is_inlier[name]].tolist()
        assert circles[inliers:] == xy[name][~is_inlier[name]].tolist()
    assert found["cameras"] == [0, 1, 2]


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c"]])
def test_photos_and_pairs_without_anything_draw_nothing(names: list[str], tmp_path: Path) -> None:
    keypoints = {"a": np.zeros((0, 2)), "b": np.array([[-3.0, 70_000.0], [2.6, 3.4]])}
    write_features(tmp_path / "database.db", keypoints, Camera(90, 60))
    write_matches(tmp_path / "database.db", {}, verification=False)
    found = drawings.read_drawings(tmp_path / "database.db", names, [("a", "b")])
    assert [photo["keypoints"] for photo in found["photos"]] == [0, 2, 0][: len(names)]
    assert numbers(found["photos"][1]["circles"], 3).tolist() == [[0, 65535, 2], [3, 3, 2]]
    assert [photo["width"] for photo in found["photos"]] == [90, 90, 0][: len(names)]
    assert found["pairs"] == [{"photos": [0, 1], "inliers": 0, "lines": ""}]


def test_the_best_pair_of_each_photo_comes_before_the_second_of_any() -> None:
    inliers = {("a", "b"): 9, ("a", "c"): 8, ("b", "c"): 7, ("a", "d"): 5, ("e", "f"): 0}
    assert page.pairs_to_show(inliers) == list(inliers)
    assert page.pairs_to_show(inliers, 4) == [("a", "b"), ("a", "c"), ("a", "d"), ("e", "f")]
    assert page.pairs_to_show(inliers, 1) == [("a", "b")]
    assert page.pairs_to_show({}) == []


def test_a_thousand_photos_fit_20_mb(report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is the largest picture; 2,994 pairs have matches, more points and keypoints than the page shows."""
    rng = np.random.default_rng(0)
    names = [f"a folder with a name/{number:04d}.jpg" for number in range(1000)]
    noise = cv2.imencode(".jpg", rng.integers(0, 256, (75, 100, 3), np.uint8))[1]
    (tmp_path / "photos" / "a folder with a name").mkdir(parents=True)
    (tmp_path / "out" / "features" / "a folder with a name").mkdir(parents=True)
    (tmp_path / "photos" / names[0]).write_bytes(noise.tobytes())
    for name in names:
        if name != names[0]:
            (tmp_path / "photos" / name).hardlink_to(tmp_path / "photos" / names[0])
        features_path(tmp_path / "out" / "features", name).touch()
    keypoints = rng.uniform(0, 240, (200, 2))
    write_features(tmp_path / "out" / "database.db", dict.fromkeys(names, keypoints), Camera(320, 240))
    geometry = pycolmap.TwoViewGeometry()
    geometry.config = pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED
    geometry.inlier_matches = np.column_stack([np.arange(200), rng.permutation(200)]).astype(np.uint32)
    with (
        pycolmap.Database.open(str(tmp_path / "out" / "database.db")) as db,
        pycolmap.DatabaseTransaction(db),
    ):
        ids = {image.name: image.image_id for image in db.read_all_images()}
        for step in (1, 2, 3):
            for a, b in zip(names, names[step:], strict=False):
                db.write_matches(ids[a], ids[b], geometry.inlier_matches)
                db.write_two_view_geometry(ids[a], ids[b], geometry)
    model = Model(
        tuple(names),
        np.tile(np.eye(3), (1000, 1, 1)),
        rng.normal(0, 9, (1000, 3)),
        (Camera(320, 240),) * 1000,
        rng.normal(0, 9, (page.MAX_POINTS + 9, 3)),
        rng.integers(100, 256, (page.MAX_POINTS + 9, 3), np.uint8),
        np.zeros(page.MAX_POINTS + 9),
        np.full(page.MAX_POINTS + 9, 2),
    )
    monkeypatch.setattr(colmap, "read_model", lambda _: model)
    for name in ("summary.json", "run.json"):
        shutil.copyfile(report.parent / name, tmp_path / "out" / name)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    run["identity"]["photos"] = dict.fromkeys(names, "")
    (tmp_path / "out" / "run.json").write_text(json.dumps(run))
    text = page.write_page(tmp_path / "out", tmp_path / "photos").read_text()
    assert 10_000_000 < len(text) < 20_000_000
    assert text.count('<img alt="" src="data:image/jpeg') == 1000
    found = drawn(tmp_path / "out" / "report.html")
    assert (len(found["photos"]), len(found["pairs"])) == (1000, page.MAX_PAIRS)
    assert len(numbers(found["photos"][0]["circles"], 3)) == 150
    assert len(numbers(found["pairs"][0]["lines"], 4)) == 75


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


def test_neighbours_share_squares_where_there_are_many_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_SQUARES", 3)
    names = ["a", "b", "c", "d", "e"]
    inliers = {("a", "b"): 1, ("a", "c"): 2, ("b", "d"): 4, ("e", "d"): 8}
    (squares,) = page.coverage_figure(names, inliers)["data"]
    assert squares["z"] == [[1, 6, 0], [6, 0, 8], [0, 8, 0]]
    assert squares["x"] == ["a and 1 more", "c and 1 more", "e"]


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
const bars = document.querySelectorAll("#seconds .bars path").length;

const rows = () => [...document.querySelectorAll("#photos tbody tr")].filter(r => !r.hidden).map(r => r.dataset.row);
const [filter, back, on] = document.querySelectorAll('[data-table="photos"] input, [data-table="photos"] button');
const said = () => document.querySelector('[data-table="photos"] span').textContent;
const pages = [[rows(), said(), back.disabled, on.disabled]];
on.click(); pages.push([rows(), said(), back.disabled, on.disabled]);
for (const text of ["VIEW_002", "absent"]) {
  filter.value = text; filter.dispatchEvent(new Event("input")); pages.push([rows(), said(), back.hidden, on.hidden]);
}

const strokes = {moveTo: [], lineTo: [], arc: []};
for (const name of Object.keys(strokes)) {
  const plain = CanvasRenderingContext2D.prototype[name];
  CanvasRenderingContext2D.prototype[name] = function(...to) { strokes[name].push(to); plain.apply(this, to); };
}
const caption = view => document.querySelector(`#${view} figcaption`).textContent;
document.querySelector('#pairs tr[data-row="0"]').click();
const pair = [caption("pair-view"), strokes.moveTo.splice(0), strokes.lineTo.splice(0)];
const enter = new KeyboardEvent("keydown", {key: "Enter"});
document.querySelector('#photos tr[data-row="1"]').dispatchEvent(enter);
const photo = [caption("photo-view"), strokes.arc];
return {up, down, drawn, squares, bars, pages, pair, photo};
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_in_a_browser(report: Path, tmp_path: Path) -> None:
    """No errors, a 3D canvas, bars, a table that a click sorts, pages of two rows, and what is drawn on photos."""
    answer = ask(report, SCRIPT, tmp_path)
    assert answer["problems"] == []
    assert answer["up"] == sorted(answer["up"])
    assert answer["down"] == sorted(answer["down"], reverse=True)
    assert len(answer["up"]) == 3
    assert answer["drawn"] > 100 * 100
    assert answer["bars"] == 4
    assert answer["squares"] == 1

    first, second, found, none = answer["pages"]
    assert (len(first[0]), *first[1:]) == (2, "1 to 2 of 3", True, False)
    assert (len(second[0]), *second[1:]) == (1, "3 to 3 of 3", False, True)
    assert sorted(first[0] + second[0]) == ["0", "1", "2"]
    assert found == [["2"], "1 to 1 of 1", True, True]
    assert none == [[], "none", True, True]

    data = drawn(report)
    names = [NASTY, "view_001.jpg", "view_002.jpg"]
    pair, (caption, starts, ends) = data["pairs"][0], answer["pair"]
    assert caption == f"{' and '.join(names[row] for row in pair['photos'])}: 40 of {pair['inliers']} inlier matches"
    scale = 413 / 600  # two photos of 800 x 600 side by side in a width of 1,100
    lines = (numbers(pair["lines"], 4) + 0.5) * scale + np.array([0, 0, 800 * scale, 0])
    np.testing.assert_allclose(np.hstack([starts, ends]), lines, atol=1e-6)
    photo, (caption, arcs) = data["photos"][1], answer["photo"]
    assert caption.startswith(
        f"view_001.jpg: {photo['keypoints']} of {photo['keypoints']} keypoints, {photo['inliers']}"
    )
    circles = (numbers(photo["circles"], 3)[::-1, :2] + 0.5) * 620 / 600
    np.testing.assert_allclose(np.array(arcs)[:, :2], circles, atol=1e-6)
