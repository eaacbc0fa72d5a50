from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Small tensors on two threads are slower than on one, and one thread is reproducible."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the photos for development are not at ../shared/data")
    return SHARED


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
