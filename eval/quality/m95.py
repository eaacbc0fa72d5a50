"""M95: how many correct matches a descriptor finds while 95 % of its matches are correct.

    python -m eval m95 DATA/validate [--only herz_jesus] [--peers rootsift,orb] [--ours NAME_OR_PATH]

Protocol. The same 2,000 strongest DoG keypoints per image for every descriptor. Mutual nearest neighbours, ranked by
the ratio of the nearest to the second distance (from the first image to the second), pooled over the pairs of a scene
or sequence. M95 is the number of correct matches at the largest ratio at which 95 % of the accepted matches are
correct: no threshold is chosen by hand. Correct means:

- scenes with ``cameras.json``, all pairs of photos up to 4 apart: both points within 2.5 px of the epipolar line of the
  other;
- homography sequences, the first picture with each other one: the point within 2.5 px of where the matrix puts it, in
  that picture of the two in which the distance is smaller: the coarser one, by whose pixels the point is known. Most of
  the matrices are good to about 1 px there. EVD is reported apart: its matrices are good to 1 to 3 px.

Ratios of Hamming distances have many ties. ``m95`` accepts equal ratios one after the other in the order of the pairs
and keypoints; ``m95_ties_together`` accepts them together, as a threshold would have to. Intervals are 95 % percentile
bootstrap, the same draws for all descriptors: over the photos of a scene, a pair counting as often as both of its
photos (pairs that share a photo are not independent); over the other pictures of a sequence; and in the sum over
sequences over these first. Nothing is tuned here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.harness import matching, problems
from eval.harness.bootstrap import drawn_groups, drawn_photos, resampled_counts
from eval.harness.cache import cached, code_digest
from eval.harness.columns import Column, Row, text_of
from eval.harness.command import Split, command_line
from eval.harness.features import cached_describe
from eval.harness.matching import Norm, mutual_matches
from eval.harness.metrics import matches_at_precision, precision_curve
from eval.harness.options import MatchingOptions, setup
from eval.harness.peers import Describe, Peer
from eval.harness.problems import (
    MAX_GAP,
    MAX_KEYPOINTS,
    Matrix,
    Problem,
    epipolar_errors_px,
    load_problems,
    transfer_errors_px,
)
from eval.harness.records import write_json
from eval.show.curves import Line, Panel, svg_panels
from kornia_bingan.errors import UsageError
from kornia_bingan.work.files import atomic_path

THRESHOLD_PX = 2.5
PRECISION = 0.95
NUM_RESAMPLES = 500
SEED = 0
REFERENCE = "rootsift"
CURVE_POINTS = 60


@dataclass(frozen=True, eq=False)
class Result:
    """The mutual nearest neighbours of all pairs, pair after pair, each sorted by the keypoint in the first image.

    Attributes:
        num_pairs: of images.
        pair: which pair, int32 (M,).
        ratio: float32 (M,).
        ratio_two_way: the larger of the ratios of both directions, float32 (M,).
        correct: bool (M,).
    """

    num_pairs: int
    pair: NDArray[np.int32]
    ratio: NDArray[np.float32]
    ratio_two_way: NDArray[np.float32]
    correct: NDArray[np.bool_]


def evaluate(describe: Describe, data: Problem, norm: Norm) -> Result:
    """Match every pair of a problem and check each match."""
    rows = [describe(image, points) for image, points in zip(data.images, data.keypoints, strict=True)]
    for index, points in enumerate(data.keypoints):
        if len(rows[index]) != len(points):
            raise UsageError(f"{data.name}: {len(rows[index])} rows for the {len(points)} keypoints of image {index}")
    errors_px = epipolar_errors_px if data.kind == "epipolar" else transfer_errors_px
    pair, ratio, two_way, correct = [], [], [], []
    for index, (i, j) in enumerate(data.pairs):
        matches = mutual_matches(rows[i], rows[j], norm)
        xy0, xy1 = data.keypoints[i].xy[matches.indices[:, 0]], data.keypoints[j].xy[matches.indices[:, 1]]
        pair.append(np.full(len(matches.indices), index, np.int32))
        ratio.append(matches.ratio)
        two_way.append(matches.ratio_two_way)
        correct.append(errors_px(data.matrices[index], xy0, xy1) < THRESHOLD_PX)
    return Result(
        len(data.pairs), np.concatenate(pair), np.concatenate(ratio), np.concatenate(two_way), np.concatenate(correct)
    )


def cached_evaluate(peer: Peer, problem: Problem, folder: Path | None) -> Result:
    """Give the result of a peer, from the cache if it is there; then nothing is described either."""
    key = {
        "step": "m95",
        "problem": problem.identity(),
        "threshold_px": THRESHOLD_PX,
        "peer": peer.identity(),
        "code": code_digest(sys.modules[__name__], matching, problems),
    }

    def make() -> dict[str, NDArray[Any]]:
        result = vars(evaluate(cached_describe(peer, folder), problem, peer.norm)).copy()
        del result["num_pairs"]
        return result

    return Result(len(problem.pairs), **cached(folder, key, make))


def resampled_m95(problem: Problem, result: Result, num_resamples: int = NUM_RESAMPLES, seed: int = SEED) -> Matrix:
    """Give M95 of bootstrap draws, float64 (R,); draws are the same for results of one problem.

    Photos of a scene are drawn; of a sequence the pictures beside the first, which all of its pairs share.
    """
    if problem.kind == "epipolar":
        drawn = drawn_photos(problem.pairs, [problem.name] * len(problem.pairs), num_resamples, seed)
    else:
        drawn = resampled_counts([result.num_pairs], num_resamples, seed)
    order = np.argsort(result.ratio, kind="stable")
    pair, correct = result.pair[order], result.correct[order].astype(np.float64)
    draws = np.zeros(num_resamples)
    for index, counts in enumerate(drawn):
        weights = counts[pair].astype(np.float64)
        accepted, right = np.cumsum(weights), np.cumsum(weights * correct)
        enough = np.flatnonzero((right >= PRECISION * accepted - 1e-9) & (accepted > 0))
        draws[index] = right[enough[-1]] if len(enough) else 0
    return draws


def summary(problem: Problem, peer: Peer, result: Result) -> dict[str, Any]:
    """Turn a result into what the JSON file holds."""
    in_order = matches_at_precision(result.ratio, result.correct, PRECISION, ties="in order")
    together = matches_at_precision(result.ratio, result.correct, PRECISION)
    curve = precision_curve(result.ratio, result.correct)
    last = len(curve.num_accepted) - 1
    points = np.unique(np.linspace(0, last, min(CURVE_POINTS, last + 1)).round().astype(int))
    low, high = np.quantile(resampled_m95(problem, result), [0.025, 0.975])
    return {
        "data": problem.name,
        "group": problem.group,
        "descriptor": peer.name,
        "images": len(problem.images),
        "pairs": result.num_pairs,
        "keypoints": sum(len(points) for points in problem.keypoints),
        "mutual": len(result.ratio),
        "mutual_correct": int(result.correct.sum()),
        "m95": int(in_order.num_correct),
        "m95_interval": [float(low), float(high)],
        "ratio": in_order.threshold,
        "m95_ties_together": int(together.num_correct),
        "ratio_ties_together": together.threshold,
        "curve": {
            "num_matches": curve.num_accepted[points].astype(int).tolist(),
            "num_correct": curve.num_correct[points].astype(int).tolist(),
        },
    }


def part_of(group: str) -> str:
    """Say in which total a group counts: ``scene``, ``homography`` or ``evd``."""
    return group if group in ("scene", "evd") else "homography"


def totals(
    rows: list[dict[str, Any]], draws: dict[tuple[str, str], Matrix], first: str | None = None
) -> list[dict[str, Any]]:
    """Sum M95 over the scenes, over the sequences and over EVD, and compare each descriptor with RootSIFT and ours.

    Args:
        rows: of :func:`summary`.
        draws: of :func:`resampled_m95`, by data and descriptor.
        first: the first of ours, which is compared with every other descriptor (``ours_times``).
    """
    built = []
    for part in dict.fromkeys(part_of(row["group"]) for row in rows):
        inside = [row for row in rows if part_of(row["group"]) == part]
        m95 = {(row["data"], row["descriptor"]): row["m95"] for row in inside}
        names = list(dict.fromkeys(row["data"] for row in inside))
        num_draws = len(next(iter(draws.values())))
        # Sequences are of one kind and many: they are drawn too. Scenes are few, and each has a column of its own.
        counts = np.ones((num_draws, len(names))) if part == "scene" else drawn_groups(names, num_draws, SEED)

        def drawn_sum(peer: str, names: list[str] = names, counts: NDArray[Any] = counts) -> Matrix:
            return np.asarray(np.einsum("rs,sr->r", counts, [draws[name, peer] for name in names]), np.float64)

        for peer in dict.fromkeys(row["descriptor"] for row in inside):
            total = sum(m95[name, peer] for name in names)
            drawn = drawn_sum(peer)
            entry: dict[str, Any] = {
                "part": part,
                "descriptor": peer,
                "data": names,
                "m95": total,
                "m95_interval": np.quantile(drawn, [0.025, 0.975]).tolist(),
                "times_rootsift": None,
                "times_rootsift_interval": None,
                "least_times_rootsift": None,
            }
            if all(m95.get((name, REFERENCE), 0) for name in names):
                base = drawn_sum(REFERENCE)
                entry["times_rootsift"] = total / sum(m95[name, REFERENCE] for name in names)
                entry["times_rootsift_interval"] = np.quantile(drawn / np.maximum(base, 1), [0.025, 0.975]).tolist()
                entry["least_times_rootsift"] = min(m95[name, peer] / m95[name, REFERENCE] for name in names)
            if first is not None and total:
                ours = drawn_sum(first)
                entry["ours_times"] = sum(m95[name, first] for name in names) / total
                entry["ours_times_interval"] = np.quantile(ours / np.maximum(drawn, 1), [0.025, 0.975]).tolist()
            built.append(entry)
    return built


def columns(record: dict[str, Any], part: str) -> list[Column]:
    """Give the columns of the totals of a part: bytes, M95 of each scene or sequence, their sum, the comparisons."""
    of = {(row["data"], row["descriptor"]): row for row in record["results"]}
    names = next(total["data"] for total in record["totals"] if total["part"] == part)
    first = record["constants"].get("first")

    def of_set(name: str) -> Column:
        def interval(total: Row) -> list[float]:
            return list(of[name, total["descriptor"]]["m95_interval"])

        header = f"{name} (95 % interval)"
        return Column(header, lambda t: of[name, t["descriptor"]]["m95"], ",.0f", best="most", interval=interval)

    chosen = [
        Column("descriptor", "descriptor"),
        Column("bytes", lambda t: record["peers"][t["descriptor"]]["num_bytes"], ",", best="least"),
        *(of_set(name) for name in names),
        Column("sum (interval)", "m95", ",.0f", best="most", interval="m95_interval"),
        Column("x RootSIFT (interval)", "times_rootsift", ".3f", best="most", interval="times_rootsift_interval"),
        Column("least x RootSIFT of a set", "least_times_rootsift", ".3f", best="most", views=("page",)),
    ]
    if first:
        chosen.append(Column(f"{first} is x this (interval)", "ours_times", ",.3f", interval="ours_times_interval"))
    return chosen


def totals_of(record: dict[str, Any], part: str) -> list[dict[str, Any]]:
    """Give the totals of a part, best first."""
    return sorted((total for total in record["totals"] if total["part"] == part), key=lambda total: -total["m95"])


def picture(rows: list[dict[str, Any]], peers: Sequence[Peer]) -> str:
    """Draw correct matches against precision, one panel per scene or sequence."""
    dashed = {peer.name: peer.norm == "l2" for peer in peers}
    panels = []
    for name in dict.fromkeys(row["data"] for row in rows):
        lines = []
        for row in (row for row in rows if row["data"] == name):
            correct, matches = row["curve"]["num_correct"], row["curve"]["num_matches"]
            precision = [c / n for c, n in zip(correct, matches, strict=True)]
            lines.append(Line(row["descriptor"], correct, precision, dashed[row["descriptor"]]))
        panels.append(Panel(name, lines))
    return svg_panels(panels, "correct matches", "precision", (0.5, 1.0), guide=PRECISION)


@command_line("m95")
def main(data: Split, shared: MatchingOptions) -> int:
    run = setup("m95", data, shared)
    rows: list[dict[str, Any]] = []
    draws: dict[tuple[str, str], Matrix] = {}
    for problem in load_problems(run.data, run.only, run.cache):
        for peer in run.peers:
            result = cached_evaluate(peer, problem, run.cache)
            rows.append(summary(problem, peer, result))
            draws[problem.name, peer.name] = resampled_m95(problem, result)
            print(f"{problem.name} {peer.name} {rows[-1]['m95']:,}", file=sys.stderr, flush=True)
    first = next((peer.name for peer in run.peers[len(run.peers) - 2 * len(run.ours) :]), None) if run.ours else None
    sums = totals(rows, draws, first)
    constants = {
        "max_keypoints": MAX_KEYPOINTS,
        "max_gap": MAX_GAP,
        "threshold_px": THRESHOLD_PX,
        "precision": PRECISION,
        "num_resamples": NUM_RESAMPLES,
        "first": first,
    }
    run.out.parent.mkdir(parents=True, exist_ok=True)
    record = {**run.record("m95", SEED), "constants": constants, "results": rows, "totals": sums}
    write_json(run.out, record)
    with atomic_path(run.out.with_suffix(".svg")) as temporary:
        temporary.write_text(picture(rows, run.peers), encoding="utf-8")
    for part in dict.fromkeys(entry["part"] for entry in sums):
        print(f"M95, {part}\n\n{text_of(columns(record, part), totals_of(record, part))}", end="\n\n")
    for name, reason in run.absent.items():
        print(f"absent: {name}: {reason}")
    return 0
