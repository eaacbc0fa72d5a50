from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.training import picture_search
from kornia_bingan.errors import UsageError
from kornia_bingan.train.config import preset_config
from kornia_bingan.train.loop import train
from tests.datasets.test_pictures import tree  # noqa: F401
from tests.helpers.photos import write_photos
from tests.network.test_pictures import config_of
from tests.train.test_loop import SMALL


def test_runs_are_compared_by_their_last_validation(
    tree: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train(config_of(tree, tmp_path / "a", steps=4, validate_every=2))
    train(config_of(tree, tmp_path / "b", steps=12, validate_every=1, temperature=0.1, time_limit=1e-6))
    (tmp_path / "b" / "idea.json").write_text(json.dumps({"idea": "colder", "predicted": "more"}))
    out = tmp_path / "search.json"
    assert picture_search.main([str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)]) == 0
    assert "colder" in capsys.readouterr().out
    first, second = json.loads(out.read_text())["results"]
    assert (first["steps"], first["pictures"], second["steps"], second["predicted"]) == (4, 48, 1, "more")
    assert (first["changes"], second["changes"]) == ({}, {"steps": 12, "temperature": 0.1})
    logged = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    last = [line for line in logged if line["kind"] == "validation"][-1]
    assert first["map"] == {"24": round(last["map"], 2), "8": round(last["map_8"], 2), "16": round(last["map_16"], 2)}
    assert first["multiply_adds"] > 0
    assert str(tmp_path) not in out.read_text()
    train(config_of(tree, tmp_path / "c", steps=1, validate_every=1, seed=2))
    with pytest.raises(UsageError, match="c was validated on other pictures than a"):
        picture_search.main([str(out), str(tmp_path / "c")])
    with pytest.raises(UsageError, match="absent holds no validated run"):
        picture_search.main([str(tmp_path / "absent")])
    photos = write_photos(tmp_path / "photos", 4)
    train(preset_config("photos", photos, tmp_path / "d", **{**SMALL, "steps": 1, "validate_every": 1}))
    with pytest.raises(UsageError, match="d trained PatchTrunk, which describes patches"):
        picture_search.main([str(tmp_path / "d")])
