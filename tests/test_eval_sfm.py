from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval import sfm, tables
from kornia_bingan.errors import UsageError
from kornia_bingan.scene import render_scene


def test_a_rendered_scene_is_compared_with_sift_and_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    render_scene(tmp_path / "data" / "room", 4)
    out = tmp_path / "sfm.json"
    monkeypatch.setattr(sfm, "read_thresholds", lambda: {"rootsift": 0.85})
    words = [str(tmp_path / "data"), "--max-keypoints", "700", "--peers", "rootsift"]
    assert sfm.main([*words, "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert [row["descriptor"] for row in record["results"]] == ["bingan256", "sift", "rootsift (ratio)"]
    for row in record["results"]:
        assert len(row["registered"]) == row["images"] == 4
        assert row["points"] > 100
        assert row["rotation_deg"] < 0.5
        assert row["position_percent"] < 1
    ours, sift, root = record["results"]
    assert (sift["descriptor_bytes"], root["descriptor_bytes"]) == (4 * 700 * 128, 4 * 700 * 512)
    assert ours["descriptor_bytes"] == 4 * 700 * 32
    compared = record["comparison"]["scenes"]["room"]
    assert compared["lost"] == []
    assert compared["points"] == [ours["points"], sift["points"]]
    assert "room" in capsys.readouterr().out


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
