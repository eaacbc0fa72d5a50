"""Ship a finished training run: weights, manifest, birth certificate and model card.

    python -m eval ship RUN NAME --summary "one line" [--after RUN ...] [--photos FOLDER --credits MANIFEST.json]

A run that went on from the weights of others names these with ``--after``, in their order; the recipe is then all of
their commands.

Writes ``weights/NAME.safetensors``, ``NAME.json`` (the birth certificate: recipe, machine, seconds, validation) and
``NAME.md`` (the card, rendered from it), and ``weights/manifest.json``, which takes the probabilities of matches from
``eval/results/calibration-NAME.json`` and ``context-NAME.json``. Without RUN and NAME, cards and manifest are written
again: ``python -m eval ship``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.network.published import multiply_adds
from kornia_bingan.network.weights import load_weights, read_description
from kornia_bingan.train.config import PICTURE_NETWORKS, describe_config, preset_config
from kornia_bingan.work.files import atomic_path, sha256_of, write_json

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "weights"
RESULTS = ROOT / "eval" / "results"
LARGEST_FILE = 8 * 2**20
PUBLISHED_PATCHES = 40_000_000
"""400 epochs of 100,000 patches."""


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
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    about = json.loads((run / "run.json").read_text(encoding="utf-8"))
    network = load_weights(weights)
    training = read_description(weights)["training"]
    steps = [line for line in log if line["kind"] == "train"]
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
        "stages": [{key: each[key] for key in ("steps", "batch_size", "seed", "seconds")} for each in stages],
        "seconds": sum(each["seconds"] for each in stages),
        "validation": [line for line in log if line["kind"] == "validation"],
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
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    config = read_description(weights)["training"]["config"]
    seconds = [line["seconds"] for line in log if line["kind"] == "train"][-1]
    about = {key: config[key] for key in ("steps", "batch_size", "seed")}
    return {"run": run.name, "config": config, "sha256": sha256_of(weights), "seconds": seconds, **about}


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
            f"--from RUN{number - 1}/weights.safetensors" if number > 1 else f"--from {config['start']['name']}"
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


def card(about: dict[str, Any]) -> str:
    """Render a certificate as Markdown."""
    config = about["training"]["config"]
    machine = about["provenance"]["machine"]
    lines = [
        f"# {about['name']}",
        "",
        about["summary"],
        "",
        "| | |",
        "|---|---|",
        f"| network | {about['network']}, {about['bits']} bits, {about['multiply_adds'] / 1e6:.1f} M multiply-adds |",
        f"| sha256 | `{about['sha256']}` |",
        f"| command | `{about['command']}` |",
        f"| steps | {steps_taken(about)} |",
        f"| time | {about['seconds'] / 60:.0f} minutes, {config['threads'] or 'all but one'} thread(s), "
        f"{about['training']['precision'].removeprefix('torch.')}, {machine.get('gpu', machine['cpu'])} |",
        f"| data | {contents(about['training'])} |",
        f"| commit | {about['provenance']['commit']} |",
        "",
        f"{validated_on(about['training']['config'])}, at the end of training (before training in brackets):",
        "",
        *validated(about),
    ]
    lines += measured_results(about)
    if about["data"]["sources"]:
        lines += ["", "Trained on photos of these repositories; the licence is what each states, and need not cover "]
        lines[-1] += "every photo in it. The photos are not part of this package."
        lines += ["", "| source | photos | licence as stated |", "|---|--:|---|"]
        lines += [f"| {row['source']} | {row['photos'] or ''} | {row['licence']} |" for row in about["data"]["sources"]]
    if credited := about["data"].get("credits"):
        lines += ["", "Trained on these photos and no others, which are not part of this package:"]
        lines += ["", "| source | photos | licence | credit |", "|---|--:|---|---|"]
        lines += [
            f"| {r['source']} | {r['photos']} | {r['licence']} | {r['credit'] or 'not stated'} |" for r in credited
        ]
    lines += ["", f"Generated from `{about['name']}.json` by `python -m eval ship`.", ""]
    return "\n".join(lines)


def steps_taken(about: dict[str, Any]) -> str:
    """Say how many steps of what the stages of a recipe took."""
    stages = about.get("stages") or [about["training"]["config"]]
    return ", then ".join(f"{s['steps']:,} of {s['batch_size']:,} {unit(about)}, seed {s['seed']}" for s in stages)


def unit(about: dict[str, Any]) -> str:
    """Name what a batch holds."""
    return "pictures" if about["network"] in PICTURE_NETWORKS else "keypoints"


def validated(about: dict[str, Any]) -> list[str]:
    """Give the last validation beside the first one, as a table of one row."""
    first, last = about["validation"][0], about["validation"][-1]
    if unit(about) == "pictures":
        header = ["mAP@1000 codes", "mAP@1000, median threshold"]
        scores = [f"{last[key]:.2f} % ({first[key]:.2f} %)" for key in ("map", "map_median")]
    else:
        header = ["FPR@95 codes", "FPR@95 descriptors"]
        scores = [f"{last[key]:.2f} % ({first[key]:.1f} %)" for key in ("fpr95", "fpr95_descriptor")]
    ones = f"{last['ones_mean']:.2f}, {last['ones_min']:.2f}, {last['ones_max']:.2f}"
    header += ["ones (mean, least, most)", "stuck bits"]
    return [
        f"| {' | '.join(header)} |",
        "|--:|--:|---|--:|",
        f"| {' | '.join([*scores, ones, str(last['stuck_bits'])])} |",
    ]


def measured_results(about: dict[str, Any]) -> list[str]:
    """Give the rows of M95 that were measured with just these weights, by split."""
    rows = []
    for path in sorted(RESULTS.glob("m95-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["peers"].get(about["name"], {}).get("sha256") != about["sha256"]:
            continue
        for total in record["totals"]:
            if total["descriptor"] == about["name"] and total["times_rootsift"] is not None:
                low, high = total["times_rootsift_interval"]
                data = ", ".join(total["data"])
                rows.append(
                    f"| {path.stem.removeprefix('m95-')}: {data} | {total['m95']:,} | {total['times_rootsift']:.3f} "
                    f"({low:.3f} to {high:.3f}) | {total['least_times_rootsift']:.3f} |"
                )
    if not rows:
        return []
    header = [
        "",
        "Correct matches at 95 % precision (M95, `python -m eval m95`), all results in `docs/results/`:",
        "",
    ]
    looks = json.loads((RESULTS / "heldout-looks.json").read_text(encoding="utf-8"))
    told = [f"{number}. {look['date']}: {look['why']}." for number, look in enumerate(looks, 1)]
    said = ["", "Looks that were taken at the held-out data up to now:", "", *told]
    table = [*header, "| data | M95 | x RootSIFT (95 % interval) | least of one set |", "|---|--:|--:|--:|", *rows]
    return [*table, *(said if any(row.startswith("| heldout") for row in rows) else [])]


def contents(training: dict[str, Any]) -> str:
    """Say what a run learnt from."""
    if "pictures" in training:
        config = training["config"]
        seen = config["steps"] * config["batch_size"]
        return f"{training['pictures']:,} pictures without their labels; {seen:,} seen, repeats counted"
    if "photos" in training:
        return f"{training['photos']:,} photos, {training['keypoints']:,} keypoints"
    seen = training["config"]["steps"] * training["config"]["batch_size"]
    share = 100 * seen / PUBLISHED_PATCHES
    return (
        f"patch set {training['config']['train']} of {training['patches']:,} patches; {seen:,} patches seen, "
        f"{share:.2g} % of the 40 million of the published training"
    )


def validated_on(config: dict[str, Any]) -> str:
    """Say what validation measured."""
    if config["network"] in PICTURE_NETWORKS:
        if config.get("queries_aside"):
            return "Pictures of the training set that were kept aside, as queries among some that were learnt from"
        return "Some of the training pictures (their labels score only), the first of them as queries"
    return (
        f"Pairs of the patch set {config['validate']}"
        if config.get("validate")
        else "Jittered views of photos kept aside"
    )


def manifest() -> dict[str, Any]:
    """Collect a row for each certificate, with what was fitted to the matches of just these weights, if anything."""
    rows = {}
    for path in sorted(WEIGHTS.glob("*.json")):
        if path.name == "manifest.json":
            continue
        about = json.loads(path.read_text(encoding="utf-8"))
        rows[path.stem] = {key: about[key] for key in ("bits", "multiply_adds", "sha256", "summary")}
        for what in ("calibration", "context"):
            measured = RESULTS / f"{what}-{path.stem}.json"
            if measured.is_file():
                found = json.loads(measured.read_text(encoding="utf-8"))
                if found["peers"][path.stem]["sha256"] == about["sha256"]:
                    rows[path.stem][what] = found[what]
    return rows


def render_cards() -> list[str]:
    """Write the card of every certificate again; return the names."""
    names = []
    for path in sorted(WEIGHTS.glob("*.json")):
        if path.name != "manifest.json":
            text = card(json.loads(path.read_text(encoding="utf-8")))
            with atomic_path(path.with_suffix(".md")) as temporary:
                temporary.write_text(text, encoding="utf-8")
            names.append(path.stem)
    return names


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval ship", description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("name", nargs="?")
    parser.add_argument("--summary", default="")
    parser.add_argument("--after", type=Path, nargs="+", default=[], help="earlier runs, in their order")
    parser.add_argument("--licences", type=Path, help="Markdown table: split, source, licence")
    parser.add_argument("--manifest", type=Path, help="JSON of the photos: name -> source")
    parser.add_argument("--photos", type=Path, help="folder that was learnt from")
    parser.add_argument("--credits", type=Path, help="JSON of these photos: sha256, source, licence and author of each")
    arguments = parser.parse_args(argv)
    if arguments.run is not None:
        if arguments.name is None or not arguments.summary:
            raise UsageError("give the run, a name and --summary")
        if (arguments.photos is None) != (arguments.credits is None):
            raise UsageError("--photos and --credits go together: the photos, and the manifest that has their licences")
        if arguments.photos is not None:
            data = read_credits(arguments.photos, arguments.credits)
        else:
            data = read_licences(arguments.licences, arguments.manifest)
        about = certificate(arguments.run, arguments.name, arguments.summary, data, arguments.after)
        source = arguments.run / "weights.safetensors"
        if source.stat().st_size >= LARGEST_FILE:
            raise UsageError(f"{source} has {source.stat().st_size:,} bytes; shipped weights stay under 8 MB")
        with atomic_path(WEIGHTS / f"{arguments.name}.safetensors") as temporary:
            shutil.copyfile(source, temporary)
        write_json(WEIGHTS / f"{arguments.name}.json", about)
    write_json(WEIGHTS / "manifest.json", manifest())
    for name in render_cards():
        print(f"weights/{name}.md")
    return 0
