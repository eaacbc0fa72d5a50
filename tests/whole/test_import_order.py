"""A module imports only from its left; the line stands in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kornia_bingan"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def module_line() -> list[str]:
    block = re.search(r"```modules\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert block is not None
    return block[1].split()


def imported_names(source: str) -> set[str]:
    """Full names of everything that a source imports, also inside functions and through import_module("...")."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "kornia_bingan":
            names.add(f"kornia_bingan.{node.attr}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
            "import_module",
            "__import__",
        ):
            names |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return names


def own_modules(source: str) -> set[str]:
    """Which of our modules a source imports; a public name taken from the package itself counts as "?" + name."""
    found = set()
    for name in imported_names(source):
        package, _, rest = name.partition(".")
        if package == "kornia_bingan" and rest and not rest.startswith("__"):
            module = rest.partition(".")[0]
            found.add(module if module in module_line() else f"?{module}")
    return found


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
import os, kornia_bingan.files
from kornia_bingan import bits, __version__, match
from kornia_bingan.images import read_image
from kornia.feature import LAFDescriptor
def f():
    from kornia_bingan import train
    importlib.import_module("kornia_bingan.cli")
    kornia_bingan.__version__, kornia_bingan.colmap.verify
"""
    assert own_modules(source) == {"files", "bits", "images", "train", "cli", "colmap", "?match"}
    assert "kornia.feature.LAFDescriptor" in imported_names(source)


def test_every_module_has_its_place_in_the_line() -> None:
    line = module_line()
    assert len(line) == len(set(line))
    assert set(MODULES) <= set(line), "a module is missing in CONTRIBUTING.md"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_left(module: str) -> None:
    line = module_line()
    left = set(line[: line.index(module)])
    assert own_modules((PACKAGE / f"{module}.py").read_text()) <= left


def test_the_package_does_not_know_its_evaluation_and_its_tests() -> None:
    for path in PACKAGE.rglob("*.py"):
        outside = {name.partition(".")[0] for name in imported_names(path.read_text())} & {"eval", "tests"}
        assert not outside, path.name


def third_party_packages(code: str) -> set[str]:
    """Top-level packages that are loaded after running code in a fresh interpreter, the standard library left out."""
    report = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1])) - sys.stdlib_module_names


def test_training_needs_five_packages_only() -> None:
    allowed = third_party_packages("import torch, numpy, cv2, safetensors.torch, tqdm")
    extra = third_party_packages("import kornia_bingan.train") - allowed
    assert extra == {"kornia_bingan"}
