"""Training runs side by side: what each term of the objective brings, at equal steps.

    python -m eval ablation RUN [RUN ...] [--out eval/results/ablation.json]

Reads the folders that ``bingan train`` wrote, or a JSON file that this command wrote before for all of its runs, and
compares their validation curves; all must have been validated on the same data. A run of this kind fluctuates, so the
table has the first value (the untrained network), the last one, and the mean of the last half of the curve. The curves
are drawn beside the JSON as SVG.

Where runs differ by nothing but their seeds, a second table has the mean of their last values and the difference to the
first row, of runs of one seed, with the 95 % interval of Student's t: validation draws other pictures for each seed, so
that only differences within a seed say what a term brings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from scipy.stats import t as student

from eval.harness.columns import Column, Row, text_of
from eval.harness.command import OptionalOut, Paths, command_line
from eval.show.curves import Line, Panel, svg_panels
from eval.training.runs import read_log, rows_of_runs, write_runs
from kornia_bingan.errors import UsageError
from kornia_bingan.work.files import atomic_path

PATCH_MEASURES = {"fpr95": "codes", "fpr95_median": "codes, median threshold", "fpr95_descriptor": "float"}
PICTURE_MEASURES = {"map": "codes", "map_median": "codes, median threshold"}
TITLES = {"fpr95": "FPR@95 (%)", "map": "mAP@1000 (%)"}
TERMS = {"GAN": "lambda_gan", "DMR": "lambda_dmr", "BRE": "lambda_bre", "two views": "lambda_two_view"}
SETTINGS = ("network", *TERMS.values(), "standardise", "normalise", "bits", "batch_size", "seed")
SAME = ("data", "train", "validate", "validation_pairs")


def read_run(folder: Path) -> dict[str, Any]:
    """Read a run: its settings, cost, and validation curve.

    Raises:
        UsageError: the folder holds no run with a validation.
    """
    try:
        about, curve, steps = read_log(folder)
        config = about["config"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder} holds no training run: {error}") from error
    if not curve or not steps:
        raise UsageError(f"{folder} has no validation or no steps yet")
    measures = measures_of(curve[0])
    late = [row for row in curve if row["step"] >= curve[-1]["step"] / 2]
    return {
        "run": folder.name,
        **{name: config.get(name) for name in SETTINGS},
        "same": {name: Path(config[name]).name if name == "data" else config[name] for name in SAME},
        "steps": steps[-1]["step"],
        "seconds": steps[-1]["seconds"],
        "patches": steps[-1]["step"] * config["batch_size"],
        "untrained": {name: curve[0][name] for name in measures},
        "last": {name: curve[-1][name] for name in measures},
        "late_mean": {name: round(sum(row[name] for row in late) / len(late), 2) for name in measures},
        "stuck_bits": curve[-1]["stuck_bits"],
        "curve": [{name: row[name] for name in ("step", *measures)} for row in curve],
        "provenance": about["provenance"],
    }


def measures_of(values: Mapping[str, float]) -> dict[str, str]:
    """Choose the measures that a validation has."""
    return PICTURE_MEASURES if "map" in values else PATCH_MEASURES


def measure_of(runs: Sequence[Row]) -> str:
    """Name what runs are judged by: fpr95 of patches, or map of whole pictures."""
    return next(iter(measures_of(runs[0]["last"])))


def columns(runs: list[dict[str, Any]]) -> list[Column]:
    """Give the terms of the objective, the cost, and what the runs are judged by."""
    measure = measure_of(runs)
    pictures = measure == "map"
    best: Literal["most", "least"] = "most" if pictures else "least"
    flag = "normalise" if pictures else "standardise"

    def score(key: str) -> Callable[[Row], float]:
        return lambda run: float(run[key][measure])

    return [
        Column("run", "run"),
        *([Column("bits", "bits")] if pictures else []),
        *(Column(name, key, "g") for name, key in TERMS.items()),
        Column("normalised before the sign" if pictures else "standardised", lambda run: "yes" if run[flag] else "no"),
        Column(f"{'pictures' if pictures else 'patches'} seen", "patches", ","),
        Column("minutes", lambda run: run["seconds"] / 60, ".0f", best="least"),
        Column(f"{TITLES[measure]} untrained", score("untrained"), ".1f"),
        Column("mean of the second half", score("late_mean"), ".1f", best=best),
        Column("last", score("last"), ".1f", best=best),
        Column("stuck bits", "stuck_bits", views=("text", "page")),
    ]


def over_seeds(runs: Sequence[Row]) -> list[Row]:
    """Join runs that differ by their seeds only; the first of them all is what the others are compared with.

    Returns:
        A row for each recipe: its settings, ``seeds``, ``last`` (mean), ``difference`` and its ``interval``; None
        where fewer than two seeds are shared with the first recipe.
    """
    measure = measure_of(runs)
    recipes: dict[tuple[Any, ...], dict[int, Row]] = {}
    for run in runs:
        key = tuple(run[name] for name in (*SETTINGS, "steps") if name != "seed")
        if run["seed"] in recipes.get(key, {}):  # something else differs, which the settings do not tell
            key = (*key, run["run"])
        recipes.setdefault(key, {})[run["seed"]] = run
    reference = next(iter(recipes.values()))
    rows: list[Row] = []
    for by_seed in recipes.values():
        last = {seed: float(run["last"][measure]) for seed, run in by_seed.items()}
        shared = [last[seed] - float(reference[seed]["last"][measure]) for seed in last if seed in reference]
        compared = by_seed is not reference and len(shared) > 1
        first = next(iter(by_seed.values()))
        rows.append(
            {
                **{name: first[name] for name in (*SETTINGS, "steps", "patches") if name != "seed"},
                "seeds": len(by_seed),
                "seconds": mean(run["seconds"] for run in by_seed.values()),
                "last": mean(last.values()),
                "difference": mean(shared) if compared else None,
                "interval": _t_interval(shared) if compared else None,
            }
        )
    return rows


def _t_interval(values: list[float]) -> tuple[float, float]:
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return mean(values) - half, mean(values) + half


def seed_columns(rows: Sequence[Row]) -> list[Column]:
    """Give the terms, and what they bring over several seeds."""
    return [
        *(Column(name, key, "g") for name, key in TERMS.items()),
        Column("seeds", "seeds"),
        Column("seen", "patches", ","),
        Column("minutes", lambda row: row["seconds"] / 60, ".1f", best="least"),
        Column("last, mean", "last", ".2f"),
        Column("difference to the first row", "difference", "+.2f", interval="interval"),
    ]


@command_line("ablation")
def main(runs: Paths, out: OptionalOut = None) -> int:
    rows = rows_of_runs(runs, "ablation", read_run)
    for row in rows[1:]:
        if row["same"] != rows[0]["same"]:
            raise UsageError(f"{row['run']} was validated on {row['same']}, {rows[0]['run']} on {rows[0]['same']}")
    print(text_of(columns(rows), rows))
    joined = over_seeds(rows)
    if len(joined) < len(rows):
        print("\n" + text_of(seed_columns(joined), joined))
    write_runs("ablation", rows, out)
    if out is not None:
        title = TITLES[measure_of(rows)]
        panels = []
        for name, way in measures_of(rows[0]["last"]).items():
            lines = [
                Line(row["run"], [p["step"] for p in row["curve"]], [p[name] for p in row["curve"]]) for row in rows
            ]
            panels.append(Panel(f"{title}, {way}", lines))
        top = max(value for panel in panels for line in panel.lines for value in line.y)
        limits = (0, 100 if top > 40 else 40)
        with atomic_path(out.with_suffix(".svg")) as temporary:
            temporary.write_text(svg_panels(panels, "step", title, limits), encoding="utf-8")
    return 0
