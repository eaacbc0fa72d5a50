"""Retrieval of CIFAR-10 pictures by short codes: mean average precision by every convention in one run.

    python -m eval cifar10 PICTURES [--ours NAME_OR_PATH ...] [--bits 16 32 64] [--out eval/results/cifar10.json]
                           [--pictures bench/pictures] [--no-peers]

PICTURES is what ``bingan train --preset cifar10`` takes. The database is the training set, the queries are the test
set; labels are used for scoring only. Columns, in percent:

- ``deepbit``: all queries, the first 1,000 ranks, equal distances in the order of the database (Lin et al., CVPR 2016);
- ``published``: 1,000 queries (permutation of NumPy's ``RandomState(6)``), the first 10,000 ranks, one step a distinct
  distance (code of Zieba et al., NIPS 2018);
- ``exact``: all queries, expected value over all orders of equal distances, at 1,000 ranks, with a 95 % bootstrap
  interval over the queries;
- ``full``: the same over the whole database.

``precision`` is the expected share of right pictures among the first N, with intervals, ``recall`` that of all right
pictures; both are drawn beside the JSON as SVG. The nearest pictures of one query a class are drawn for each of our
networks; they show the data, so they stay beside the cache, and the page of ``python -m eval report`` has them.

Peers: random projections (LSH), spectral hashing and PCA-ITQ of pixels and of HOG features; our network's float
features by ITQ, LSH and per-bit medians; the untrained network by per-bit medians and ITQ. Nothing is tuned here.
``--no-peers`` leaves our own networks, as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from eval.harness.bootstrap import bootstrap_interval
from eval.harness.columns import Column, text_of
from eval.harness.command import Data, Out, command_line
from eval.harness.options import RESULTS, use_threads
from eval.harness.ours import name_of_weights
from eval.harness.records import check_clean, write_json
from eval.quality import hashing
from eval.show import picture_grid
from eval.show.curves import Line, Panel, svg_panels
from kornia_bingan.bits import hamming_distances
from kornia_bingan.datasets.pictures import Splits, read_picture_set
from kornia_bingan.errors import UsageError
from kornia_bingan.network.published import ImageDiscriminator, OfPictures
from kornia_bingan.network.weights import find_weights, list_models, load_weights
from kornia_bingan.train.retrieval_metrics import (
    Histogram,
    expected_average_precision,
    grouped_average_precision,
    histogram,
    precision_at,
    ranked_average_precision,
)
from kornia_bingan.work.files import atomic_path
from kornia_bingan.work.provenance import provenance

BITS = (16, 32, 64)
DEPTH = 1000
PUBLISHED_DEPTH = 10_000
PUBLISHED_QUERIES = 1000
PUBLISHED_SEED = 6
SHOWN = (1, 10, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
SHOWN_NEAREST = 10
CHUNK = 250
BATCH = 500
SEED = 1

Codes = NDArray[np.uint8]

COLUMNS = (
    Column("codes", "descriptor"),
    Column("bits", "bits"),
    Column("exact@1000 (interval)", "exact", ".2f", best="most", interval="interval"),
    Column("deepbit", "deepbit", ".2f", best="most"),
    Column("published", "published", ".2f", best="most"),
    Column("full depth", "full", ".2f", best="most"),
)
"""Mean average precision in percent, by convention."""


def evaluate(queries: Codes, database: Codes, query_labels: NDArray[Any], labels: NDArray[Any]) -> dict[str, Any]:
    """Score packed codes by all conventions."""
    bits = 8 * database.shape[1]
    chosen = np.zeros(len(queries), bool)
    chosen[np.random.RandomState(PUBLISHED_SEED).permutation(len(queries))[:PUBLISHED_QUERIES]] = True
    deepbit, published, counts, relevant = [], [], [], []
    for start in range(0, len(queries), CHUNK):
        part = slice(start, start + CHUNK)
        distance = hamming_distances(queries[part], database).astype(np.uint8)
        right = labels == query_labels[part, None]
        deepbit.append(ranked_average_precision(distance, right, DEPTH))
        inside = chosen[part]
        published.append(grouped_average_precision(distance[inside], right[inside], PUBLISHED_DEPTH))
        found = histogram(distance.astype(np.int64), right, bits)
        counts.append(found.count)
        relevant.append(found.relevant)
    both = Histogram(np.concatenate(counts), np.concatenate(relevant))
    exact = expected_average_precision(both, DEPTH)
    low, high = bootstrap_interval(_mean_of(exact), [len(exact)], 500, SEED)
    depths = [depth for depth in SHOWN if depth <= len(database)]
    at_depths = precision_at(both, depths)
    precision = at_depths.mean(0)
    total = both.relevant.sum(1).mean()
    low_high = [bootstrap_interval(_mean_of(column), [len(column)], 200, SEED) for column in at_depths.T]
    return {
        "deepbit": round(100 * float(np.concatenate(deepbit).mean()), 3),
        "published": round(100 * float(np.concatenate(published).mean()), 3),
        "exact": round(100 * float(exact.mean()), 3),
        "interval": [round(100 * low, 3), round(100 * high, 3)],
        "full": round(100 * float(expected_average_precision(both).mean()), 3),
        "precision": {str(n): round(float(p), 4) for n, p in zip(depths, precision, strict=True)},
        "precision_interval": {str(n): [round(v, 4) for v in b] for n, b in zip(depths, low_high, strict=True)},
        "recall": {str(n): round(float(p * n / total), 4) for n, p in zip(depths, precision, strict=True)},
    }


def _mean_of(values: NDArray[np.float64]) -> Callable[[NDArray[Any]], float]:
    return lambda counts: float(counts @ values / counts.sum())


def pixels(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Give RGB values as one row per picture, float32 in [0, 1]."""
    return pictures.reshape(len(pictures), -1).astype(np.float32) / np.float32(255)


def hog(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Give histograms of oriented gradients of the grey pictures, float32 (N, 324)."""
    descriptor = cv2.HOGDescriptor((32, 32), (16, 16), (8, 8), (8, 8), 9)
    rows = [descriptor.compute(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)) for picture in pictures]
    return np.asarray(rows, np.float32).reshape(len(pictures), -1)


@torch.no_grad()
def network_features(network: OfPictures, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Give the real values whose signs are the code, float32 (N, bits)."""
    rows = []
    for start in range(0, len(pictures), BATCH):
        part = torch.from_numpy(pictures[start : start + BATCH]).permute(0, 3, 1, 2).float() / 255
        part = network.prepare(part).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())):
            rows.append(network.describe(part).float().numpy())
    return np.concatenate(rows)


def untrained_network(pictures: NDArray[np.uint8], bits: int) -> ImageDiscriminator:
    """Give the published network with its data-based initialisation and no training."""
    torch.manual_seed(SEED)
    network = ImageDiscriminator(bits)
    first = torch.from_numpy(pictures[:BATCH]).permute(0, 3, 1, 2).float() / 255
    network.train().initialise(network.prepare(first))
    return network.eval()


_WAYS = {"medians": hashing.medians, "itq": hashing.pca_itq, "lsh": hashing.lsh}


def peers(splits: Splits, widths: Sequence[int]) -> Iterator[tuple[str, int, Codes, Codes]]:
    """Give name, bits, codes of the queries and codes of the database of every way without training."""
    train, test = splits.train.pictures, splits.test.pictures
    for kind, features in (("pixels", pixels), ("hog", hog)):
        rows, queries = features(train), features(test)
        for name, method in hashing.METHODS.items():
            for width in widths:
                encode = method(rows, width)
                yield f"{name} of {kind}", width, encode(queries), encode(rows)
    rows, queries = (network_features(untrained_network(train, 64), part) for part in (train, test))
    for way in ("medians", "itq"):
        for width in widths:
            encode = _WAYS[way](rows, width)
            yield f"untrained, {way}", width, encode(queries), encode(rows)


def of_networks(
    splits: Splits, widths: Sequence[int], networks: dict[str, OfPictures], ways: Iterable[str]
) -> Iterator[tuple[str, int, Codes, Codes]]:
    """Give the same of our networks: their codes, and their features by other ways."""
    train, test = splits.train.pictures, splits.test.pictures
    for name, network in networks.items():
        rows, queries = network_features(network, train), network_features(network, test)
        for width in sorted({*(w for w in widths if w < network.bits and w in (16, 32)), network.bits}):
            part, part_queries = rows[:, :width], queries[:, :width]
            label = label_of(name, width, network)
            yield label, width, np.packbits(part_queries >= 0, axis=1), np.packbits(part >= 0, axis=1)
            for way in ways:
                encode = _WAYS[way](part, width)
                yield f"{label}, {way}", width, encode(part_queries), encode(part)


def label_of(name: str, width: int, network: OfPictures) -> str:
    """Name a row: the network, and of which bits the row is if they are not all of its bits."""
    return name if width == network.bits else f"{name}, first {width} of {network.bits} bits"


@command_line("cifar10")
def main(
    data: Data,
    ours: tuple[str, ...] | None = None,
    bits: tuple[int, ...] = BITS,
    queries: int = 0,
    no_peers: bool = False,
    threads: int = 1,
    out: Out = RESULTS / "cifar10.json",
    pictures: Path = Path("bench/pictures"),
) -> int:
    """Search by every code.

    Args:
        data: folder of pictures, see kornia_bingan.datasets.pictures.
        ours: shipped names or weights files; by default all shipped.
        queries: only the first so many; all by default.
        no_peers: only our networks' own codes.
        pictures: folder of the drawn queries.
    """
    if any(width % 8 or not 8 <= width <= 64 for width in bits):
        raise UsageError(f"--bits {' '.join(map(str, bits))}: give multiples of 8 from 8 to 64")
    check_clean(out)
    use_threads(threads)
    networks, paths = {}, []
    for given in [model.name for model in list_models()] if ours is None else ours:
        path = find_weights(given)
        network = load_weights(path)
        if isinstance(network, OfPictures):
            networks[name_of_weights(path)] = network
            paths.append(path)
        elif ours is not None:
            raise UsageError(f"{given} describes patches, not pictures")
    splits = read_picture_set(data)
    count = queries or len(splits.test)
    results: list[dict[str, Any]] = []
    drawn = []
    rows = of_networks(splits, bits, networks, () if no_peers else _WAYS)
    for name, width, asked, database in rows if no_peers else chain(peers(splits, bits), rows):
        scores = evaluate(asked[:count], database, splits.test.labels[:count], splits.train.labels)
        results.append({"descriptor": name, "bits": width, **scores})
        own = next((own for own, network in networks.items() if name == label_of(own, width, network)), None)
        if own is not None:
            file = pictures / f"cifar10-{own}-{width}.png"
            draw_queries(file, splits, asked, database)
            text = f"{name}, {width} bits: mAP {scores['exact']:.1f} %"
            drawn.append({"text": text, "file": file.name})
        print(f"{name} {width} bits: {scores['exact']:.2f}", file=sys.stderr, flush=True)
    print(text_of(COLUMNS, results))
    record = {
        "protocol": "cifar10",
        "command": f"python -m eval cifar10 PICTURES --ours {' '.join(networks)}" + " --no-peers" * no_peers,
        "pictures": splits.source,
        "database": len(splits.train),
        "queries": count,
        "results": results,
        "provenance": provenance(paths[0] if paths else None, SEED),
    }
    write_json(out, record)
    draw_curves(out.with_suffix(".svg"), results)
    note = "One query a class on the left, the nearest pictures beside it; other classes have a red frame."
    if drawn:
        about = {"title": "Nearest pictures", "note": note, "results": drawn, "provenance": record["provenance"]}
        write_json(pictures / "cifar10.json", about)
    return 0


def draw_queries(path: Path, splits: Splits, queries: Codes, database: Codes) -> None:
    """Draw the first query of each class and the pictures nearest to it."""
    chosen = np.array([np.flatnonzero(splits.test.labels == label)[0] for label in np.unique(splits.test.labels)])
    chosen = chosen[chosen < len(queries)]
    found = picture_grid.nearest(queries[chosen], database, SHOWN_NEAREST)
    wrong = splits.train.labels[found] != splits.test.labels[chosen, None]
    picture = picture_grid.grid(splits.test.pictures[chosen], splits.train.pictures[found], wrong)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())


def draw_curves(path: Path, results: list[dict[str, Any]]) -> None:
    """Draw precision and recall against the number of pictures that are looked at, one panel per width."""
    panels = []
    for width in sorted({row["bits"] for row in results}):
        rows = [row for row in results if row["bits"] == width]
        for key in ("precision", "recall"):
            lines = [Line(row["descriptor"], [float(n) for n in row[key]], list(row[key].values())) for row in rows]
            panels.append(Panel(f"{key}, {width} bits", lines))
    with atomic_path(path) as temporary:
        temporary.write_text(svg_panels(panels, "pictures looked at", "share", (0, 1), columns=2), encoding="utf-8")
