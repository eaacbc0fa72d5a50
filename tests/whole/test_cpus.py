"""What ``make test-cpus`` sets, leaves out and says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import cpus
from tests.cpus import LEFT_OUT, SETTINGS, Machine, modules

OLDER = Machine("avx2", ("SSE4.1", "SSE4.2", "AVX", "FP16", "AVX2"))


def test_what_is_left_out_exists_and_is_left_out_once() -> None:
    names = [name for of_kind in LEFT_OUT.values() for name in of_kind]
    assert len(names) == len(set(names))
    every = {path.relative_to(Path(cpus.__file__).parents[1]) for path in Path(cpus.__file__).parent.rglob("test_*.py")}
    left_out = {Path("tests", f"{name}.py") for name in names}
    assert left_out < every
    assert {Path(module) for module in modules()} == every - left_out


def test_a_setting_is_limited_to_what_the_processor_has() -> None:
    newest = Machine("avx512", (*OLDER.features, "AVX512-SKX"))
    whole, old, mixed = SETTINGS["whole"], SETTINGS["oldest"], SETTINGS["mixed"]
    assert whole.environment(newest)["ATEN_CPU_CAPABILITY"] == "avx512"
    assert whole.environment(OLDER)["ATEN_CPU_CAPABILITY"] == "avx2"
    assert old.environment(OLDER)["ATEN_CPU_CAPABILITY"] == "default"
    assert mixed.environment(newest)["OPENCV_CPU_DISABLE"] == "AVX2,AVX512-SKX"
    assert mixed.environment(OLDER)["OPENCV_CPU_DISABLE"] == "AVX2"
    assert "OPENCV_CPU_DISABLE" not in whole.environment(OLDER)


def test_settings_cover_levels_threads_and_orders() -> None:
    settings = SETTINGS.values()
    assert {setting.torch for setting in settings} == set(cpus.LEVELS)
    assert {setting.onednn for setting in settings} >= {"AVX2", "AVX512_CORE", "ALL"}
    assert {setting.threads for setting in settings} == {1, 2}
    assert len({setting.seed for setting in settings}) == len(settings)


def test_one_failed_setting_fails_the_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def run(command: list[str], check: bool, env: dict[str, str]) -> SimpleNamespace:
        ran.append(command[-1])
        return SimpleNamespace(returncode=int(env["TEST_ORDER"] == "2"))

    monkeypatch.setattr(cpus, "look", lambda environment: OLDER)
    monkeypatch.setattr(cpus.subprocess, "run", run)
    assert cpus.main(["oldest", "avx2", "--", "a test"]) == 1
    assert ran == ["a test"] * 2
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:5] == ["oldest", "avx2", "AVX2", "1", "1"]
    assert "passed" in first
    assert "FAILED (exit status 1)" in second
    assert cpus.main(["whole"]) == 0
    assert ran[-1] == modules()[-1]
    assert cpus.main(["newest"]) == 2
    assert "there is no setting newest; choose of oldest, avx2" in capsys.readouterr().err
