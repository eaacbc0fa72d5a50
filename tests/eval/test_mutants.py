"""The tool that says what the tests do not notice, on a small repository of its own."""

from __future__ import annotations

import json
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from eval.mutation import mutants
from eval.mutation.changes import Mutant, find_mutants
from kornia_bingan.errors import JobError, UsageError

SOURCE = '''"""Sums."""


def add(a: int | None, *, b: int = 2) -> int | None:
    if a is None:
        raise ValueError(f"a is None, {b + 1}")
    assert b > 0
    return a + b
'''
TEST = """import pytest
from kornia_bingan.sums import add


def test_add():
    assert add(3, b=4) == 7
    with pytest.raises(ValueError):
        add(None)
"""


import_module("hypothesis.core")  # as the command does: each start of pytest would need seconds for it


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("kornia_bingan/sums.py", SOURCE), ("tests/test_sums.py", TEST), ("tests/__init__.py", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "kornia_bingan" / "__init__.py").write_text("")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mutants, "find_mutants", lambda _source, sample, _seed: (CHANGES[:sample], len(CHANGES)))
    return tmp_path


def change(line: int, before: str, after: str) -> Mutant:
    return Mutant(line, "some", 0, before, after, SOURCE.replace(before, after))


CHANGES = [change(8, "return a + b", "return a - b"), change(4, "b: int = 2", "b: int = 3")]


if find_spec("cosmic_ray") is not None:  # of the extra mutation; without it the command refuses

    def test_an_exception_with_a_dot_in_its_name_is_passed_over() -> None:
        source = "try:\n    pass\nexcept (OSError, zipfile.BadZipFile):\n    pass\n"
        found, places = find_mutants(source, None, [0])
        assert (len(found), places) == (1, 1)
        assert "OSError" not in found[0].code

    def test_annotations_assertions_and_messages_are_left_out() -> None:
        found, places = find_mutants(SOURCE, None, [0])
        assert places == len(found)
        assert {(one.line, one.operator.partition("_")[0]) for one in found} == {
            (4, "NumberReplacer"),
            (5, "AddNot"),
            (5, "ReplaceComparisonOperator"),
            (8, "ReplaceBinaryOperator"),
        }
        assert all(one.before != one.after and one.code != SOURCE for one in found)
        fewer, _ = find_mutants(SOURCE, 2, [0])
        assert fewer == found[:2]


def test_what_tests_do_not_notice_survives_until_they_do(repository: Path) -> None:
    row = mutants.examine("kornia_bingan/sums.py", None, 0)
    assert (row["places"], row["tried"], row["caught"]) == (2, 2, 1)
    (survivor,) = row["survivors"]
    assert (survivor["line"], survivor["after"]) == (4, "b: int = 3")
    assert (repository / "kornia_bingan" / "sums.py").read_text() == SOURCE
    (kept,) = (repository / "bench" / "mutants").iterdir()
    outcomes = json.loads(kept.read_text())["outcomes"]
    assert len(outcomes) == 2
    (repository / "tests" / "test_sums.py").write_text(f"{TEST}    assert add(1) == 3\n")
    assert mutants.examine("kornia_bingan/sums.py", None, 0)["caught"] == 2


def test_tests_that_fail_without_a_change_are_said(repository: Path) -> None:
    (repository / "tests" / "test_sums.py").write_text(TEST.replace("7", "8"))
    with pytest.raises(JobError, match=r"test_sums\.py: they fail without a change"):
        mutants.examine("kornia_bingan/sums.py", None, 0)
    with pytest.raises(UsageError, match="no such file"):
        mutants.examine("kornia_bingan/absent.py", None, 0)


def test_a_file_has_a_sample_of_its_own(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int | None]] = []
    row = {"places": 9, "tried": 2, "caught": 1, "explained": 0, "percent": 50.0, "interval": (1.0, 99.0)}
    monkeypatch.setattr(mutants, "find_spec", lambda name: name == "cosmic_ray" or None)
    monkeypatch.setattr(
        mutants,
        "examine",
        lambda file, sample, _: asked.append((file, sample)) or {**row, "file": file, "survivors": []},
    )
    assert mutants.main(["a.py:3", "b.py", "--sample", "5"]) == 0
    assert asked == [("a.py", 3), ("b.py", 5)]
    for words in (["a.py:"], ["a.py:x"], ["a.py:0"], ["a.py", "--sample", "0"]):
        with pytest.raises(UsageError, match=r"a sample of|write a\.py:30"):
            mutants.main(words)


def test_the_interval_is_wilsons() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662, 0 of 20 gives 0 to 0.1611
    assert mutants.wilson(81, 263) == pytest.approx((25.53, 36.62), abs=0.005)
    assert mutants.wilson(0, 20) == pytest.approx((0, 16.11), abs=0.005)
    assert mutants.wilson(0, 0) == (0, 100)
