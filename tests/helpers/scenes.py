"""Rendered scenes, each of which is rendered once in a run: a view takes longer than its reconstruction."""

from __future__ import annotations

import shutil
from pathlib import Path

from kornia_bingan.datasets.rendered import Scene, cameras_on_arc, render_scene
from tests.helpers.once import made_once


def copy_scene(folder: Path, num_views: int, seed: int = 0) -> Scene:
    """Do what `render_scene` does, by a copy of what it did before; the planes, which take a second, are left out."""
    made = made_once(f"scene-{num_views}-{seed}", lambda path: render_scene(path, num_views, seed))
    shutil.copytree(made, folder, dirs_exist_ok=True)
    names = sorted(path.name for path in (made / "images").iterdir())
    return Scene(folder / "images", dict(zip(names, cameras_on_arc(num_views, seed), strict=True)), ())
