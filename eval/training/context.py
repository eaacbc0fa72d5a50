"""How likely is a match right, seen with its neighbours? Logistic models, fitted on scenes with true cameras.

    python -m eval context DATA/validate [--ours bingan256] [--out eval/results/context-bingan256.json]

Protocol. The mutual nearest neighbours of ``m95`` on scenes with cameras, each labelled by the epipolar distance. The
first round sees distance and ratio, each further one the support by neighbours too, weighted by the probabilities of
the round before (``kornia_bingan.matching.context``). Maximum likelihood with a small ridge on standardised numbers,
every scene with equal weight. Judged by leaving one scene out: correct matches at 95 % precision, by the ratio of both
directions and by the probability; Brier score, expected calibration error and reliability of ten bins; milliseconds a
pair of one thread. What is stored is fitted on all scenes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.harness.columns import Column, text_of
from eval.harness.command import Split, command_line
from eval.harness.features import cached_describe
from eval.harness.metrics import matches_at_precision
from eval.harness.options import OURS_ALONE, RESULTS, MatchingOptions, setup
from eval.harness.peers import Peer
from eval.harness.problems import Problem, epipolar_errors_px, load_problems
from eval.harness.records import write_json
from eval.quality.calibrate import reliability
from eval.quality.m95 import PRECISION, THRESHOLD_PX
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.matching import match
from kornia_bingan.matching.context import ContextModel, Neighbourhood, context_probability, features, neighbourhoods

ROUNDS = 2
"""Of context, after the round of distance and ratio."""

Floats = NDArray[np.float64]

COLUMNS = (
    Column("scene left out", "scene"),
    Column("matches", "matches", ",", views=("text",)),
    Column("right", "correct", ",", views=("text",)),
    Column("M95, ratio", "m95_ratio", ",", best="most"),
    Column("M95, context", "m95_context", ",", best="most"),
    Column("x", lambda r: r["m95_context"] / max(r["m95_ratio"], 1), ".3f", best="most"),
    Column("Brier score", "brier", ".4f", best="least"),
    Column("calibration error", "calibration_error", ".4f", best="least"),
    Column("ms a pair", "ms_per_pair", ".1f", best="least"),
)


class PairMatches:
    """The mutual nearest neighbours of a pair of photos.

    Attributes:
        keypoints0, keypoints1: of the matches, M rows each.
        distance, ratio: as :func:`kornia_bingan.matching.context.context_probability` takes them, float64 (M,).
        correct: bool (M,).
        around: see :func:`kornia_bingan.matching.context.neighbourhoods`.
    """

    def __init__(self, codes: Sequence[Any], keypoints: Sequence[Keypoints], matrix: Floats) -> None:
        ratios, indices = match(codes[0], codes[1], "smnn", 1.0)
        self.keypoints0, self.keypoints1 = keypoints[0][indices[:, 0]], keypoints[1][indices[:, 1]]
        differing = np.bitwise_count(codes[0][indices[:, 0]] ^ codes[1][indices[:, 1]]).sum(1)
        self.distance, self.ratio = differing.astype(np.float64), ratios[:, 0].astype(np.float64)
        self.correct = epipolar_errors_px(matrix, self.keypoints0.xy, self.keypoints1.xy) < THRESHOLD_PX
        self.around: list[Neighbourhood] = neighbourhoods(self.keypoints0, self.keypoints1)


def matches_of(peer: Peer, problem: Problem, describe: Any) -> list[PairMatches]:
    """Match all pairs of a scene."""
    rows = [describe(image, points) for image, points in zip(problem.images, problem.keypoints, strict=True)]
    return [
        PairMatches((rows[i], rows[j]), (problem.keypoints[i], problem.keypoints[j]), F)
        for (i, j), F in zip(problem.pairs, problem.matrices, strict=True)
    ]


def fit_round(values: Floats, correct: NDArray[np.bool_], weights: Floats) -> tuple[float, ...]:
    """Fit one logistic model; its coefficients are of the values as they are, the intercept last.

    Raises:
        UsageError: all matches are right, or all wrong.
    """
    if correct.all() or not correct.any():
        raise UsageError("a model of context needs right and wrong matches")
    weights = weights / weights.sum()
    mean = weights @ values
    deviation = np.sqrt(weights @ (values - mean) ** 2) + 1e-9
    x = np.column_stack([(values - mean) / deviation, np.ones(len(values))])
    theta = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ theta, -30, 30)))
        gradient = x.T @ (weights * (correct - p)) - 1e-6 * theta
        step = np.linalg.solve((x * (weights * p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(len(theta)), gradient)
        theta += step
        if np.abs(step).max() < 1e-9:
            break
    slopes = theta[:-1] / deviation
    return (*(round(float(value), 6) for value in slopes), round(float(theta[-1] - slopes @ mean), 6))


def fit(scenes: Sequence[Sequence[PairMatches]], bits: int) -> ContextModel:
    """Fit all rounds, every scene with equal weight."""
    weight = np.concatenate(
        [np.full(len(pair.ratio), 1 / sum(len(each.ratio) for each in pairs)) for pairs in scenes for pair in pairs]
    )
    pairs = [pair for scene in scenes for pair in scene]
    correct = np.concatenate([pair.correct for pair in pairs])
    rounds: list[tuple[float, ...]] = []
    for number in range(ROUNDS + 1):
        values = []
        for pair in pairs:
            support: list[Floats] = []
            if number:
                before = ContextModel(bits, tuple(rounds))
                probability = probability_of(pair, before)
                support = [column for each in pair.around for column in each.support(probability)]
            values.append(features(pair.distance / bits, pair.ratio, support))
        rounds.append(fit_round(np.concatenate(values), correct, weight))
    return ContextModel(bits, tuple(rounds))


def probability_of(pair: PairMatches, model: ContextModel) -> Floats:
    """Give the probabilities of the matches of a pair, float64 (M,)."""
    return context_probability(pair.keypoints0, pair.keypoints1, pair.distance, pair.ratio, model, pair.around)


def m95(score: Floats, correct: NDArray[np.bool_]) -> int:
    """Count correct matches at 95 % precision, the largest scores first."""
    return int(matches_at_precision(-score, correct, PRECISION, ties="in order").num_correct)


def judge(name: str, pairs: Sequence[PairMatches], model: ContextModel) -> dict[str, Any]:
    """Score a model on a scene that it was not fitted on."""
    started = time.process_time()
    for pair in pairs:
        context_probability(pair.keypoints0, pair.keypoints1, pair.distance, pair.ratio, model)
    seconds = time.process_time() - started
    probability = np.concatenate([probability_of(pair, model) for pair in pairs])
    correct = np.concatenate([pair.correct for pair in pairs])
    return {
        "scene": name,
        "pairs": len(pairs),
        "matches": len(correct),
        "correct": int(correct.sum()),
        "m95_ratio": m95(-np.concatenate([pair.ratio for pair in pairs]), correct),
        "m95_context": m95(probability, correct),
        **reliability(probability, correct),
        "ms_per_pair": round(1000 * seconds / len(pairs), 2),
    }


@command_line("context")
def main(data: Split, shared: MatchingOptions = OURS_ALONE) -> int:
    run = setup("context", data, shared)
    peer = next(peer for peer in run.peers if peer.norm == "hamming")
    bits = 8 * peer.num_bytes
    problems = list(load_problems(run.data, run.only, run.cache, with_sequences=False))
    if len(problems) < 2:
        raise UsageError(f"{run.data} has {len(problems)} scenes with cameras; one is left out in turn, give 2 or more")
    describe = cached_describe(peer, run.cache)
    scenes = {problem.name: matches_of(peer, problem, describe) for problem in problems}
    rows = [
        judge(name, pairs, fit([other for key, other in scenes.items() if key != name], bits))
        for name, pairs in scenes.items()
    ]
    model = fit(list(scenes.values()), bits)
    out = shared.out or RESULTS / f"context-{peer.name}.json"
    context = {"bits": bits, "rounds": [list(each) for each in model.rounds]}
    write_json(out, {**run.record("context"), "context": context, "results": rows})
    print(text_of(COLUMNS, rows))
    return 0
