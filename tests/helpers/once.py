"""What is made once for all tests of a run, by the first that asks, and shared by the workers that run them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from kornia_bingan.network.onnx import export_onnx

_OWN = tempfile.TemporaryDirectory()
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID")
FOLDER = Path(tempfile.gettempdir(), f"kornia_bingan-{_RUN}") if _RUN else Path(_OWN.name)
"""Of the run, if it has several workers; the process that started them removes it at its end."""


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """Give a file or folder, made by ``make(path)`` where no worker has made it; it must not be changed."""
    target = FOLDER / name
    if not target.exists():
        FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            make(Path(folder, name))
            try:
                Path(folder, name).rename(target)
            except OSError:
                assert target.exists(), "only another worker that made it meanwhile may be in the way"
    return target


def lite_onnx() -> Path:
    """``bingan256-lite`` as exported by default; to export it takes as long as all that is tested with it."""
    return made_once("lite.onnx", lambda path: export_onnx("bingan256-lite", path))
