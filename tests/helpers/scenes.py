"""Rendered scenes, each of which is rendered once in a process: a view takes longer than its reconstruction."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

from kornia_bingan.datasets.rendered import Scene, render_scene

_FOLDER = tempfile.TemporaryDirectory()


@cache
def _rendered(num_views: int, seed: int) -> Scene:
    return render_scene(Path(_FOLDER.name, f"{num_views}-{seed}"), num_views, seed)


def copy_scene(folder: Path, num_views: int, seed: int = 0) -> Scene:
    """Do what `render_scene` does, by a copy of what it did before."""
    scene = _rendered(num_views, seed)
    shutil.copytree(scene.images.parent, folder, dirs_exist_ok=True)
    return Scene(folder / "images", dict(scene.cameras), scene.planes)
