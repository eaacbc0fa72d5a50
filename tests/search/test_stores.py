from __future__ import annotations

import builtins
import hashlib
import shutil
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest

from kornia_bingan.errors import UsageError
from kornia_bingan.search import faiss_store, lance_store
from kornia_bingan.search.faiss_store import FaissStore, Row, Stamp, num_lists
from kornia_bingan.search.index import open_store
from kornia_bingan.search.lance_store import LanceStore

ABOUT = {"format": 1, "weights": "w", "sha256": "0", "kind": "picture", "bits": 64, "photos": "/"}
STORES = ["", "lancedb://"]


def rows_of(numbers: range, seed: int = 0, bits: int = 64) -> dict[str, Row]:
    """Photos whose names and codes follow from their numbers and a seed."""
    rows = {}
    for number in numbers:
        code = np.random.default_rng([seed, number]).integers(0, 256, bits // 8, np.uint8)
        checksum = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=16).hexdigest()
        rows[f"it's {number:05}.jpg"] = Stamp(number, seed, checksum), code
    return rows


def exhaustive(rows: dict[str, Row], code: np.ndarray, top: int) -> list[tuple[str, int]]:
    distances = {name: int(np.bitwise_count(other ^ code).sum()) for name, (_, other) in rows.items()}
    return sorted(distances.items(), key=lambda pair: (pair[1], pair[0]))[:top]


def update(name: str, rows: dict[str, Row]) -> FaissStore | LanceStore:
    """Bring a store up to date, as the command does."""
    store = open_store(name)
    store.exists()
    store.begin(ABOUT)
    known = store.known()
    new = {key: row for key, row in rows.items() if known.get(key) != row[0]}
    if new:
        store.add(new)
    store.finish(sorted(rows), 64)
    return store


@pytest.mark.parametrize("scheme", STORES)
def test_the_ranking_is_exhaustive_and_ties_go_by_name(scheme: str, tmp_path: Path) -> None:
    rows = rows_of(range(40))
    rows |= {f"tie {n}": (Stamp(n, 0, f"{n:032x}"), rows["it's 00003.jpg"][1]) for n in (7, 2, 5, 1)}
    store = update(f"{scheme}{tmp_path / 'index'}", rows)
    assert store.about() == ABOUT
    for top in (1, 2, 3, 5, 44, 99):
        for name in ("it's 00003.jpg", "it's 00017.jpg"):
            code = rows[name][1]
            found = sorted(store.search(code, top), key=lambda pair: (pair[1], pair[0]))
            assert found == exhaustive(rows, code, top)


@pytest.mark.parametrize("scheme", STORES)
def test_many_codes_get_an_inverted_file_that_is_kept_up_to_date(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (faiss_store, lance_store):
        monkeypatch.setattr(module, "MOST_EXACT", 500)
    index = f"{scheme}{tmp_path / 'index'}"
    rows = rows_of(range(1000))
    update(index, rows)
    lists = inverted(index)
    assert lists == {num_lists(1000)} == {32}
    trained = []
    train = faiss.IndexBinaryIVF.train
    monkeypatch.setattr(faiss.IndexBinaryIVF, "train", lambda *a: (trained.append(1), train(*a)))
    # A hundred go, a hundred change, fifty come.
    rows = rows_of(range(100, 900)) | rows_of(range(900, 1000), seed=1) | rows_of(range(1000, 1050))
    store = update(index, rows)
    assert not trained, "the lists were trained again"
    assert inverted(index) == lists
    assert store.known().keys() == rows.keys()
    for name in ("it's 00100.jpg", "it's 00950.jpg", "it's 01049.jpg"):
        # 64 probes are more than the lists, so the search is exhaustive
        found = sorted(store.search(rows[name][1], 5), key=lambda pair: (pair[1], pair[0]))
        assert found[0] == (name, 0)
        assert [distance for _, distance in found] == [d for _, d in exhaustive(rows, rows[name][1], 5)]
    update(index, rows_of(range(300)))
    assert inverted(index) == set()
    assert open_store(index).search(rows["it's 00150.jpg"][1], 1) == [("it's 00150.jpg", 0)]


def inverted(index: str) -> set[int]:
    """The numbers of lists of the inverted files in a store."""
    if "://" in index:
        import lancedb  # takes seconds, here in one worker, above in all that collect

        table = lancedb.connect(index.removeprefix("lancedb://")).open_table("photos")
        assert all(table.index_stats(one.name).num_unindexed_rows == 0 for one in table.list_indices())
        return {int(one.name.removeprefix("ivf")) for one in table.list_indices()}
    read: Any = faiss.read_index_binary(str(Path(index) / "codes.faiss"))
    return {read.nlist} if isinstance(read, faiss.IndexBinaryIVF) else set()


def test_the_faiss_index_is_mapped_and_not_read(tmp_path: Path) -> None:
    flat = faiss.IndexBinaryFlat(2048)
    flat.add(np.zeros((400_000, 256), np.uint8))  # 100 MB
    faiss.write_index_binary(flat, str(tmp_path / "codes.faiss"))
    before = anonymous_mb()
    mapped = faiss_store.read_mapped(tmp_path / "codes.faiss")
    distances, _ = mapped.search(np.zeros((1, 256), np.uint8), 1)
    assert distances[0, 0] == 0
    assert anonymous_mb() - before < 20


def anonymous_mb() -> float:
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("the memory of a process is read from /proc")
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("RssAnon")) / 1024


def test_a_search_sees_the_last_complete_update(tmp_path: Path) -> None:
    index = f"lancedb://{tmp_path / 'index'}"
    rows = rows_of(range(20))
    update(index, rows)
    running = open_store(index)
    running.known()
    running.add(rows_of(range(20, 40)) | rows_of(range(5), seed=1))
    assert open_store(index).search(rows["it's 00003.jpg"][1], 99) == exhaustive(rows, rows["it's 00003.jpg"][1], 99)


def test_foreign_and_damaged_stores_are_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lancedb

    index = f"lancedb://{tmp_path / 'index'}"
    with pytest.raises(UsageError, match=r"lancedb://.*index holds no index that this version reads"):
        open_store(index).about()
    assert not (tmp_path / "index").exists()
    for name in ("s3://bucket/index", "lancedb:", "lancedb://", "lancedb:/index"):
        with pytest.raises(UsageError, match="neither a folder nor lancedb://PATH"):
            open_store(name)
    with pytest.raises(UsageError, match=r"cannot be used \(.*gopher"):
        open_store("lancedb://gopher://hole").exists()
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jpg").write_text("x")
    lancedb.connect(tmp_path / "other").create_table("theirs", pa.table({"a": [1]}))
    for place in ("file", "folder", "other"):
        with pytest.raises(UsageError, match="is not empty and holds no index"):
            open_store(f"lancedb://{tmp_path / place}").exists()
    lancedb.connect(tmp_path / "alike").create_table("about", pa.table({"json": ["{}"]}))
    with pytest.raises(UsageError, match=r"alike cannot be used \('format'\)"):
        open_store(f"lancedb://{tmp_path / 'alike'}").about()

    store = update(index, rows_of(range(20)))
    with pytest.raises(UsageError, match="cannot be used"):
        store.search(np.zeros(32, np.uint8), 1)
    for file in (tmp_path / "index" / "photos.lance" / "data").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UsageError, match="cannot be used") as caught:
        store.search(np.zeros(8, np.uint8), 1)
    assert "\n" not in str(caught.value)
    shutil.rmtree(tmp_path / "index" / "photos.lance")
    with pytest.raises(UsageError, match="photos"):
        store.search(np.zeros(8, np.uint8), 1)

    without = builtins.__import__
    monkeypatch.setattr(
        builtins, "__import__", lambda name, *a, **k: absent() if name == "lancedb" else without(name, *a, **k)
    )
    with pytest.raises(UsageError, match=r"needs LanceDB: pip install 'kornia_bingan\[store\]'"):
        store.search(np.zeros(8, np.uint8), 1)


def absent() -> None:
    raise ImportError("absent")


def test_a_damaged_inverted_file_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_store, "MOST_EXACT", 100)
    rows = rows_of(range(200))
    store = update(str(tmp_path / "index"), rows)
    code = rows["it's 00000.jpg"][1]
    with pytest.raises(UsageError, match="200 codes of 64 bits"):
        store.search(np.zeros(32, np.uint8), 1)
    whole = (tmp_path / "index" / "codes.faiss").read_bytes()
    (tmp_path / "index" / "codes.faiss").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"codes\.faiss is damaged or missing"):
        store.search(code, 1)
    store = update(str(tmp_path / "index"), rows)
    assert store.search(code, 1) == [("it's 00000.jpg", 0)]
    np.save(tmp_path / "index" / "ids.npy", np.zeros(3, np.int64))
    with pytest.raises(UsageError, match=r"ids\.npy has \(3,\) numbers of 200 photos"):
        store.search(code, 1)
    (tmp_path / "index" / "ids.npy").unlink()
    with pytest.raises(UsageError, match=r"ids\.npy is damaged or missing"):
        store.search(code, 1)


def test_the_answer_of_a_server_becomes_a_short_reason() -> None:
    long = 'IO { body: Some("<Error><Code>NoSuchBucket</Code><Message>The bucket does not exist</Message>' + 500 * "x"
    assert lance_store._reason(RuntimeError(long)) == "The bucket does not exist"
    assert lance_store._reason(RuntimeError(201 * "x")) == 200 * "x" + "..."
    assert lance_store._reason(RuntimeError(200 * "x")) == 200 * "x"
    assert lance_store._reason(RuntimeError("no file, /home/x.rs:3\nmore")) == "no file"


@pytest.mark.parametrize("scheme", STORES)
def test_an_empty_folder_is_taken_for_an_index(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    assert not open_store(f"{scheme}{tmp_path / 'index'}").exists()


def test_an_inverted_file_has_as_many_lists_as_the_root_of_the_codes_and_at_least_four() -> None:
    assert [num_lists(count) for count in (1, 1000, 2**20, 3 * 2**20)] == [4, 32, 1024, 2048]


def test_a_folder_whose_name_is_no_utf8() -> None:
    assert faiss_store._is_utf8(Path("ü"))
    assert not faiss_store._is_utf8(Path("\udcff"))
