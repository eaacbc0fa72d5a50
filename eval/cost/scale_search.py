"""Searching many codes: what an index costs, and what it finds, from thousands of codes to ten million.

    python -m eval scale_search PHOTOS [--counts 100000,1000000,10000000] [--ours bingan256-lite] [--out FILE.json]

Protocol. ``real``: codes of 1,000 keypoints per photo; as many copies with 5 % of their bits flipped are added as are
missing to the count. ``random``: uniform bits, the worst case, where nothing is near. Queries are 500 codes of the set
with another 5 % of their bits flipped, each a call of its own, one thread; of LanceDB's exhaustive search, 50. An index
is built in one process, written, and opened and searched in another. Seconds are those of the processor, all threads
together, so that other work on the machine counts little. ``recall@1``: share of the queries whose first found code is
as near as the nearest one of the exhaustive search. ``recall@10``: of ten found codes, the share that is as near as the
tenth of the exhaustive search. ``bytes_per_code``: of the files. ``build_mb``: peak memory above that of the codes and
libraries. ``search_mb``: memory of its own that a searching process needs above that of the libraries, without pages of
mapped files, which the system can drop. ``update_seconds``: the first 1,000 codes are removed and as many others added,
files not counted; a flat index is built anew, from the graph nothing can be removed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.harness.cache import cached
from eval.harness.columns import Column, text_of
from eval.harness.command import Data, Out, command_line
from eval.harness.options import CACHE, RESULTS, use_threads
from eval.harness.records import write_json
from eval.show.curves import Line, Panel, svg_panels
from kornia_bingan import BinGAN
from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.network.weights import find_weights
from kornia_bingan.search.index import photo_codes
from kornia_bingan.work.files import atomic_path, sha256_of
from kornia_bingan.work.isolated import run_in_child
from kornia_bingan.work.provenance import provenance

COUNTS = "100000,1000000,10000000"
QUERIES = 500
FLIPPED = 0.05
MOST_LINKED = 100_000
"""Codes of the largest graph: ten times as many take more than ten times as long to build."""
SEED = 0
MOST_RANDOM = 1_000_000
"""Largest number of random codes."""
PROBES = (4, 16, 64)

# How an index is built, and how it is opened and searched: 0 probes for exhaustive search.
WAYS: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {
    "faiss flat": (("read", (0,)), ("mapped", (0,))),
    "faiss ivf": (("read", PROBES), ("mapped", (64,))),
    "faiss hnsw": (("read", (0,)),),
    "lancedb": (("exhaustive", (0,)), ("ivf", PROBES)),
}

Codes = NDArray[np.uint8]

COLUMNS = (
    Column("codes", lambda r: f"{r['count']:,} {r['codes']}"),
    Column("index", "index"),
    Column("opened", "way"),
    Column("lists probed", lambda r: r["probes"] or None),
    Column("build, s", "build_seconds", ".1f"),
    Column("build, MB", "build_mb", ","),
    Column("update, s", "update_seconds", ".2f"),
    Column("bytes per code", "bytes_per_code", ".1f"),
    Column("queries / s", "queries_per_second", ",.0f"),
    Column("search, MB", "search_mb", ","),
    Column("recall@1", "recall@1", ".3f"),
    Column("recall@10", "recall@10", ".3f"),
)


def flipped(codes: Codes, rng: np.random.Generator) -> Codes:
    """Flip a share of the bits."""
    parts = []
    for start in range(0, len(codes), 50_000):
        part = codes[start : start + 50_000]
        parts.append(part ^ np.packbits(rng.random((len(part), 8 * codes.shape[1]), np.float32) < FLIPPED, axis=1))
    return np.concatenate(parts)


def grown(codes: Codes, count: int, rng: np.random.Generator) -> Codes:
    """Give ``count`` codes: these, and flipped copies of them as far as they are missing."""
    missing = count - len(codes)
    if missing <= 0:
        return codes[rng.permutation(len(codes))[:count]]
    return np.concatenate([codes, flipped(codes[rng.integers(0, len(codes), missing)], rng)])


def measure(codes: Codes, queries: Codes, folder: Path) -> list[dict[str, Any]]:
    """Build, update and search each index of some codes; ``folder`` is for files on the way."""
    np.save(folder / "codes.npy", codes)
    np.save(folder / "queries.npy", queries)
    rows = []
    for index, ways in WAYS.items():
        if index == "faiss hnsw" and len(codes) > MOST_LINKED:
            continue
        shared = {"index": index, "folder": str(folder)}
        built = run_in_child("eval.cost.scale_indices:build", shared, stage=f"building {index}")
        for way, probes in ways:
            wanted = {**shared, "way": way, "probes": list(probes)}
            for row in run_in_child("eval.cost.scale_indices:search", wanted, stage=f"searching {index}"):
                rows.append({"index": index, "way": way, **row, **built})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        for place in (folder / index, folder / "copy"):
            shutil.rmtree(place, ignore_errors=True)
    return rows


def plot(rows: list[dict[str, Any]]) -> str:
    """Draw the milliseconds of a query against the number of codes, one panel for each kind of codes."""
    panels = []
    for kind in dict.fromkeys(row["codes"] for row in rows):
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if row["codes"] == kind and row["way"] != "mapped":
                label = " ".join([row["index"], str(row["probes"] or "")]).strip()
                milliseconds = 1000 / row["queries_per_second"]
                lines.setdefault(label, []).append((row["count"] / 1000, float(np.log10(milliseconds))))
        drawn = [Line(label, [x for x, _ in points], [y for _, y in points]) for label, points in lines.items()]
        panels.append(Panel(f"{kind} codes", drawn))
    return svg_panels(panels, "thousands of codes", "log10 of milliseconds per query", (-2, 4), columns=2)


@command_line("scale_search")
def main(
    photos: Data,
    counts: str = COUNTS,
    ours: str = "bingan256-lite",
    cache: Path = CACHE,
    out: Out = RESULTS / "scale-search.json",
) -> int:
    """Build and search every index.

    Args:
        counts: numbers of codes, separated by commas.
    """
    use_threads(1)
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "LANCE_CPU_THREADS", "TOKIO_WORKER_THREADS"), "1")
    names, _ = list_images(photos)
    sizes = [int(word) if word.isdecimal() else 0 for word in counts.split(",")]
    if not names or min(sizes) < 4000:
        raise UsageError(f"{photos} holds {len(names)} photos, the counts are {counts}; 4,000 codes at least")
    weights = find_weights(ours)
    real = describe_all(weights, [photos / name for name in names], cache)
    rng = np.random.default_rng(SEED)
    results: list[dict[str, Any]] = []
    for number, count in enumerate(sizes, 1):
        for name in ("real", "random"):
            if name == "random" and count > MOST_RANDOM:
                continue
            codes = grown(real, count, rng) if name == "real" else rng.integers(0, 256, (count, 32), np.uint8)
            queries = flipped(codes[rng.permutation(count)[:QUERIES]], rng)
            with tempfile.TemporaryDirectory() as folder:
                rows = measure(codes, queries, Path(folder))
            results += [{"codes": name, "count": count, **row} for row in rows]
        # A run that is stopped leaves what the command with fewer counts would have written.
        done = ",".join(str(one) for one in sizes[:number])
        command = f"python -m eval scale_search {photos.name} --counts {done}"
        about = {"protocol": "scale_search", "command": command, "described": len(real), "lancedb": version("lancedb")}
        write_json(out, {**about, "results": results, "provenance": provenance(weights, SEED)})
        with atomic_path(out.with_suffix(".svg")) as temporary:
            temporary.write_text(plot(results), encoding="utf-8")
    print(text_of(COLUMNS, results))
    return 0


def describe_all(weights: Path, paths: list[Path], cache: Path) -> Codes:
    """Describe the keypoints of photos, or read what was kept: packed codes, uint8 (N, 32)."""

    def describe() -> dict[str, Codes]:
        model = BinGAN.from_pretrained(weights, precision="auto")
        return {"codes": np.concatenate([photo_codes(model, path) for path in paths])}

    key = {"step": "local", "weights": sha256_of(weights), "photos": [sha256_of(path) for path in paths]}
    return cached(cache, key, describe)["codes"]
