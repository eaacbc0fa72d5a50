"""Training runs side by side: what each term of the objective brings, at equal steps.

    python -m eval ablation RUN [RUN ...] [--out eval/results/ablation.json]

Reads the folders that ``bingan train`` wrote, or a JSON file that this command wrote before for all of its runs, and
compares their validation curves; all must have been validated on the same pairs. A run of this kind fluctuates, so the
table has the first value (the untrained network), the last one, and the mean of the last half of the curve. The curves
are drawn beside the JSON as SVG.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from eval.curves import Line, Panel, svg_panels
from eval.options import rows_of_runs
from kornia_bingan.errors import UsageError
from kornia_bingan.files import atomic_path, write_json
from kornia_bingan.report import text_table

MEASURES = ("fpr95", "fpr95_median", "fpr95_descriptor")
SETTINGS = ("network", "lambda_gan", "lambda_dmr", "lambda_bre", "lambda_two_view", "standardise", "batch_size", "seed")
SAME = ("data", "train", "validate", "validation_pairs")


def read_run(folder: Path) -> dict[str, Any]:
    """Read a run: its settings, cost, and validation curve.

    Raises:
        UsageError: the folder holds no run with a validation.
    """
    try:
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        config = about["config"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder} holds no training run: {error}") from error
    curve = [line for line in lines if line["kind"] == "validation"]
    steps = [line for line in lines if line["kind"] == "train"]
    if not curve or not steps:
        raise UsageError(f"{folder} has no validation or no steps yet")
    late = [row for row in curve if row["step"] >= curve[-1]["step"] / 2]
    return {
        "run": folder.name,
        **{name: config[name] for name in SETTINGS},
        "same": {name: Path(config[name]).name if name == "data" else config[name] for name in SAME},
        "steps": steps[-1]["step"],
        "seconds": steps[-1]["seconds"],
        "patches": steps[-1]["step"] * config["batch_size"],
        "untrained": {name: curve[0][name] for name in MEASURES},
        "last": {name: curve[-1][name] for name in MEASURES},
        "late_mean": {name: round(sum(row[name] for row in late) / len(late), 2) for name in MEASURES},
        "stuck_bits": curve[-1]["stuck_bits"],
        "curve": [{name: row[name] for name in ("step", *MEASURES)} for row in curve],
        "provenance": about["provenance"],
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Render the runs as text."""
    header = ["run", "gan", "dmr", "bre", "two view", "standardised", "patches seen", "minutes"]
    header += ["FPR@95 untrained", "late mean", "last", "stuck bits"]
    rows = [
        [
            run["run"],
            *(f"{run[f'lambda_{term}']:g}" for term in ("gan", "dmr", "bre", "two_view")),
            "yes" if run["standardise"] else "no",
            f"{run['patches']:,}",
            f"{run['seconds'] / 60:.0f}",
            *(f"{run[key]['fpr95']:.1f}" for key in ("untrained", "late_mean", "last")),
            str(run["stuck_bits"]),
        ]
        for run in runs
    ]
    return text_table(header, rows)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval ablation")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    runs = rows_of_runs(arguments.runs, "ablation", read_run)
    for run in runs[1:]:
        if run["same"] != runs[0]["same"]:
            raise UsageError(f"{run['run']} was validated on {run['same']}, {runs[0]['run']} on {runs[0]['same']}")
    print(table(runs))
    if arguments.out:
        command = "python -m eval ablation " + " ".join(run["run"] for run in runs)
        write_json(arguments.out, {"protocol": "ablation", "command": command, "results": runs})
        panels = []
        for name, title in (
            ("fpr95", "codes"),
            ("fpr95_median", "codes, median threshold"),
            ("fpr95_descriptor", "float"),
        ):
            lines = [
                Line(run["run"], [row["step"] for row in run["curve"]], [row[name] for row in run["curve"]])
                for run in runs
            ]
            panels.append(Panel(f"FPR@95 (%), {title}", lines))
        with atomic_path(arguments.out.with_suffix(".svg")) as temporary:
            temporary.write_text(svg_panels(panels, "step", "FPR@95 (%)", (0, 100)), encoding="utf-8")
    return 0
