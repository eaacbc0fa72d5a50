"""Promises of the repository about itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import jinja2
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import kornia_bingan

ROOT = Path(__file__).parents[2]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def tracked_files() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_tracked_file_is_over_8_mb() -> None:
    files = tracked_files()
    assert len(files) > 20
    assert [path.name for path in files if path.stat().st_size > 8 * 2**20] == []


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads(read("pyproject.toml"))
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "kornia_bingan/__init__.py"
    releases = re.findall(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)
    assert releases[0] == kornia_bingan.__version__
    assert not re.search(r"^version:", read("CITATION.cff"), re.MULTILINE)


def test_every_requirement_is_pinned_within_its_range() -> None:
    pins = {}
    for line in read("constraints.txt").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[canonicalize_name(name)] = version
    project = tomllib.loads(read("pyproject.toml"))
    requirements = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        requirements += extra
    for text in requirements:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text


def test_the_conda_recipe_is_what_pip_installs() -> None:
    # conda-build gives it more of its own, so that it has to be called by keywords
    def load_file_regex(*, load_file: str, regex_pattern: str, from_recipe_dir: bool) -> re.Match[str] | None:
        assert from_recipe_dir
        return re.search(regex_pattern, read(f".ci/conda/{load_file}"))

    recipe = jinja2.Template(read(".ci/conda/meta.yaml")).render(load_file_regex=load_file_regex)
    assert f'version: "{kornia_bingan.__version__}"' in recipe
    project = tomllib.loads(read("pyproject.toml"))["project"]
    for name, entry in project["scripts"].items():
        assert f"    - {name} = {entry}\n" in recipe
    assert f"summary: {project['description']}" in recipe
    parts = re.search(r"  host:\n(.*?)  run:\n(.*?)test:\n", recipe, re.DOTALL)
    assert parts is not None
    host, run = (re.findall(r"- (\S+) ?(.*)", part) for part in parts.groups())
    pip = [Requirement(text) for text in [f"python{project['requires-python']}", *project["dependencies"]]]
    opencv = Requirement(project["optional-dependencies"]["opencv"][0])
    named = {"torch": "pytorch", opencv.name: "py-opencv"}
    assert {name: SpecifierSet(text) for name, text in run} == {
        named.get(each.name, each.name): each.specifier for each in [*pip, opencv]
    }
    build = Requirement(tomllib.loads(read("pyproject.toml"))["build-system"]["requires"][0])
    assert dict(host)[build.name] == str(build.specifier)


def test_the_build_files_name_no_host_and_no_absolute_path() -> None:
    for name in ("Makefile", "constraints.txt", ".ci/run"):
        text = read(name).removeprefix("#!/usr/bin/env bash")
        assert "://" not in text
        assert not re.search(r"(^|[\s'\"=])/\w", text)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))


def test_the_make_targets_are_phony_and_described() -> None:
    targets = make_targets()
    assert {"demo", "test", "lint", "clean"} <= targets
    phony = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)
    assert phony is not None
    assert targets <= set(phony[1].split())
    assert targets == set(re.findall(r"^# make ([a-z-]+)  ", read("Makefile"), re.MULTILINE))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_make_commands_in_the_documents_exist(name: str) -> None:
    if not read(name):
        pytest.skip(f"{name} is not written yet")
    named = set(re.findall(r"\bmake ([a-z-]+)\b(?=`|$|\s+#)", read(name), re.MULTILINE))
    assert named <= make_targets()
    assert "test" in named
    if name == "README.md":
        assert "demo" in named


def test_the_licence_is_the_whole_apache_text() -> None:
    text = read("LICENSE")
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in text
    assert all(f"\n   {number}. " in text for number in range(1, 10))
