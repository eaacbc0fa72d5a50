"""Codes of photos in a folder, searched by faiss.

    FOLDER/index.json      what decides a code, and the folder of the photos
    FOLDER/parts/*.npz     names, sizes, times, checksums and codes of the photos that were described at once
    FOLDER/codes.faiss     faiss binary index of all codes, with
    FOLDER/names.json      the photo of each of its rows
    FOLDER/ids.npy         the number of each row in an inverted file, made from the photo's checksum

The index is flat up to ``MOST_EXACT`` codes, an inverted file above, and is mapped into memory when it is searched.
Codes are added to an inverted file and removed from it; its lists are trained again when their number no longer suits.
A graph (HNSW) is not used: faiss cannot remove a code from it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.work.files import atomic_path, write_json

MOST_EXACT = 1_000_000
"""Codes compared exhaustively: at 2,048 bits each that takes 0.09 s, and the command needs seconds to start."""
PROBES = 64
"""Lists of the inverted file that are looked into."""
TRAINING_PER_LIST = 40


@dataclass(frozen=True)
class Stamp:
    """A photo's file when it was read: its size, its time (ns) and its content's checksum."""

    size: int
    time: int
    checksum: str


Row = tuple[Stamp, NDArray[np.uint8]]
"""A photo's stamp and packed code."""


def num_lists(count: int) -> int:
    """Give the number of lists of an inverted file: the power of two next to the root of the number of codes."""
    return int(2 ** max(2, round(np.log2(np.sqrt(count)))))


@dataclass
class FaissStore:
    """An index in a folder; ``rows`` are the photos known so far, in the order in which they were added."""

    folder: Path
    rows: dict[str, Row] = field(default_factory=dict)

    def __str__(self) -> str:
        return str(self.folder)

    def exists(self) -> bool:
        """Say whether there is an index.

        Raises:
            UsageError: the place is taken by something else.
        """
        if (self.folder / "index.json").is_file():
            return True
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise UsageError(f"{self} is not empty and holds no index; give another folder")
        return False

    def about(self) -> dict[str, Any]:
        """Read what :meth:`begin` wrote.

        Raises:
            UsageError: the folder holds no index of this format.
        """
        try:
            return parse_about((self.folder / "index.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self} holds no index that this version reads ({error}); bingan index makes one"
            ) from error

    def begin(self, about: dict[str, Any]) -> None:
        """Make the folder, or note anew what decides its codes."""
        (self.folder / "parts").mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "index.json", about)

    def known(self) -> dict[str, Stamp]:
        """Read the photos of all parts.

        Raises:
            UsageError: a part is damaged.
        """
        for path in sorted((self.folder / "parts").glob("*.npz")):
            self.rows |= _read_part(path)
        return {name: stamp for name, (stamp, _) in self.rows.items()}

    def add(self, rows: Mapping[str, Row]) -> None:
        """Store photos, new or changed ones."""
        parts = self.folder / "parts"
        number = 1 + max((int(path.stem) for path in parts.glob("*.npz") if path.stem.isdecimal()), default=-1)
        with atomic_path(parts / f"{number:06}.npz") as temporary:
            np.savez(temporary, **_columns(rows))  # type: ignore[arg-type]
        self.rows |= rows

    def finish(self, names: Sequence[str], bits: int) -> None:
        """Keep these photos only, as one part, the faiss index and its names; earlier parts go last."""
        old = list((self.folder / "parts").glob("*.npz"))
        self.rows = {name: self.rows[name] for name in names}
        self.add(self.rows)
        codes = np.stack([code for _, code in self.rows.values()])
        ids = np.array([int(stamp.checksum[:15], 16) for stamp, _ in self.rows.values()], np.int64)
        index = searchable(codes, ids, self._trained(bits) if len(codes) > MOST_EXACT else None)
        with atomic_path(self.folder / "ids.npy") as temporary:
            np.save(temporary, ids)
        with atomic_path(self.folder / "codes.faiss") as temporary:
            _write(index, temporary)
        write_json(self.folder / "names.json", list(names))
        for path in old:
            path.unlink()

    def _trained(self, bits: int) -> Any:
        """Give the inverted file of the last update; None if there is none that can be used."""
        try:
            index = _read(self.folder / "codes.faiss", 0)
        except (OSError, RuntimeError):  # absent, or damaged and made anew
            return None
        return index if isinstance(index, faiss.IndexBinaryIVF) and index.d == bits else None

    def search(self, code: NDArray[np.uint8], top: int) -> list[tuple[str, int]]:
        """Find the nearest photos of a packed code: names and Hamming distances, at most ``top``.

        Raises:
            UsageError: the index is not finished, or damaged.
        """
        names = self._names()
        index = read_mapped(self.folder / "codes.faiss")
        if index.ntotal != len(names) or index.d != 8 * len(code):
            raise UsageError(
                f"{self} has {index.ntotal} codes of {index.d} bits and {len(names)} names; run bingan index again"
            )
        distances, rows = index.search(code[None], min(top, len(names)))
        if isinstance(index, faiss.IndexBinaryIVF):
            ids = self._read_ids(len(names))
            rows = np.array([[int(np.argmax(ids == row)) if row in ids else -1 for row in rows[0]]])
        pairs = zip(rows[0].tolist(), distances[0].tolist(), strict=True)
        return [(names[row], int(distance)) for row, distance in pairs if row >= 0]

    def codes(self) -> tuple[list[str], NDArray[np.uint8]]:
        """Read the names and packed codes, uint8 (N, bytes), of all photos.

        Raises:
            UsageError: the index is not finished, or damaged.
        """
        names = self._names()
        self.known()
        if missing := [name for name in names if name not in self.rows]:
            raise UsageError(f"{self} has no code of {missing[0]}; run bingan index again")
        return names, np.stack([self.rows[name][1] for name in names])

    def _names(self) -> list[str]:
        try:
            names: list[str] = json.loads((self.folder / "names.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{self} is not finished or damaged; run bingan index again") from error
        return names

    def _read_ids(self, count: int) -> NDArray[np.int64]:
        path = self.folder / "ids.npy"
        try:
            ids: NDArray[np.int64] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"{path} is damaged or missing; run bingan index again") from error
        if ids.shape != (count,):
            raise UsageError(f"{path} has {ids.shape} numbers of {count} photos; run bingan index again")
        return ids


def read_mapped(path: Path) -> Any:
    """Open a faiss binary index whose codes stay in the file and are read as far as they are searched.

    Raises:
        UsageError: the file is absent or damaged.
    """
    try:
        return _read(path, faiss.IO_FLAG_MMAP_IFC)
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{path} is damaged or missing; run bingan index again") from error


def _read(path: Path, flags: int) -> Any:
    if _is_utf8(path):
        return faiss.read_index_binary(str(path), flags)
    with open(path, "rb") as file:  # faiss takes no other names
        return faiss.read_index_binary(faiss.PyCallbackIOReader(file.read))  # type: ignore[attr-defined]


def _write(index: Any, path: Path) -> None:
    with open(path, "wb") as file:
        faiss.write_index_binary(index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def searchable(codes: NDArray[np.uint8], ids: NDArray[np.int64], trained: Any = None) -> Any:
    """Put packed codes into a faiss index that suits their number: flat, or an inverted file.

    Args:
        codes: uint8 (N, bytes), at least one.
        ids: a number for each code, none twice, int64 (N,); a flat index numbers its rows instead.
        trained: an inverted file, to which only what differs is done if it has the right number of lists; or None.
    """
    bits = 8 * codes.shape[1]
    if len(codes) <= MOST_EXACT:
        flat: Any = faiss.IndexBinaryFlat(bits)
        flat.add(codes)
        return flat
    lists = num_lists(len(codes))
    if trained is None or trained.nlist != lists:
        trained = train_lists(codes, lists)
    there = _ids_of(trained)
    trained.remove_ids(np.setdiff1d(there, ids))
    new = ~np.isin(ids, there)
    trained.add_with_ids(codes[new], ids[new])
    return trained


def train_lists(codes: NDArray[np.uint8], lists: int) -> Any:
    """Give an empty inverted file whose lists suit some codes, uint8 (N, bytes)."""
    index: Any = faiss.index_binary_factory(8 * codes.shape[1], f"BIVF{lists}")
    index.nprobe = PROBES
    index.train(codes[:: max(1, len(codes) // (TRAINING_PER_LIST * lists))])
    return index


def _ids_of(index: Any) -> NDArray[np.int64]:
    lists = index.invlists
    sizes = [lists.list_size(number) for number in range(index.nlist)]
    parts = [faiss.rev_swig_ptr(lists.get_ids(number), size).copy() for number, size in enumerate(sizes) if size]
    return np.concatenate([*parts, np.zeros(0, np.int64)])


def parse_about(text: str) -> dict[str, Any]:
    """Read the JSON that says what decides a code.

    Raises:
        ValueError, KeyError, TypeError: it is something else, or of another format.
    """
    about: dict[str, Any] = json.loads(text)
    if about["format"] != 1:
        raise ValueError(f"format {about['format']}")
    return about


def _read_part(path: Path) -> dict[str, Row]:
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = [file[name] for name in ("names", "sizes", "times", "checksums", "codes")]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is damaged; delete it to have its photos described again") from error
    return {
        str(name): (Stamp(int(size), int(time), str(checksum)), code)
        for name, size, time, checksum, code in zip(*columns, strict=True)
    }


def _columns(rows: Mapping[str, Row]) -> dict[str, NDArray[Any]]:
    stamps = [stamp for stamp, _ in rows.values()]
    return {
        "names": np.array(list(rows)),
        "sizes": np.array([stamp.size for stamp in stamps], np.int64),
        "times": np.array([stamp.time for stamp in stamps], np.int64),
        "checksums": np.array([stamp.checksum for stamp in stamps]),
        "codes": np.stack([code for _, code in rows.values()]),
    }
