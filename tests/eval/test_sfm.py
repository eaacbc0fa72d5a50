from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eval.quality import sfm, sfm_check
from eval.show import tables
from kornia_bingan.errors import UsageError
from tests.helpers.scenes import copy_scene


def test_a_rendered_scene_is_compared_with_sift_and_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_scene(tmp_path / "data" / "room", 3)
    out = tmp_path / "sfm.json"
    monkeypatch.setattr(sfm, "read_thresholds", lambda: {"rootsift": 0.85, "bingan256-lite": 0.8, "orb": 0.9})
    words = [
        str(tmp_path / "data"),
        "--max-keypoints",
        "700",
        "--peers",
        "rootsift",
        "--ours",
        "bingan256-lite",
        "--regions",
        "usual",
        "--own-detector",
        "--cache",
        str(tmp_path / "cache"),
    ]
    assert sfm.main([*words, "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert [row["descriptor"] for row in record["results"]] == [
        "bingan256-lite",
        "sift",
        "rootsift (ratio)",
        "sift, own detector",
        "orb, own detector",
    ]
    for row in record["results"]:
        assert len(row["registered"]) == row["images"] == 3
        assert row["points"] > 60
        assert row["rotation_deg"] < 1
        assert row["position_percent"] < 1
        assert row["pair_auc"]["5"] > 0.9
    ours, sift, root, *_ = record["results"]
    assert (sift["descriptor_bytes"], root["descriptor_bytes"]) == (3 * 700 * 128, 3 * 700 * 512)
    assert ours["descriptor_bytes"] == 3 * 700 * 32
    compared = record["comparison"]["others"]["sift"]["scenes"]["room"]
    assert compared["longest_tracks"] == min(ours["points"], sift["points"])
    assert all(0 < error < 1 for error in compared["longest_error_px"])
    assert compared["lost"] == []
    assert compared["points"] == [ours["points"], sift["points"]]
    assert "room" in capsys.readouterr().out
    assert record["figures"]["room"]["data"][0]["type"] == "scatter3d"

    def refuse(*_arguments: object) -> None:
        raise AssertionError("a finished reconstruction was made again")

    monkeypatch.setattr(sfm, "evaluate", refuse)
    assert sfm.main([*words, "--out", str(out)]) == 0
    assert json.loads(out.read_text())["results"] == record["results"]


def test_relative_poses_of_missing_images_are_failures() -> None:
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    truth = {"a": (np.eye(3), np.zeros(3)), "b": (np.eye(3), np.array([1.0, 0, 0])), "c": (turn, np.array([0, 2.0, 0]))}
    assert sfm.relative_pose_errors(truth, truth) == pytest.approx([0, 0, 0], abs=1e-9)
    # The whole model turned, moved and scaled has the same relative poses.
    moved = {name: (R @ turn, 3 * (t + R @ np.array([0.5, 1, 2]))) for name, (R, t) in truth.items()}
    assert sfm.relative_pose_errors(moved, truth) == pytest.approx([0, 0, 0], abs=1e-5)
    del moved["c"]
    assert sfm.relative_pose_errors(moved, truth) == [pytest.approx(0, abs=1e-5), np.inf, np.inf]
    swapped = {**truth, "b": (np.eye(3), np.array([0, 1.0, 0]))}
    assert sfm.relative_pose_errors(swapped, truth)[0] == pytest.approx(90)


def test_the_longest_tracks_are_taken_with_the_least_error_first() -> None:
    arrays = {"track": np.array([2, 5, 3, 3]), "error": np.array([9.0, 1.0, 4.0, 2.0])}
    assert sfm.error_of_longest(arrays, 2) == 1.5
    assert sfm.error_of_longest(arrays, 4) == 4.0
    assert sfm.error_of_longest(arrays, 0) is None


def test_folders_without_scenes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no folder with images/"):
        sfm.main([str(tmp_path)])
    with pytest.raises(UsageError, match="is no folder of scenes"):
        sfm.main([str(tmp_path / "absent")])
    (tmp_path / "empty" / "images").mkdir(parents=True)
    with pytest.raises(UsageError, match="has 0 images"):
        sfm.main([str(tmp_path)])


def test_tables_are_filled_between_their_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TABLES", {"one": lambda: "| new |"})
    text = "a\n<!-- table one -->\nold\n<!-- end -->\nb"
    assert tables.fill(text) == "a\n<!-- table one -->\n| new |\n<!-- end -->\nb"


def test_sift_through_the_harness_is_plain_pycolmap(tmp_path: Path) -> None:
    copy_scene(tmp_path / "data" / "room", 4, half=True)
    out = tmp_path / "check.json"
    assert sfm_check.main([str(tmp_path / "data"), "--seeds", "1", "--out", str(out)]) == 0
    plain, harness = json.loads(out.read_text())["results"]
    assert (plain["pipeline"], harness["pipeline"]) == ("plain", "harness")
    assert plain["registered"] == harness["registered"] == 4
    assert harness["points"] == pytest.approx(plain["points"], rel=0.02)
    assert harness["observations"] == pytest.approx(plain["observations"], rel=0.02)
    assert harness["mean_reprojection_error_px"] == pytest.approx(plain["mean_reprojection_error_px"], abs=0.01)
    assert max(plain["rotation_deg"], harness["rotation_deg"]) < 0.1
    with pytest.raises(UsageError, match="has no folder with images/"):
        sfm_check.main([str(tmp_path)])
