"""Programs in processes of their own, for what only the end of a process shows.

A server that has loaded torch, with what optimisers load of it, and done nothing else is forked for each program: to
load them takes 6 s.
What must start from nothing (imports, peaks of memory, the encoding of the terminal) is run by ``subprocess`` instead.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torch", "torch._dynamo", "cv2"])


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what it said; ``returncode`` is -N after signal N."""

    returncode: int
    stdout: str
    stderr: str


def run_program(program: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> Ended:
    """Run Python code as ``python -c`` does."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "stdout"), Path(folder, "stderr")
        process = _SERVER.Process(target=_run, args=(program, said, cwd or Path.cwd(), dict(environment or {})))
        process.start()
        process.join()
        assert process.exitcode is not None
        return Ended(process.exitcode, *(path.read_text(encoding="utf-8") for path in said))


def bingan(*words: str | Path) -> Ended:
    """Run a command of ``bingan``."""
    return run_program(f"from kornia_bingan.cli import main\nraise SystemExit(main({[*map(str, words)]}))")


def _run(program: str, said: tuple[Path, Path], cwd: Path, environment: dict[str, str]) -> None:
    for number, path in enumerate(said, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["-c"]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
