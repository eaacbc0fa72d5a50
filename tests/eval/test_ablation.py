from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.harness.columns import text_of
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


def run_of(seed: int, last: float, **changes: float) -> dict[str, Any]:
    settings = dict.fromkeys(ablation.SETTINGS, 0)
    values = {"fpr95": last}
    return {**settings, **changes, "seed": seed, "steps": 10, "patches": 250, "seconds": 60.0 * seed, "last": values}


def test_seeds_are_joined_and_compared_one_by_one() -> None:
    runs = [run_of(1, 30), run_of(2, 40), run_of(1, 31, lambda_dmr=0.05), run_of(3, 50), run_of(2, 43, lambda_dmr=0.05)]
    first, second = ablation.over_seeds([*runs, run_of(3, 52, lambda_dmr=0.05)])
    assert (first["seeds"], first["last"], first["difference"], first["seconds"]) == (3, 40, None, 120)
    assert (second["seeds"], second["last"], second["difference"]) == (3, 42, 2)
    # differences 1, 3, 2: deviation 1; the quantile of Student's t for two degrees of freedom is 4.303
    assert second["interval"] == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)
    assert ablation.over_seeds([runs[0], run_of(1, 7, lambda_bre=0.1)])[1]["difference"] is None
    again = {**run_of(1, 20), "run": "again"}  # of the same seed: another recipe, whatever its settings say
    assert [row["last"] for row in ablation.over_seeds([runs[0], again])] == [30, 20]
    texts = text_of(ablation.seed_columns([first, second]), [first, second])
    assert "+2.00 (-0.48 to +4.48)" in texts


def test_folders_without_a_run_are_named(tmp_path: Path) -> None:
    for text in ("{}", "not JSON"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(UsageError, match=r"other\.json is no"):
            ablation.main([str(tmp_path / "other.json")])
    with pytest.raises(UsageError, match="holds no training run"):
        ablation.main([str(tmp_path)])
