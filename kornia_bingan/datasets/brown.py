"""A PhotoTour folder becomes patches, point ids and labelled pairs, and the other way round.

The layout is the one of Brown, Hua and Winder, "Discriminative learning of local image descriptors", PAMI 2011: the
sets Liberty, Notredame and Yosemite, and whatever :mod:`kornia_bingan.datasets.patch_sets` makes of photos.

* ``patchesNNNN.bmp``: sheets of 1024 x 1024 grey pixels, 16 x 16 patches of 64 x 64 read along the rows; the last sheet
  is padded.
* ``info.txt``: one row per patch, the id of its 3D point and an unused number.
* ``interest.txt``: one row per patch, the id of its reference image, then x, y, orientation and log2 of the scale of
  the point there. Matches and non-matches are to be formed among patches of one reference image.
* ``m50_A_A_0.txt``: A lines ``patch point unused patch point unused``, half of them matches: a pair is a match exactly
  if the two point ids are equal. (The files in circulation have a seventh column of zeros, which is read too.)

Patches are halved to 32 x 32 by area averaging, the mean of 2 x 2 pixels, for training, testing and every baseline.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.datasets.brown_files import (
    ORIGIN,
    PATCH_SIDE,
    PATCHES_A_SHEET,
    check_ids,
    decoded_patches,
    find_sheets,
    read_numbers,
    refuse_row,
    write_sheets,
)
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.work.files import atomic_folder

Indices = NDArray[np.integer[Any]]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]

_PAIR_FILE = re.compile(r"m50_(\d+)_(\d+)_0\.txt")
_CHUNK = 4096  # patches halved at a time: 16 MiB


@dataclass(frozen=True, eq=False)
class PatchSet:
    """A patch set on disk, with N patches.

    Attributes:
        folder: where it was read from.
        patches: grey, uint8, shape (N, 64, 64); read-only and mapped from ``cache``. What was looked at stays in the
            memory of the process as long as the system has room; :meth:`patches32` keeps nothing.
        point_ids: 3D point of each patch, int64, shape (N,).
        reference: reference image of each patch, int64, shape (N,); None without ``interest.txt``.
        interest: the further columns of ``interest.txt``, float64, shape (N, C); C is 4 in the official sets.
        cache: file that holds the patches one after the other.
    """

    folder: Path
    patches: NDArray[np.uint8]
    point_ids: NDArray[np.int64]
    reference: NDArray[np.int64] | None
    interest: NDArray[np.float64] | None
    cache: Path

    def __len__(self) -> int:
        return len(self.point_ids)

    def patches32(self, indices: Indices) -> NDArray[np.float32]:
        """Give patches as networks take them: the mean of 2 x 2 pixels, float32 in [0, 1], shape (n, 1, 32, 32).

        Raises:
            UsageError: an index has no patch.
            JobError: the cache was damaged after the set was opened.
        """
        indices = checked_indices(indices, len(self))
        out = np.empty((len(indices), 1, 32, 32), np.float32)
        with open(self.cache, "rb", buffering=0) as file:
            for start in range(0, len(indices), _CHUNK):
                part = self._read(file.fileno(), indices[start : start + _CHUNK])
                out[start : start + _CHUNK] = halve_patches(part)
        return out

    def _read(self, file: int, indices: Indices) -> NDArray[np.uint8]:
        """Read patches without the mapping: a fault on one page maps up to a megabyte around it."""
        if not hasattr(os, "preadv"):  # Windows
            return self.patches[indices]
        rows = np.empty((len(indices), PATCH_SIDE**2), np.uint8)
        for row, index in zip(rows, indices.tolist(), strict=True):
            if os.preadv(file, [row.data], index * PATCH_SIDE**2) != PATCH_SIDE**2:
                raise JobError(f"{self.cache} was cut short while it was read; delete it and start again")
        return rows.reshape(-1, PATCH_SIDE, PATCH_SIDE)

    @property
    def pair_files(self) -> list[str]:
        """Names of the pair files of the set, fewest pairs first."""
        found = [match for path in self.folder.iterdir() if (match := _PAIR_FILE.fullmatch(path.name))]
        return [match[0] for match in sorted(found, key=lambda match: (int(match[1]), match[0]))]

    def pairs(self, file: int | str) -> Pairs:
        """Read a pair file: indices of first and second patches (int64), which pairs are matches (bool), all (A,).

        Args:
            file: the number of pairs A, for ``m50_A_A_0.txt``, or the file's name.

        Raises:
            UsageError: there is no such file (the message names those that exist), a line has no 6 (or 7) numbers, a
                patch does not exist, its point is not that of ``info.txt``, or there are not A lines.
        """
        path = self.folder / (file if isinstance(file, str) else f"m50_{file}_{file}_0.txt")
        if not path.is_file():
            known = ", ".join(self.pair_files) or "none"
            raise UsageError(f"{path}: no such pair file; the set has {known}")
        rows = read_numbers(path, "patch point unused patch point unused", (6, 7))
        expected = _PAIR_FILE.fullmatch(path.name)
        if expected and len(rows) != int(expected[1]):
            raise UsageError(f"{path} has {len(rows)} lines instead of {expected[1]}; copy it again from its source")
        for patch, point in ((0, 1), (3, 4)):
            check_ids(path, rows, (patch, point))
            refuse_row(
                path, rows[:, patch] >= len(self), rows[:, patch], f"the set has no patch {{}}, only {len(self)}"
            )
            known_points = self.point_ids[rows[:, patch].astype(np.int64)]
            message = "point {} is not that of the patch in info.txt"
            refuse_row(path, rows[:, point] != known_points, rows[:, point], message)
        index0, index1 = rows[:, 0].astype(np.int64), rows[:, 3].astype(np.int64)
        return index0, index1, self.point_ids[index0] == self.point_ids[index1]


def read_patch_set(folder: Path, cache: Path | None = None) -> PatchSet:
    """Read a folder of the PhotoTour layout.

    The first call decodes the sheets into one file, N x 4096 bytes, from which later calls map them. Its name is a
    checksum of the sheets' names, sizes and times of change. Other files in the folder are not looked at.

    Args:
        folder: holds the sheets and ``info.txt``; ``interest.txt`` and pair files may be absent.
        cache: folder for the decoded file. None is the set's own folder, and the user's cache folder
            (``$XDG_CACHE_HOME/kornia_bingan`` or ``~/.cache/kornia_bingan``) with a warning if that is read-only.

    Raises:
        UsageError: the folder has no such layout, a sheet is missing, damaged or of another size, or a text file has
            another number of rows than there are patches or something that is no number; the message names the file
            and line.
        JobError: the cache cannot be written.
    """
    folder = Path(folder)
    sheets = find_sheets(folder)
    path = folder / "info.txt"
    if not path.is_file():
        raise UsageError(f"{path} is missing, so nobody knows which patches show the same point; {ORIGIN}")
    info = read_numbers(path, "point unused", range(1, 100))
    check_ids(path, info, (0,))
    count, capacity = len(info), len(sheets) * PATCHES_A_SHEET
    if count > capacity:
        raise UsageError(
            f"{path} has {count} rows, but {len(sheets)} sheets hold at most {capacity} patches; "
            f"patches{len(sheets):04d}.bmp is missing, or info.txt is of another set"
        )
    if count <= capacity - PATCHES_A_SHEET:
        raise UsageError(
            f"{path} has {count} rows, but {len(sheets)} sheets hold more than {capacity - PATCHES_A_SHEET} patches; "
            "its end is missing, or it is of another set"
        )
    reference = interest = None
    path = folder / "interest.txt"
    if path.is_file():
        rows = read_numbers(path, "reference x y orientation scale", range(1, 100))
        check_ids(path, rows, (0,))
        if len(rows) != count:
            raise UsageError(f"{path} has {len(rows)} rows, but info.txt has {count}; both have one row per patch")
        reference, interest = rows[:, 0].astype(np.int64), rows[:, 1:].copy()
    cached = decoded_patches(folder, sheets, count, None if cache is None else Path(cache))
    patches = np.memmap(cached, np.uint8, "r", shape=(count, PATCH_SIDE, PATCH_SIDE))
    return PatchSet(folder, patches, info[:, 0].astype(np.int64), reference, interest, cached)


def write_patch_set(
    folder: Path,
    patches: NDArray[np.uint8],
    point_ids: Indices,
    reference: Indices | None = None,
    *,
    interest: NDArray[np.floating[Any]] | None = None,
    pairs: Mapping[int, tuple[Indices, Indices]] | None = None,
) -> None:
    """Write a folder of the PhotoTour layout; it appears whole or not at all.

    Args:
        folder: absent or empty.
        patches: grey, uint8, shape (N, 64, 64), N at least 1.
        point_ids: 3D point of each patch, 0 or more, shape (N,).
        reference: reference image of each patch, 0 or more, shape (N,); None writes no ``interest.txt``.
        interest: its further columns, x, y, orientation and log2 of the scale, shape (N, C); written with 9
            digits.
        pairs: for each number of pairs A, the first and the second patches, shape (A,); half of them must be matches.

    Raises:
        UsageError: an argument has another shape or type, an id is negative, a pair names a patch that does not exist,
            or the folder is not empty.
    """
    folder, count = Path(folder), len(patches)
    if patches.shape[1:] != (PATCH_SIDE, PATCH_SIDE) or patches.dtype != np.uint8 or not count:
        raise UsageError(f"patches are uint8 (N, 64, 64) with at least one, got {patches.dtype} {patches.shape}")
    columns = [("point_ids", point_ids), *([("reference", reference)] if reference is not None else [])]
    for name, ids in columns:
        if ids.shape != (count,) or ids.dtype.kind not in "iu" or ids.min() < 0:
            raise UsageError(f"{name} are {count} integers from 0 on, got {ids.dtype} {ids.shape}")
    if interest is not None and (reference is None or interest.ndim != 2 or len(interest) != count):
        raise UsageError(f"interest has shape {interest.shape}; it is (N, C) for {count} patches and needs reference")
    if interest is not None and not np.isfinite(interest).all():
        raise UsageError("interest has a value that is not finite")
    for number, (index0, index1) in (pairs or {}).items():
        for index in (index0, index1):
            if len(checked_indices(index, count)) != number:
                raise UsageError(f"{len(index)} pairs were given for the file of {number}")
        matches = int((point_ids[index0] == point_ids[index1]).sum())
        if 2 * matches != number:
            raise UsageError(f"{matches} of {number} pairs are matches; in an m50 file it is half of them")
    with atomic_folder(folder) as temporary:
        write_sheets(temporary, patches)
        (temporary / "info.txt").write_text("".join(f"{point} 0\n" for point in point_ids), encoding="ascii")
        if reference is not None:
            further = interest if interest is not None else np.empty((count, 0))
            lines = (
                f"{i} {' '.join(f'{x:.9g}' for x in row)}".rstrip() for i, row in zip(reference, further, strict=True)
            )
            (temporary / "interest.txt").write_text("".join(line + "\n" for line in lines), encoding="ascii")
        for number, (index0, index1) in (pairs or {}).items():
            rows = zip(index0, point_ids[index0], index1, point_ids[index1], strict=True)
            text = "".join(f"{a} {p} 0 {b} {q} 0\n" for a, p, b, q in rows)
            (temporary / f"m50_{number}_{number}_0.txt").write_text(text, encoding="ascii")


def halve_patches(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Halve patches by the mean of 2 x 2 pixels: uint8 (n, 64, 64) becomes float32 in [0, 1], (n, 1, 32, 32)."""
    rows = patches[:, 0::2].astype(np.uint16) + patches[:, 1::2]
    total = rows[:, :, 0::2] + rows[:, :, 1::2]
    return np.divide(total, np.float32(4 * 255), dtype=np.float32)[:, None]


def checked_indices(indices: Indices, count: int) -> Indices:
    """Give indices of ``count`` patches as an array (n,).

    Raises:
        UsageError: they are no integers (n,), or an index has no patch.
    """
    indices = np.asarray(indices)
    if not indices.size:
        return np.zeros(0, np.int64)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise UsageError(f"indices of patches are integers (n,), got {indices.dtype} {indices.shape}")
    if indices.min() < 0 or indices.max() >= count:
        bad = indices[(indices < 0) | (indices >= count)][0]
        raise UsageError(f"there is no patch {bad}; the set has {count}")
    return indices
