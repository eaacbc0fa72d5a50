from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from eval.training import bundle
from kornia_bingan.errors import UsageError
from kornia_bingan.work.provenance import commit
from tests.helpers.photos import write_photos


def test_the_bundle_trains_where_only_five_packages_are(tmp_path: Path) -> None:
    data = write_photos(tmp_path / "photos", 3)
    archive = tmp_path / "run.tar.gz"
    settings = ["steps=1", "batch_size=8", "photos_per_batch=2", "max_keypoints=50", "threads=1", "device=cpu"]
    settings += ["validation_pairs=20", "layers=[[8,2],[8,2]]"]
    words = [word for setting in settings for word in ("--set", setting)]
    assert bundle.main([str(archive), "--data", str(data), *words]) == 0
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "machine", filter="data")
    folder = tmp_path / "machine" / "run"
    blocked = "import sys; sys.modules.update(dict.fromkeys(['kornia', 'pycolmap', 'faiss', 'tyro']))\n"
    blocked += "sys.path.insert(0, '.'); import kornia_bingan; assert 'machine' in kornia_bingan.__file__\n"
    subprocess.run([sys.executable, "-c", f"{blocked}exec(open('run.py').read())"], cwd=folder, check=True)
    assert (folder / "out" / "weights.safetensors").is_file()
    made = json.loads((folder / "out" / "run.json").read_text())["provenance"]["commit"]
    assert made == (commit() or None), "the commit that it was packed from"


def test_wrong_use(tmp_path: Path) -> None:
    for words in (["--set", "steps"], ["--set", "colour=3"]):
        with pytest.raises(UsageError, match="give name=value"):
            bundle.main([str(tmp_path / "a.tar.gz"), "--data", str(tmp_path), *words])
    with pytest.raises(UsageError, match="is no folder"):
        bundle.main([str(tmp_path / "a.tar.gz"), "--data", str(tmp_path / "absent")])
    assert list(tmp_path.iterdir()) == []
