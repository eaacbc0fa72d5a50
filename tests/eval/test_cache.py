from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import eval.harness.cache
import eval.harness.metrics
from eval.harness.cache import Arrays, cached, code_digest, digest
from kornia_bingan.errors import UsageError


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def make(self) -> Arrays:
        self.calls += 1
        return {"rows": np.arange(self.calls), "none": np.zeros((0, 3), np.uint8)}


def test_arrays_are_made_once_a_key(tmp_path: Path) -> None:
    counter = Counter()
    first = cached(tmp_path, {"step": "describe", "name": "a"}, counter.make)
    again = cached(tmp_path, {"name": "a", "step": "describe"}, counter.make)
    assert counter.calls == 1
    assert first.keys() == again.keys()
    assert again["none"].shape == (0, 3)
    assert again["none"].dtype == np.uint8
    assert cached(tmp_path, {"step": "describe", "name": "b"}, counter.make)["rows"].tolist() == [0, 1]
    assert counter.calls == 2
    assert len(list((tmp_path / "describe").iterdir())) == 2


def test_no_folder_keeps_nothing() -> None:
    counter = Counter()
    for _ in range(2):
        cached(None, {"step": "x"}, counter.make)
    assert counter.calls == 2


def test_a_file_of_another_key_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    counter = Counter()
    for name in "ab":
        cached(tmp_path, {"step": "s", "name": name}, counter.make)
    one, other = (tmp_path / "s").iterdir()
    one.write_bytes(other.read_bytes())
    errors = []
    for name in "ab":
        try:
            cached(tmp_path, {"step": "s", "name": name}, counter.make)
        except UsageError as error:
            errors.append(str(error))
    assert len(errors) == 1
    assert "another key" in errors[0]
    one.write_bytes(b"PK\x03\x04 nothing")
    other.write_bytes(b"")
    for name in "ab":
        with pytest.raises(UsageError, match=r"damaged.*delete it"):
            cached(tmp_path, {"step": "s", "name": name}, counter.make)


def test_a_failed_computation_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> Arrays:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cached(tmp_path, {"step": "s"}, fail)
    assert list((tmp_path / "s").glob("*")) == []
    assert cached(tmp_path, {"step": "s"}, Counter().make)["rows"].tolist() == [0]


def test_digests_see_content_shape_and_dtype() -> None:
    a = np.arange(6, dtype=np.uint8)
    digests = [digest(a), digest(a.reshape(2, 3)), digest(a.astype(np.int8)), digest(a[::-1]), digest(a, a)]
    assert len(set(digests)) == 5
    assert digest(a.reshape(2, 3)[:, ::2]) == digest(np.array([[0, 2], [3, 5]], np.uint8))
    assert (
        code_digest(eval.harness.cache)
        != code_digest(eval.harness.cache, eval.harness.metrics)
        != code_digest(eval.harness.metrics)
    )
