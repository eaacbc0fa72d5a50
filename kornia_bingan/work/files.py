"""Outputs that appear whole or not at all, and checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kornia_bingan.errors import JobError, UsageError

LONGEST_NAME = 255
"""Bytes that a name may have on all usual file systems."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` and rename it to ``path`` if the block succeeds.

    The temporary keeps the suffix, so that libraries which choose a format by it still do, and its name is no other
    thread's on any machine. A failed block leaves nothing behind.

    Raises:
        JobError: there is no room for the file.
    """
    path = Path(path)
    temporary = partial_path(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise JobError(
            f"{path} cannot be written: {os.strerror(error.errno).lower()}; make room and run it again to resume"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_empty(folder: Path) -> None:
    """Refuse to write where something is.

    Raises:
        UsageError: the folder is a file, or is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is no empty folder; delete it or give another name")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` and rename it to ``path``, absent or empty, if the block succeeds.

    Raises:
        UsageError: ``path`` is a file or a folder that is not empty.
    """
    path = Path(path)
    check_empty(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = partial_path(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def partial_path(path: Path) -> Path:
    """Give the temporary name of a file or folder, which is short however long the name is, and this thread's alone."""
    owner = f"{platform.node()}-{threading.get_native_id()}-"
    number = hashlib.sha256(owner.encode() + os.fsencode(path.name)).hexdigest()[:16]
    start = os.fsencode(path.stem)[:24].decode("utf-8", "ignore")
    suffix = path.suffix if len(path.suffix) < 32 else ""  # such a long one names no format
    return path.with_name(f".{start}.{number}.partial{suffix}")


def file_name(name: str, suffix: str) -> str:
    """Add a suffix to a name; a name that would get too long for a file system is cut and numbered by its checksum."""
    data = os.fsencode(name)
    if len(data) + len(suffix) <= LONGEST_NAME:
        return name + suffix
    number = hashlib.sha256(data).hexdigest()[:16]
    return f"{data[: LONGEST_NAME - len(suffix) - 17].decode('utf-8', 'ignore')}-{number}{suffix}"


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinities are refused (``ValueError``)."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


_NOT_PRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    """Escape line breaks, control characters and bytes that are not UTF-8, which names of files may hold."""
    return _NOT_PRINTABLE.sub(lambda found: _escaped(ord(found[0])), text)


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # how Python writes the byte code - 0xDC00 of a name
        return f"\\x{code - 0xDC00:02x}"
    return chr(code).encode("unicode_escape").decode("ascii") if code < 0xD800 else f"\\u{code:04x}"


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
