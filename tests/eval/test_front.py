"""What the front pages choose from the records, and the plots that they show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eval.show import front_tables, tables
from eval.show.front_pictures import true_places, write_jpeg
from eval.show.markdown import ROOT
from eval.show.scatter import Point, svg_scatter
from kornia_bingan.datasets.poses import PosedCamera
from kornia_bingan.datasets.rendered import Plane
from kornia_bingan.errors import JobError, UsageError


def total(name: str, m95: int, part: str = "scene") -> dict[str, Any]:
    times = {"times_rootsift": m95 / 1000, "times_rootsift_interval": [m95 / 1000 - 0.1, m95 / 1000 + 0.1]}
    return {"part": part, "descriptor": name, "data": ["a"], "m95": m95, **times}


def write(folder: Path, name: str, record: dict[str, Any]) -> None:
    about = {"commit": "0" * 40, "machine": {"cpu": "a processor"}, "date": "2026-01-02T03:04:05"}
    (folder / f"{name}.json").write_text(json.dumps({"command": "c", "provenance": about, **record}))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(front_tables, "RESULTS", tmp_path)
    m95 = {"bingan256": 1300, "bingan256/float": 1400, "rootsift": 1000, "rootsift@20": 1100, "orb": 500, "orb@24": 600}
    m95 |= {"hard": 1050, "soft": 900, "brief": 400, "teblid": 700}
    binary = {"bingan256", "orb", "orb@24", "brief", "teblid"}
    peers = {name: {"num_bytes": 32, "norm": "hamming" if name in binary else "l2"} for name in m95}
    rows = [{"descriptor": name, "data": "a", "group": "scene", "m95": value} for name, value in m95.items()]
    totals = [total(name, value) for name, value in m95.items()]
    write(tmp_path, "m95-x", {"peers": peers, "totals": totals, "results": rows})
    speeds = {"bingan256": 10.0, f"bingan256{front_tables.AS_RUN}": 20.0, "orb": 300.0, "rootsift": 25.0}
    speed = [{"descriptor": name, "keypoints_per_second": value} for name, value in speeds.items()]
    write(tmp_path, "speed", {"results": speed})
    return tmp_path


def test_front_rows_are_ours_the_reference_and_the_best_of_each_kind_at_their_best_region(results: Path) -> None:
    names = [row["descriptor"] for row in front_tables.front_rows("x")]
    assert names == ["bingan256", "rootsift@20", "hard", "teblid", "orb@24"]
    text = front_tables.front_table("x", 5)
    assert "| bingan256 | 32 | 1.30 (1.20 to 1.40) |  |  | 20 |" in text
    assert "| orb@24 | 32 | 0.60 (0.50 to 0.70) |  |  | 300 |" in text  # as fast as orb


@pytest.mark.parametrize(("m95", "answer"), [(1300, "Better."), (1050, "As well"), (800, "No.")])
def test_the_verdict_follows_the_interval(results: Path, m95: int, answer: str) -> None:
    record = json.loads((results / "m95-x.json").read_text())
    record["totals"][0] = total("bingan256", m95)
    write(results, "m95-x", record)
    said = front_tables.verdict("x")
    assert said.startswith(answer)
    assert f"finds {m95 / 1000:.2f} times" in said
    assert "`teblid`" in said


def test_losses_are_the_worst_of_each_measure_the_largest_factor_first(results: Path) -> None:
    pose = [
        {"part": "scenes", "descriptor": name, "auc": {"10": value}}
        for name, value in (("bingan256", 0.5), ("hard", 0.6))
    ]
    write(results, "pairs-x", {"results": pose})
    scene = {"scene": "s", "images": 3, "points": 9, "rotation_deg": None, "position_percent": None}
    rows = [
        {**scene, "descriptor": "bingan256", "registered": ["a", "b", "c"], "observations": 40}
        | {"mean_reprojection_error_px": 0.4},
        {**scene, "descriptor": "orb (ratio)", "registered": ["a", "b"], "observations": 10}
        | {"mean_reprojection_error_px": 0.1},
        {**scene, "descriptor": "sift, own detector", "registered": ["a", "b", "c"], "observations": 100}
        | {"mean_reprojection_error_px": 0.2},
    ]
    write(results, "sfm-x", {"results": rows})
    found = front_tables.losses("x")
    assert [(round(loss.factor, 3), loss.page) for loss in found] == [
        (15.0, "speed.md"),
        (2.5, "reconstruction.md"),  # observations
        (2.0, "reconstruction.md"),  # the error of sift; that of orb is of fewer photos
        (1.2, "pose.md"),
    ]
    assert "`orb` describes 15.0 times as many" in found[0].words
    assert front_tables.worst("x", 2).count("\n") == 1


def test_the_plot_has_a_point_for_each_descriptor_at_its_best_region(results: Path) -> None:
    drawn = front_tables.plot("x", "bytes")
    assert drawn.count("<circle") == 8
    assert ">rootsift@20<" in drawn
    assert ">rootsift<" not in drawn
    fast = front_tables.plot("x", "speed")
    assert re.findall(r">([^<>]+)</text>", fast)[-3:] == ["bingan256", "rootsift@20", "orb@24"]


def test_a_plot_puts_no_label_on_another() -> None:
    drawn = svg_scatter([Point(f"name{index}", 32, 1.0, 0.9, 1.1) for index in range(8)], "x", "y", [32])
    found = re.findall(r'<text x="([\d.]+)"( text-anchor="end")? y="([\d.]+)" fill="#555">name', drawn)
    assert len(found) == 8
    left, right = ([float(y) for _, end, y in found if bool(end) is ended] for ended in (True, False))
    for heights in (left, right):
        assert all(b - a >= 12 for a, b in zip(sorted(heights), sorted(heights)[1:], strict=False))
    with pytest.raises(UsageError, match="above 0"):
        svg_scatter([Point("a", 0, 1, 1, 1)], "x", "y", [])


def test_the_planes_of_a_scene_say_where_a_pixel_is_in_another_view() -> None:
    texture = np.zeros((400, 400), np.uint8)
    planes = [
        Plane(np.array([-2.0, -2.0, 4.0]), np.array([0.01, 0, 0]), np.array([0, 0.01, 0]), texture),
        Plane(np.array([-1.0, -2.0, 2.0]), np.array([0.01, 0, 0]), np.array([0, 0.01, 0]), texture[:, :100]),
    ]
    K = np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
    cameras = [PosedCamera(K, np.eye(3), np.array([shift, 0, 0]), 101, 101) for shift in (0.0, -0.4)]
    # the middle sees the far plane, the left the near one, and beyond 100 pixels there is nothing
    places = true_places(planes, cameras, np.array([[50, 50], [25, 50], [160, 50]]))
    np.testing.assert_allclose(places[:2], [[40, 50], [5, 50]], atol=1e-9)
    assert np.isnan(places[2]).all()
    assert true_places(planes, cameras, np.zeros((0, 2))).shape == (0, 2)


def test_a_picture_too_large_for_a_page_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    with pytest.raises(JobError, match="stays under 300,000"):
        write_jpeg(tmp_path / "a.jpg", noise)
    write_jpeg(tmp_path / "a.jpg", np.zeros((10, 10, 3), np.uint8))
    assert cv2.imread(str(tmp_path / "a.jpg")).shape == (10, 10, 3)


def test_every_page_of_results_is_filled_by_the_command_and_each_table_stands_on_one() -> None:
    text = {name: (ROOT / name).read_text(encoding="utf-8") for name in tables.pages()}
    named = re.findall(r"<!-- table (\S+) -->", "".join(text.values()))
    assert set(named) == set(tables.TABLES)
    assert {"README.md", "docs/results/index.md"} <= set(text)
