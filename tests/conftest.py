from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch

from kornia_bingan.reconstruct import describe
from kornia_bingan.work import isolated
from kornia_bingan.work.files import sha256_of
from tests.helpers.programs import ForkedPython, run_program

SHARED = Path(__file__).parents[2] / "shared" / "data"


THREADS = int(os.environ.get("TEST_THREADS", "1"))
"""Small tensors on two threads are slower than on one; ``make test-cpus`` tries two."""


LONGEST = ("work/test_engine", "eval/test_speed", "reconstruct/test_pipeline", "reconstruct/test_update")
LONGEST += ("eval/test_sfm", "eval/test_protocols", "train/test_loop", "network/test_onnx", "datasets/test_patch_sets")
LONGEST += ("eval/test_report", "eval/test_cluster", "whole/test_odd_folders", "whole/test_readme", "search/test_index")
"""Files of more than 20 s, which start first, so that no worker is left with one of them when the others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, or shuffle files, and the tests in each, by the seed in ``TEST_ORDER``."""

    def place(item: pytest.Item) -> int:
        name = "/".join(item.path.with_suffix("").parts[-2:])
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)
    if seed := os.environ.get("TEST_ORDER"):
        shuffle = random.Random(int(seed)).shuffle
        files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
        shuffle(files)
        for tests in files:
            shuffle(tests)
        items[:] = [test for tests in files for test in tests]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove what the workers of this run have shared."""
    if (workers := session.config.pluginmanager.get_plugin("dsession")) is not None:
        shared = f"kornia_bingan-{workers.nodemanager.testrunuid}"
        shutil.rmtree(Path(tempfile.gettempdir(), shared), ignore_errors=True)


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(THREADS)


@pytest.fixture(autouse=True)
def _children_are_forked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children of `run_in_child` need not load their libraries, but where they themselves are tested.

    Those of the programs that tests run are as they are without tests.
    """
    if request.path.name != "test_isolated.py":
        monkeypatch.setattr(isolated, "subprocess", SimpleNamespace(Popen=ForkedPython, PIPE=subprocess.PIPE))


@pytest.fixture(scope="module")
def _workers_are_forked() -> Iterator[None]:
    """Dask's workers on this machine need not load their libraries; those of the programs that tests run do."""
    import dask

    run_program("pass")  # the server has to be there before Dask would start one that has loaded other libraries
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        yield


@pytest.fixture(scope="module")
def _described_once() -> Iterator[None]:
    """A photo is described once in a module, for those who are about what follows; two thirds of their time is that.

    It is described again with other options, and in the processes that tests start.
    """
    described: dict[str, bytes] = {}
    describe_unit = describe.describe_unit

    def described_once(photo: str, target: str, mask: str | None, *options: object) -> str:
        key = repr((sha256_of(Path(photo)), mask and sha256_of(Path(mask)), *options))
        if key in described and not Path(target).exists():
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            Path(target).write_bytes(described[key])
        reason = describe_unit(photo, target, mask, *options)  # type: ignore[arg-type]
        if not reason:
            described[key] = Path(target).read_bytes()
        return reason

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(describe, "describe_unit", described_once)
        yield


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the photos for development are not at ../shared/data")
    return SHARED


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
    done = run_program(renaming + program)
    assert done.returncode == -signal.SIGKILL, f"{path} was not written: {done.stderr}"


FEW_INITIAL_PATCHES = (
    "from kornia_bingan.network.published import PatchDiscriminator\n"
    "whole = PatchDiscriminator.initialise\n"
    "PatchDiscriminator.initialise = lambda self, x: whole(self, x[:24])\n"
)
"""First lines of a program that trains: of the published network, one step takes less time than its initialisation."""


@pytest.fixture
def _few_initial_patches() -> Iterator[None]:
    """The same in this process; that 500 patches reach the network is a test of test_step."""
    from kornia_bingan.network.published import ImageDiscriminator, PatchDiscriminator

    def of_few(whole: Callable[..., None]) -> Callable[..., None]:
        return lambda self, x: whole(self, x[:24])

    with pytest.MonkeyPatch.context() as patched:
        for network in (ImageDiscriminator, PatchDiscriminator):
            patched.setattr(network, "initialise", of_few(network.initialise))
        yield
