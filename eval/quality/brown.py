"""Patch verification on sets in Brown's layout: FPR@95 of patch pairs.

    python -m eval brown SET [SET ...] [--ours NAME_OR_PATH ...] [--pairs 10000] [--out eval/results/brown.json]
    python -m eval brown --arrays MATCHES.npy NON_MATCHES.npy --black -1 --white 1 --ours NAME_OR_PATH

Protocol. Each SET is a folder of the PhotoTour layout (liberty, notredame, yosemite, or one of ``bingan patches``). The
pairs are those of ``m50_A_A_0.txt``, half of them matches. The published protocol of BinGAN, DeepBit and DBD-MQ tests
on A = 10,000, most others on A = 100,000. The threshold is the smallest distance that accepts at least 95 % of the
matches (``fpr95``, inclusive: ties count against the descriptor); ``fpr95_published`` takes the rank that the published
code takes, and ``fpr95_first_half`` does so on the first half of the list, which is most probably what BinGAN's
published figures are (docs/article.md). ``recall`` is the share of matches really accepted. Intervals are 95 %
percentile bootstrap over the reference images of the points (pairs of one image share patches), the same draws for all
descriptors; over the pairs where a set does not name these images (``interval_over`` says which). For the six published
combinations of training and test set see ``python -m eval six_cells``; which set weights were trained on stands in the
record.

Every descriptor sees the whole 64 x 64 patch: networks made for patches get its 2 x 2 means (32 x 32), SIFT a keypoint
in the middle whose window of 12 sigma is the patch, ORB, BRIEF-like and boosted ones their pattern scaled to it.
``NAME@SIDE`` sees the middle square that is a peer's best on the validation scenes, see ``patch_peers``; ``side_px`` is
the side of what is seen. ``untrained`` is the published network with its data-based initialisation, seed 1. Nothing is
tuned here. ``--arrays`` takes the published code's own pairs, which are 32 x 32 already: networks of ours only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from eval.harness.bootstrap import drawn_photos, resampled_counts
from eval.harness.cache import cached, code_digest, digest
from eval.harness.columns import Column, Row, text_of
from eval.harness.command import command_line
from eval.harness.metrics import fpr95, fpr95_published, roc_curve
from eval.harness.options import PEER_DATA, PatchOptions, load_models
from eval.harness.patch_peers import PATCH_PX, PatchPeer, describe_patches, patch_peers, patch_sigma_of
from eval.harness.records import check_clean, write_json
from eval.show.curves import Line, Panel, svg_panels
from kornia_bingan import BinGAN
from kornia_bingan.bits import pack
from kornia_bingan.datasets.brown import PatchSet, read_patch_set
from kornia_bingan.datasets.pair_arrays import PairArrays, read_pair_arrays
from kornia_bingan.errors import UsageError
from kornia_bingan.network.published import PatchDiscriminator
from kornia_bingan.network.weights import find_weights, read_description
from kornia_bingan.work.files import atomic_path
from kornia_bingan.work.provenance import provenance

PEERS = (
    "sift",
    "rootsift",
    "orb",
    "brief",
    "brisk",
    "freak",
    "latch",
    "beblid256",
    "teblid256",
    "boostdesc",
    "boostdesc64",
    "hashsift256",
    "tfeat-liberty",
    "hardtfeat",
)
NUM_RESAMPLES = 500
SEED = 1
BATCH = 500

Rows = NDArray[Any]


COLUMNS = (
    Column("descriptor", "descriptor"),
    Column("FPR@95 % (interval)", "fpr95", ".2f", best="least", interval="interval", interval_form=".1f"),
    Column("published rule %", "fpr95_published", ".2f", best="least"),
    Column("recall", "recall", ".4f"),
)
"""Of one set; see :func:`by_set` for several."""


@torch.no_grad()
def describe_with_network(describe: Callable[[torch.Tensor], torch.Tensor], patches: NDArray[np.float32]) -> Rows:
    """Describe patches, float32 (N, 1, 32, 32) in [0, 1], as real values (N, bits)."""
    return torch.cat([describe(part) for part in torch.split(torch.from_numpy(patches), BATCH)]).numpy()


def untrained_network(patches: NDArray[np.float32]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Give the published network, initialised on 500 of these patches and not trained."""
    torch.manual_seed(SEED)
    network = PatchDiscriminator()
    network.train().initialise(network.prepare(torch.from_numpy(patches[:: max(1, len(patches) // 500)][:500])))
    network.eval()
    return lambda part: network.describe(network.prepare(part))


def distances(rows: Rows, index0: Rows, index1: Rows) -> NDArray[np.float64]:
    """Compute Hamming distances of packed rows (uint8), or Euclidean distances of real ones."""
    if rows.dtype == np.uint8:
        return np.asarray(np.bitwise_count(rows[index0] ^ rows[index1]).sum(1), np.float64)
    return np.asarray(np.linalg.norm(rows[index0].astype(np.float64) - rows[index1], axis=1), np.float64)


def draw_pairs(is_match: NDArray[np.bool_], images: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Draw bootstrap samples: how often each pair counts, int64 (NUM_RESAMPLES, number of pairs).

    Args:
        is_match: of each pair.
        images: reference images of the two points of each pair, shape (number of pairs, 2); None draws matches and
            non-matches one by one.
    """
    if images is not None:
        return drawn_photos([(int(a), int(b)) for a, b in images], [0] * len(images), NUM_RESAMPLES, SEED)
    counts = np.empty((NUM_RESAMPLES, len(is_match)), np.int64)
    drawn = resampled_counts([int(is_match.sum()), int((~is_match).sum())], NUM_RESAMPLES, SEED)
    counts[:, is_match], counts[:, ~is_match] = np.split(drawn, [int(is_match.sum())], 1)
    return counts


def evaluate(
    distance: NDArray[np.float64], is_match: NDArray[np.bool_], drawn: NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """Score the distances of pairs, with an interval from the draws of :func:`draw_pairs` (of pairs if None)."""
    if drawn is None:
        drawn = draw_pairs(is_match, None)
    matches, non_matches = distance[is_match], distance[~is_match]
    rank = (95 * len(matches) + 99) // 100
    threshold = np.sort(matches)[rank - 1]
    curve = roc_curve(matches, non_matches)
    shown = np.unique(
        np.searchsorted(curve.true_positive_rate, np.linspace(0, 1, 101)).clip(0, len(curve.thresholds) - 1)
    )
    order0, order1 = np.argsort(matches), np.argsort(non_matches)
    sorted0, sorted1 = matches[order0], non_matches[order1]
    draws = []
    for counts0, counts1 in zip(drawn[:, is_match][:, order0], drawn[:, ~is_match][:, order1], strict=True):
        cumulated = np.cumsum(counts0)
        if cumulated[-1] == 0 or counts1.sum() == 0:
            continue  # no image with pairs of this kind was drawn
        cut = sorted0[np.searchsorted(cumulated, 0.95 * cumulated[-1])]
        accepted = counts1[: np.searchsorted(sorted1, cut, side="right")].sum()
        draws.append(100 * accepted / counts1.sum())
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "fpr95": round(fpr95(matches, non_matches), 3),
        "interval": [round(float(low), 3), round(float(high), 3)],
        "fpr95_published": round(fpr95_published(matches, non_matches), 3),
        "fpr95_first_half": round(
            fpr95_published(matches[: -(-len(matches) // 2)], non_matches[: -(-len(non_matches) // 2)]), 3
        ),
        "recall": round(float(np.mean(matches <= threshold)), 5),
        "roc": [
            [round(float(curve.false_positive_rate[i]), 5), round(float(curve.true_positive_rate[i]), 5)] for i in shown
        ],
    }


def describe_all(
    whole: NDArray[np.uint8],
    small: NDArray[np.float32],
    peers: list[PatchPeer],
    models: dict[str, BinGAN],
    cache: Path | None = None,
) -> dict[str, tuple[str, Callable[[], Rows]]]:
    """Give, by name, the norm of each descriptor and a call that describes patches.

    Args:
        whole: uint8 (N, 64, 64), for peers.
        small: the same patches, float32 (N, 1, 32, 32) in [0, 1], for networks.
        peers: of others.
        models: ours, by name.
        cache: folder that keeps the rows of peers; None keeps nothing.
    """
    content, code = digest(whole), code_digest(sys.modules[__name__], sys.modules[describe_patches.__module__])
    calls: dict[str, tuple[str, Callable[[], Rows]]] = {}
    for seeing in peers:
        about = {"patches": content, "peer": seeing.peer.identity(), "side_px": seeing.side_px}
        key = {"step": "patch_rows", **about, "code": code}

        def rows(seeing: PatchPeer = seeing, key: dict[str, Any] = key) -> Rows:
            def describe() -> dict[str, Rows]:
                if seeing.peer.network is not None and seeing.side_px == PATCH_PX:
                    return {"rows": describe_with_network(seeing.peer.network, small)}
                return {"rows": describe_patches(seeing, whole)}

            return cached(cache, key, describe)["rows"]

        calls[seeing.peer.name] = (seeing.peer.norm, rows)
    calls["pixels"] = ("l2", lambda: _standardised(small))
    calls["untrained"] = ("hamming", lambda: pack(describe_with_network(untrained_network(small), small)))
    for name, model in models.items():
        kept: list[Rows] = []

        def real(model: BinGAN = model, kept: list[Rows] = kept) -> Rows:
            if not kept:
                network = model.network
                kept.append(describe_with_network(lambda part: network.describe(network.prepare(part)), small))
            return kept[0]

        calls[name] = ("hamming", lambda real=real: pack(real()))  # type: ignore[misc]
        calls[f"{name}/median"] = ("hamming", lambda real=real: pack(real() - np.median(real(), 0)))  # type: ignore[misc]
        calls[f"{name}/float"] = ("l2", lambda real=real: _unit(real()))  # type: ignore[misc]
    return calls


def _standardised(patches: NDArray[np.float32]) -> Rows:
    flat = patches.reshape(len(patches), -1)
    return _unit(flat - flat.mean(1, keepdims=True))


def _unit(rows: Rows) -> Rows:
    unit: Rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return unit


def score_source(
    source: PatchSet | PairArrays, num_pairs: int, peers: list[PatchPeer], models: dict[str, BinGAN], cache: Path | None
) -> tuple[list[dict[str, Any]], Panel]:
    """Score all descriptors on the pairs of a set, or on arrays of pairs, whose patches are too small for peers.

    Raises:
        UsageError: there is no such list of pairs, or its pairs are all of one kind.
    """
    if isinstance(source, PairArrays):
        name, (index0, index1, is_match) = "arrays", source.pairs()
    else:
        name, (index0, index1, is_match) = source.folder.name, source.pairs(num_pairs)
    if is_match.all() or not is_match.any():
        raise UsageError(f"{name}: the pairs are all of one kind")
    reference = source.reference if isinstance(source, PatchSet) else None
    images = None if reference is None else np.stack([reference[index0], reference[index1]], 1)
    drawn = draw_pairs(is_match, images)
    over = "pairs" if images is None else "reference images"
    indices, inverse = np.unique(np.concatenate([index0, index1]), return_inverse=True)
    small = source.patches32(indices)
    whole = source.patches[indices] if isinstance(source, PatchSet) else np.empty((0, PATCH_PX, PATCH_PX), np.uint8)
    side_px = {seeing.peer.name: round(seeing.side_px, 2) for seeing in peers}
    rows, lines = [], []
    for descriptor, (norm, call) in describe_all(whole, small, peers, models, cache).items():
        distance = distances(call(), inverse[: len(index0)], inverse[len(index0) :])
        scores = evaluate(distance, is_match, drawn)
        about = {"set": name, "patches": len(source), "pairs": len(is_match), "descriptor": descriptor, "norm": norm}
        rows.append({**about, "side_px": side_px.get(descriptor, PATCH_PX), **scores, "interval_over": over})
        print(f"{name} {descriptor} {scores['fpr95']:.2f}", flush=True)
        false, true = np.array(scores["roc"]).T.tolist()
        lines.append(Line(descriptor, false, true, dashed=norm == "l2"))
    return rows, Panel(name, lines)


def by_set(results: list[dict[str, Any]]) -> tuple[list[Column], list[dict[str, Any]]]:
    """Give a column for each set, and a row for each descriptor, which holds its result by set; best mean first."""
    sets = list(dict.fromkeys(row["set"] for row in results))
    rows: dict[str, dict[str, Any]] = {row["descriptor"]: {"descriptor": row["descriptor"]} for row in results}
    for row in results:
        rows[row["descriptor"]][row["set"]] = row

    def of_set(name: str) -> Column:
        def fpr95_of(row: Row) -> float | None:
            return row[name]["fpr95"] if name in row else None

        header = f"{name}, FPR@95 % (interval)"
        return Column(header, fpr95_of, ".2f", "least", lambda r: r[name]["interval"], interval_form=".1f")

    def mean(row: dict[str, Any]) -> float:
        scored = [row[name]["fpr95"] for name in sets if name in row]
        return float(sum(scored) / len(scored))

    return [Column("descriptor", "descriptor"), *map(of_set, sets)], sorted(rows.values(), key=mean)


@command_line("brown")
def main(
    sets: tyro.conf.Positional[tuple[Path, ...]],
    shared: PatchOptions,
    arrays: tuple[Path, Path] | None = None,
    black: float | None = None,
    white: float | None = None,
    pairs: int = 10_000,
    peer_data: Path = PEER_DATA,
) -> int:
    """Score every set.

    Args:
        arrays: .npy files of matches and of other pairs.
        black: value of the arrays that means black; uint8 needs none.
        white: value of the arrays that means white.
        pairs: A of m50_A_A_0.txt.
        peer_data: folder of the weights and tables of others.
    """
    if bool(sets) == bool(arrays):
        raise UsageError("give either sets in Brown's layout or --arrays MATCHES.npy NON_MATCHES.npy")
    check_clean(shared.out)
    cache, best = shared.begin(), shared.best_sides()
    absent: dict[str, str] = {}
    models = load_models(shared.ours)
    trained = {name: read_description(find_weights(g))["training"] for name, g in zip(models, shared.ours, strict=True)}
    results: list[dict[str, Any]] = []
    panels = []
    given: list[PatchSet | PairArrays] = [read_patch_set(folder) for folder in sets]
    if arrays:
        given = [read_pair_arrays(*arrays, black=black, white=white)]
    for source in given:
        peers: list[PatchPeer] = []
        if isinstance(source, PatchSet):
            peers, absent = patch_peers(PEERS, peer_data, best, patch_sigma_of(source.folder))
        rows_of_set, panel = score_source(source, pairs, peers, models, cache)
        results += rows_of_set
        panels.append(panel)
    print(f"FPR@95 %, {results[-1]['pairs']:,} pairs\n\n{text_of(*by_set(results))}")
    for name, reason in absent.items():
        print(f"absent: {name}: {reason}")
    if shared.out:
        data = "--arrays MATCHES.npy NON_MATCHES.npy" if arrays else " ".join(path.name for path in sets)
        words = f"--pairs {pairs}{shared.words()}"
        record = {
            "protocol": "brown",
            "command": f"python -m eval brown {data} --ours {' '.join(models)} {words}",
            "pairs": results[-1]["pairs"],
            "results": results,
            "absent": absent,
            "trained_on": {name: about["config"].get("train") or "photos" for name, about in trained.items()},
            "provenance": provenance(find_weights(shared.ours[0]) if shared.ours else None, SEED),
        }
        write_json(shared.out, record)
        with atomic_path(shared.out.with_suffix(".svg")) as temporary:
            drawing = svg_panels(panels, "false positive rate", "recall", (0.5, 1.0), guide=0.95)
            temporary.write_text(drawing, encoding="utf-8")
    return 0
