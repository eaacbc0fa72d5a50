"""The indices that ``scale_search`` compares: built in one process, opened and searched in another."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import lancedb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kornia_bingan.search.faiss_store import num_lists, read_mapped, train_lists
from kornia_bingan.search.lance_store import make_index

CHANGED = 1000
EXHAUSTIVE_QUERIES = 50
LINKS, EFFORT = 16, 64

Codes = NDArray[np.uint8]


def build(report: Callable[[Any], None], index: str, folder: str) -> dict[str, Any]:
    """Build an index of FOLDER/codes.npy in FOLDER/INDEX: seconds, memory, size, and seconds of an update."""
    faiss.omp_set_num_threads(1)
    codes = np.load(Path(folder) / "codes.npy")
    others = np.random.default_rng(1).integers(0, 256, (CHANGED, codes.shape[1]), np.uint8)
    place = Path(folder) / index
    place.mkdir()
    _reset_peak()
    before = _status_mb("VmRSS")
    start = time.process_time()
    update = (_build_stored if index.startswith("lancedb") else _build_faiss)(index, codes, place)
    built = time.process_time() - start
    peak = _status_mb("VmHWM")
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    start = time.process_time()
    updated = update is not None
    if update is not None:
        update(others)
    return {
        "build_seconds": round(built, 2),
        "build_mb": round(peak - before),
        "bytes_per_code": round(size / len(codes), 1),
        "update_seconds": round(time.process_time() - start, 2) if updated else None,
    }


Update = Callable[[Codes], Any]


def _build_faiss(index: str, codes: Codes, place: Path) -> Update | None:
    """Build and write an index of faiss; gives what replaces its first codes by others, in memory."""
    ids = np.arange(len(codes))
    made: Any
    if index == "faiss flat":
        made = faiss.IndexBinaryFlat(8 * codes.shape[1])
        made.add(codes)
    elif index == "faiss ivf":
        made = train_lists(codes, num_lists(len(codes)))
        made.add_with_ids(codes, ids)
    else:
        made = faiss.index_binary_factory(8 * codes.shape[1], f"BHNSW{LINKS}")
        made.hnsw.efSearch = EFFORT
        made.add(codes)
    faiss.write_index_binary(made, str(place / "codes.faiss"))

    def rebuild(others: Codes) -> None:
        made.reset()
        made.add(codes[CHANGED:])
        made.add(others)

    def exchange(others: Codes) -> None:
        made.remove_ids(ids[:CHANGED])
        made.add_with_ids(others, len(codes) + ids[:CHANGED])

    return {"faiss flat": rebuild, "faiss ivf": exchange}.get(index)


def _build_stored(index: str, codes: Codes, place: Path) -> Update:
    """Build a table of LanceDB with its index; gives what replaces its first codes by others, in a copy."""
    table = lancedb.connect(place).create_table("photos", _table(codes, 0))
    make_index(table, len(codes), "ivf")
    shutil.copytree(place, place.with_name("copy"))
    copy: Any = lancedb.connect(place.with_name("copy")).open_table("photos")

    def exchange(others: Codes) -> None:
        copy.delete(f"id < {CHANGED}")
        copy.add(_table(others, len(codes)))
        copy.optimize()

    return exchange


def _table(codes: Codes, first: int) -> Any:
    column = pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), codes.shape[1])
    return pa.table({"id": np.arange(first, first + len(codes)), "code": column})


def search(report: Callable[[Any], None], index: str, folder: str, way: str, probes: list[int]) -> list[dict[str, Any]]:
    """Search FOLDER/INDEX for FOLDER/queries.npy with each number of probes; the first search of all is the truth."""
    faiss.omp_set_num_threads(1)
    queries = np.load(Path(folder) / "queries.npy")
    if way == "exhaustive":
        queries = queries[:EXHAUSTIVE_QUERIES]
    truth = Path(folder) / "nearest.npy"
    before = _status_mb("RssAnon")
    ask = (_ask_stored if index.startswith("lancedb") else _ask_faiss)(Path(folder) / index, way)
    rows = []
    for count in probes:
        ask(queries[0], count)  # opens what is opened lazily
        start = time.process_time()
        found = np.stack([ask(query, count) for query in queries])
        seconds = time.process_time() - start
        if not truth.exists():
            np.save(truth, found)
        nearest = np.load(truth)[: len(queries)]
        rows.append(
            {
                "probes": count,
                "queries_per_second": round(len(queries) / seconds, 1),
                "search_mb": round(_status_mb("RssAnon") - before),
                "recall@1": round(float((found[:, 0] <= nearest[:, 0]).mean()), 4),
                "recall@10": round(float((found <= nearest[:, 9:]).mean()), 4),
            }
        )
    return rows


Ask = Callable[[Codes, int], NDArray[np.int32]]
"""Gives the distances of the ten nearest codes of a query, looking into a number of lists."""


def _ask_faiss(place: Path, way: str) -> Ask:
    path = place / "codes.faiss"
    index: Any = read_mapped(path) if way == "mapped" else faiss.read_index_binary(str(path))

    def ask(query: Codes, probes: int) -> NDArray[np.int32]:
        if probes:
            index.nprobe = probes
        distances: NDArray[np.int32] = index.search(query[None], 10)[0][0]
        return distances

    return ask


def _ask_stored(place: Path, way: str) -> Ask:
    table: Any = lancedb.connect(place).open_table("photos")

    def ask(query: Codes, probes: int) -> NDArray[np.int32]:
        wanted = table.search(query, vector_column_name="code").distance_type("hamming").limit(10)
        wanted = wanted.nprobes(probes) if probes else wanted.bypass_vector_index()
        found = wanted.select(["id", "_distance"]).to_arrow()["_distance"].to_numpy()
        distances = np.full(10, np.iinfo(np.int32).max, np.int32)
        distances[: len(found)] = found
        return distances

    return ask


def _status_mb(field: str) -> float:
    """Read a size of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{field}:"))) / 1024


def _reset_peak() -> None:
    """Let VmHWM count from here."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
