import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

import kornia_bingan
from kornia_bingan.work import provenance as module
from kornia_bingan.work.provenance import commit, provenance, versions


def test_record_is_json_and_has_every_part(tmp_path):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"abc")
    before = datetime.now(UTC).replace(microsecond=0)  # the date is that of the second
    record = provenance(weights, seed=7)
    assert json.loads(json.dumps(record)) == record
    assert set(record) == {"commit", "weights_sha256", "versions", "machine", "python", "threads", "date", "seed"}
    # FIPS 180-2, appendix B.1: the digest of "abc"
    assert record["weights_sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert record["seed"] == 7
    assert record["machine"]["cpu"]
    assert record["machine"]["cores"] >= 1
    assert record["threads"] >= 1
    assert before <= datetime.fromisoformat(record["date"]) <= datetime.now(UTC)
    assert provenance()["weights_sha256"] is None


def test_versions_are_those_of_the_installation():
    found = versions()
    assert set(found) == {"kornia_bingan", "torch", "kornia", "cv2", "pycolmap", "faiss", "numpy"}
    assert found["kornia_bingan"] == kornia_bingan.__version__
    assert found["numpy"] == version("numpy")
    assert found["torch"] == version("torch")
    assert found["cv2"] is not None


def test_absent_library_is_none(monkeypatch):
    monkeypatch.setattr(module, "_DISTRIBUTIONS", {"nothing": ("no-such-distribution", "nor-this-one")})
    assert versions()["nothing"] is None


def test_collecting_imports_no_heavy_library():
    code = (
        "import sys; from kornia_bingan.work.provenance import provenance; provenance();"
        "print([m for m in ('torch', 'kornia', 'cv2', 'pycolmap', 'faiss') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit that holds the module's file, and the module believing that it runs from there."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    file = tmp_path / "repository" / "kornia_bingan" / "work" / "provenance.py"
    file.parent.mkdir(parents=True)
    file.write_text("x = 1\n")
    git = ["git", "-C", str(tmp_path / "repository"), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"], ["tag", "v1"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.setattr(module, "__file__", str(file))
    return file


def test_commit_of_a_checkout_and_of_a_changed_one(checkout):
    clean = commit()
    assert clean is not None
    assert re.fullmatch("[0-9a-f]{40}", clean)
    checkout.write_text("x = 2\n")
    assert commit() == clean + "-dirty"


def test_no_commit_outside_a_checkout_or_inside_a_foreign_one(checkout, tmp_path, monkeypatch):
    installed = checkout.parents[2] / "venv" / "site-packages" / "kornia_bingan" / "work" / "provenance.py"
    monkeypatch.setattr(module, "__file__", str(installed))
    assert commit() is None
    monkeypatch.setattr(module, "__file__", str(tmp_path / "elsewhere" / "kornia_bingan" / "work" / "provenance.py"))
    assert commit() is None


def test_no_commit_without_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(checkout).parent))
    assert commit() is None
