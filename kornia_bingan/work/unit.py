"""Units of work, and the files that all of them read.

A unit is a plain function that can be imported, with plain arguments. It reads files and writes its own, which appears
whole or not at all, so it may be repeated, anywhere, and a kill loses only the units in work. The same function does
the unit everywhere, and the files come out byte for byte the same: the network's batches are of one size, the number of
threads changes no sum (tests/work/test_engine.py), and the precision is chosen once, by the machine that gives the
command. Machines must have the same versions of the libraries, which is checked. Processors of different kinds may
round differently, so one kind for one run.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kornia_bingan.errors import JobError

_files: dict[str, Path] = {}


@dataclass(frozen=True)
class Unit:
    """A piece of work: a name for messages, the function's arguments, and how many items of the progress it is."""

    name: str
    arguments: tuple[Any, ...]
    size: int = 1


@dataclass(frozen=True)
class Failed:
    """In the place of a unit's result: every process that tried it died."""

    reason: str


def keep_file(sha256: str, path: Path) -> None:
    """Remember where a file lies in this process."""
    _files[sha256] = path


def local_file(sha256: str) -> Path:
    """Give the path of a file that units of this process read.

    Raises:
        JobError: this process was not given the file, or it was another when it arrived.
    """
    path = _files.get(sha256)
    if path is None:
        raise JobError(f"a worker on {platform.node()} was not given the weights; its own log says why")
    return path
