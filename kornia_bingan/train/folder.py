"""The folder of a training run: made once, and taken up again only by the same run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kornia_bingan.errors import UsageError
from kornia_bingan.network.weights import find_weights
from kornia_bingan.train import processes
from kornia_bingan.train.batches import Source
from kornia_bingan.train.config import TrainConfig, describe_config
from kornia_bingan.train.state import TrainingState, read_checkpoint
from kornia_bingan.work.files import atomic_path, sha256_of, write_json
from kornia_bingan.work.provenance import provenance

NOT_IDENTITY = ("out", "time_limit", "checkpoint_every", "tensorboard")
"""Settings that may differ when a run is continued."""

LATE = ("steps", "neighbours")
"""Settings that say what happens while the rate of the trapezoid falls; until then they may change."""


def open_run(config: TrainConfig, source: Source) -> None:
    """Make the run folder, or check that it holds the same run."""
    identity = {k: v for k, v in describe_config(config).items() if k not in NOT_IDENTITY}
    identity.update(source.contents, processes=processes.world())
    if config.start:
        identity["start_sha256"] = sha256_of(find_weights(config.start))
    path = config.out / "run.json"
    if path.exists():
        run = json.loads(path.read_text(encoding="utf-8"))
        known = _with_younger_settings(run["identity"])
        late = {key: identity[key] for key in LATE if identity[key] != known.get(key)}
        if late and _not_yet_falling(config, known):
            for part in (known, run["identity"], run["config"]):
                part.update(late)
            run["provenance"] = provenance()  # what makes the run again is the code that knows its end
            if processes.rank() == 0:
                write_json(path, run)
        changed = sorted(key for key in identity.keys() | known.keys() if identity.get(key) != known.get(key))
        if changed:
            raise UsageError(
                f"{config.out} holds a run with other settings ({', '.join(changed)}: {known.get(changed[0])}, now "
                f"{identity.get(changed[0])}); give another --out, or the same settings to continue it"
            )
    elif processes.rank() == 0:
        config.out.mkdir(parents=True, exist_ok=True)
        write_json(path, {"identity": identity, "config": describe_config(config), "provenance": provenance()})
    processes.wait()


def _with_younger_settings(known: dict[str, Any]) -> dict[str, Any]:
    """Add the settings that are younger than a run, which had their defaults without knowing it."""
    defaults = {k: v for k, v in describe_config(TrainConfig(Path(), Path())).items() if k not in NOT_IDENTITY}
    both = {**defaults, **known}
    return {k: {**defaults[k], **v} if isinstance(v, dict) and k in defaults else v for k, v in both.items()}


def _not_yet_falling(config: TrainConfig, known: dict[str, Any]) -> bool:
    """Say whether a run can still get another end: a trapezoid whose rate falls by neither number of steps."""
    if not config.schedule == known.get("schedule") == "trapezoid":
        return False
    checkpoint = config.out / "checkpoint.pt"
    step = read_checkpoint(checkpoint, torch.device("cpu"))["step"] if checkpoint.exists() else 0
    return bool(step <= min(config.falls_from, replace(config, steps=known["steps"]).falls_from))


def check_out(out: Path) -> None:
    """Refuse a folder that holds something else, before photos are read for an hour."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; give a folder as --out")
    if out.exists() and not (out / "run.json").exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no run; give another --out")


def resume(config: TrainConfig, state: TrainingState) -> None:
    """Go back to the checkpoint, and cut the log there: later lines belong to steps that are taken again."""
    checkpoint, log = config.out / "checkpoint.pt", config.out / "log.jsonl"
    if checkpoint.exists():
        state.load(checkpoint)
    if log.exists() and processes.rank() == 0:
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= state.step] if checkpoint.exists() else []
        with atomic_path(log) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
