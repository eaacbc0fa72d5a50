"""Matching on image sequences with homographies: Oxford, HPatches (``v_*``, ``i_*``) and EVD layouts.

    python -m eval hpatches DATA/validate [--only oxford_boat] [--peers rootsift,orb] [--ours NAME_OR_PATH]

Protocol. The same 2,000 strongest DoG keypoints per image for every descriptor; the first picture with each other one.
Mutual nearest neighbours at the descriptor's ratio from ``thresholds.json``.

- ``mma``: share of its matches within 1, 3, 5, 10 px of where the homography puts them, in the second picture; mean
  over pairs, a pair without matches counts 0.
- ``matching_score``: correct matches (3 px) over the keypoints of the first picture that the second picture shows.
- ``auc``: area under the curve of the homography's error up to 1, 3, 5 px; the homography by MAGSAC at 3 px from the
  matches, its error the mean distance of the four corners of the first picture, in pixels of the files.

``repeatable`` is the share of visible keypoints that have one of the other picture within 3 px: the limit of the
matching score, the same for all. EVD stands apart: its matrices are good to 1 to 3 px. Intervals are bootstrap over
sequences, whose pairs share their first picture.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.harness.bootstrap import drawn_groups, interval_of
from eval.harness.columns import Column, text_of
from eval.harness.command import Split, command_line
from eval.harness.data import HomographySequence, find_sequences, read_sequence, transform
from eval.harness.features import cached_describe, cached_keypoints
from eval.harness.matching import Norm, mutual_matches
from eval.harness.metrics import error_auc
from eval.harness.options import MatchingOptions, setup
from eval.harness.peers import Describe
from eval.harness.records import write_json
from eval.quality.thresholds import read_thresholds, threshold_of
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.matching.geometry import homography_inliers

MAX_KEYPOINTS = 2000
MMA_PX = (1, 3, 5, 10)
AUC_PX = (1.0, 3.0, 5.0)
CORRECT_PX = 3.0
RANSAC_PX = 3.0
SEED = 0


def _share(header: str, key: str, px: float, **more: Any) -> Column:
    return Column(header, lambda r: r[key][f"{px:g}"], ".3f", best="most", **more)


COLUMNS = (
    Column("part", "part", views=("text",)),
    Column("descriptor", "descriptor"),
    Column("ratio", "ratio", ".3f"),
    Column("matches", "matches", ",", best="most"),
    _share("MMA@1", "mma", 1),
    _share("MMA@3 (interval)", "mma", 3, interval="mma3_interval"),
    _share("MMA@5", "mma", 5),
    _share("MMA@10", "mma", 10, views=("text", "page")),
    Column("matching score", "matching_score", ".3f", best="most"),
    _share("AUC@1", "auc", 1),
    _share("AUC@3 (interval)", "auc", 3, interval="auc3_interval"),
    _share("AUC@5", "auc", 5),
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairResult:
    """One pair of pictures with one descriptor; ``corner_error_px`` is infinite where no homography was found."""

    sequence: str
    group: str
    number: int
    matches: int
    within: tuple[float, ...]
    visible: int
    repeatable: int
    correct: int
    corner_error_px: float


def visible(xy: Floats, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Say which points lie in a picture (height, width)."""
    inside: NDArray[np.bool_] = (xy >= 0) & (xy <= np.array(shape[::-1]) - 1)
    return inside[:, 0] & inside[:, 1]


def corner_error_px(estimated: Floats, truth: Floats, shape: tuple[int, ...]) -> float:
    """Give the mean distance of the mapped corners of the first picture (height, width), in the second's pixels."""
    height, width = shape
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], np.float64)
    error = np.linalg.norm(transform(estimated, corners) - transform(truth, corners), axis=1).mean()
    return float(error) if np.isfinite(error) else float("inf")


def evaluate(
    describe: Describe, norm: Norm, ratio: float, data: HomographySequence, keypoints: list[Keypoints]
) -> list[PairResult]:
    """Match the first picture of a sequence with each other one."""
    rows = [describe(image, points) for image, points in zip(data.images, keypoints, strict=True)]
    results = []
    for number, H in enumerate(data.homographies, 1):
        found = mutual_matches(rows[0], rows[number], norm)
        kept = found.indices[found.ratio_two_way <= ratio]
        xy0, xy1 = keypoints[0].xy.astype(np.float64), keypoints[number].xy.astype(np.float64)
        mapped = transform(H, xy0)
        seen = visible(mapped, data.images[number].shape)
        gaps = np.full(len(xy0), np.inf)
        if len(xy1):
            gaps[seen] = np.sqrt(((mapped[seen, None] - xy1) ** 2).sum(2).min(1))
        error = np.linalg.norm(mapped[kept[:, 0]] - xy1[kept[:, 1]], axis=1)
        estimated, _ = homography_inliers(xy0[kept[:, 0]], xy1[kept[:, 1]], RANSAC_PX, seed=SEED)
        corners = float("inf") if estimated is None else corner_error_px(estimated, H, data.images[0].shape)
        results.append(
            PairResult(
                sequence=data.name,
                group=data.group,
                number=number + 1,
                matches=len(kept),
                within=tuple(float((error < limit).mean()) if len(kept) else 0.0 for limit in MMA_PX),
                visible=int(seen.sum()),
                repeatable=int((gaps < CORRECT_PX).sum()),
                correct=int((error < CORRECT_PX).sum()),
                corner_error_px=corners,
            )
        )
    return results


def summarise(results: list[PairResult]) -> dict[str, Any]:
    """Turn the pairs of one descriptor into numbers with intervals."""
    within = np.array([r.within for r in results])
    errors = np.array([r.corner_error_px for r in results])
    score = np.array([r.correct / max(1, r.visible) for r in results])

    counts = drawn_groups([r.sequence for r in results], 500, SEED)

    def mean_interval(values: Floats) -> list[float]:
        low, high = interval_of(lambda c: float(c @ values / c.sum()), counts)
        return [round(low, 4), round(high, 4)]

    def auc_interval(limit: float) -> list[float]:
        low, high = interval_of(lambda c: error_auc(np.repeat(errors, c), [limit])[0], counts)
        return [round(low, 4), round(high, 4)]

    return {
        "pairs": len(results),
        "matches": int(sum(r.matches for r in results)),
        "mma": {str(px): round(float(within[:, k].mean()), 4) for k, px in enumerate(MMA_PX)},
        "mma3_interval": mean_interval(within[:, 1]),
        "matching_score": round(float(score.mean()), 4),
        "repeatable": round(float(np.mean([r.repeatable / max(1, r.visible) for r in results])), 4),
        "auc": {f"{px:g}": round(value, 4) for px, value in zip(AUC_PX, error_auc(errors, AUC_PX), strict=True)},
        "auc3_interval": auc_interval(3.0),
    }


@command_line("hpatches")
def main(data: Split, shared: MatchingOptions) -> int:
    run = setup("hpatches", data, shared)
    thresholds = read_thresholds()
    paths = find_sequences(run.data, run.only)
    if not paths:
        raise UsageError(f"{run.data} has no homography sequence")
    every: dict[str, list[PairResult]] = {peer.name: [] for peer in run.peers}
    for path in paths:
        sequence = read_sequence(path)
        keypoints = [cached_keypoints(image, MAX_KEYPOINTS, run.cache) for image in sequence.images]
        for peer in run.peers:
            describe = cached_describe(peer, run.cache)
            every[peer.name] += evaluate(describe, peer.norm, threshold_of(thresholds, peer.name), sequence, keypoints)
        print(sequence.name, file=sys.stderr, flush=True)
    rows = []
    for part, is_part in (("sequences", False), ("evd", True)):
        for name, results in every.items():
            chosen = [r for r in results if (r.group == "evd") == is_part]
            if chosen:
                rows.append({"part": part, "descriptor": name, "ratio": thresholds[name], **summarise(chosen)})
    pairs = []
    for name, results in every.items():
        for r in results:
            error = r.corner_error_px if np.isfinite(r.corner_error_px) else None
            pairs.append({"descriptor": name, **vars(r), "corner_error_px": error})
    write_json(run.out, {**run.record("hpatches", SEED), "results": rows, "pairs": pairs})
    print(text_of(COLUMNS, rows))
    return 0
