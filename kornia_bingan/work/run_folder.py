"""A folder of a run that may be killed and continued: who owns it, what it was made from, how long it may take."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.work.files import printable, sha256_of, write_json
from kornia_bingan.work.identity import difference, read_identity, write_identity
from kornia_bingan.work.provenance import versions

_LOCK = ".lock"
_OWNER = ".lock-owner"
_NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
"""What network and user-space file systems answer that have no flock."""


QUIET = "BINGAN_QUIET"
"""Environment variable that turns progress bars off, in child processes too; ``bingan --quiet`` sets it."""


def no_progress() -> bool | None:
    """Give tqdm's ``disable``: True in quiet runs, else None, which shows bars on a terminal only."""
    return True if os.environ.get(QUIET) else None


LOG = logging.getLogger("kornia_bingan")
"""What long commands say of their stages, of skipped photos and of warnings."""

LOG_FILE = Path("log", "bingan.txt")
"""In the folder of a run."""


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Add what :data:`LOG` and Python's warnings say meanwhile to a file, in quiet runs too.

    The first line of an attempt holds the command and the versions, the last one how it ended.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level, show = LOG.level, warnings.showwarning

    def log_and_show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        LOG.warning("%s: %s", category.__name__, printable(str(message)))
        if not no_progress():
            show(message, category, filename, lineno, file, line)

    LOG.setLevel(logging.INFO)
    LOG.addHandler(handler)
    warnings.showwarning = log_and_show
    try:
        known = ", ".join(f"{name} {number}" for name, number in versions().items())
        LOG.info("started: %s; %s", printable(shlex.join(sys.argv)), known)
        yield
        LOG.info("done")
    except BaseException as error:
        LOG.error("ended by %s: %s", type(error).__name__, printable(str(error)))
        raise
    finally:
        warnings.showwarning = show
        LOG.removeHandler(handler)
        LOG.setLevel(level)
        handler.close()


class TimeLimit:
    """Seconds that a command may take; 0 is no limit.

    Raises:
        UsageError: the number is negative or no number.
    """

    def __init__(self, seconds: float) -> None:
        if not seconds >= 0:  # also true for NaN
            raise UsageError(f"the time limit is {seconds}; give seconds, or 0 for no limit")
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left_s(self) -> float | None:
        """Seconds that are left, None without a limit."""
        return self._end - time.monotonic() if self.seconds else None

    def check(self, done: str) -> None:
        """Stop if the time is over; ``done`` says how far the work is.

        Raises:
            JobError: the limit is reached.
        """
        left = self.left_s()
        if left is not None and left <= 0:
            raise JobError(f"the time limit of {self.seconds:g} s was reached, {done}; run it again to resume")


class Stopwatch:
    """Seconds by stage of a run, kept in a file, so that a run in several attempts knows its whole time.

    Time of an attempt that is killed in the middle of a stage is not counted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage, also when the block fails."""
        started = time.monotonic()
        LOG.info("%s: started", name)
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0) + time.monotonic() - started, 3)
            write_json(self.path, self.seconds)
            LOG.info("%s: %.1f s", name, time.monotonic() - started)


UNREADABLE = "unreadable"
"""Stands for the checksum of a file that cannot be read."""


def checksums(photos: Path, names: Sequence[str]) -> dict[str, str]:
    """Give the SHA-256 of each photo's file, "unreadable" where it cannot be read."""
    found = {}
    for name in names:
        try:
            found[name] = sha256_of(photos / name)
        except OSError:  # the stage that reads photos says why
            found[name] = UNREADABLE
    return found


@contextmanager
def open_run(out: Path, identity: Mapping[str, Any], *, other_photos: bool = False) -> Iterator[None]:
    """Own the folder of a run while the block lasts; make it, or continue in it if it holds the same run.

    Args:
        out: absent or empty, or holding a run of the same identity.
        identity: what decides the results, as JSON can hold it; ``photos`` maps names to checksums, ``masks`` those of
            them that have a mask to its checksum.
        other_photos: also continue a run of other photos, and with another list of pairs where photos differ. Its
            ``run.json`` stays as it is; :func:`kornia_bingan.work.identity.write_identity` brings it up to date.

    Raises:
        UsageError: the folder cannot be made or written, holds something else or another run (the message names the
            difference), or another process works in it.
    """
    out = Path(out)
    known = _known(out)
    if known is not None and (differs := difference(known, json.loads(json.dumps(identity)), other_photos)):
        raise UsageError(f"{out} holds another run ({differs}); give the same options, or another folder")
    with alone_in(out):
        try:
            _remove_partial(out)
            if known is None:
                write_identity(out, identity)
        except OSError as error:
            raise UsageError(f"{out} cannot be written: {error.strerror or error}; give another folder") from error
        yield
        _remove_partial(out)  # of workers that died


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder while the block lasts; it is made if it is absent.

    The system gives a lock up when its process dies. Where the file system has none, a file names the owner instead.

    Raises:
        UsageError: the folder cannot be made or written, or another process works in it.
    """
    owned = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / _LOCK, "w", encoding="utf-8")  # noqa: SIM115 - open while the run lasts
        if not _take(lock, folder):
            _take_file(folder)
            owned = True
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}; give another folder") from error
    with lock:
        try:
            yield
        finally:
            if owned:
                (folder / _OWNER).unlink(missing_ok=True)


def _known(out: Path) -> dict[str, Any] | None:
    """Give the identity of the run in a folder; None for no folder or an empty one."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise UsageError(f"{out} is a file; give a folder for the results")
    record = out / "run.json"
    if not record.is_file():
        foreign = sorted(
            path.name for path in out.iterdir() if path.name not in (_LOCK, _OWNER) and not _is_partial(path)
        )
        if foreign:
            raise UsageError(f"{out} is not empty and holds no run ({foreign[0]}); give an empty or a new folder")
        return None
    return read_identity(out)


def _take(lock: IO[str], out: Path) -> bool:
    """Lock an open file; False if its file system has no such locks."""
    if sys.platform == "win32":  # no such lock; two runs at once repeat each other's work
        return True
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise UsageError(f"another process works in {out}; wait for it or give another folder") from error
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            lock.close()
            raise
        LOG.warning("%s: its file system has no locks; the file %s stands for one", printable(str(out)), _OWNER)
        return False
    return True


def _take_file(folder: Path) -> None:
    """Make the file that names the owner of a folder, or take the place of an owner of this machine that is dead."""
    path = folder / _OWNER
    while True:
        try:
            with open(path, "x", encoding="utf-8") as file:
                json.dump({"machine": platform.node(), "process": os.getpid()}, file)
            return
        except FileExistsError:
            found = _read_owner(path)
            if found is None:  # gone meanwhile
                continue
            if not _is_dead(found):
                of = f"process {found[1]} of {found[0]}" if found[0] else "another process"
                raise UsageError(
                    f"{of} works in {folder}; wait for it, or delete {path} if it does not run any more"
                ) from None
            # Of two that see the same dead owner only one takes its file away.
            grave = path.with_name(f"{_OWNER}.{os.getpid()}.partial")
            try:
                path.rename(grave)
            except FileNotFoundError:
                continue
            if _read_owner(grave) != found and not path.exists():  # the other one was quicker
                grave.rename(path)
            grave.unlink(missing_ok=True)


def _read_owner(path: Path) -> tuple[str, int] | None:
    """Give machine and process; ("", 0) for what cannot be understood, None if there is no file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return str(value["machine"]), int(value["process"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return "", 0


def _is_dead(owner: tuple[str, int]) -> bool:
    """Say whether a process of this machine is gone; of another machine nobody knows."""
    machine, process = owner
    if machine != platform.node() or process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return False


def _is_partial(path: Path) -> bool:
    return path.name.startswith(".") and ".partial" in path.name


def _remove_partial(out: Path) -> None:
    """Remove what a killed run left half-written; nobody else writes here while the lock is held."""
    for path in [path for path in out.rglob(".*") if _is_partial(path)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
