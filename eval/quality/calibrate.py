"""How likely is a match right? A logistic model of Hamming distance and ratio, fitted on scenes with true cameras.

    python -m eval calibrate DATA/validate [--ours bingan256] [--out eval/results/calibration-bingan256.json]

Protocol. The mutual nearest neighbours of ``m95`` on scenes with cameras, each labelled by the epipolar distance.
Model: ``p = 1 / (1 + exp(-(a + b d + c r)))`` with d the distance over the number of bits and r the larger ratio of
both directions; maximum likelihood, every scene with equal weight. Judged by leaving one scene out: Brier score,
expected calibration error over ten bins of equal width, and the reliability of each bin. What is stored is fitted on
all scenes. A wrong match lies on the epipolar line by chance now and then, so small probabilities are a little too
large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.harness.columns import Column, text_of
from eval.harness.command import Split, command_line
from eval.harness.features import cached_describe
from eval.harness.matching import mutual_matches
from eval.harness.options import OURS_ALONE, RESULTS, MatchingOptions, setup
from eval.harness.peers import Peer
from eval.harness.problems import Problem, epipolar_errors_px, load_problems
from eval.harness.records import write_json
from eval.quality.m95 import THRESHOLD_PX
from kornia_bingan.errors import UsageError
from kornia_bingan.matching import Calibration, match_probability

BINS = 10
STEPS = 50

Floats = NDArray[np.float64]

COLUMNS = (
    Column("scene left out", "scene"),
    Column("matches", "matches", ","),
    Column("share right", "share_correct", ".4f"),
    Column("Brier score", "brier", ".4f", best="least"),
    Column("calibration error", "calibration_error", ".4f", best="least"),
)


def labelled_matches(peer: Peer, problem: Problem, describe: Any) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Give distance, ratio and correctness of the mutual nearest neighbours of all pairs of a scene."""
    rows = [describe(image, points) for image, points in zip(problem.images, problem.keypoints, strict=True)]
    distance, ratio, correct = [], [], []
    for (i, j), F in zip(problem.pairs, problem.matrices, strict=True):
        found = mutual_matches(rows[i], rows[j], peer.norm)
        a, b = rows[i][found.indices[:, 0]], rows[j][found.indices[:, 1]]
        distance.append(np.bitwise_count(a ^ b).sum(1))
        ratio.append(found.ratio_two_way)
        xy0, xy1 = problem.keypoints[i].xy[found.indices[:, 0]], problem.keypoints[j].xy[found.indices[:, 1]]
        correct.append(epipolar_errors_px(F, xy0, xy1) < THRESHOLD_PX)
    return np.concatenate(distance).astype(float), np.concatenate(ratio).astype(float), np.concatenate(correct)


def fit(distance: Floats, ratio: Floats, correct: NDArray[np.bool_], weights: Floats, bits: int) -> Calibration:
    """Fit the logistic model by Newton's method.

    Raises:
        UsageError: all matches are right, or all wrong.
    """
    if correct.all() or not correct.any():
        raise UsageError("a calibration needs right and wrong matches")
    x = np.stack([np.ones(len(distance)), distance / bits, ratio], 1)
    theta = np.zeros(3)
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-x @ theta))
        gradient = x.T @ (weights * (correct - p))
        # The ridge keeps separable data finite.
        hessian = (x * (weights * p * (1 - p))[:, None]).T @ x + 1e-9 * weights.sum() * np.eye(3)
        step = np.linalg.solve(hessian, gradient)
        theta += step
        if np.abs(step).max() < 1e-10:
            break
    return Calibration(*(round(float(value), 5) for value in theta))


def reliability(probability: Floats, correct: NDArray[np.bool_]) -> dict[str, Any]:
    """Judge probabilities: Brier score, expected calibration error, and share of right matches a bin."""
    bins = np.minimum((BINS * probability).astype(int), BINS - 1)
    rows = []
    for index in range(BINS):
        inside = bins == index
        if inside.any():
            rows.append([float(probability[inside].mean()), float(correct[inside].mean()), int(inside.sum())])
    error = sum(abs(p - share) * count for p, share, count in rows) / len(probability)
    return {
        "brier": round(float(np.mean((probability - correct) ** 2)), 5),
        "calibration_error": round(error, 5),
        "bins": [[round(p, 4), round(share, 4), count] for p, share, count in rows],
    }


@command_line("calibrate")
def main(data: Split, shared: MatchingOptions = OURS_ALONE) -> int:
    run = setup("calibrate", data, shared)
    peer = next(peer for peer in run.peers if peer.norm == "hamming")
    bits = 8 * peer.num_bytes
    problems = list(load_problems(run.data, run.only, run.cache, with_sequences=False))
    describe = cached_describe(peer, run.cache)
    scenes = {problem.name: labelled_matches(peer, problem, describe) for problem in problems}

    def fitted(names: list[str]) -> Calibration:
        parts = [scenes[name] for name in names]
        weights = np.concatenate([np.full(len(part[0]), 1 / len(part[0])) for part in parts])
        distance, ratio, correct = (np.concatenate([part[k] for part in parts]) for k in range(3))
        return fit(distance, ratio, correct, weights, bits)

    left_out = []
    for name, (distance, ratio, correct) in scenes.items():
        others = [other for other in scenes if other != name]
        if others:
            judged = reliability(match_probability(distance, ratio, bits, fitted(others)), correct)
            left_out.append({"scene": name, "matches": len(distance), "share_correct": float(correct.mean()), **judged})
    calibration = fitted(list(scenes))
    out = shared.out or RESULTS / f"calibration-{peer.name}.json"
    record = {"bits": bits, "calibration": vars(calibration), "results": left_out}
    write_json(out, {**run.record("calibrate"), **record})
    print(text_of(COLUMNS, left_out))
    print(calibration)
    return 0
