"""A changed file is tried: the tests run in a fork of this process, on a copy of the working tree."""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.mutation.changes import Mutant
from kornia_bingan.errors import JobError

OURS = ("kornia_bingan", "eval", "tests")
MEMORY_BYTES = 16 * 2**30


@dataclass(frozen=True)
class Baseline:
    """What the tests of a file do without a change.

    Attributes:
        seconds: of each test, by its name.
        lines: the tests that execute each line of the file.
        cpu_s: processor time of all.
    """

    seconds: dict[str, float]
    lines: dict[int, list[str]]
    cpu_s: float


@contextmanager
def copied_tree() -> Iterator[Path]:
    """Give a copy of the files of this checkout, with the shared folder beside it, that is removed at the end."""
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], capture_output=True, check=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder) / "tree"
        for name in os.fsdecode(listed.stdout).split("\0"):
            if name and Path(name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(name, tree / name)
        if Path("../shared").is_dir():
            (Path(folder) / "shared").symlink_to(Path("../shared").resolve())
        yield tree


def run_forked(call: Callable[[], int], cpu_limit_s: float, wall_limit_s: float) -> tuple[int | None, float]:
    """Call a function in a fork of this process, without its output.

    Returns:
        Its exit status (negative: the signal that killed it), None if it reached a limit; and its processor time.
    """
    gc.freeze()  # pytest collects garbage at its end, which would go through all that the libraries made
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            os.setpgid(0, 0)  # no session of its own, which would have a processor share of its own
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(nothing, stream)
            limit = math.ceil(cpu_limit_s)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
            status = call()
        finally:
            os._exit(status)
    deadline = time.monotonic() + wall_limit_s
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # it, or what it left behind
    if not done:
        os.waitpid(pid, 0)
        return None, wall_limit_s
    code = os.waitstatus_to_exitcode(status)
    return (None if code == -signal.SIGXCPU else code), usage.ru_utime + usage.ru_stime


class _InOrder:
    """Run the tests that execute the changed line first, quick ones before slow ones."""

    def __init__(self, baseline: Baseline, line: int) -> None:
        self.baseline, self.first = baseline, set(baseline.lines.get(line, ()))

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda item: (item.nodeid not in self.first, self.baseline.seconds.get(item.nodeid, 0.0)))


class _Recorder:
    """Take the seconds of every test, and tell coverage which one runs."""

    def __init__(self, coverage: Any) -> None:
        self.coverage = coverage
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration


def run_tests(tree: Path, tests: list[str], plugins: list[object]) -> int:
    """Run test files of a copied tree in this process, which must not have used the repository before."""
    import pytest

    for name in list(sys.modules):
        if name.partition(".")[0] in OURS:
            del sys.modules[name]
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)
    # bytecode of before a change counts as that of after it: the file has the same second and the same size
    sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # to look for plugins takes longer than most tests
    words = ["-x", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin", "--hypothesis-seed=0", *tests]
    return int(pytest.main(words, plugins=plugins))


def measure(tree: Path, file: str, tests: list[str]) -> Baseline:
    """Run the tests of the unchanged file.

    Raises:
        JobError: they fail.
    """
    out = tree.parent / "baseline.json"

    def call() -> int:
        from coverage import Coverage

        coverage = Coverage(include=[str(tree / file)], data_file=None, config_file=False)
        recorder = _Recorder(coverage)
        coverage.start()
        status = run_tests(tree, tests, [recorder])
        coverage.stop()
        data = coverage.get_data()
        lines = data.contexts_by_lineno(str(tree / file)) if str(tree / file) in data.measured_files() else {}
        out.write_text(json.dumps([recorder.seconds, lines]), encoding="utf-8")
        return status

    status, cpu_s = run_forked(call, 3600, 3600)
    if status != 0:
        raise JobError(f"{', '.join(tests)}: they fail without a change (pytest's exit status is {status})")
    seconds, lines = json.loads(out.read_text(encoding="utf-8"))
    return Baseline(seconds, {int(line): names for line, names in lines.items()}, cpu_s)


def try_mutant(tree: Path, file: str, tests: list[str], baseline: Baseline, mutant: Mutant, number: int) -> str:
    """Run the tests against a mutant: ``caught``, ``too slow`` or ``survived``.

    Raises:
        JobError: pytest itself could not run.
    """
    path = tree / file
    original = path.read_text(encoding="utf-8")
    path.write_text(mutant.code, encoding="utf-8")
    # Compiled files are told apart by size and second; no two mutants have one time.
    os.utime(path, (number, number))
    try:
        status, _ = run_forked(
            lambda: run_tests(tree, tests, [_InOrder(baseline, mutant.line)]),
            10 * baseline.cpu_s + 10,
            60 * baseline.cpu_s + 120,
        )
    finally:
        path.write_text(original, encoding="utf-8")
        os.utime(path, (0, 0))
    if status in (4, 5, 70):
        raise JobError(f"{file}, line {mutant.line}: pytest could not run (exit status {status}): {mutant.after}")
    return "too slow" if status is None else "caught" if status else "survived"
