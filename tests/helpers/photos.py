"""Made-up photos with structure at many scales."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture with structure at many scales, where every detector finds something."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    for octave in range(1, 7):
        size = (max(2, width >> octave), max(2, height >> octave))
        noise = rng.standard_normal(size[::-1]).astype(np.float32)
        total += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * 2 ** (octave / 2)
    low, high = np.percentile(total, [1, 99])
    return (np.clip((total - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def write_photos(folder: Path, count: int, size: tuple[int, int] = (160, 200)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"photo{index}.png"), texture(*size, seed=index))
    return folder


def write_wall(folder: Path) -> Path:
    """Write a scene of two small photos of a wall, taken beside each other, with ``cameras.json``."""
    (folder / "images").mkdir(parents=True)
    wall = texture(160, 232, 2)
    cameras = {}
    for index, left in enumerate((0, 32)):
        cv2.imwrite(str(folder / "images" / f"{index}.png"), wall[:, left : left + 200])
        pose = {"R": np.eye(3).tolist(), "t": [-left / 100, 0, 0], "width": 200, "height": 160}
        cameras[f"{index}.png"] = {"K": [[100, 0, 100], [0, 100, 80], [0, 0, 1]], **pose}
    (folder / "cameras.json").write_text(json.dumps(cameras))
    return folder
