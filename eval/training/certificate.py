"""The birth certificate of shipped weights: recipe, machine, seconds, validation, and what was learnt from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from eval.training.runs import read_log
from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.network.published import multiply_adds
from kornia_bingan.network.weights import list_models, load_weights, read_description
from kornia_bingan.train.config import describe_config, preset_config
from kornia_bingan.work.files import sha256_of


def certificate(
    run: Path, name: str, summary: str, data: dict[str, Any], earlier: Sequence[Path] = ()
) -> dict[str, Any]:
    """Collect what is known about a finished run and those that it went on from, as JSON values.

    Raises:
        UsageError: a run is not finished, or did not start from the weights of the one before it.
    """
    stages = [stage(folder) for folder in (*earlier, run)]
    commands = [command(each["config"], number, len(stages)) for number, each in enumerate(stages, 1)]
    for before, each in pairwise(stages):
        start = each["config"]["start"]
        if not start or start["sha256"] != before["sha256"]:
            raise UsageError(f"{each['run']} did not start from the weights of {before['run']}; name the right runs")
    weights = run / "weights.safetensors"
    about, validations, steps = read_log(run)
    network = load_weights(weights)
    training = read_description(weights)["training"]
    return {
        "name": name,
        "summary": summary,
        "sha256": sha256_of(weights),
        "bits": network.bits,
        "multiply_adds": multiply_adds(network),
        "network": type(network).__name__,
        "arguments": network.arguments(),
        "training": training,
        "command": " && ".join(commands),
        "stages": [{key: each[key] for key in ("steps", "batch_size", "seed", "seconds", "commit")} for each in stages],
        "seconds": sum(each["seconds"] for each in stages),
        "validation": validations,
        "last_losses": steps[-1],
        "provenance": about["provenance"],
        "data": data,
    }


def stage(run: Path) -> dict[str, Any]:
    """Read what a finished run was.

    Raises:
        UsageError: it has no weights.
    """
    weights = run / "weights.safetensors"
    if not weights.is_file():
        raise UsageError(f"{run} has no weights.safetensors; finish the training first")
    run_about, _, steps = read_log(run)
    config = read_description(weights)["training"]["config"]
    about = {key: config[key] for key in ("steps", "batch_size", "seed")}
    about |= {"seconds": steps[-1]["seconds"], "commit": run_about["provenance"]["commit"]}
    return {"run": run.name, "config": config, "sha256": sha256_of(weights), **about}


def command(config: dict[str, Any], number: int = 1, stages: int = 1) -> str:
    """Write the command that trains with a configuration: the preset and what differs from it.

    Args:
        config: of the weights file.
        number: which of the stages this is; a later one starts from the weights of the one before.
        stages: how many there are.
    """
    preset = config["preset"]
    base = describe_config(preset_config(preset, Path(), Path()))
    words = [f"bingan train --data PHOTOS --out RUN{number if stages > 1 else ''} --preset {preset}"]
    if config.get("start"):
        words.append(
            f"--from RUN{number - 1}/weights.safetensors" if number > 1 else f"--from {shipped_name(config['start'])}"
        )
    for key, value in config.items():
        if key in base and value != base[key] and key not in ("preset", "data", "out", "start"):
            if isinstance(value, dict):
                changed = {k: v for k, v in value.items() if v != base[key][k]}
                words += [f"--{key}.{k.replace('_', '-')} {v}" for k, v in changed.items()]
            elif key == "tracks":
                words.append("--tracks " + " ".join(value))
            elif isinstance(value, list):
                words.append(f"--{key.replace('_', '-')} " + " ".join(str(x) for row in value for x in row))
            else:
                words.append(f"--{key.replace('_', '-')} {value}")
    return " ".join(words)


def shipped_name(start: dict[str, Any]) -> str:
    """Name the shipped weights that a run started from; what their file was called then, where they are not shipped."""
    return next((model.name for model in list_models() if model.sha256 == start["sha256"]), str(start["name"]))


def read_licences(path: Path | None, manifest: Path | None) -> dict[str, Any]:
    """Read which sources a folder of photos has, and what their licences are stated to be.

    Args:
        path: Markdown with rows ``| train | source | licence |``.
        manifest: JSON, photo -> {"source": ...}.
    """
    if path is None:
        return {"sources": []}
    stated = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 3 and cells[0] == "train":
            stated[cells[1]] = cells[2]
    counts: dict[str, int] = {}
    if manifest is not None:
        for entry in json.loads(manifest.read_text(encoding="utf-8")).values():
            counts[entry["source"]] = counts.get(entry["source"], 0) + 1
    rows = [{"source": source, "photos": counts.get(source, 0), "licence": text} for source, text in stated.items()]
    return {"sources": [row for row in rows if row["photos"] or not counts]}


def read_credits(photos: Path, manifest: Path) -> dict[str, Any]:
    """Read who made the photos of a folder, and under which licence each is.

    Args:
        photos: what the run learnt from.
        manifest: JSON, a list of entries with ``sha256``, ``source``, ``licence`` and ``author`` of a photo.

    Raises:
        UsageError: a photo of the folder is not in the manifest.
    """
    known = {entry["sha256"]: entry for entry in json.loads(manifest.read_text(encoding="utf-8"))}
    authors: dict[tuple[str, str], list[str]] = {}
    for path in (photos / name for name in list_images(photos)[0]):
        entry = known.get(sha256_of(path))
        if entry is None:
            raise UsageError(f"{path} is not in {manifest}, so its licence is not known; leave it out of the training")
        authors.setdefault((entry["source"], entry["licence"]), []).append(entry["author"])
    rows = [
        {"source": source, "licence": licence, "photos": len(names), "credit": ", ".join(sorted({*names} - {""}))}
        for (source, licence), names in sorted(authors.items())
    ]
    return {"sources": [], "credits": rows}
