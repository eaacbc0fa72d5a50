"""Records keep the commits that they come from, and tables show them, marks of doubt and intervals."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import tyro

from eval import __main__ as command
from eval.harness import records
from eval.harness.command import GIVEN, Names, Paths, SomeNames, command_line
from eval.harness.options import MatchingOptions
from eval.quality import thresholds
from eval.show import descriptor_tables, markdown, tables, training_tables
from eval.show.markdown import ROOT
from kornia_bingan.errors import UsageError

CLEAN, DIRTY = "0123456789abcdef" * 2 + "01234567", "fedcba9876543210" * 2 + "fedcba98-dirty"


def provenance(commit: str | None, cpu: str = "A", day: str = "2026-01-02") -> dict[str, Any]:
    return {"commit": commit, "machine": {"cpu": cpu}, "date": f"{day}T00:00:00+00:00"}


def test_tables_show_changes_and_every_commit_of_a_composed_record() -> None:
    record = {"command": "c", "provenance": provenance(DIRTY), "results": [{"a": 1}]}
    assert markdown.provenance_line(record) == "`c`, commit fedcba987654-dirty, A, 2026-01-02."
    rows = [
        {"provenance": provenance(DIRTY)},
        {"provenance": provenance(CLEAN, day="2026-01-04")},
        {"provenance": provenance(CLEAN, "B", "2026-01-03")},
    ]
    line = markdown.provenance_line({"command": "c", "results": rows})
    assert line == "`c`, commits fedcba987654-dirty, 0123456789ab, A, B, 2026-01-02 to 2026-01-04."
    assert "no commit" in markdown.provenance_line({"command": "c", "provenance": provenance(None)})


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for eval/results of a checkout with changes."""
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(records, "commit", lambda: DIRTY)
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def test_results_of_a_changed_checkout_are_refused_unless_asked_for(
    changed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed / "a.json"
    with pytest.raises(UsageError, match=r"a\.json would hold results of a checkout with changes"):
        records.write_json(path, {})
    assert not path.exists()
    records.write_json(changed.parent / "elsewhere.json", {})
    assert (changed.parent / "elsewhere.json").is_file()
    words = ["thresholds", str(changed), "--peers", "none", "--out", str(path)]
    seen: list[bool] = []
    monkeypatch.setattr(thresholds, "main", lambda argv: seen.append("--dirty" in argv) or records.write_json(path, {}))
    assert command.main(words) == 2
    assert "--dirty to write it" in capsys.readouterr().err
    command.main([*words, "--dirty"])
    assert json.loads(path.read_text()) == {}
    assert seen == [False, False]
    path.unlink()
    assert command.main(words) == 2, "what was asked once is not asked for ever"
    monkeypatch.setattr(records, "commit", lambda: CLEAN)
    records.write_json(path, {})


def test_a_changed_checkout_is_refused_before_the_work(changed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "load_problems", lambda *_, **__: pytest.fail("it began"))
    with pytest.raises(UsageError, match="checkout with changes"):
        thresholds.main([str(changed), "--peers", "none", "--out", str(changed / "t.json")])


@pytest.mark.parametrize("name", command.COMMANDS)
def test_every_command_has_help_and_refuses_what_it_does_not_know(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([name, "--help"]) == 0
    assert f"usage: python -m eval {name} " in capsys.readouterr().out
    assert command.main([name, "--fly", "high"]) == 2
    assert f"python -m eval {name} --help" in capsys.readouterr().err


def test_words_are_read_as_they_are_recorded(tmp_path: Path) -> None:
    seen: list[Any] = []

    @command_line("x")
    def main(
        sets: Paths,
        options: MatchingOptions,
        sides: Names = (),
        blanks: tuple[str, ...] = (),
        black: float = 0,
        some: SomeNames = ("a",),
    ) -> int:
        seen[:] = [sets, options.peers, options.no_cache, sides, blanks, black, GIVEN.get()]
        return 3

    words = ["a", "b", "--peers", "c,d", "--no-cache", "--sides", "e,f,", "--blanks", "g", "h", "--black", "-1"]
    assert main(words) == 3
    assert seen == [(Path("a"), Path("b")), ("c", "d"), True, ("e", "f"), ("g", "h"), -1, tuple(words)]
    assert main(["a", "--peers", ""]) == 3
    assert seen[1:6] == [(), False, (), (), 0]
    for wrong in ([], ["a", "--some", ","]):
        with pytest.raises(SystemExit):
            main(wrong)


def test_recorded_commands_and_those_of_the_makefile_are_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read = tyro.cli
    seen: list[dict[str, Any]] = []

    def read_only(function: Any, **settings: Any) -> int:
        return int(read(functools.wraps(function)(lambda **values: seen.append(values) or 0), **settings))

    monkeypatch.setattr(tyro, "cli", read_only)
    found = [json.loads(path.read_text()) for path in (ROOT / "eval" / "results").glob("*.json")]
    lines = [record["command"] for record in found if isinstance(record, dict)]
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ").replace(" $(FIT)", "")
    lines += re.sub(r"\$\((?:if|subst)[^\n]*|\$\(\w+\)", "1", makefile).splitlines()
    words = [line.partition(" -m eval ")[2].split() for line in lines]
    words = [each for each in words if each and each[0] in command.COMMANDS]
    assert len(words) > 50
    for each in words:
        assert command.main(each) == 0, each
    assert len(seen) == len(words)


def test_recalled_figures_carry_their_mark_wherever_they_stand() -> None:
    for table, names in (
        (training_tables.published_retrieval(), {"BinGAN", "GraphBit", "CIBHash"}),
        (training_tables.published_verification(), {"BRIEF", "BinGAN", "GraphBit", "DBD-MQ"}),
    ):
        rows = {line.split(" | ")[0].strip("| "): line for line in table.splitlines()[2:]}
        marked = {name for name, line in rows.items() if "recalled" in line}
        assert marked == names
        for name, line in rows.items():
            figures = re.findall(r"\d+\.\d( \?)?(?= \|)", line)
            assert len(figures) >= 3
            assert all(bool(mark) == (name in marked) for mark in figures), line
        assert "DeepBit" in rows


def test_intervals_stand_beside_their_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert markdown.with_interval(1.25, [1.0, 1.5], 1) == "1.2 (1.0 to 1.5)"
    assert markdown.with_interval(1234, None, 0) == "1,234"
    about = {"num_bytes": 32}
    total = {"part": "scene", "data": ["a"], "m95": 1500, "m95_interval": [1400.0, 1600.0], "times_rootsift": 1.5}
    total |= {"times_rootsift_interval": [1.4, 1.6], "ours_times": 1.25, "ours_times_interval": [1.2, 1.3]}
    row = {"data": "a", "m95": 1500, "m95_interval": [1390.0, 1610.0]}
    names = ("bingan256", "rootsift", "rootsift@16")
    record = {
        "command": "c",
        "provenance": provenance(CLEAN),
        "peers": dict.fromkeys(names, about),
        "absent": {},
        "constants": {"first": "bingan256"},
        "results": [{**row, "descriptor": name} for name in names],
        "totals": [{**total, "descriptor": name} for name in names],
    }
    (tmp_path / "m95-x.json").write_text(json.dumps(record))
    result = {"auc": {"3": 0.5, "10": 0.5}, "auc3_interval": [0.4, 0.6], "auc10_interval": [0.3, 0.7]}
    for file, part in (("hpatches", "sequences"), ("pairs", "scenes")):
        rows = [{"part": part, "descriptor": "rootsift@16", **result}]
        text = json.dumps({"command": file, "provenance": provenance(CLEAN), "results": rows})
        (tmp_path / f"{file}-x.json").write_text(text)
    monkeypatch.setattr(markdown, "RESULTS", tmp_path)
    text = descriptor_tables.m95("m95-x", "scene")
    assert "1,500 (1,390 to 1,610) | 1,500 (1,400 to 1,600) | 1.500 (1.400 to 1.600) | 1.250 (1.200 to 1.300)" in text
    text = descriptor_tables.summary("x")
    assert "bingan256 is x this, scenes" in text
    assert "| rootsift@16 | 32 | 1.50 (1.40 to 1.60) | 1.25 (1.20 to 1.30) | 0.500 (0.400 to 0.600)" in text
    assert text.index("| rootsift |") < text.index("| rootsift@16 |")


def test_the_sweep_of_support_regions_as_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "RESULTS", tmp_path)
    assert "Not measured yet" in descriptor_tables.regions_of_peers("s")
    rows = [
        {"descriptor": "orb", "side_sigma": 12.0, "usual": True, "sum": 1000},
        {"descriptor": "orb", "side_sigma": 16.0, "usual": False, "sum": 1500},
    ]
    chosen = {"usual": 12.0, "usual_sum": 1000, "best": 16.0, "best_sum": 1500, "at_end": True}
    record = {"command": "c", "provenance": provenance(CLEAN), "results": rows, "sides": [12.0, 16.0]}
    (tmp_path / "s.json").write_text(json.dumps({**record, "chosen": {"orb": chosen}}))
    text = descriptor_tables.regions_of_peers("s")
    assert "| orb | 12 | 1,000 | 1,000 | **1,500** | 16, the last tried | 1.500 |" in text


def test_sift_with_its_own_detector_stands_beside_ours() -> None:
    text = descriptor_tables.own_detector("sfm-heldout")
    assert "| kitchen | sift, own detector |" in text
    said = re.search(
        r"All scenes: ([\d,]+) observations of sift, own detector, (\S+) x the ([\d,]+) of bingan256\.", text
    )
    assert said is not None
    theirs, ours = (int(said[group].replace(",", "")) for group in (1, 3))
    assert f"{theirs / ours:.2f}" == said[2]
    assert "sfm-own-heldout" in tables.TABLES
