"""The ratio of each descriptor's mutual ratio test, by one rule for all: 95 % precision on the validation scenes.

    python -m eval thresholds DATA/validate [--peers rootsift,orb] [--ours NAME_OR_PATH]

Protocol. Mutual nearest neighbours of 2,000 DoG keypoints per image, checked as in ``m95``, pooled over the pairs of
all scenes with ``cameras.json``, every scene with equal weight. The threshold is the largest ratio (both directions,
ties together) at which 95 % of the accepted matches are correct. ``hpatches``, ``pairs`` and ``sfm`` compare
descriptors at these thresholds, so that no one wins by a looser test.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.harness.columns import Column, text_of
from eval.harness.command import Split, command_line
from eval.harness.metrics import matches_at_precision
from eval.harness.options import RESULTS, MatchingOptions, setup
from eval.harness.problems import load_problems
from eval.harness.records import write_json
from eval.quality.m95 import PRECISION, Result, cached_evaluate
from kornia_bingan.errors import UsageError

FILE = RESULTS / "thresholds.json"
COLUMNS = (
    Column("descriptor", "descriptor"),
    Column("ratio", "ratio", ".4f"),
    Column("matches", "matches", ","),
    Column("correct", "correct", ","),
)


def read_thresholds(path: Path = FILE) -> dict[str, float]:
    """Read the ratio of each descriptor.

    Raises:
        UsageError: the file is absent.
    """
    import json

    if not path.is_file():
        raise UsageError(f"{path} is not there; python -m eval thresholds DATA/validate makes it")
    return {row["descriptor"]: row["ratio"] for row in json.loads(path.read_text(encoding="utf-8"))["results"]}


def threshold_of(thresholds: dict[str, float], name: str) -> float:
    """Give the ratio of a descriptor.

    Raises:
        UsageError: it has none.
    """
    if name not in thresholds:
        raise UsageError(f"{name} has no threshold; run python -m eval thresholds with it")
    return thresholds[name]


def ratio_of_scenes(results: Sequence[Result]) -> dict[str, Any]:
    """Give the largest ratio at which 95 % of the accepted matches are correct, all scenes with equal weight.

    Args:
        results: one per scene.

    Returns:
        ``ratio`` (0 where no ratio is precise enough), and how many ``matches`` it accepts and how many are
        ``correct``, both unweighted.
    """
    weights = np.concatenate([np.full(len(r.ratio), 1 / max(1, len(r.ratio))) for r in results])
    ratio = np.concatenate([r.ratio_two_way for r in results])
    correct = np.concatenate([r.correct for r in results])
    found = matches_at_precision(ratio, correct, PRECISION, weights)
    accepted = ratio <= (found.threshold or 0)
    counts = {"matches": int(accepted.sum()), "correct": int((accepted & correct).sum())}
    return {"ratio": found.threshold or 0.0, **counts}


@command_line("thresholds")
def main(data: Split, shared: MatchingOptions) -> int:
    run = setup("thresholds", data, shared)
    problems = list(load_problems(run.data, run.only, run.cache, with_sequences=False))
    rows: list[dict[str, Any]] = []
    for peer in run.peers:
        results = [cached_evaluate(peer, problem, run.cache) for problem in problems]
        rows.append({"descriptor": peer.name, **ratio_of_scenes(results)})
        print(f"{peer.name} {rows[-1]['ratio']:.3f}", file=sys.stderr, flush=True)
    scenes = [problem.name for problem in problems]
    out = shared.out or FILE
    write_json(out, {**run.record("thresholds"), "precision": PRECISION, "scenes": scenes, "results": rows})
    print(text_of(COLUMNS, rows))
    return 0
