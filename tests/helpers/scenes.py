"""Rendered scenes, each of which is rendered once in a run: a view takes longer than its reconstruction."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from kornia_bingan.datasets.poses import write_cameras
from kornia_bingan.datasets.rendered import Scene, cameras_on_arc, render_scene
from tests.helpers.once import made_once


def copy_scene(folder: Path, num_views: int, seed: int = 0, *, half: bool = False) -> Scene:
    """Do what `render_scene` does, by a copy of what it did before; the planes, which take a second, are left out.

    With ``half`` photos have 400 x 300 pixels: to find keypoints in them takes a quarter of the time.
    """
    made = made_once(f"scene-{num_views}-{seed}", lambda path: render_scene(path, num_views, seed))
    names = sorted(path.name for path in (made / "images").iterdir())
    cameras = dict(zip(names, cameras_on_arc(num_views, seed), strict=True))
    if half:
        # (0, 0) is the centre of the first pixel, so the centre of the first 2 x 2 pixels is (0.5, 0.5)
        smaller = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]])
        cameras = {name: replace(each, K=smaller @ each.K, width=400, height=300) for name, each in cameras.items()}
        made = made_once(f"half-{made.name}", lambda path: _halve(made, path))
    shutil.copytree(made, folder, dirs_exist_ok=True)
    if half:
        write_cameras(folder / "cameras.json", cameras, "rendered, and made half as large")
    return Scene(folder / "images", cameras, ())


def _halve(scene: Path, folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    for path in (scene / "images").iterdir():
        picture = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_2)
        assert picture is not None
        cv2.imwrite(str(folder / "images" / path.name), picture)
