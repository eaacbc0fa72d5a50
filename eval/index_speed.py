"""Searching many codes: exhaustive search against faiss's approximate binary indices.

    python -m eval index_speed PHOTOS [--count 1000000] [--ours bingan256] [--out FILE.json]

Protocol. ``real``: codes of 1,000 keypoints a photo; as many copies with 5 % of their bits flipped are added as are
missing to the count. ``random``: uniform bits, the worst case, where nothing is near. Queries are 1,000 codes of the
set with another 5 % of their bits flipped, one thread, all queries in one call. ``recall@1`` and ``recall@10``: share
of the queries whose first found code, or one of ten, is as near as the nearest of the exhaustive search.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from eval import options
from eval.cache import cached
from kornia_bingan import BinGAN
from kornia_bingan.errors import UsageError
from kornia_bingan.files import sha256_of, write_json
from kornia_bingan.images import list_images
from kornia_bingan.provenance import provenance
from kornia_bingan.report import text_table
from kornia_bingan.search_index import photo_codes
from kornia_bingan.weights import find_weights

COUNT = 1_000_000
QUERIES = 1000
FLIPPED = 0.05
SEED = 0

Codes = NDArray[np.uint8]


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


def ivf(lists: int, probes: int) -> Callable[[int], Any]:
    """Give a maker of an inverted file that looks into ``probes`` of its ``lists``."""

    def make(bits: int) -> Any:
        index: Any = faiss.index_binary_factory(bits, f"BIVF{lists}")
        index.nprobe = probes
        return index

    return make


def hnsw(links: int, effort: int) -> Callable[[int], Any]:
    """Give a maker of a graph of near neighbours."""

    def make(bits: int) -> Any:
        index: Any = faiss.index_binary_factory(bits, f"BHNSW{links}")
        index.hnsw.efSearch = effort
        return index

    return make


def measure(make: Callable[[int], Any], codes: Codes, queries: Codes, nearest: NDArray[Any] | None) -> dict[str, Any]:
    """Build an index and search it; ``nearest`` are the distances of the exhaustive search, None for itself."""
    index = make(8 * codes.shape[1])
    start = time.perf_counter()
    if not index.is_trained:
        index.train(codes[:: max(1, len(codes) // 100_000)])
    index.add(codes)
    built = time.perf_counter() - start
    start = time.perf_counter()
    distances, _ = index.search(queries, 10)
    searched = time.perf_counter() - start
    best = distances[:, 0] if nearest is None else nearest
    return {
        "build_seconds": round(built, 2),
        "queries_per_second": round(len(queries) / searched, 1),
        "bytes_per_code": round(len(faiss.serialize_index_binary(index)) / len(codes), 1),
        "recall@1": round(float((distances[:, 0] <= best).mean()), 4),
        "recall@10": round(float((distances <= best[:, None]).any(1).mean()), 4),
        "nearest": best,
    }


def ways(count: int) -> dict[str, Callable[[int], Any]]:
    """The indices, exhaustive search first; as many lists as the root of the count, a power of two."""
    lists = 2 ** max(2, round(np.log2(np.sqrt(count))))
    probes = [p for p in (4, 16, 64) if p < lists]
    found: dict[str, Callable[[int], Any]] = {"flat": faiss.IndexBinaryFlat}
    found |= {f"ivf, {lists} lists, {p} probed": ivf(lists, p) for p in probes}
    return found | {"hnsw, 16 links": hnsw(16, 64)}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval index_speed")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--ours", default="bingan256", help="shipped name or weights file")
    parser.add_argument("--cache", type=Path, default=options.CACHE)
    parser.add_argument("--out", type=Path, default=options.RESULTS / "index-speed.json")
    arguments = parser.parse_args(argv)
    options.use_threads(1)
    names, _ = list_images(arguments.photos)
    if not names or arguments.count < QUERIES:
        raise UsageError(
            f"{arguments.photos} holds {len(names)} photos, the count is {arguments.count}; 1,000 at least"
        )
    weights = find_weights(arguments.ours)
    paths = [arguments.photos / name for name in names]

    def describe_all() -> dict[str, Codes]:
        model = BinGAN.from_pretrained(weights)
        return {"codes": np.concatenate([photo_codes(model, path) for path in paths])}

    key = {"step": "local", "weights": sha256_of(weights), "photos": [sha256_of(path) for path in paths]}
    real = cached(arguments.cache, key, describe_all)["codes"]
    rng = np.random.default_rng(SEED)
    sets = {"real": grown(real, arguments.count, rng), "random": rng.integers(0, 256, (arguments.count, 32), np.uint8)}
    results: list[dict[str, Any]] = []
    for name, codes in sets.items():
        queries = flipped(codes[rng.permutation(len(codes))[:QUERIES]], rng)
        nearest = None
        for way, make in ways(len(codes)).items():
            row = measure(make, codes, queries, nearest)
            nearest = row.pop("nearest")
            results.append({"codes": name, "count": len(codes), "index": way, **row})
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    command = f"python -m eval index_speed {arguments.photos.name} --count {arguments.count}"
    about = {"protocol": "index_speed", "command": command, "described": len(real), "results": results}
    write_json(arguments.out, {**about, "provenance": provenance(weights, SEED)})
    header = list(results[0])
    print(text_table(header, [[str(row[name]) for name in header] for row in results]))
    return 0
