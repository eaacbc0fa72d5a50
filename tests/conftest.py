from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

SHARED = Path(__file__).parents[2] / "shared" / "data"


THREADS = int(os.environ.get("TEST_THREADS", "1"))
"""Small tensors on two threads are slower than on one; ``make test-cpus`` tries two."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shuffle the files, and the tests in each, by the seed in ``TEST_ORDER``; without one the order is as written."""
    if seed := os.environ.get("TEST_ORDER"):
        shuffle = random.Random(int(seed)).shuffle
        files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
        shuffle(files)
        for tests in files:
            shuffle(tests)
        items[:] = [test for tests in files for test in tests]


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(THREADS)


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


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something holds; the end after minutes is for faults and not for loaded machines."""
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


HEAR_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""First line of a program that gets SIGINT: a shell starts what runs in the background, and its children, without."""


def run_and_die(program: str, path: Path, times: int = 1) -> None:
    """Run a program that is killed in the moment in which a file has got its name for the ``times``-th time."""
    renaming = (
        "import os, signal\nrename, seen = os.replace, []\n"
        "def rename_and_die(source, target):\n"
        "    rename(source, target)\n"
        f"    seen.extend([1] * (os.fspath(target) == {str(path)!r}))\n"
        f"    if len(seen) == {times}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.replace = rename_and_die\n"
    )
    done = subprocess.run([sys.executable, "-c", renaming + program], stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL, f"{path} was not written"
