"""Codes of photos in LanceDB: local files or object storage (``s3://``, ``gs://``, ``az://``), read by many machines.

Two tables: ``about``, one row of JSON, says what decides a code; ``photos`` has the name, size, time, checksum and
packed code of each photo. A search reads the version of ``photos`` that has the tag ``finished``, so it sees the last
complete update also while another runs. Up to ``MOST_EXACT`` codes are compared exhaustively, more get an inverted
file. LanceDB comes with the extra ``store`` and takes the keys of object storage from the environment, such as
``AWS_ACCESS_KEY_ID``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.search.faiss_store import MOST_EXACT, PROBES, TRAINING_PER_LIST, Row, Stamp, num_lists, parse_about

FINISHED = "finished"
_DELETED_AT_ONCE = 1000


@dataclass
class LanceStore:
    """An index in LanceDB: its name for messages, its address for LanceDB, and the photos known so far."""

    name: str
    address: str
    names: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        return self.name

    def exists(self) -> bool:
        """Say whether there is an index.

        Raises:
            UsageError: the place is taken by something else, or cannot be read.
        """
        folder = None if "://" in self.address else Path(self.address)
        if folder is not None and not folder.exists():  # connecting would make it
            return False
        with self._reading():
            tables = [] if folder is not None and folder.is_file() else self._connect().list_tables().tables
        if "about" in tables:
            return True
        if tables or (folder is not None and (folder.is_file() or any(folder.iterdir()))):
            raise UsageError(f"{self} is not empty and holds no index; give another place")
        return False

    def about(self) -> dict[str, Any]:
        """Read what :meth:`begin` wrote.

        Raises:
            UsageError: there is no index of this format.
        """
        if not self.exists():
            raise UsageError(f"{self} holds no index that this version reads (it is empty); bingan index makes one")
        with self._reading():
            return parse_about(self._connect().open_table("about").to_arrow()["json"][0].as_py())

    def begin(self, about: dict[str, Any]) -> None:
        """Make the tables, or note anew what decides the codes."""
        import pyarrow as pa

        with self._reading():
            database = self._connect()
            mode = "overwrite" if "about" in database.list_tables().tables else "create"
            database.create_table("about", pa.table({"json": [json.dumps(about)]}), mode=mode)
            database.create_table("photos", schema=_table({}, about["bits"]).schema, exist_ok=True)

    def known(self) -> dict[str, Stamp]:
        """Read the photos, without their codes.

        Raises:
            UsageError: the table is damaged.
        """
        with self._reading():
            rows = self._photos().search().select(["name", "size", "time", "checksum"]).to_arrow()
            columns = [rows[name].to_pylist() for name in ("name", "size", "time", "checksum")]
        known = {name: Stamp(size, time, checksum) for name, size, time, checksum in zip(*columns, strict=True)}
        self.names = set(known)
        return known

    def add(self, rows: Mapping[str, Row]) -> None:
        """Store photos, new or changed ones."""
        changed = {name: row for name, row in rows.items() if name in self.names}
        new = {name: row for name, row in rows.items() if name not in changed}
        with self._reading():
            photos = self._photos()
            if new:
                photos.add(_table(new))
            if changed:
                photos.merge_insert("name").when_matched_update_all().execute(_table(changed))
        self.names |= set(new)

    def finish(self, names: Sequence[str], bits: int) -> None:
        """Keep these photos only and make them searchable."""
        gone = sorted(self.names - set(names))
        with self._reading():
            photos = self._photos()
            for start in range(0, len(gone), _DELETED_AT_ONCE):
                quoted = ("'" + name.replace("'", "''") + "'" for name in gone[start : start + _DELETED_AT_ONCE])
                photos.delete(f"name IN ({', '.join(quoted)})")
            _tag(photos)  # before old versions are cleaned up, of which the tag must not be one
            photos.optimize()
            _index(photos)
            _tag(photos)

    def search(self, code: NDArray[np.uint8], top: int) -> list[tuple[str, int]]:
        """Find the nearest photos of a packed code: names and Hamming distances, at most ``top``.

        Of equally near photos, LanceDB gives any; so all that are as near as the last one are asked for, and those
        whose names come first are kept.

        Raises:
            UsageError: the index is not finished, or damaged.
        """
        with self._reading():
            photos = self._finished()
            limit = top
            while True:
                limit += 1
                found = _nearest(photos, code, limit)
                if len(found) < limit or found[-1][1] > found[top - 1][1]:
                    break
                limit *= 2
        return sorted(found, key=lambda pair: (pair[1], pair[0]))[:top]

    def codes(self) -> tuple[list[str], NDArray[np.uint8]]:
        """Read the names and packed codes, uint8 (N, bytes), of all photos.

        Raises:
            UsageError: the index is not finished, or damaged.
        """
        with self._reading():
            rows = self._finished().search().select(["name", "code"]).to_arrow()
            names = rows["name"].to_pylist()
            return names, np.array(rows["code"].to_pylist(), np.uint8)

    def _finished(self) -> Any:
        photos = self._photos()
        if FINISHED not in photos.tags.list():
            raise UsageError(f"{self} is not finished or damaged; run bingan index again")
        photos.checkout(FINISHED)
        return photos

    def _connect(self) -> Any:
        try:
            import lancedb
        except ImportError as error:
            raise UsageError(f"{self} needs LanceDB: pip install 'kornia_bingan[store]'") from error
        return lancedb.connect(self.address)

    def _photos(self) -> Any:
        return self._connect().open_table("photos")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except UsageError:
            raise
        except (RuntimeError, ValueError, OSError, KeyError, IndexError, TypeError) as error:
            raise UsageError(f"{self} cannot be used ({_reason(error)}); is it the place of an index?") from error


def _reason(error: Exception) -> str:
    """Give one short line of LanceDB's messages, which can hold whole answers of a server."""
    said = re.search(r"<Message>(.*?)</Message>", str(error))
    line = said[1] if said else str(error).partition("\n")[0].partition(", /")[0]  # without the place in its source
    return line if len(line) <= 200 else f"{line[:200]}..."


def _nearest(photos: Any, code: NDArray[np.uint8], limit: int) -> list[tuple[str, int]]:
    query = photos.search(code, vector_column_name="code").distance_type("hamming").nprobes(PROBES)
    rows = query.limit(limit).select(["name", "_distance"]).to_arrow()
    return list(zip(rows["name"].to_pylist(), map(int, rows["_distance"].to_pylist()), strict=True))


def _table(rows: Mapping[str, Row], bits: int = 0) -> Any:
    import pyarrow as pa

    codes = np.stack([code for _, code in rows.values()]) if rows else np.zeros((0, bits // 8), np.uint8)
    stamps = [stamp for stamp, _ in rows.values()]
    return pa.table(
        {
            "name": pa.array(list(rows), pa.string()),
            "size": pa.array([stamp.size for stamp in stamps], pa.int64()),
            "time": pa.array([stamp.time for stamp in stamps], pa.int64()),
            "checksum": pa.array([stamp.checksum for stamp in stamps], pa.string()),
            "code": pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), codes.shape[1]),
        }
    )


def _tag(photos: Any) -> None:
    if FINISHED in photos.tags.list():
        photos.tags.update(FINISHED, photos.version)
    else:
        photos.tags.create(FINISHED, photos.version)


def _index(photos: Any) -> None:
    """Make the inverted file that suits the number of photos, unless it is there, and drop another."""
    count = photos.count_rows()
    wanted = f"ivf{num_lists(count)}" if count > MOST_EXACT else None
    there = {index.name for index in photos.list_indices()}
    if wanted is not None and wanted not in there:
        make_index(photos, count, wanted)
    for name in there - {wanted}:
        photos.drop_index(name)


def make_index(photos: Any, count: int, name: str) -> None:
    """Make an inverted file on the column ``code``, with as many lists and training codes as the one of faiss."""
    from lancedb.index import IvfFlat

    config = IvfFlat(distance_type="hamming", num_partitions=num_lists(count), sample_rate=TRAINING_PER_LIST)
    photos.create_index("code", config=config, name=name)
