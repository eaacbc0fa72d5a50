"""What belongs to a line imports only from the lines above; the lines stand in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "kornia_bingan"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
ENTRIES = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}


def import_lines() -> list[list[str]]:
    """The files and folders of the package, line by line."""
    block = re.search(r"```imports\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert block is not None
    return [line.split() for line in block[1].splitlines()]


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


def own_entries(source: str) -> set[str]:
    """From which of our files and folders a source imports; a name of the package itself counts as "?" + name."""
    found = set()
    for name in imported_names(source):
        package, _, rest = name.partition(".")
        if package == "kornia_bingan" and rest and not rest.startswith("__"):
            entry = rest.partition(".")[0]
            found.add(entry if entry in ENTRIES else f"?{entry}")
    return found


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
import os, kornia_bingan.work.files
from kornia_bingan import bits, __version__, match
from kornia_bingan.images import read_image
from kornia.feature import LAFDescriptor
def f():
    from kornia_bingan.train import loop
    importlib.import_module("kornia_bingan.cli")
    kornia_bingan.__version__, kornia_bingan.colmap.verify
"""
    assert own_entries(source) == {"work", "bits", "images", "train", "cli", "colmap", "?match"}
    assert "kornia.feature.LAFDescriptor" in imported_names(source)


def test_every_file_and_folder_has_its_place_in_one_line_and_no_place_is_stale() -> None:
    listed = [entry for line in import_lines() for entry in line]
    assert sorted(listed) == sorted(ENTRIES), "what is missing or stale in CONTRIBUTING.md"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_what_belongs_to_a_line_imports_only_from_the_lines_above(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    lines = import_lines()
    (place,) = [index for index, line in enumerate(lines) if own in line]
    above = {entry for line in lines[:place] for entry in line}
    assert own_entries(path.read_text()) - {own} <= above


def test_no_file_imports_itself_in_a_circle() -> None:
    names = {module_name(path): imported_names(path.read_text()) for path in FILES}
    imported = {
        module: {name if name in names else name.rpartition(".")[0] for name in found} & set(names)
        for module, found in names.items()
    }
    TopologicalSorter(imported).prepare()


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
    modules = ", ".join(module_name(path) for path in FILES if path.parent.name == "train")
    extra = third_party_packages(f"import {modules}") - allowed
    assert extra == {"kornia_bingan"}
