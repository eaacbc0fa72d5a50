"""Where a number comes from: commit, weights, library versions, machine, date.

Libraries are asked for their version through their installation records, not imported, so that a command that does not
need torch does not wait for it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import kornia_bingan
from kornia_bingan.work.files import sha256_of

# Several distributions may bring one library; the first that is installed counts.
_DISTRIBUTIONS = {
    "torch": ("torch",),
    "kornia": ("kornia",),
    "cv2": (
        "opencv-python-headless",
        "opencv-python",
        "opencv-contrib-python-headless",
        "opencv-contrib-python",
    ),
    "pycolmap": ("pycolmap", "pycolmap-cuda12"),
    "faiss": ("faiss-cpu", "faiss-gpu"),
    "numpy": ("numpy",),
}


COMMIT_FILE = "COMMIT"
"""Beside the package in a bundle of ``python -m eval bundle``: the commit that it was packed from."""


def provenance(weights: Path | None = None, seed: int | None = None) -> dict[str, Any]:
    """Collect what somebody needs to repeat a measurement, as JSON can hold it.

    Args:
        weights: a weights file, whose checksum is taken.
        seed: the seed of the run, written as it is.

    Returns:
        ``commit`` (see :func:`commit`), ``weights_sha256`` (None without weights), ``versions`` (by import name; None
        where a library is absent), ``machine`` (``cpu``, ``cores`` that this process may use, ``platform``, and ``gpu``
        if torch is loaded and finds one),
        ``python``, ``threads`` (torch's, or the cores if torch is not loaded), ``date`` (UTC, ISO 8601), ``seed``.
    """
    return {
        "commit": commit(),
        "weights_sha256": None if weights is None else sha256_of(weights),
        "versions": versions(),
        "machine": {"cpu": _cpu_model(), "cores": usable_cores(), "platform": platform.platform(), **_gpu()},
        "python": platform.python_version(),
        "threads": _threads(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
    }


def versions() -> dict[str, str | None]:
    """Give the versions of this package and of the libraries that decide its results, by import name."""
    found: dict[str, str | None] = {"kornia_bingan": kornia_bingan.__version__}
    for name, distributions in _DISTRIBUTIONS.items():
        found[name] = next((v for v in map(_version, distributions) if v is not None), None)
    return found


_WRITTEN = [f":(exclude){name}" for name in ("eval/results", "docs", "README.md", "weights")]


def commit() -> str | None:
    """Give the commit of the checkout that this package runs from, 40 hexadecimal digits, or None outside of one.

    ``-dirty`` is added if a tracked file differs from the commit, except for weights, results and the pages made from
    them, which the commands that ask write themselves. A bundle for a bare machine brings its commit in a file. An
    installed package has none, also when its environment lies inside somebody else's repository.
    """
    folder = Path(__file__).resolve().parents[2]
    if (folder / COMMIT_FILE).is_file():
        return (folder / COMMIT_FILE).read_text(encoding="utf-8").strip() or None
    if not (folder / ".git").exists():
        return None
    try:
        head, changed = (
            subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False
            ).stdout.strip()
            for words in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no", "--", ".", *_WRITTEN],
            )
        )
    except OSError:  # git is not installed
        return None
    return f"{head.strip()}{'-dirty' if changed else ''}" if head else None


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache  # to look takes milliseconds each, and what is loaded stays
def _version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # slow to load

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _threads() -> int:
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else usable_cores()


def _gpu() -> dict[str, str]:
    torch = sys.modules.get("torch")
    return {"gpu": torch.cuda.get_device_name()} if torch is not None and torch.cuda.is_available() else {}


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
