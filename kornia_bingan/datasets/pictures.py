"""Small labelled pictures, as in CIFAR-10, from the official batches, from one folder per class, or from sheets.

What :func:`read_picture_set` takes, told apart by what the folder holds:

* the official python batches ``data_batch_1`` .. ``data_batch_5`` and ``test_batch`` (in the folder, or in its
  ``cifar-10-batches-py``). They are pickles; only arrays, strings and lists are unpickled, nothing else.
* ``train/CLASS/*.png`` and ``test/CLASS/*.png``, any picture format and size; larger ones are reduced to 32 x 32.
* ``index.json`` with sheets of tiles: ``{"tile": 32, "sheets": [...]}``, a sheet with ``file``, ``split``, ``cls``,
  ``first``, ``count`` and ``columns``.

Labels are for measuring only: training never sees them. The official batches are in random order. The two other layouts
are sorted by class, which would favour the first classes wherever equal distances are ranked in the order of the
database; so their pictures are put into a random order that is always the same.
"""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.images.read import ImageError, read_color

SIDE = 32


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Pictures with their classes.

    Attributes:
        pictures: RGB, uint8, shape (N, 32, 32, 3).
        labels: place of each picture's class in ``classes``, int64, shape (N,).
        classes: names, sorted.
    """

    pictures: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Splits:
    """A set for training, which is also the database that is searched, and one for queries.

    Attributes:
        train, test: with the same classes.
        source: how the pictures were stored, in words, for records.
    """

    train: PictureSet
    test: PictureSet
    source: str


def read_picture_set(folder: Path) -> Splits:
    """Read a picture set in one of the three layouts of this module.

    Raises:
        UsageError: none of them is there, or a file is missing, damaged or does not hold what it says; the message
            names the file.
    """
    for place in (folder, folder / "cifar-10-batches-py"):
        if (place / "test_batch").is_file():
            return _read_batches(place)
    if (folder / "index.json").is_file():
        return _read_sheets(folder)
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return _read_tree(folder)
    raise UsageError(
        f"{folder} has neither CIFAR-10's python batches (test_batch) nor index.json nor train/ and test/ with one "
        "folder per class"
    )


class _ArraysOnly(pickle.Unpickler):
    """Unpickle what the official batches hold, and refuse any other class or function."""

    _ALLOWED = (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it wants {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _read_batches(folder: Path) -> Splits:
    train = [_read_batch(folder / f"data_batch_{number}") for number in range(1, 6)]
    names = tuple(f"class {number}" for number in range(10))
    if (folder / "batches.meta").is_file():
        meta = _unpickle(folder / "batches.meta")
        names = tuple(_text(name) for name in _entry(meta, "label_names", folder / "batches.meta"))
    pictures, labels = (np.concatenate([batch[k] for batch in train]) for k in (0, 1))
    sets = [PictureSet(pictures, labels, names), PictureSet(*_read_batch(folder / "test_batch"), names)]
    for each in sets:
        if each.labels.min() < 0 or each.labels.max() >= len(names):
            raise UsageError(f"{folder}: a label is {each.labels.max()}, but there are {len(names)} classes")
    return Splits(sets[0], sets[1], "official python batches")


def _unpickle(path: Path) -> dict[Any, Any]:
    try:
        found = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except FileNotFoundError:
        raise UsageError(f"{path} is missing; unpack CIFAR-10's python archive again") from None
    except Exception as error:  # damaged pickles raise nearly anything
        raise UsageError(f"{path} is no batch of CIFAR-10, or is damaged: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} is no batch of CIFAR-10: it holds no dictionary")
    return found


def _entry(batch: dict[Any, Any], name: str, path: Path) -> Any:
    for key in (name.encode(), name):
        if key in batch:
            return batch[key]
    raise UsageError(f"{path} has no '{name}'; it is no batch of CIFAR-10")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = _unpickle(path)
    data, labels = np.asarray(_entry(batch, "data", path)), np.asarray(_entry(batch, "labels", path))
    if data.ndim != 2 or data.shape[1] != 3 * SIDE * SIDE or data.dtype != np.uint8 or len(labels) != len(data):
        raise UsageError(f"{path} holds data {data.dtype} {data.shape} and {len(labels)} labels; it must be (N, 3072)")
    return data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1).copy(), labels.astype(np.int64)


def _read_sheets(folder: Path) -> Splits:
    path = folder / "index.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        side, sheets = int(index["tile"]), [dict(sheet) for sheet in index["sheets"]]
        classes = tuple(sorted({str(sheet["cls"]) for sheet in sheets}))
        rows = [(str(s["split"]), str(s["cls"]), int(s["first"]), int(s["count"]), int(s["columns"])) for s in sheets]
        files = [folder / str(sheet["file"]) for sheet in sheets]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no index of sheets: {error}") from error
    if side != SIDE:
        raise UsageError(f"{path}: the tiles are {side} px, they must be {SIDE}")
    parts: dict[str, list[tuple[int, int, NDArray[np.uint8]]]] = {"train": [], "test": []}
    for (split, cls, first, count, columns), file in zip(rows, files, strict=True):
        if split not in parts:
            raise UsageError(f"{path}: the split of {file.name} is '{split}', it must be train or test")
        try:
            sheet = read_color(file)
        except ImageError as error:
            raise UsageError(str(error)) from error
        if sheet.shape[1] != columns * SIDE or sheet.shape[0] % SIDE or count > sheet.shape[0] // SIDE * columns:
            raise UsageError(f"{file} is {sheet.shape[1]} x {sheet.shape[0]}, too small for {count} tiles of {SIDE} px")
        tiles = sheet.reshape(-1, SIDE, columns, SIDE, 3).transpose(0, 2, 1, 3, 4).reshape(-1, SIDE, SIDE, 3)
        parts[split].append((classes.index(cls), first, tiles[:count]))
    sets = []
    for split, found in parts.items():
        if not found:
            raise UsageError(f"{path} has no sheet of the split {split}")
        found.sort(key=lambda part: part[:2])
        labels = np.repeat([part[0] for part in found], [len(part[2]) for part in found])
        sets.append(_shuffled(np.concatenate([part[2] for part in found]), labels.astype(np.int64), classes))
    return Splits(sets[0], sets[1], "JPEG copies of the pictures, in sheets")


def _shuffled(pictures: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...]) -> PictureSet:
    order = np.random.default_rng(0).permutation(len(labels))
    return PictureSet(pictures[order], labels[order], classes)


def _read_tree(folder: Path) -> Splits:
    classes = tuple(sorted(path.name for path in (folder / "train").iterdir() if path.is_dir()))
    if not classes:
        raise UsageError(f"{folder / 'train'} has no folder of a class")
    sets = []
    for split in ("train", "test"):
        pictures, labels = [], []
        for number, name in enumerate(classes):
            place = folder / split / name
            names = list_images(place)[0] if place.is_dir() else []
            if len(names) < (2 if split == "train" else 1):
                raise UsageError(f"{place} has {len(names)} pictures; a class needs 2 in train and 1 in test")
            for picture in names:
                pictures.append(_read_small(place / picture))
                labels.append(number)
        sets.append(_shuffled(np.stack(pictures), np.array(labels, np.int64), classes))
    return Splits(sets[0], sets[1], "one folder per class")


def _read_small(path: Path) -> NDArray[np.uint8]:
    try:
        return reduce_picture(read_color(path))
    except ImageError as error:
        raise UsageError(str(error)) from error


def reduce_picture(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce the middle square of an RGB picture (H, W, 3) to 32 x 32, pixel areas averaged."""
    height, width = picture.shape[:2]
    side = min(height, width)
    y, x = (height - side) // 2, (width - side) // 2
    square = picture[y : y + side, x : x + side]
    if side == SIDE:
        return np.ascontiguousarray(square)
    way = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (SIDE, SIDE), interpolation=way), np.uint8)
