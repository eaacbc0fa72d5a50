import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kornia_bingan.colmap.types import Georeference
from kornia_bingan.errors import UsageError
from kornia_bingan.reconstruct.summary import ModelPhotos, PairStatistics, Summary
from kornia_bingan.report.pictures import draw_matches
from kornia_bingan.report.text import skipped_lines, text_table

SUMMARY = Summary(
    images=12,
    registered=11,
    points=1234,
    observations=5678,
    mean_track_length=4.6013,
    mean_reprojection_error_px=0.4567,
    seconds={"describe": 1.5, "map": 2.25},
    descriptor="bingan256",
    sha256="ab" * 32,
    versions={"kornia_bingan": "0.1.0", "faiss": None},
    skipped=[{"name": "bad.jpg", "reason": "cut short"}],
    pairs=PairStatistics(66, 60, 50, 10, 7000, 5000),
)


def test_table_columns_are_aligned():
    text = text_table(["name", "n", "error"], [["a", "1", "0.5"], ["longer name", "1,000", ""]])
    assert text.split("\n") == [
        "name             n  error",
        "-----------  -----  -----",
        "a                1    0.5",
        "longer name  1,000",
    ]


def test_table_without_rows_and_with_a_wrong_row():
    assert text_table(["a", "bb"], []) == "a  bb\n-  --"
    with pytest.raises(UsageError, match="2 columns has a row of 1"):
        text_table(["a", "b"], [["x"]])


def test_summary_has_the_promised_keys_and_comes_back(tmp_path):
    path = tmp_path / "summary.json"
    SUMMARY.write(path)
    value = json.loads(path.read_text())
    promised = "images registered points observations mean_track_length mean_reprojection_error_px seconds descriptor"
    assert list(value) == [
        *promised.split(),
        "sha256",
        "versions",
        "skipped",
        "pairs",
        "unreadable",
        "masked",
        "chosen",
        "turned",
        "photos",
        "unplaced",
        "models",
        "unregistered",
        "matcher",
        "place",
    ]
    assert value["pairs"]["verified"] == 50
    assert Summary.read(path) == SUMMARY


def test_a_place_on_the_earth_comes_back_and_is_said(tmp_path: Path) -> None:
    placed = replace(SUMMARY, place=Georeference(47.0, 8.5, 400.0, 9, 10, 1.3))
    placed.write(tmp_path / "summary.json")
    assert Summary.read(tmp_path / "summary.json") == placed
    line = "metres east, north, up of 47.000000, 8.500000, 400.0 m; 9 / 10 positions agree, by 1.3 m"
    assert line in placed.table()
    assert "no: too few" in replace(SUMMARY, place=Georeference(positions=1, reason="too few")).table()
    assert "on the earth" not in SUMMARY.table()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pairs": {}}', '{"pairs": 3}'])
def test_something_else_is_no_summary(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UsageError, match="is no summary"):
        Summary.read(tmp_path / "summary.json")
    with pytest.raises(UsageError, match="is no summary"):
        Summary.read(tmp_path / "absent.json")


def test_table_of_a_summary():
    lines = SUMMARY.table().splitlines()
    cells = {line[:28].strip(): line[28:].strip() for line in lines}
    assert cells["registered photos"] == "11 / 12"
    assert cells["points"] == "1,234"
    assert cells["mean reprojection error (px)"] == "0.457"
    assert cells["seconds, map"] == "2.2"
    assert lines[-1] == "skipped bad.jpg: cut short"
    assert skipped_lines([]) == ""


def test_the_table_names_the_photos_of_each_model_and_those_in_none(tmp_path):
    models = [ModelPhotos("model", 1234, ["a.jpg", "b\n.jpg"]), ModelPhotos("models/1", 50, ["c.jpg"])]
    parted = replace(SUMMARY, models=models, unregistered=[{"name": "d\t.jpg", "reason": "no matches with any photo"}])
    lines = parted.table().splitlines()
    assert lines[-6:] == [
        "model: 2 photos, 1,234 points: a.jpg, b\\n.jpg",
        "models/1: 1 photo, 50 points: c.jpg",
        "in no model: d\\t.jpg: no matches with any photo",
        "",
        "1 files skipped:",
        "skipped bad.jpg: cut short",
    ]
    assert next(line for line in lines if line.startswith("models ")).split() == ["models", "2"]
    parted.write(tmp_path / "summary.json")
    assert Summary.read(tmp_path / "summary.json") == parted
    whole = replace(SUMMARY, models=models[:1])
    assert whole.table() == SUMMARY.table()  # the table says already that all photos are in the model
    many = ModelPhotos("model", 9, [str(n) for n in range(3)])
    assert many.sentence(2) == "model: 3 photos, 9 points: 0, 1 and 1 more"


def test_sentence_of_the_pairs():
    assert SUMMARY.pairs.sentence() == (
        "66 pairs tried, 60 with matches (7,000), 50 verified (5,000 inliers), 10 rejected"
    )


def test_drawn_lines_join_the_keypoints():
    image0, image1 = np.full((40, 50, 3), 10, np.uint8), np.full((30, 60, 3), 20, np.uint8)
    picture = draw_matches(
        image0, image1, np.array([[5.0, 8.0], [5, 30]]), np.array([[40.0, 8.0], [40, 20]]), np.array([True, False])
    )
    assert picture.shape == (40, 110, 3)
    assert picture.dtype == np.uint8
    assert picture[35:, 80].max() == 0  # the shorter photo has nothing below
    row = picture[8].astype(int)
    drawn = np.flatnonzero(np.ptp(row, axis=1) > 100)  # coloured
    assert drawn[0] == pytest.approx(5, abs=1)
    assert drawn[-1] == pytest.approx(50 + 40, abs=1)
    other = picture[30, 5].astype(int)
    assert np.ptp(other) == 0
    assert other[0] > 60  # grey


@pytest.mark.parametrize("count", [0, 1, 2])
def test_drawing_few_matches(count):
    image = np.full((20, 30, 3), 50, np.uint8)
    xy = np.full((count, 2), 7, np.float32)
    picture = draw_matches(image, image, xy, xy, np.ones(count, bool))
    assert picture.shape == (20, 60, 3)
    assert (picture != 50).any() == (count > 0)


def test_inliers_are_drawn_over_the_others():
    image = np.zeros((40, 40, 3), np.uint8)
    xy0, xy1 = np.array([[0, 20.0], [0, 20]]), np.array([[39, 20.0], [39, 20]])
    for inliers in ([True, False], [False, True]):
        assert np.ptp(draw_matches(image, image, xy0, xy1, np.array(inliers))[20, 40].astype(int)) > 100
