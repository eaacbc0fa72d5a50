from __future__ import annotations

import json
from pathlib import Path

import pytest

from kornia_bingan import doctor, weights
from kornia_bingan.cli import main


def test_a_good_installation_has_no_red_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert {"torch", "pycolmap", "threads", "GPU", "report", "bingan256", "self-test"} <= set(checks)
    assert {check["state"] for check in checks.values()} == {"good"}
    assert "found again" in checks["self-test"]["found"]


def test_damaged_weights_and_missing_parts_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = weights.weights_folder()
    for name in ("manifest.json", *(path.name for path in source.glob("*.safetensors"))):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    data = bytearray((tmp_path / "bingan256-lite.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "bingan256-lite.safetensors").write_bytes(bytes(data))
    monkeypatch.setattr(weights, "weights_folder", lambda: tmp_path)
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "plotly" else object())
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "is damaged" in out
    assert "install kornia_bingan again" in out
    assert "pip install 'kornia_bingan[report]'" in out


def test_the_self_test_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = doctor.self_test(str(tmp_path / "absent.safetensors"))
    assert check.state == "bad"
    assert "no weights" in check.found
    monkeypatch.setattr(doctor, "LEAST_SHARE", 1.01)
    assert doctor.self_test().state == "bad"
