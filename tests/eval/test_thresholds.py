from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eval.quality import thresholds
from eval.quality.m95 import Result
from kornia_bingan.errors import UsageError
from tests.helpers.photos import write_wall


def m95_result(ratio: list[float], correct: list[bool]) -> Result:
    """A result of one pair whose two-way ratios are given; those of one way would give another threshold."""
    two_way = np.array(ratio, np.float32)
    return Result(1, np.zeros(len(ratio), np.int32), 0 * two_way, two_way, np.array(correct, np.bool_))


def test_scenes_have_equal_weight_in_a_threshold() -> None:
    """One of two matches of a small scene is wrong: 41 of 42 pooled matches are right, but only 3/4 by scenes."""
    small = m95_result(ratio=[0.5, 0.6], correct=[True, False])
    large = m95_result(ratio=[0.5] * 20 + [0.7] * 20, correct=[True] * 40)
    assert thresholds.ratio_of_scenes([small, large]) == {"ratio": 0.5, "matches": 21, "correct": 21}
    assert thresholds.ratio_of_scenes([large]) == {"ratio": pytest.approx(0.7), "matches": 40, "correct": 40}
    assert thresholds.ratio_of_scenes([m95_result([0.5], [False])]) == {"ratio": 0.0, "matches": 0, "correct": 0}


def test_a_scene_of_one_match_weighs_as_much_as_any() -> None:
    """With half of its weight 12 of 12.5 would be right at 0.6, which is more than 95 %."""
    scenes = [m95_result([0.5, 0.5], [True, True])] * 12 + [m95_result([0.6], [False])]
    assert thresholds.ratio_of_scenes(scenes) == {"ratio": 0.5, "matches": 24, "correct": 24}
    assert thresholds.ratio_of_scenes([*scenes, m95_result([], [])])["ratio"] == 0.5


def test_where_no_ratio_is_precise_the_threshold_is_0_and_takes_what_has_that() -> None:
    assert thresholds.ratio_of_scenes([m95_result([0, 0.5], [False] * 2)]) == {"ratio": 0, "matches": 1, "correct": 0}


def test_a_descriptor_without_a_threshold_is_named() -> None:
    assert thresholds.threshold_of({"orb": 0.8}, "orb") == 0.8
    with pytest.raises(UsageError, match="teblid256 has no threshold"):
        thresholds.threshold_of({"orb": 0.8}, "teblid256")


def test_the_command_writes_a_ratio_a_descriptor_and_reads_no_sequence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, out = write_wall(tmp_path / "data" / "wall").parent, tmp_path / "thresholds.json"
    (scene / "homography" / "oxford_damaged").mkdir(parents=True)
    (scene / "homography" / "oxford_damaged" / "H_1_2").write_text("no matrix")
    words = ["--peers", "rootsift,orb", "--regions", "usual", "--ours", "", "--no-cache", "--out", str(out)]
    assert thresholds.main([str(scene), *words]) == 0
    record = json.loads(out.read_text())
    assert (record["scenes"], record["precision"]) == (["wall"], 0.95)
    found = thresholds.read_thresholds(out)
    assert list(found) == ["rootsift", "orb"]
    assert all(0.3 < ratio <= 1 for ratio in found.values())
    assert all(row["correct"] >= 0.95 * row["matches"] > 20 for row in record["results"])
    with pytest.raises(UsageError, match="makes it"):
        thresholds.read_thresholds(out.with_name("absent.json"))
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [f"{name} {ratio:.3f}" for name, ratio in found.items()]
    assert shown.out.split()[:4] == ["descriptor", "ratio", "matches", "correct"]
