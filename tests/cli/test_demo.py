from __future__ import annotations

from pathlib import Path
from typing import Any

from kornia_bingan.cli.demo import demo_table, run_demo


def test_the_demo_finds_its_scene_again_and_goes_on(tmp_path: Path) -> None:
    words: dict[str, Any] = {"descriptor": "bingan256-lite", "num_views": 3, "max_keypoints": 1000}
    result = run_demo(tmp_path / "demo", **words)
    assert result["images"] == 3
    for kind in ("bingan", "sift"):
        assert result[kind]["registered"] == 3
        assert result[kind]["median_rotation_deg"] < 0.5
        assert result[kind]["median_position_percent"] < 1
        assert 0 < result[kind]["places"] <= result[kind]["points"]
    assert run_demo(tmp_path / "demo", **words) == result
    table = demo_table(result)
    assert "our codes (32 bytes)" in table
    assert "3 / 3" in table
    assert result["bingan"]["keypoints"] == result["sift"]["keypoints"] > 1000
    assert "at most as many keypoints of a photo as COLMAP's SIFT has" in table
