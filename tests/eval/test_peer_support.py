"""The sweep of support regions, and that every protocol measures peers as they are used and at their best."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.harness import options
from eval.quality import m95, peer_support
from kornia_bingan.errors import UsageError
from tests.helpers.scenes import copy_scene


def row(side: float | None, total: int, *, usual: bool = False) -> dict[str, object]:
    return {"side_sigma": side, "sum": total, "usual": usual}


def test_the_largest_sum_is_the_best() -> None:
    rows = [row(12.0, 50, usual=True), row(8.0, 40), row(16.0, 60), row(20.0, 55)]
    expected = {"usual": 12.0, "usual_sum": 50, "best": 16.0, "best_sum": 60, "at_end": False}
    assert peer_support.choose(rows) == expected
    assert peer_support.choose(rows[:3])["at_end"], "a larger one was not tried"
    assert peer_support.choose([row(None, 70, usual=True), *rows[1:]])["best"] is None, "a window of fixed size"
    assert not peer_support.choose([row(None, 70, usual=True), *rows[1:]])["at_end"]


def test_of_equal_sums_the_usual_side_is_the_best_then_the_smaller() -> None:
    assert peer_support.choose([row(12.0, 50, usual=True), row(8.0, 50), row(16.0, 50)])["best"] == 12
    assert peer_support.choose([row(12.0, 40, usual=True), row(16.0, 50), row(8.0, 50)])["best"] == 8


@pytest.mark.parametrize("text", ["", "a", "0,4", "-1"])
def test_sides_that_are_no_positive_numbers_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--sides"):
        peer_support.read_sides(text)


def test_a_peer_is_named_once_where_the_usual_side_is_the_best(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    chosen = {"sift": {"usual": 12.0, "best": 16.0}, "orb": {"usual": 12.0, "best": 12.0}}
    path.write_text(json.dumps({"chosen": {**chosen, "brief": {"usual": None, "best": 16.5}}}))
    assert options.best_sides(path) == {"sift": 16, "brief": 16.5}
    names = ["sift", "orb", "brief", "sift@20"]
    assert options.with_regions(names, "both", path) == ["sift", "sift@16", "orb", "brief", "brief@16.5", "sift@20"]
    assert options.with_regions(names, "usual", tmp_path / "absent") == names
    with pytest.raises(UsageError, match="python -m eval peer_support DATA/validate makes it"):
        options.with_regions(["sift"], "both", tmp_path / "absent")
    path.write_text("[]")
    with pytest.raises(UsageError, match="no record of python -m eval peer_support"):
        options.best_sides(path)


def test_the_sweep_decides_what_m95_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(m95, "MAX_KEYPOINTS", 150)
    copy_scene(tmp_path / "data" / "room", 3, half=True)
    record, cache = tmp_path / "support.json", ["--cache", str(tmp_path / "cache")]
    words = [str(tmp_path / "data"), "--peers", "orb,brief", "--out", str(record), *cache]
    assert peer_support.main([*words, "--sides", "12,20"]) == 0
    stored = json.loads(record.read_text())
    assert [(r["descriptor"], r["side_sigma"], r["usual"]) for r in stored["results"]] == [
        ("orb", 12, True),
        ("orb", 20, False),
        ("brief", None, True),
        ("brief", 12, False),
        ("brief", 20, False),
    ], "the usual side is measured once"
    for name, about in stored["chosen"].items():
        sums = {r["side_sigma"]: r["sum"] for r in stored["results"] if r["descriptor"] == name}
        assert about["best_sum"] == max(sums.values()) == sums[about["best"]]
    assert set(stored["peers"]) == {"orb", "brief"}
    assert str(tmp_path) not in record.read_text()
    assert "use it, sigma" in capsys.readouterr().out
    stored["chosen"]["orb"]["best"] = 20
    record.write_text(json.dumps(stored))
    out = tmp_path / "m95.json"
    words = [str(tmp_path / "data"), "--peers", "orb", "--support", str(record), "--out", str(out), *cache]
    words += ["--ours", "bingan256-lite"]
    assert m95.main(words) == 0
    score = {r["descriptor"]: r["m95"] for r in json.loads(out.read_text())["results"]}
    assert list(score) == ["orb", "orb@20", "bingan256-lite", "bingan256-lite/float"]
    swept = {r["side_sigma"]: r["sum"] for r in stored["results"] if r["descriptor"] == "orb"}
    assert (score["orb"], score["orb@20"]) == (swept[12], swept[20])
    with pytest.raises(UsageError, match="without a side"):
        peer_support.main([str(tmp_path / "data"), "--peers", "orb@8"])
