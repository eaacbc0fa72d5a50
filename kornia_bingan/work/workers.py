"""Units are done by Dask's workers: what connects to them, what they are given, and what becomes of those that die.

Imported only where ``--workers`` or ``--scheduler`` is given. Nothing is kept in workers but the weights, so they may
come and go while a run lasts.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import dask
import torch
from distributed import CancelledError, Client, Future, KilledWorker, LocalCluster, WorkerPlugin, wait
from distributed.comm.core import CommClosedError
from distributed.system import MEMORY_LIMIT

from kornia_bingan.errors import JobError
from kornia_bingan.work.machine import has_bfloat16
from kornia_bingan.work.memory import keep_freed_memory
from kornia_bingan.work.provenance import usable_cores, versions
from kornia_bingan.work.unit import Failed, Unit, keep_file

CONNECT_S = 5
"""Seconds in which a scheduler must answer, and its first worker be there."""
WORKERLESS_S = 60
"""Seconds that a run waits for a new worker when all have gone; a killed one is started again in a few."""
AHEAD = 3
"""Units in work or waiting at a time, for each thread of the workers."""

_LOCAL = {
    # A unit that was in work when its process died is repeated alone, so the first death says enough.
    "distributed.scheduler.allowed-failures": 0,
    # Workers hold no results: there is nothing to spill, and a paused worker with kept memory would pause for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.comm.timeouts.tcp": "15s",
}
_GONE = (OSError, TimeoutError, CommClosedError, RuntimeError, ValueError)
"""What Dask's calls raise when the scheduler is not there."""


@contextmanager
def connect(workers: int, scheduler: str | None) -> Iterator[Client]:
    """Start a cluster of processes on this machine, or join a running one.

    Raises:
        JobError: the scheduler does not answer, or has no workers.
    """
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # what happens is said here, in a sentence
    with dask.config.set(_LOCAL):
        if scheduler is None:
            with (
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    memory_limit=MEMORY_LIMIT // workers,
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                ) as local,
                Client(local) as client,
            ):
                yield client
            return
        try:
            client = Client(scheduler, timeout=CONNECT_S)
        except _GONE as error:
            raise JobError(
                f"no Dask scheduler answers at {scheduler}; start 'dask scheduler' there, or correct the address"
            ) from error
        try:
            try:
                client.wait_for_workers(1, timeout=CONNECT_S)
            except TimeoutError as error:
                raise JobError(
                    f"the scheduler at {scheduler} has no workers; start 'dask worker {scheduler}'"
                ) from error
            except _GONE as error:
                raise _gone(client) from error
            yield client
        finally:
            with suppress(*_GONE):  # a scheduler that is gone takes no farewell
                client.close()


class Equipment(WorkerPlugin):  # type: ignore[misc]  # Dask has no types
    """What a worker is given once, when it starts or the run does; checked against what the run needs."""

    def __init__(self, weights: bytes, sha256: str, precision: str, shared: Sequence[Path], workers: int) -> None:
        self.name = f"kornia_bingan-{uuid.uuid4().hex}"
        self.weights, self.sha256, self.precision, self.workers = weights, sha256, precision, workers
        self.shared = [str(path.absolute()) for path in shared]
        self.versions = versions()

    def setup(self, worker: Any) -> None:
        """Write the weights into the worker's own folder, for the reader of weights.

        Raises:
            JobError: this machine is not fit for the run.
        """
        where = f"a worker on {platform.node()}"
        for name, wanted in self.versions.items():
            if (found := versions()[name]) != wanted:
                raise JobError(f"{where} has {name} {found}, the command {wanted}; install the same version there")
        for path in self.shared:
            if not Path(path).exists():
                raise JobError(
                    f"{where} does not see {path}; photos and results must lie on a file system that all machines "
                    "share, under the same name"
                )
        if self.precision == "bfloat16" and not has_bfloat16(torch.device("cpu")):
            raise JobError(
                f"{where} does not compute in bfloat16, the machine of the command does; give the command on "
                "that worker's machine, and all compute in float32"
            )
        if hashlib.sha256(self.weights).hexdigest() != self.sha256:
            raise JobError(f"{where} was given damaged weights; give the command again")
        target = Path(worker.local_directory) / f"{self.sha256}.safetensors"
        target.write_bytes(self.weights)
        keep_file(self.sha256, target)
        threads = max(1, usable_cores() // self.workers) if self.workers else 1
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        if self.workers:
            keep_freed_memory()  # others' workers may be paused for much memory, even if it is free
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's, which ends its workers


def equip(client: Client, weights: bytes, sha256: str, precision: str, shared: Sequence[Path], workers: int) -> None:
    """Give all workers, and those that come later, the weights.

    Args:
        client: see :func:`connect`.
        weights: the file's bytes.
        sha256: of them.
        precision: in which the run computes.
        shared: what every worker must see.
        workers: processes that share the cores of this machine; 0 for a cluster of others, where each thread of a
            worker does a unit and uses no other core.

    Raises:
        JobError: a worker is not fit, see :meth:`Equipment.setup`.
    """
    try:
        client.register_plugin(Equipment(weights, sha256, precision, shared, workers))
    except ImportError as error:
        raise JobError(f"a worker cannot import kornia_bingan ({error}); install the same version there") from error
    except (CommClosedError, TimeoutError) as error:
        raise _gone(client) from error


def run(
    client: Client, function: Callable[..., Any], units: Iterable[Unit], check: Callable[[], None]
) -> Iterator[tuple[Unit, Any]]:
    """Do units on the workers and give each with its result, in their order.

    A unit whose process died may have been killed by its neighbour: it is done again with nothing beside it, and only
    if its process dies then too, it has failed.

    Args:
        client: see :func:`connect`.
        function: see :func:`kornia_bingan.work.engine.run_units`.
        units: many; some for each thread of the workers are sent at a time.
        check: called often; what it raises ends the run.

    Raises:
        JobError: the scheduler or all workers are gone.
    """
    waiting = iter(units)
    order: deque[Unit] = deque()
    results: dict[int, Any] = {}
    running: dict[Future, Unit] = {}
    room, looked, seen = 0, 0.0, time.monotonic()
    try:
        with _ctrl_c_noted() as interrupts:
            while True:
                if interrupts:
                    raise KeyboardInterrupt
                check()
                if time.monotonic() - looked > 1:
                    looked, room = time.monotonic(), AHEAD * sum(_threads(client).values())
                    seen = looked if room else seen
                    if looked - seen > WORKERLESS_S:
                        raise JobError(f"all workers have been gone for {WORKERLESS_S} s; run it again to resume")
                for unit in islice(waiting, max(0, room - len(running))):
                    order.append(unit)
                    running[_submit(client, function, unit)] = unit
                if not running and room:
                    return
                accused = _collect(running, results)
                if accused:
                    while running:
                        check()
                        accused += _collect(running, results)
                    for unit in accused:
                        results[id(unit)] = _alone(client, function, unit, check)
                while order and id(order[0]) in results:
                    unit = order.popleft()
                    yield unit, results.pop(id(unit))
    finally:
        with suppress(*_GONE):
            client.cancel(list(running))


@contextmanager
def _ctrl_c_noted() -> Iterator[list[int]]:
    """Note Ctrl-C while the block lasts: a KeyboardInterrupt inside Dask's own calls may be swallowed there.

    Where it is ignored, as in what a shell runs in the background, or is another library's (None), it stays so.
    """
    interrupts: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before in (signal.SIG_IGN, None) or threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


def _submit(client: Client, function: Callable[..., Any], unit: Unit) -> Future:
    try:
        return client.submit(function, *unit.arguments, pure=False)
    except _GONE as error:
        raise _gone(client) from error


def _collect(running: dict[Future, Unit], results: dict[int, Any]) -> list[Unit]:
    """Wait a moment, move what is finished to the results, and give the units whose process died."""
    if running:
        try:
            with suppress(TimeoutError, CancelledError):
                wait(list(running), timeout=1, return_when="FIRST_COMPLETED")
        except CommClosedError as closed:
            raise _gone(next(iter(running)).client) from closed
    else:
        time.sleep(0.1)
    accused = []
    for future in [future for future in running if future.status != "pending"]:
        unit = running.pop(future)
        if future.status == "error":
            error = future.exception()  # the unit's own; it is here already
            if not isinstance(error, KilledWorker):
                raise error
            accused.append(unit)
            continue
        try:
            results[id(unit)] = future.result()
        except (CancelledError, *_GONE) as error:
            raise _gone(future.client) from error
    return accused


def _alone(client: Client, function: Callable[..., Any], unit: Unit, check: Callable[[], None]) -> Any:
    results: dict[int, Any] = {}
    running = {_submit(client, function, unit): unit}
    while running:
        check()
        if _collect(running, results):
            return Failed(
                "the process that worked on it died, also with nothing beside it; it needs more memory than a worker "
                "has, or a library crashes on it"
            )
    return results[id(unit)]


def _threads(client: Client) -> dict[str, int]:
    try:
        found: dict[str, int] = client.ncores()
    except _GONE as error:
        raise _gone(client) from error
    return found


def _gone(client: Client) -> JobError:
    address = client.scheduler.address if client.scheduler is not None else "its address"
    return JobError(f"the Dask scheduler at {address} is gone; start it again, then run the command again to resume")
