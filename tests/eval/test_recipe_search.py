from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.training import adapt, recipe_search
from kornia_bingan.errors import UsageError
from kornia_bingan.train.config import preset_config
from kornia_bingan.train.loop import train
from tests.helpers.photos import write_photos
from tests.train.test_loop import SMALL


def measured(name: str, rootsift: int, code: int, real: int) -> dict[str, Any]:
    values = {"rootsift": rootsift, name: code, f"{name}/float": real}
    totals = [
        {
            "part": "scene",
            "descriptor": d,
            "m95": v,
            "times_rootsift": v / rootsift,
            "times_rootsift_interval": [0.9, 1.3],
        }
        for d, v in values.items()
    ]
    return {"totals": totals, "results": [{"descriptor": d, "data": "room", "m95": v} for d, v in values.items()]}


def test_runs_are_compared_with_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_photos(tmp_path / "photos", 4)
    changes = {**SMALL, "steps": 2}
    for name, extra, m95 in (("a", {}, (100, 110, 125)), ("b", {"temperature": 0.05}, (100, 120, 125))):
        train(preset_config("photos", data, tmp_path / name, **changes, **extra))
        (tmp_path / name / "m95.json").write_text(json.dumps(measured(name, *m95)))
    (tmp_path / "b" / "idea.json").write_text(json.dumps({"idea": "colder", "predicted": "+5 %"}))
    out = tmp_path / "search.json"
    assert recipe_search.main([str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)]) == 0
    assert "colder" in capsys.readouterr().out
    first, second = json.loads(out.read_text())["results"]
    assert (first["changes"], second["changes"]) == ({}, {"temperature": 0.05})
    assert (second["times_rootsift"], second["code_of_float"], second["predicted"]) == (1.2, 0.96, "+5 %")
    assert second["m95"] == {"room": 120}
    assert str(tmp_path) not in out.read_text()
    train(preset_config("photos", data, tmp_path / "c", **changes, seed=2))
    with pytest.raises(UsageError, match="c holds no finished and measured run"):
        recipe_search.main([str(tmp_path / "c")])
    (tmp_path / "c" / "m95.json").write_text(json.dumps(measured("c", 99, 110, 125)))
    with pytest.raises(UsageError, match="c was measured on other data than a"):
        recipe_search.main([str(out), str(tmp_path / "c")])
    with pytest.raises(UsageError, match="two runs are called a"):
        recipe_search.main([str(out), str(tmp_path / "a")])
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(UsageError, match="is no result of"):
        recipe_search.main([str(other)])


def test_adaptation_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_photos(tmp_path / "photos", 4)
    changes = {**SMALL, "steps": 2}
    first = train(preset_config("photos", data, tmp_path / "first", **changes))
    train(preset_config("adapt", data, tmp_path / "second", **{**changes, "start": first["weights"]}))
    values = {"rootsift": 90, "first": 100, "first/float": 120, "second": 105, "second/float": 121}
    rows = [{"descriptor": d, "data": "room", "m95": v} for d, v in values.items()]
    measured = json.dumps({"peers": {name: {} for name in values}, "results": rows})
    out = tmp_path / "adapt.json"
    with pytest.raises(UsageError, match="holds no finished and measured adaptation"):
        adapt.main([str(tmp_path / "second")])
    for name in ("first", "second"):
        (tmp_path / name / "m95.json").write_text(measured)
    with pytest.raises(UsageError, match="it started from nothing"):
        adapt.main([str(tmp_path / "first")])
    assert adapt.main([str(tmp_path / "second"), "--out", str(out)]) == 0
    (row,) = json.loads(out.read_text())["results"]
    assert (row["start"], row["data"], row["m95_ratio"]) == ("first", "room", 1.05)
    assert row["float_m95"] == {"before": 120, "after": 121}
    assert "room" in capsys.readouterr().out
