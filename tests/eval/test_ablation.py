from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.training import ablation
from kornia_bingan.errors import UsageError
from kornia_bingan.train.config import preset_config
from kornia_bingan.train.loop import train
from tests.helpers.photos import write_photos
from tests.train.test_loop import SMALL


def test_runs_are_compared_by_their_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_photos(tmp_path / "photos", 4)
    changes = {**SMALL, "steps": 4, "validate_every": 2}
    for name, weight in (("with", 0.1), ("without", 0.0)):
        train(preset_config("photos", data, tmp_path / name, **changes, lambda_dmr=weight))
    out = tmp_path / "ablation.json"
    assert ablation.main([str(tmp_path / "with"), str(tmp_path / "without"), "--out", str(out)]) == 0
    assert "untrained" in capsys.readouterr().out
    first, second = json.loads(out.read_text())["results"]
    assert (first["run"], first["lambda_dmr"], second["lambda_dmr"]) == ("with", 0.1, 0.0)
    assert first["untrained"] == second["untrained"], "both start from the same network"
    assert [row["step"] for row in first["curve"]] == [0, 2, 4]
    late = [row["fpr95"] for row in first["curve"][1:]]
    assert first["late_mean"]["fpr95"] == pytest.approx(sum(late) / 2, abs=0.01)
    assert first["patches"] == 4 * SMALL["batch_size"]
    assert str(tmp_path) not in out.read_text()
    assert out.with_suffix(".svg").is_file()
    train(preset_config("photos", data, tmp_path / "third", **changes, lambda_bre=0.1))
    assert ablation.main([str(out), str(tmp_path / "third"), "--out", str(out)]) == 0
    again = json.loads(out.read_text())["results"]
    assert again[:2] == [first, second]
    assert again[2]["run"] == "third"
    with pytest.raises(UsageError, match="two runs are called with"):
        ablation.main([str(out), str(tmp_path / "with")])
    other = write_photos(tmp_path / "other", 4)
    train(preset_config("photos", other, tmp_path / "elsewhere", **changes))
    with pytest.raises(UsageError, match="elsewhere was validated on"):
        ablation.main([str(tmp_path / "with"), str(tmp_path / "elsewhere")])


def test_folders_without_a_run_are_named(tmp_path: Path) -> None:
    for text in ("{}", "not JSON"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(UsageError, match=r"other\.json is no"):
            ablation.main([str(tmp_path / "other.json")])
    with pytest.raises(UsageError, match="holds no training run"):
        ablation.main([str(tmp_path)])
