"""Ship a finished training run: weights, manifest, birth certificate and model card.

    python -m eval ship RUN NAME --summary "one line" [--after RUN ...] [--photos FOLDER --credits MANIFEST.json]
    python -m eval ship RUN NAME --summary "one line" --trunk bingan256 --photos FOLDER --credits MANIFEST.json

A run that went on from the weights of others names these with ``--after``, in their order; the recipe is then all of
their commands.

A run of the preset ``frames`` may get the codes of other weights, ``--trunk``: its frame network with their trunk, and
``--share`` makes its corrections smaller.

Writes ``weights/NAME.safetensors``, ``NAME.json`` (the birth certificate: recipe, machine, seconds, validation) and
``NAME.md`` (the card, rendered from it), and ``weights/manifest.json``, which takes the probabilities of matches from
``eval/results/calibration-NAME.json`` and ``context-NAME.json``. Without RUN and NAME, cards and manifest are written
again: ``python -m eval ship``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import tyro

from eval.harness.command import command_line
from eval.show.markdown import RESULTS, ROOT
from eval.training.card import card
from eval.training.certificate import certificate, read_credits, read_licences
from kornia_bingan.errors import UsageError
from kornia_bingan.network.published import PatchTrunk, multiply_adds
from kornia_bingan.network.weights import find_weights, load_weights, save_weights
from kornia_bingan.work.files import atomic_path, sha256_of, write_json

WEIGHTS = ROOT / "weights"
LARGEST_FILE = 8 * 2**20


def weights_manifest() -> dict[str, Any]:
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


def join(frames: Path, trunk: str | None, share: float, out: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Write the frame network of a run, shrunk, with its trunk or that of shipped weights; give their certificate.

    Raises:
        UsageError: the run trained no frame network, or the weights have no trunk.
    """
    path = frames if trunk is None else find_weights(trunk)
    run, network = load_weights(frames), load_weights(path)
    if not isinstance(run, PatchTrunk) or run.frames is None:
        raise UsageError(f"{frames} has no frame network; train one with the preset frames")
    if not isinstance(network, PatchTrunk):
        raise UsageError(f"{trunk} is a {type(network).__name__}; --trunk takes weights of the network PatchTrunk")
    run.frames.shrink(share)
    network.frames = run.frames
    training = {**about["training"], "share": share}
    shipped = f"{about['command']} && python -m eval ship RUN {about['name']} --share {share:g}"
    if trunk is not None:
        shipped += f" --trunk {trunk}"
        training["trunk"] = {"name": path.stem, "sha256": sha256_of(path)}
    save_weights(out, network, training)
    values = {"bits": network.bits, "multiply_adds": multiply_adds(network), "arguments": network.arguments()}
    return {**about, **values, "command": shipped, "sha256": sha256_of(out), "training": training}


@command_line("ship")
def main(
    run: tyro.conf.Positional[Path | None] = None,
    name: tyro.conf.Positional[str | None] = None,
    summary: str = "",
    after: tuple[Path, ...] = (),
    licences: Path | None = None,
    manifest: Path | None = None,
    photos: Path | None = None,
    credits: Path | None = None,
    trunk: str | None = None,
    share: float = 1.0,
) -> int:
    """Write what is shipped.

    Args:
        after: earlier runs, in their order.
        licences: Markdown table of split, source, licence.
        manifest: JSON of the photos, name -> source.
        photos: folder that was learnt from.
        credits: JSON of these photos, sha256, source, licence and author of each.
        trunk: shipped weights whose codes the frame network of the run is put before.
        share: of its corrections that the frame network of the run gives.
    """
    if run is not None:
        if name is None or not summary:
            raise UsageError("give the run, a name and --summary")
        if (photos is None) != (credits is None):
            raise UsageError("--photos and --credits go together: the photos, and the manifest that has their licences")
        if photos is not None and credits is not None:
            data = read_credits(photos, credits)
        else:
            data = read_licences(licences, manifest)
        about = certificate(run, name, summary, data, after)
        source = run / "weights.safetensors"
        with atomic_path(WEIGHTS / f"{name}.safetensors") as temporary:
            if trunk is None and share == 1:
                shutil.copyfile(source, temporary)
            else:
                about = join(source, trunk, share, temporary, about)
            if temporary.stat().st_size >= LARGEST_FILE:
                raise UsageError(f"{name} has {temporary.stat().st_size:,} bytes; shipped weights stay under 8 MB")
        write_json(WEIGHTS / f"{name}.json", about)
    write_json(WEIGHTS / "manifest.json", weights_manifest())
    for card_name in render_cards():
        print(f"weights/{card_name}.md")
    return 0
