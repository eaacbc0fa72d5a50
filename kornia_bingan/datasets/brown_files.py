"""What a PhotoTour folder consists of: sheets of patches, and texts with one row of numbers per patch.

See :mod:`kornia_bingan.datasets.brown` for the layout.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import warnings
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.read import ImageError, read_image
from kornia_bingan.work.files import atomic_path

PATCH_SIDE = 64
SHEET_SIDE = 1024
PATCHES_A_SHEET = (SHEET_SIDE // PATCH_SIDE) ** 2

ORIGIN = "Liberty, Notredame and Yosemite come as archives from matthewalunbrown.com/patchdata/patchdata.html"

_SHEET = re.compile(r"patches(\d{4,})\.bmp")


def write_sheets(folder: Path, patches: NDArray[np.uint8]) -> None:
    """Write patches, uint8, shape (N, 64, 64), as ``patches0000.bmp`` and so on."""
    side = SHEET_SIDE // PATCH_SIDE
    for number, start in enumerate(range(0, len(patches), PATCHES_A_SHEET)):
        cells = np.zeros((PATCHES_A_SHEET, PATCH_SIDE, PATCH_SIDE), np.uint8)
        part = patches[start : start + PATCHES_A_SHEET]
        cells[: len(part)] = part
        sheet = cells.reshape(side, side, PATCH_SIDE, PATCH_SIDE).swapaxes(1, 2).reshape(SHEET_SIDE, SHEET_SIDE)
        _, data = cv2.imencode(".bmp", sheet)
        (folder / f"patches{number:04d}.bmp").write_bytes(data.tobytes())


def _read_sheet(path: Path) -> NDArray[np.uint8]:
    """Read the 256 patches of a sheet, uint8, shape (256, 64, 64)."""
    sheet = read_image(path)
    if sheet.shape != (SHEET_SIDE, SHEET_SIDE):
        raise ImageError(
            f"{path} is {sheet.shape[1]} x {sheet.shape[0]}; a sheet of 16 x 16 patches is {SHEET_SIDE} x {SHEET_SIDE}"
        )
    side = SHEET_SIDE // PATCH_SIDE
    cells = sheet.reshape(side, PATCH_SIDE, side, PATCH_SIDE).swapaxes(1, 2)
    return cells.reshape(PATCHES_A_SHEET, PATCH_SIDE, PATCH_SIDE)


def find_sheets(folder: Path) -> list[Path]:
    """List the sheets of a folder in their order.

    Raises:
        UsageError: there is no such folder, no sheet in it, or one is missing between others.
    """
    if not folder.exists():
        raise UsageError(f"{folder}: no such folder; {ORIGIN}")
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; give the folder that holds patches0000.bmp and info.txt")
    found = {int(match[1]): path for path in folder.iterdir() if (match := _SHEET.fullmatch(path.name))}
    if not found:
        inside = sorted(path.parent.name for path in folder.glob("*/info.txt"))
        hint = f"did you mean one of its folders {', '.join(inside)}?" if inside else ORIGIN
        raise UsageError(f"{folder} has no patches0000.bmp, so it is no patch set; {hint}")
    for number in range(max(found)):
        if number not in found:
            raise UsageError(
                f"{folder / f'patches{number:04d}.bmp'} is missing, but {found[max(found)].name} is there; "
                "unpack the set again"
            )
    return [found[number] for number in sorted(found)]


def decoded_patches(folder: Path, sheets: list[Path], count: int, given: Path | None) -> Path:
    """Find or make the file with the ``count`` patches of the sheets one after the other; see ``read_patch_set``.

    Raises:
        ImageError: a sheet is damaged or of another size.
        JobError: the file cannot be written.
    """
    digest = hashlib.sha256(f"{count}\n".encode())
    for sheet in sheets:
        state = sheet.stat()
        digest.update(f"{sheet.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    name = f"{folder.resolve().name}-{digest.hexdigest()[:20]}.patches"
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "kornia_bingan"
    places = [given] if given is not None else [folder, users]
    for place in places:
        path = place / name
        if path.is_file() and path.stat().st_size == count * PATCH_SIDE**2:
            return path
    failures: list[str] = []
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            with atomic_path(place / name) as temporary, open(temporary, "wb") as file:
                for number, sheet in enumerate(tqdm(sheets, desc="sheets", unit="sheet", disable=len(sheets) < 100)):
                    file.write(_read_sheet(sheet)[: count - number * PATCHES_A_SHEET].tobytes())
        except OSError as error:
            failures.append(f"{place} ({error.strerror or error})")
            continue
        if failures:
            warnings.warn(f"not writable: {failures[0]}; the patches are cached in {place / name}", stacklevel=3)
        return place / name
    raise JobError(
        f"the patches of {folder} ({count * PATCH_SIDE**2 / 2**20:.0f} MiB) can be cached neither in "
        f"{' nor in '.join(failures)}; give a folder for the cache that can be written"
    )


def read_numbers(path: Path, meaning: str, allowed: Collection[int]) -> NDArray[np.float64]:
    """Read a text of numbers, float64, shape (lines, numbers in a line).

    Args:
        path: the text; empty lines at its end are passed over.
        meaning: of the numbers, for messages.
        allowed: how many a line may have; it is the same in each line.

    Raises:
        UsageError: the text is empty or cannot be read, or a line has something else; the message names it.
    """
    try:
        text = path.read_bytes().rstrip().decode("latin-1")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    lines = text.count("\n") + 1
    wanted = " or ".join(str(n) for n in allowed) if len(allowed) < 4 else f"at least {min(allowed)}"
    if not text:
        raise UsageError(f"{path} is empty; every line has {wanted} numbers: {meaning}")
    try:
        rows = np.loadtxt(io.StringIO(text), comments=None, ndmin=2)
    except ValueError as error:
        problem = str(error)
    else:
        if len(rows) == lines and rows.shape[1] in allowed and np.isfinite(rows).all():
            return rows
        problem = f"{len(rows)} rows in {lines} lines"
    first = 0
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        first = first or len(fields)
        for word in fields:
            if not _is_number(word):
                raise UsageError(f"{path}, line {number}: '{word}' is not a number; the line holds {meaning}")
        if len(fields) not in allowed or len(fields) != first:
            raise UsageError(
                f"{path}, line {number} has {len(fields)} numbers instead of {first if first in allowed else wanted}: "
                f"{meaning}"
            )
    raise UsageError(f"{path} cannot be read as numbers: {problem}")


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def check_ids(path: Path, rows: NDArray[np.float64], columns: tuple[int, ...]) -> None:
    """Raise UsageError unless some columns hold whole numbers from 0 on."""
    for column in columns:
        values = rows[:, column]
        bad = (values != np.floor(values)) | (values < 0) | (values > 2**53)
        refuse_row(path, bad, values, f"{{}} in column {column + 1} is no id, a whole number from 0 on")


def refuse_row(path: Path, bad: NDArray[np.bool_], values: NDArray[np.float64], message: str) -> None:
    """Raise UsageError for the first bad row: its line, and the message with its value in place of ``{}``."""
    if bad.any():
        row = int(np.argmax(bad))
        raise UsageError(f"{path}, line {row + 1}: {message.format(f'{values[row]:.10g}')}")
