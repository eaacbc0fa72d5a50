"""Units are done one after another in this process, or by processes that Dask runs here or on other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from kornia_bingan.errors import UsageError
from kornia_bingan.work.files import sha256_of
from kornia_bingan.work.machine import has_bfloat16
from kornia_bingan.work.run_folder import TimeLimit, no_progress
from kornia_bingan.work.unit import Unit, keep_file

INSTALL = "pip install 'kornia_bingan[cluster]'"


@dataclass(frozen=True)
class Engine:
    """What does the units of a run.

    Attributes:
        client: Dask's client; None stands for this process.
        sha256: of the weights; units find the file by :func:`kornia_bingan.work.unit.local_file`.
        precision: in which every process computes.
    """

    client: Any
    sha256: str
    precision: Literal["float32", "bfloat16"]

    def path(self, path: Path) -> str:
        """Give a path as other processes understand it; in this one, as it is, so that messages repeat it."""
        return str(path if self.client is None else path.absolute())


def check_engine(workers: int, scheduler: str | None) -> None:
    """Refuse impossible options before any work is done.

    Raises:
        UsageError: both are given, the number is negative, or Dask is not installed.
    """
    if workers < 0:
        raise UsageError(f"the number of workers is {workers}; give 0 to work in this process, or more")
    if workers and scheduler:
        raise UsageError("give --workers for processes on this machine, or --scheduler for a running cluster, not both")
    if workers or scheduler:
        try:
            import distributed  # noqa: F401
        except ImportError as error:
            raise UsageError(f"--workers and --scheduler need Dask: {INSTALL}") from error


@contextmanager
def open_engine(
    weights: Path, shared: Sequence[Path], workers: int = 0, scheduler: str | None = None
) -> Iterator[Engine]:
    """Start processes, or find those of a running cluster, while the block lasts.

    Args:
        weights: file that travels once to every process.
        shared: files and folders that every process must see under the same name.
        workers: processes on this machine, which share its cores and memory; 0 works in this process. A program that
            asks for them must guard its start by ``if __name__ == "__main__":``.
        scheduler: address of a running Dask scheduler, such as ``tcp://10.0.0.1:8786``.

    Raises:
        UsageError: see :func:`check_engine`.
        JobError: the scheduler does not answer or has no workers, or a worker has other versions or does not see
            ``shared``.
    """
    check_engine(workers, scheduler)
    sha256 = sha256_of(weights)
    precision: Literal["float32", "bfloat16"] = "bfloat16" if has_bfloat16(torch.device("cpu")) else "float32"
    if not workers and not scheduler:
        keep_file(sha256, weights)
        yield Engine(None, sha256, precision)
        return
    from kornia_bingan.work import workers as cluster

    with cluster.connect(workers, scheduler) as client:
        cluster.equip(client, weights.read_bytes(), sha256, precision, shared, workers)
        yield Engine(client, sha256, precision)


def run_units(
    engine: Engine,
    function: Callable[..., Any],
    units: Iterable[Unit],
    total: int,
    *,
    description: str,
    done: str,
    word: str,
    limit: TimeLimit | None = None,
) -> Iterator[tuple[str, Any]]:
    """Do units and give the name and result of each, in their order; few are in work at a time, however many there are.

    Args:
        engine: see :func:`open_engine`.
        function: can be imported; what it returns and raises can be pickled.
        units: see :class:`kornia_bingan.work.unit.Unit`.
        total: sum of their sizes.
        description: of the progress bar.
        done: what units are when they are done, for the message of the limit.
        word: what the sizes count.
        limit: checked before each unit.

    Returns:
        Name and result; with Dask, :class:`kornia_bingan.work.unit.Failed` stands for a unit that kills its process.

    Raises:
        JobError: the time limit was reached, or the cluster is gone.
        Exception: whatever a unit raises.
    """
    with tqdm(total=total, desc=description, unit=word, disable=no_progress()) as bar:

        def check() -> None:
            if limit is not None:
                limit.check(f"{bar.n} of {total} {word}s are {done}")

        if engine.client is None:
            for unit in units:
                check()
                yield unit.name, function(*unit.arguments)
                bar.update(unit.size)
            return
        from kornia_bingan.work import workers as cluster

        for unit, result in cluster.run(engine.client, function, units, check):
            yield unit.name, result
            bar.update(unit.size)
