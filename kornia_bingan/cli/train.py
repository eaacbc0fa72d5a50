"""``bingan train``: the options of a training, whose defaults are those of a preset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import tyro

from kornia_bingan.errors import UsageError
from kornia_bingan.report.text import skipped_lines, text_table
from kornia_bingan.train import loop
from kornia_bingan.train.config import PRESETS, TrainConfig, preset_config

Start = tyro.conf.arg(name="from", aliases=("--start",))


@dataclass(frozen=True)
class TrainOptions(TrainConfig):
    """What decides a training, as the command line takes it.

    Attributes:
        json: print one JSON object on stdout instead of a table.
    """

    start: Annotated[str, Start] = ""
    json: bool = False


@dataclass(frozen=True)
class _Choice:
    """What decides the defaults: going on from weights needs other settings than a start from nothing."""

    preset: str | None = None
    start: Annotated[str | None, Start] = None


def train(arguments: Sequence[str]) -> int:
    """Parse the arguments in two steps, so that --help and the defaults are those of the preset, and train."""
    try:
        choice, _ = tyro.cli(_Choice, args=arguments, return_unknown_args=True, add_help=False, console_outputs=False)
    except SystemExit:  # the second step says what is wrong
        choice = _Choice()
    preset = choice.preset or ("photos" if choice.start is None else "adapt")
    if preset not in PRESETS:
        raise UsageError(f"the preset is '{preset}'; choose one of {', '.join(PRESETS)}")
    required: Any = tyro.MISSING
    options = tyro.cli(
        TrainOptions,
        prog="bingan train",
        description="Train on photos or on patch sets, without labels. The defaults are those of --preset.",
        default=TrainOptions(**vars(preset_config(preset, required, required))),
        args=arguments,
    )
    result = loop.train(TrainConfig(**{field.name: getattr(options, field.name) for field in fields(TrainConfig)}))
    rows = [[name, "", str(value)] for name, value in result.items() if not isinstance(value, dict | list)]
    before = result["before"]
    for name, value in result["validation"].items():
        rows.append([name, f"{before[name]:.4g}" if name in before else "", f"{value:.4g}"])
    table = text_table(["", "before", "after"], rows) + skipped_lines(result["skipped"])
    print(json.dumps(result) if options.json else table)
    return 0
