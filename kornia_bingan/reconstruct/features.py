"""A file of the keypoints and codes of a photo."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.work.files import atomic_path, file_name

DAMAGED = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What numpy and zipfile raise for damaged files: compression and passwords, headers that end early, huge shapes."""


@dataclass(frozen=True)
class Features:
    """What is known of one photo.

    Attributes:
        size: width and height of the photo as a viewer shows it.
        keypoints: N keypoints in its pixels.
        codes: packed codes, uint8, shape (N, bits / 8).
    """

    size: tuple[int, int]
    keypoints: Keypoints
    codes: NDArray[np.uint8]

    def write(self, path: Path) -> None:
        """Write a ``.npz`` with the arrays of :class:`Keypoints`, ``codes`` and ``image_size``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        k = self.keypoints
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                image_size=np.array(self.size, np.int32),
                xy=k.xy,
                size=k.size,
                angle_deg=k.angle_deg,
                response=k.response,
                octave=k.octave,
                codes=self.codes,
            )

    @classmethod
    def read(cls, path: Path) -> Features:
        """Read what :meth:`write` wrote.

        Raises:
            UsageError: the file is absent or something else.
        """
        try:
            with np.load(path) as file:
                arrays = (file[name] for name in ("xy", "size", "angle_deg", "response", "octave"))
                width, height = file["image_size"].tolist()
                return cls((width, height), Keypoints(*arrays), file["codes"])
        except DAMAGED as error:
            raise UsageError(f"{path} is no file of features; run the command again to make it anew") from error


def features_path(folder: Path, name: str) -> Path:
    """Give the file of a photo's features; sub-folders are kept, so that no two names share a file.

    It is the name and ``.npz``; only one too long for that is cut, see :func:`kornia_bingan.work.files.file_name`.
    """
    path = folder / name
    return path.with_name(file_name(path.name, ".npz"))


def read_features(path: Path) -> Features:
    """Read a file of features; those of the last some hundred files are kept.

    Raises:
        UsageError: as :meth:`Features.read`.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    return _features(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=512)
def _features(path: Path, time: int, size: int) -> Features:
    return Features.read(path)
