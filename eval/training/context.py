"""How likely is a match right, seen with its neighbours? Models that are fitted on scenes with true cameras.

    python -m eval context DATA/validate [--ours bingan256] [--more SCENES] [--test DATA/heldout] [--out FILE.json]
    python -m eval context DATA/validate --peers rootsift@16 [--more SCENES] [--test DATA/heldout]

Protocol. The pairs of ``m95`` of scenes with cameras; seeds (mutual nearest neighbours) and candidates are labelled by
the epipolar distance. The first round sees distance and ratio of the seeds, the second one their support by neighbours
too, weighted by the probabilities of the first: logistic models, by maximum likelihood with a small ridge on
standardised numbers. The third one, a perceptron with two layers of ``WIDTH`` units, judges candidates
(``kornia_bingan.matching.context``). Scenes have equal weight, and the pairs of a scene, of which ``MOST_PAIRS`` are
drawn. ``--more`` names a folder of further scenes to fit on, such as own reconstructions by ``bingan scene OUT
SCENES/NAME --for 3dgs``. Judged by leaving one scene out: correct matches at 95 % precision, of the mutual nearest
neighbours by the ratio of both directions, and of what is matched in context by the probability; Brier score, expected
calibration error and reliability of ten bins of the latter; milliseconds a pair of one thread, the search of codes
included. What is stored is fitted on all scenes; ``--test`` judges it on scenes of another split. A peer that is named
is fitted and judged instead of ours, to tell what the neighbours add from what the codes do.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eval.harness.columns import Column, text_of
from eval.harness.command import Split, command_line
from eval.harness.data import find_scenes
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

WIDTH, EPOCHS, BATCH, RATE, DECAY = 24, 12, 2048, 5e-3, 1e-2
"""Of the perceptron and its training by AdamW: units a layer, passes, candidates a step, largest rate, decay."""

MOST_PAIRS, SEED = 60, 0
"""Pairs of a scene that a model is fitted to, and the seed of what is drawn."""

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
    every = np.sqrt(squared_distances(values0, values1)).astype(np.float32)
    found = [(each.argmin(1), np.sort(np.partition(each, 1, 1)[:, :2], 1)) for each in (every, every.T)]

    def distances(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        apart = values0[rows[:, 0]] - values1[rows[:, 1]]
        return np.asarray(np.linalg.norm(apart, axis=1), np.float32)

    return compare_nearest((found[0], found[1]), distances, 2, keypoints0, keypoints1)


def pairs_of(peer: Peer, problem: Problem, describe: Any) -> list[LabelledPair]:
    """Compare all pairs of a scene."""
    rows = [describe(image, points) for image, points in zip(problem.images, problem.keypoints, strict=True)]
    return [
        LabelledPair(peer.norm, (rows[i], rows[j]), (problem.keypoints[i], problem.keypoints[j]), F)
        for (i, j), F in zip(problem.pairs, problem.matrices, strict=True)
    ]


def some_of(pairs: Sequence[LabelledPair]) -> list[LabelledPair]:
    """Draw ``MOST_PAIRS`` at most, in their order."""
    drawn = np.random.default_rng(SEED).permutation(len(pairs))[:MOST_PAIRS]
    return [pairs[k] for k in sorted(drawn)]


def fit_round(values: Floats, correct: NDArray[np.bool_], weights: Floats) -> tuple[float, ...]:
    """Fit one logistic model; its coefficients are of the values as they are, the intercept last.

    Raises:
        UsageError: all matches are right, or all wrong.
    """
    _check_both(correct)
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


def fit_perceptron(values: Floats, correct: NDArray[np.bool_], weights: Floats) -> tuple[Floats, ...]:
    """Fit :func:`kornia_bingan.matching.context.perceptron` by AdamW on weighted log loss; one cycle of the rate.

    Raises:
        UsageError: all matches are right, or all wrong.
    """
    _check_both(correct)
    generator = torch.Generator().manual_seed(SEED)
    weights = weights / weights.sum()
    mean = weights @ values
    deviation = np.sqrt(weights @ (values - mean) ** 2) + 1e-9
    x = torch.tensor((values - mean) / deviation, dtype=torch.float32)
    right = torch.tensor(correct, dtype=torch.float32)
    weight = torch.tensor(weights * len(weights), dtype=torch.float32)
    layers = []
    for inputs, outputs in ((x.shape[1], WIDTH), (WIDTH, WIDTH), (WIDTH, 1)):
        bound = inputs**-0.5
        start = (2 * torch.rand(inputs + 1, outputs, generator=generator) - 1) * bound
        layers.append(start.requires_grad_())
    batches = -(-len(x) // BATCH)
    optimizer = torch.optim.AdamW(layers, RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * batches + 1)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=generator).tensor_split(batches):
            y = x[rows]
            for layer in layers[:-1]:
                y = (y @ layer[:-1] + layer[-1]).relu()
            log_odds = (y @ layers[-1][:-1] + layers[-1][-1])[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(log_odds, right[rows], weight[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    first, *others = (layer.detach().numpy().astype(np.float64) for layer in layers)
    slopes = first[:-1] / deviation[:, None]
    first = np.vstack([slopes, first[-1] - mean @ slopes])
    return tuple(each.round(5) for each in (first, *others))


def _check_both(correct: NDArray[np.bool_]) -> None:
    if correct.all() or not correct.any():
        raise UsageError("a model of context needs right and wrong matches")


def fit(scenes: Sequence[Sequence[LabelledPair]], bits: int) -> ContextModel:
    """Fit all rounds; scenes have equal weight, and the pairs of a scene."""
    pairs = [(each, 1 / len(scene)) for scene in scenes for each in scene]
    seeds = [each.pair.seeds for each, _ in pairs]
    values = [seed_features(each.pair, None) for each, _ in pairs]
    alone = fit_round(*_labelled(pairs, seeds, values))
    values = [seed_features(each.pair, logistic(v, alone)) for (each, _), v in zip(pairs, values, strict=True)]
    supported = fit_round(*_labelled(pairs, seeds, values))
    found = [candidates(each.pair, logistic(v, supported)) for (each, _), v in zip(pairs, values, strict=True)]
    layers = fit_perceptron(*_labelled(pairs, [each.rows for each in found], [each.values for each in found]))
    return ContextModel(bits, (alone, supported), layers)


def _labelled(
    pairs: Sequence[tuple[LabelledPair, float]],
    rows: Sequence[NDArray[np.int64]],
    values: Sequence[NDArray[np.float32]],
) -> tuple[Floats, NDArray[np.bool_], Floats]:
    correct = [each.correct(r) for (each, _), r in zip(pairs, rows, strict=True)]
    weights = [np.full(len(r), weight / max(len(r), 1)) for (_, weight), r in zip(pairs, rows, strict=True)]
    return np.concatenate(values).astype(np.float64), np.concatenate(correct), np.concatenate(weights)


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
def main(data: Split, shared: MatchingOptions = OURS_ALONE, more: Path | None = None, test: Path | None = None) -> int:
    """Fit the models, and judge them.

    Args:
        more: folder of further scenes with cameras that all models are fitted on, too.
        test: folder of another split, whose scenes with cameras the models are judged on, too.
    """
    run = setup("context", data, shared)
    peer = run.peers[0] if shared.peers != OURS_ALONE.peers else next(p for p in run.peers if p.norm == "hamming")
    bits = 8 * peer.num_bytes
    describe = cached_describe(peer, run.cache)

    def compared(folder: Path, only: Sequence[str] = ()) -> dict[str, list[LabelledPair]]:
        problems = load_problems(folder, only, run.cache, with_sequences=False)
        return {problem.name: pairs_of(peer, problem, describe) for problem in problems}

    if (count := len(find_scenes(run.data, run.only, with_cameras=True))) < 2:
        raise UsageError(f"{run.data} has {count} scenes with cameras; one is left out in turn, give 2 or more")
    scenes = compared(run.data, run.only)
    further = {} if more is None else compared(more)
    others = [some_of(pairs) for pairs in further.values()]
    drawn = {name: some_of(pairs) for name, pairs in scenes.items()}
    rows = [
        judge(name, pairs, fit([*(other for key, other in drawn.items() if key != name), *others], bits))
        for name, pairs in scenes.items()
    ]
    model = fit([*drawn.values(), *others], bits)
    record = run.record("context")
    record["command"] += " --more SCENES" if further else ""
    tested = []
    if test is not None:
        record["command"] += f" --test DATA/{test.resolve().name}"
        tested = [judge(name, pairs, model) for name, pairs in compared(test).items()]
    rounds, layers = [list(each) for each in model.rounds], [each.tolist() for each in model.layers]
    context = {"bits": bits, "rounds": rounds, "layers": layers}
    record |= {"context": context, "fitted_on": [*scenes, *further], "results": rows, "tested": tested}
    write_json(shared.out or RESULTS / f"context-{peer.name.partition('@')[0]}.json", record)
    print(text_of(COLUMNS, rows))
    if tested:
        print(text_of(COLUMNS, tested))
    return 0
