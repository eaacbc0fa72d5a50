from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kornia_bingan.cli import doctor, main
from kornia_bingan.network import weights


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


def test_an_opencv_that_was_half_removed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(doctor.cv2, "SIFT")
    bad = [check for check in doctor._libraries() if check.state == "bad"]
    assert [check.name for check in bad] == ["cv2"]
    assert "remove every opencv package" in bad[0].advice


def test_more_threads_than_cores_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.torch, "get_num_threads", lambda: 512)
    threads = doctor._machine()[0]
    assert threads.state == "bad"
    assert "set OMP_NUM_THREADS=" in threads.advice


@pytest.mark.parametrize("library", ["cv2", "torch"])
@pytest.mark.parametrize("command", [["doctor"], ["describe", "photos", "out"]])
def test_a_missing_library_is_a_sentence_with_the_pip_command(library: str, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    program = (
        f"import sys; sys.modules['{library}'] = None; from kornia_bingan.cli import main; sys.exit(main({command}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert library in done.stderr
    assert "pip install --force-reinstall 'kornia_bingan[opencv]'" in done.stderr
    assert "Traceback" not in done.stderr
