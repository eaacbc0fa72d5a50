"""Programs in processes of their own, for what only the end of a process shows.

A server that has loaded the libraries and our commands, and done nothing else, is forked for each program: to load
torch, with what optimisers load of it, takes 6 s, and under coverage to load the rest takes a second more.
What must start from nothing (imports, peaks of memory, the encoding of the terminal) is run by ``subprocess`` instead.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any

_SERVER = multiprocessing.get_context("forkserver")
# pycolmap last, see half_pixel
_LIBRARIES = ["torch", "torch._dynamo", "coverage", "kornia.feature", "faiss", "cv2", "pycolmap"]
_OURS = ["cli", "reconstruct.pipeline", "search.index", "train.loop", "work.isolated"]
_SERVER.set_forkserver_preload(_LIBRARIES + [f"kornia_bingan.{name}" for name in _OURS])


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what it said; ``returncode`` is -N after signal N."""

    returncode: int
    stdout: str
    stderr: str


def start_program(
    program: str, said: tuple[Path, Path], cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> BaseProcess:
    """Start Python code as ``python -c`` does; stdout and stderr become the two files."""
    process = _SERVER.Process(target=_run, args=(program, said, cwd or Path.cwd(), dict(environment or {})))
    process.start()
    return process


def run_program(program: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> Ended:
    """Run Python code as ``python -c`` does."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "stdout"), Path(folder, "stderr")
        process = start_program(program, said, cwd, environment)
        process.join()
        assert process.exitcode is not None
        return Ended(process.exitcode, *(path.read_text(encoding="utf-8") for path in said))


def bingan(*words: str | Path) -> Ended:
    """Run a command of ``bingan``."""
    return run_program(f"from kornia_bingan.cli import main\nraise SystemExit(main({[*map(str, words)]}))")


class ForkedPython:
    """What ``subprocess.Popen`` is to `run_in_child`: a program with two pipes, in a session of its own."""

    def __init__(
        self, command: list[str], *, stdin: int, stdout: int, stderr: IO[bytes], start_new_session: bool
    ) -> None:
        executable, *options, program = command
        assert (executable, options, start_new_session) == (sys.executable, ["-P", "-c"], True)
        assert stdin == stdout == subprocess.PIPE
        (reads, writes_to), (reads_from, writes) = os.pipe(), os.pipe()
        self.stdin, self.stdout = os.fdopen(writes_to, "wb"), os.fdopen(reads_from, "rb")
        given = Connection(reads), Connection(writes), Connection(os.dup(stderr.fileno()))
        self._process = _SERVER.Process(target=_serve, args=(program, given, Path.cwd(), dict(os.environ)))
        self._process.start()
        for end in given:
            end.close()

    def __enter__(self) -> ForkedPython:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.stdin.close()
        self._process.join()

    def kill(self) -> None:
        """Kill it; nothing happens where it has ended."""
        self._process.kill()

    @property
    def returncode(self) -> int | None:
        """How it ended, as of ``subprocess.Popen``."""
        return self._process.exitcode


def _serve(program: str, given: tuple[Connection, ...], cwd: Path, environment: dict[str, str]) -> None:
    os.setsid()
    for number, end in enumerate(given):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    variables: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(program, "<program>", "exec"), variables)


def _run(program: str, said: tuple[Path, Path], cwd: Path, environment: dict[str, str]) -> None:
    for number, path in enumerate(said, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["-c"]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
