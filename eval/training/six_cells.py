"""The six cells of the article's table: learnt on one patch set, tested on each of the two others.

    python -m eval six_cells SETS RUNS [--sets liberty notredame yosemite] [--steps N] [--train-pairs 50000]
                             [--pairs 10000] [--preset brown] [--out eval/results/six-cells.json]

SETS holds the three sets in Brown's layout; they cannot be shipped, see :mod:`kornia_bingan.datasets.brown_files`. RUNS
gets one run folder for each set; run it again to resume after a kill, and makes longer runs of nothing: give another
RUNS for other settings. FPR@95 in percent, of the codes at threshold 0, on the pairs of ``m50_A_A_0.txt``:

- ``fpr95``: the whole list, the smallest distance at which 95 % of the matches are accepted;
- ``published``: the same by the published code's rank; ``first_half`` by that rank on the first half of the list, which
  is most probably what the published figures are (docs/article.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.harness.command import GIVEN, Out, Place, command_line
from eval.harness.metrics import fpr95, fpr95_published
from eval.harness.options import RESULTS
from eval.harness.records import write_json
from eval.quality.brown import describe_with_network
from eval.show.training_tables import PUBLISHED_BROWN
from kornia_bingan.bits import pack
from kornia_bingan.datasets.brown import read_patch_set
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.network.weights import load_weights
from kornia_bingan.report.text import text_table
from kornia_bingan.train.config import preset_config
from kornia_bingan.train.loop import train
from kornia_bingan.work.files import sha256_of
from kornia_bingan.work.provenance import provenance

_CELLS = (
    ("yosemite", "notredame"),
    ("yosemite", "liberty"),
    ("notredame", "yosemite"),
    ("notredame", "liberty"),
    ("liberty", "notredame"),
    ("liberty", "yosemite"),
)
PUBLISHED = {
    name: (dict(zip(_CELLS, values, strict=True)), f"{source} ({sure})")
    for name, *values, source, sure in PUBLISHED_BROWN
    if name in ("DeepBit", "DBD-MQ", "BinGAN")
}
"""FPR@95 in percent by (learnt on, tested on), 256 bits, no labels, and where the figures are from."""


def learn(data: Path, runs: Path, sets: Sequence[str], preset: str, changes: dict[str, Any]) -> dict[str, Path]:
    """Train on each set, validated on the next one by its list of at most 1,000 pairs; give the weights by set.

    Raises:
        JobError: a run ended at its time limit.
    """
    weights = {}
    for index, name in enumerate(sets):
        other = sets[(index + 1) % len(sets)]
        config = preset_config(preset, data, runs / name, train=name, validate=other, **changes)
        result = train(config)
        if not result["finished"]:
            raise JobError(f"{config.out} is not finished; run it again to resume")
        weights[name] = Path(result["weights"])
    return weights


def score(weights: Path, folder: Path, num_pairs: int) -> dict[str, float]:
    """Score the codes of a network on a list of pairs of a set, in percent.

    Raises:
        UsageError: the set has no such list, or its pairs are all of one kind.
    """
    network = load_weights(weights).eval()
    patch_set = read_patch_set(folder)
    index0, index1, is_match = patch_set.pairs(num_pairs)
    if is_match.all() or not is_match.any():
        raise UsageError(f"{folder}: the pairs are all of one kind")
    rows0, rows1 = (
        pack(describe_with_network(lambda part: network.describe(network.prepare(part)), patch_set.patches32(index)))
        for index in (index0, index1)
    )
    distance = np.bitwise_count(rows0 ^ rows1).sum(1).astype(np.float64)
    matches, others = distance[is_match], distance[~is_match]
    half = slice(0, len(matches) // 2), slice(0, len(others) // 2)
    return {
        "fpr95": round(fpr95(matches, others), 3),
        "published": round(fpr95_published(matches, others), 3),
        "first_half": round(fpr95_published(matches[half[0]], others[half[1]]), 3),
    }


def tables(cells: dict[tuple[str, str], dict[str, float]]) -> str:
    """Render our cells beside the published ones, and the gain of each row over DBD-MQ, as text."""
    columns = list(cells)
    rows = []

    def add(name: str, values: list[float | None], source: str) -> None:
        known = [value for value in values if value is not None]
        mean = sum(known) / len(known) if len(known) == len(columns) else None
        base = [PUBLISHED["DBD-MQ"][0].get(column) for column in columns]
        gain = None if mean is None or None in base else sum(b for b in base if b is not None) / len(base) - mean
        cell = ["" if value is None else f"{value:.2f}" for value in [*values, mean, gain]]
        rows.append([name, *cell, source])

    for kind in ("fpr95", "published", "first_half"):
        add(f"ours, {kind}", [cells[column][kind] for column in columns], "")
    for name, (published, source) in PUBLISHED.items():
        add(name, [published.get(column) for column in columns], source)
    header = [
        "FPR@95 %",
        *(f"{learnt} -> {tested}" for learnt, tested in columns),
        "mean",
        "gain over DBD-MQ",
        "source",
    ]
    return text_table(header, rows)


@command_line("six_cells")
def main(
    data: Place,
    runs: Place,
    sets: tuple[str, ...] = ("liberty", "notredame", "yosemite"),
    preset: str = "brown",
    steps: int | None = None,
    train_pairs: int = 50_000,
    batch_size: int | None = None,
    pairs: int = 10_000,
    threads: int = 1,
    seed: int = 1,
    out: Out = RESULTS / "six-cells.json",
) -> int:
    """Train and test.

    Args:
        steps: of each run; the preset's by default, 1,600,000 for brown.
        train_pairs: that are learnt from; 0 learns from all patches.
        pairs: A of m50_A_A_0.txt that is tested on.
    """
    if len(set(sets)) < 2 or len(set(sets)) != len(sets):
        raise UsageError(f"--sets {' '.join(sets)}: give two or more different sets")
    changes = {"train_pairs": train_pairs, "threads": threads, "seed": seed}
    changes |= {key: value for key, value in (("steps", steps), ("batch_size", batch_size)) if value is not None}
    weights = learn(data, runs, sets, preset, changes)
    cells = {
        (learnt, tested): score(path, data / tested, pairs)
        for learnt, path in weights.items()
        for tested in sets
        if tested != learnt
    }
    print(tables(cells))
    record = {
        "protocol": "six_cells",
        "command": " ".join(["python -m eval six_cells SETS RUNS", *GIVEN.get()[2:]]),
        "pairs": pairs,
        "results": [{"learnt": learnt, "tested": tested, **scores} for (learnt, tested), scores in cells.items()],
        "weights": {name: sha256_of(path) for name, path in weights.items()},
        "provenance": provenance(None, seed),
    }
    write_json(out, record)
    return 0
