"""Programs at their defaults give one row each, and equally many tracks of two models are compared."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from eval.quality import defaults
from kornia_bingan.colmap.sift import match_with_sift
from kornia_bingan.colmap.types import Model
from kornia_bingan.errors import UsageError
from tests.helpers.scenes import copy_scene


def test_each_program_gives_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_scene(tmp_path / "data" / "room", 3, half=True)
    monkeypatch.setattr(defaults, "OURS", ("bingan256-lite",))
    monkeypatch.setattr(defaults, "OUR_MAX_KEYPOINTS", 600)
    monkeypatch.setattr(defaults, "match_with_sift", partial(match_with_sift, max_keypoints=600))
    out = tmp_path / "defaults.json"
    assert defaults.main([str(tmp_path / "data"), "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    ours, ratio, sift = record["results"]
    assert [row["program"] for row in (ours, ratio, sift)] == ["bingan256-lite", defaults.RATIO, defaults.SIFT]
    assert ratio["points"] < ours["points"]
    for row in (ours, ratio, sift):
        assert row["registered"] == row["images"] == 3
        assert row["rotation_deg"] < 0.5
        assert row["points"] > 50
        assert row["seconds"] >= row["seconds_before_mapping"] > 0
        assert len(row["longest_error_px"]) == 2
    assert ours["bytes"] == 3 * 600 * 32
    assert sift["bytes"] is None
    assert ours["longest_error_px"][0] == ours["longest_error_px"][1]
    assert "not asked for" in record["absent"][defaults.LEARNED]


def test_equally_many_of_the_longest_tracks_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "OURS", ("ours",))

    def made(track_length: list[int], error_px: list[float]) -> Model:
        count = len(track_length)
        points = np.zeros((count, 3))
        none = np.zeros((0, 3, 3)), np.zeros((0, 3))
        colors = points.astype(np.uint8)
        return Model((), *none, (), points, colors, np.array(error_px), np.array(track_length))

    models: dict[str, Model | None] = {
        "ours": made([5, 4, 3, 2], [0.1, 0.2, 0.3, 9.0]),
        "other": made([2, 7], [1.0, 0.5]),
        "none": None,
    }
    rows = [{"program": name} for name in models]
    defaults.compare(models, rows)
    assert rows[1]["longest_error_px"] == pytest.approx([(0.1 + 0.2) / 2, (0.5 + 1.0) / 2])
    assert rows[2]["longest_error_px"] == [None, None]


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder of scenes"):
        defaults.main([str(tmp_path / "absent")])
    with pytest.raises(UsageError, match="no folder with images/ in it"):
        defaults.main([str(tmp_path), "--out", str(tmp_path / "out.json")])
