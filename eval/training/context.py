"""How likely is a match right, seen with its neighbours? Logistic models, fitted on scenes with true cameras.

    python -m eval context DATA/validate [--ours bingan256] [--test DATA/heldout] [--out FILE.json]
    python -m eval context DATA/validate --peers rootsift@16 [--test DATA/heldout]

Protocol. The pairs of ``m95`` of scenes with cameras; seeds (mutual nearest neighbours) and candidates are labelled by
the epipolar distance. The first round sees distance and ratio of the seeds, the second one their support by neighbours
too, weighted by the probabilities of the first, and the third one judges candidates
(``kornia_bingan.matching.context``). Maximum likelihood with a small ridge on standardised numbers; scenes have equal
weight, and the pairs of a scene. Judged by leaving one scene out: correct matches at 95 % precision, of the mutual
nearest neighbours by the ratio of both directions, and of what is matched in context by the probability; Brier score,
expected calibration error and reliability of ten bins of the latter; milliseconds a pair of one thread, the search of
codes included. What is stored is fitted on all scenes; ``--test`` judges it on scenes of another split. A peer that is
named is fitted and judged instead of ours, to tell what the neighbours add from what the codes do.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.harness.columns import Column, text_of
from eval.harness.command import Split, command_line
from eval.harness.features import cached_describe
from eval.harness.matching import Norm, squared_distances
from eval.harness.metrics import matches_at_precision
from eval.harness.options import OURS_ALONE, RESULTS, MatchingOptions, setup
from eval.harness.peers import Peer
from eval.harness.problems import Problem, epipolar_errors_px, load_problems
from eval.harness.records import write_json
from eval.quality.calibrate import reliability
from eval.quality.m95 import PRECISION, THRESHOLD_PX
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.matching.context import (
    ContextModel,
    Pair,
    candidates,
    compare,
    compare_nearest,
    logistic,
    match_pair,
    ratios,
    seed_features,
)

Floats = NDArray[np.float64]

COLUMNS = (
    Column("scene", "scene"),
    Column("matches", "matches", ",", views=("text",)),
    Column("right", "correct", ",", views=("text",)),
    Column("M95, ratio", "m95_ratio", ",", best="most"),
    Column("M95, context", "m95_context", ",", best="most"),
    Column("x", lambda r: r["m95_context"] / max(r["m95_ratio"], 1), ".3f", best="most"),
    Column("Brier score", "brier", ".4f", best="least"),
    Column("calibration error", "calibration_error", ".4f", best="least"),
    Column("ms a pair", "ms_per_pair", ".1f", best="least"),
)


class LabelledPair:
    """A pair of photos of which it is known which keypoints may be matched.

    Attributes:
        rows, keypoints: of both photos.
        search: finds the nearest of the rows.
        pair: what was found, see :func:`kornia_bingan.matching.context.compare`.
    """

    def __init__(self, norm: Norm, rows: Sequence[Any], keypoints: Sequence[Keypoints], matrix: Floats) -> None:
        self.keypoints, self.matrix = keypoints, matrix
        self.rows, self.search = rows, compare if norm == "hamming" else compare_floats
        self.pair = self.compare()

    def compare(self) -> Pair:
        """Search, by one thread."""
        return self.search(self.rows[0], self.rows[1], self.keypoints[0], self.keypoints[1], 1)

    def correct(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which rows of both photos (M, 2) agree with the cameras, bool (M,)."""
        errors = epipolar_errors_px(self.matrix, *(self.keypoints[k].xy[rows[:, k]] for k in (0, 1)))
        return errors < THRESHOLD_PX


def compare_floats(
    values0: Floats, values1: Floats, keypoints0: Keypoints, keypoints1: Keypoints, num_threads: int | None = None
) -> Pair:
    """Compare descriptors of unit length and real values as codes are compared."""
    distances = np.sqrt(squared_distances(values0, values1)).astype(np.float32)
    found = [(each.argmin(1), np.sort(np.partition(each, 1, 1)[:, :2], 1)) for each in (distances, distances.T)]
    return compare_nearest(
        (found[0], found[1]), lambda rows: distances[rows[:, 0], rows[:, 1]], 2, keypoints0, keypoints1
    )


def pairs_of(peer: Peer, problem: Problem, describe: Any) -> list[LabelledPair]:
    """Compare all pairs of a scene."""
    rows = [describe(image, points) for image, points in zip(problem.images, problem.keypoints, strict=True)]
    return [
        LabelledPair(peer.norm, (rows[i], rows[j]), (problem.keypoints[i], problem.keypoints[j]), F)
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


def fit(scenes: Sequence[Sequence[LabelledPair]], bits: int) -> ContextModel:
    """Fit all rounds; scenes have equal weight, and the pairs of a scene."""
    pairs = [(each, 1 / len(scene)) for scene in scenes for each in scene]
    seeds = [each.pair.seeds for each, _ in pairs]
    values = [seed_features(each.pair, None) for each, _ in pairs]
    alone = _fit_on(pairs, seeds, values)
    values = [seed_features(each.pair, logistic(v, alone)) for (each, _), v in zip(pairs, values, strict=True)]
    supported = _fit_on(pairs, seeds, values)
    found = [candidates(each.pair, logistic(v, supported)) for (each, _), v in zip(pairs, values, strict=True)]
    judged = _fit_on(pairs, [each.rows for each in found], [each.values for each in found])
    return ContextModel(bits, (alone, supported, judged))


def _fit_on(
    pairs: Sequence[tuple[LabelledPair, float]],
    rows: Sequence[NDArray[np.int64]],
    values: Sequence[NDArray[np.float32]],
) -> tuple[float, ...]:
    correct = [each.correct(r) for (each, _), r in zip(pairs, rows, strict=True)]
    weights = [np.full(len(r), weight / max(len(r), 1)) for (_, weight), r in zip(pairs, rows, strict=True)]
    return fit_round(np.concatenate(values).astype(np.float64), np.concatenate(correct), np.concatenate(weights))


def m95(score: Floats, correct: NDArray[np.bool_]) -> int:
    """Count correct matches at 95 % precision, the largest scores first."""
    return int(matches_at_precision(-score, correct, PRECISION, ties="in order").num_correct)


def judge(name: str, pairs: Sequence[LabelledPair], model: ContextModel) -> dict[str, Any]:
    """Score a model on a scene that it was not fitted on."""
    started = time.process_time()
    found = [match_pair(each.compare(), model, 0) for each in pairs]
    seconds = time.process_time() - started
    probability = np.concatenate([p[:, 0] for p, _ in found]).astype(np.float64)
    correct = np.concatenate([each.correct(rows) for each, (_, rows) in zip(pairs, found, strict=True)])
    seeds = [(each.pair, each.pair.seeds) for each in pairs]
    ratio = np.concatenate([np.maximum(*ratios(pair, rows, pair.distances(rows))) for pair, rows in seeds])
    return {
        "scene": name,
        "pairs": len(pairs),
        "matches": len(correct),
        "correct": int(correct.sum()),
        "m95_ratio": m95(-ratio, np.concatenate([each.correct(each.pair.seeds) for each in pairs])),
        "m95_context": m95(probability, correct),
        **reliability(probability, correct),
        "ms_per_pair": round(1000 * seconds / len(pairs), 2),
    }


@command_line("context")
def main(data: Split, shared: MatchingOptions = OURS_ALONE, test: Path | None = None) -> int:
    """Fit the model, and judge it.

    Args:
        test: folder of another split, whose scenes with cameras the model is judged on, too.
    """
    run = setup("context", data, shared)
    peer = run.peers[0] if shared.peers != OURS_ALONE.peers else next(p for p in run.peers if p.norm == "hamming")
    bits = 8 * peer.num_bytes
    problems = list(load_problems(run.data, run.only, run.cache, with_sequences=False))
    if len(problems) < 2:
        raise UsageError(f"{run.data} has {len(problems)} scenes with cameras; one is left out in turn, give 2 or more")
    describe = cached_describe(peer, run.cache)
    scenes = {problem.name: pairs_of(peer, problem, describe) for problem in problems}
    rows = [
        judge(name, pairs, fit([other for key, other in scenes.items() if key != name], bits))
        for name, pairs in scenes.items()
    ]
    model = fit(list(scenes.values()), bits)
    out = shared.out or RESULTS / f"context-{peer.name.partition('@')[0]}.json"
    context = {"bits": bits, "rounds": [list(each) for each in model.rounds]}
    record = run.record("context")
    tested = []
    if test is not None:
        record["command"] += f" --test DATA/{test.resolve().name}"
        others = list(load_problems(test, run.only, run.cache, with_sequences=False))
        tested = [judge(problem.name, pairs_of(peer, problem, describe), model) for problem in others]
    write_json(out, {**record, "context": context, "results": rows, "tested": tested})
    print(text_of(COLUMNS, rows))
    if tested:
        print(text_of(COLUMNS, tested))
    return 0
