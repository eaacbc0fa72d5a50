"""Which code of a whole photo finds the photos that show the same place?

    python -m eval overlap DATA/validate DATA/train [--ours bingan256,NETWORK_OF_PICTURES ...] [--out FILE.json]

Protocol. The photos of the scenes are the queries; the database is all of them and the distractors (second folder). Two
photos of a scene overlap if COLMAP verifies at least 30 matches of its own SIFT between them, with its default options,
so the truth depends on no code of ours. ``recall@K`` is the share of the overlapping photos, of at most K, among the K
nearest, mean over the queries; equal distances in the order of the names. Patch networks describe 1,000 DoG keypoints
per photo, whose codes vote in 2^c cells; networks of whole pictures see the middle, reduced to 32 x 32. Choose on
validation scenes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from eval.harness.bootstrap import bootstrap_interval
from eval.harness.cache import cached, digest
from eval.harness.columns import Column, text_of
from eval.harness.command import Names, Out, Scenes, SomeNames, command_line
from eval.harness.data import find_scenes, read_scene
from eval.harness.matchers import colmap_sift
from eval.harness.options import RESULTS, WorkOptions
from eval.harness.ours import name_of_weights
from eval.harness.records import write_json
from kornia_bingan import BinGAN
from kornia_bingan.bits import hamming_distances
from kornia_bingan.colmap import read_verification
from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.network.published import OfPictures
from kornia_bingan.network.weights import find_weights, load_weights
from kornia_bingan.search.index import encoder, photo_codes
from kornia_bingan.search.photo_code import global_code
from kornia_bingan.work.files import sha256_of
from kornia_bingan.work.provenance import provenance

LEAST_INLIERS = 30
DEPTHS = (1, 5, 10, 20)
CELL_BITS = (0, 1, 2, 3, 5)
SEED = 0

Codes = NDArray[np.uint8]

COLUMNS = (
    Column("code of each photo", "code"),
    Column("bits", "bits"),
    *(Column(f"recall@{depth}", f"recall@{depth}", ".3f", "most", f"interval@{depth}") for depth in DEPTHS),
)


def recall_at(queries: Codes, database: Codes, truth: list[set[int]], own: list[int]) -> dict[int, NDArray[np.float64]]:
    """Share of the right rows among the nearest, one value a query and depth; a query's own row is passed over.

    Args:
        queries: packed codes, uint8 (Q, bytes).
        database: packed codes, uint8 (N, bytes).
        truth: rows that are right, a non-empty set a query.
        own: row of each query in the database.
    """
    order = np.argsort(hamming_distances(queries, database), axis=1, kind="stable")
    shares: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    for row, right, self_row in zip(order, truth, own, strict=True):
        others = row[row != self_row]
        for depth in DEPTHS:
            hits = len(right & set(others[:depth].tolist()))
            shares[depth].append(hits / min(depth, len(right)))
    return {depth: np.array(values) for depth, values in shares.items()}


def overlaps(images: dict[str, NDArray[np.uint8]], cache: Path | None) -> dict[str, set[str]]:
    """Say which photos of a scene overlap, by COLMAP's SIFT."""
    names = list(images)

    def verify() -> dict[str, NDArray[Any]]:
        with tempfile.TemporaryDirectory() as folder:
            inliers = read_verification(colmap_sift(images, Path(folder))).inliers
        rows = [(names.index(a), names.index(b), count) for (a, b), count in inliers.items()]
        return {"inliers": np.array(rows, np.int64).reshape(-1, 3)}

    key = {"step": "overlap", "images": digest(*images.values()), "names": names}
    found: dict[str, set[str]] = {name: set() for name in names}
    for i, j, count in cached(cache, key, verify)["inliers"].tolist():
        if count >= LEAST_INLIERS:
            found[names[i]].add(names[j])
            found[names[j]].add(names[i])
    return found


@command_line("overlap")
def main(
    data: Scenes,
    distractors: tyro.conf.Positional[Path],
    work: WorkOptions,
    ours: SomeNames = ("bingan256",),
    only: Names = (),
    out: Out = RESULTS / "overlap.json",
) -> int:
    """Ask for the photos of every place.

    Args:
        distractors: folder of other photos.
        ours: shipped names or weights files, separated by commas.
    """
    cache = work.begin()
    folders = find_scenes(data, only)
    if not folders:
        raise UsageError(f"{data} has no scene")
    paths = [path for folder in folders for path in _photos(folder / "images")]
    truth_of: dict[Path, set[Path]] = {}
    for folder in folders:
        scene = read_scene(folder)
        found = overlaps(dict(zip(scene.names, scene.images, strict=True)), cache)
        root = folder / "images"
        truth_of |= {root / name: {root / other for other in others} for name, others in found.items()}
    everything = [*paths, *_photos(distractors)]
    row_of = {path: row for row, path in enumerate(everything)}
    queries = [path for path in paths if truth_of.get(path)]
    truth = [{row_of[other] for other in truth_of[path]} for path in queries]
    own = [row_of[path] for path in queries]
    results = []
    for given in ours:
        weights = find_weights(given)
        for name, codes in _whole_codes(weights, everything, cache).items():
            shares = recall_at(codes[own], codes, truth, own)
            row: dict[str, Any] = {"code": name, "bits": 8 * codes.shape[1]}
            for depth, values in shares.items():
                low, high = bootstrap_interval(_mean_of(values), [len(values)], 500, SEED)
                row[f"recall@{depth}"] = round(float(values.mean()), 4)
                row[f"interval@{depth}"] = [round(low, 4), round(high, 4)]
            results.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    names = ",".join(name_of_weights(find_weights(name)) for name in ours)
    record = {
        "protocol": "overlap",
        "command": f"python -m eval overlap DATA/{data.name} DATA/{distractors.name} --ours {names}",
        "scenes": [folder.name for folder in folders],
        "queries": len(queries),
        "photos": len(everything),
        "overlaps_a_query": round(float(np.mean([len(rows) for rows in truth])), 2),
        "results": results,
        "provenance": provenance(find_weights(ours[0]), SEED),
    }
    write_json(out, record)
    print(text_of(COLUMNS, results))
    return 0


def _photos(folder: Path) -> list[Path]:
    return [folder / name for name in list_images(folder)[0]]


def _mean_of(values: NDArray[np.float64]) -> Any:
    return lambda counts: float(counts @ values / counts.sum())


def _whole_codes(weights: Path, paths: list[Path], cache: Path | None) -> dict[str, Codes]:
    """Give the codes of all photos by every way that the weights allow."""
    key = {"step": "whole", "weights": sha256_of(weights), "photos": [sha256_of(path) for path in paths]}
    if isinstance(load_weights(weights), OfPictures):
        encode, _ = encoder(weights)
        return {weights.stem: cached(cache, key, lambda: {"codes": np.stack([encode(p) for p in paths])})["codes"]}

    def describe_all() -> dict[str, NDArray[Any]]:
        model = BinGAN.from_pretrained(weights)
        rows = [photo_codes(model, path) for path in paths]
        return {"codes": np.concatenate(rows), "counts": np.array([len(r) for r in rows])}

    stored = cached(cache, key, describe_all)
    each = np.split(stored["codes"], np.cumsum(stored["counts"])[:-1])
    return {f"{weights.stem}, {2**c} cells": np.stack([global_code(codes, c) for codes in each]) for c in CELL_BITS}
