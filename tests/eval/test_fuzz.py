from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from eval.inputs import fuzz
from kornia_bingan.errors import UsageError


def test_no_mutated_file_is_taken_badly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "LIMIT_S", 600.0)  # a loaded machine is no fault of a file
    out = tmp_path / "fuzz.json"
    assert fuzz.main(["--count", "660", "--seed", "1", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert sum(row["files"] for row in record["results"]) == 660
    assert len(record["results"]) == 11
    assert all(row["refused"] > 0 for row in record["results"])
    assert sum(row["read"] for row in record["results"]) > 100
    assert record["faults"] == []


def test_faults_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"abc")

    def untidy(given: Path) -> None:
        given.with_suffix(".partial").write_bytes(b"")

    def slow(_given: Path) -> None:
        time.sleep(1)

    def refusing(_given: Path) -> None:
        raise UsageError("no")

    assert fuzz.outcome(refusing, path) == "refused"
    assert fuzz.outcome(untidy, path) == "left behind: file.partial"
    assert fuzz.outcome(lambda _given: 1 / 0, path).startswith("crash: ZeroDivisionError")
    monkeypatch.setattr(fuzz, "LIMIT_S", 0.05)
    fuzz.main(["--count", "1", "--out", str(tmp_path / "out.json")])  # sets the alarm
    assert fuzz.outcome(slow, path).startswith("hang")
    monkeypatch.setattr(fuzz, "seeds", lambda _folder: {"kind": (b"abc", ".bin", [lambda _given: 1 / 0])})
    out = tmp_path / "out.json"
    assert fuzz.main(["--count", "2", "--out", str(out), "--keep", str(tmp_path / "kept")]) == 1
    assert len(json.loads(out.read_text())["faults"]) == 2
    assert (tmp_path / "kept" / "1.bin").is_file()


def test_mutations_repeat_with_their_seed() -> None:
    data = bytes(range(256)) * 4
    first, again, other = (fuzz.mutate(data, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert first != data
    assert fuzz.mutate(b"", np.random.default_rng(0)) == b""
