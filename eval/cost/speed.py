"""How fast everything is, against others and against what the machine allows, all in one run.

    python -m eval speed PHOTO [--scene PHOTOS] [--peers rootsift,orb] [--ours bingan256,bingan256-lite]
        [--threads 1,2] [--parts descriptors,networks,cutting,matching,pipeline]

Protocol. One picture and its strongest DoG keypoints (``MAX_KEYPOINTS``). Whatever is compared takes turns after one
run to warm up, so that a slow moment of the machine hits all of it; medians count. Ratios compare within one run only.
``descriptors``: from picture and keypoints to codes, at the first number of threads. ``networks``: patches to
descriptors; others with random weights. ``cutting``: picture to patches. ``matching``: one pair of images, mutual
nearest neighbours with a ratio test in both directions. ``pipeline``: the photos of ``--scene`` (the folder of PHOTO)
by ``bingan reconstruct`` and by COLMAP's SIFT, and peak memory. Floors are measured beside: multiply-adds over the rate
of matrix products, bytes over the rate of a copy.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import tyro

from eval.cost import speed_changes, speed_matching, speed_networks, speed_pipeline
from eval.harness.columns import Column, plain_columns, text_of
from eval.harness.command import Data, Out, SomeNames, command_line
from eval.harness.options import RESULTS, PeerOptions, peer_folder, use_threads
from eval.harness.ours import load_ours
from eval.harness.peers import load_peers
from eval.harness.records import write_json
from eval.harness.timing import REPEATS, machine_rates, take_turns
from kornia_bingan import BinGAN
from kornia_bingan.descriptor import describe
from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.images.read import ImageError, read_image
from kornia_bingan.keypoints import Keypoints, detect, support_regions, to_opencv
from kornia_bingan.network.weights import find_weights
from kornia_bingan.patches import build_pyramid
from kornia_bingan.work.provenance import provenance

MAX_KEYPOINTS = 4000
PARTS = ("descriptors", "networks", "cutting", "matching", "pipeline")
MOST_PHOTOS = 8
"""Photos whose codes are matched."""


COLUMNS = {
    "networks": speed_networks.COLUMNS,
    "optimisations": speed_changes.COLUMNS,
    "cutting": speed_pipeline.CUTTING,
    "matching": speed_matching.COLUMNS,
    "pipeline": speed_pipeline.PIPELINE,
    "memory": speed_pipeline.MEMORY,
}
"""Columns of each part of a record but the descriptors."""


def descriptor_columns(num_keypoints: int) -> tuple[Column, ...]:
    """Give the columns of the part about descriptors."""
    return (
        Column("descriptor", "descriptor"),
        Column("bytes", "bytes", ","),
        Column(f"ms for {num_keypoints:,} keypoints", lambda r: 1000 * r["seconds"], ".1f"),
        Column("keypoints / s", "keypoints_per_second", ",.0f", best="most"),
    )


@dataclass(frozen=True)
class SpeedOptions(PeerOptions):
    """What is measured.

    Attributes:
        scene: folder of photos that show one place; the photo's by default.
        threads: numbers, separated by commas.
        parts: of descriptors, networks, cutting, matching, pipeline, or all.
        repeats: of everything.
    """

    scene: Path | None = None
    ours: SomeNames = ("bingan256",)
    threads: SomeNames = ("1",)
    parts: SomeNames = ("descriptors",)
    repeats: int = REPEATS
    out: Out = RESULTS / "speed.json"


@command_line("speed")
def main(photo: Data, options: Annotated[SpeedOptions, tyro.conf.arg(name="")]) -> int:
    parts = PARTS if options.parts == ("all",) else options.parts
    if unknown := sorted(set(parts) - set(PARTS)):
        raise UsageError(f"there is no part '{unknown[0]}'; choose of {', '.join(PARTS)}")
    if options.repeats < 1:
        raise UsageError(f"--repeats is {options.repeats}; give 1 or more")
    threads = [int(word) if word.isdigit() else 0 for word in options.threads]
    names = list(options.ours)
    image = read_image(photo)
    keypoints = detect(image, "dog", MAX_KEYPOINTS)
    if not len(keypoints):
        raise UsageError(f"{photo} has no keypoints; give a photo with some texture")
    scene = options.scene or photo.resolve().parent
    record: dict[str, Any] = {
        "protocol": "speed",
        "command": _command(options),
        "keypoints": len(keypoints),
        "image_size": [image.shape[1], image.shape[0]],
        "threads": threads[0],
        "rates": [],
        "results": [],
        "absent": {},
    }
    for count in threads:
        use_threads(count)
        record["rates"].append({"threads": count, **{k: round(v / 1e9, 2) for k, v in machine_rates().items()}})
        if "descriptors" in parts and count == threads[0]:
            found = _descriptors(image, keypoints, names, photo, options)
            record["results"], record["absent"] = found
        for part in ("networks", "cutting", "matching"):
            if part in parts:
                rows = _part(part, image, keypoints, names, scene)
                record.setdefault(part, []).extend({"threads": count, **row} for row in rows)
                print(text_of(COLUMNS[part], rows), flush=True)
    use_threads(threads[0])
    record["optimisations"] = _changes(record, image, keypoints, names)
    if "pipeline" in parts:
        use_threads(threads[-1])
        record["pipeline"] = speed_pipeline.end_to_end(scene, names, threads[-1])
        record["memory"] = speed_pipeline.memory(photo, names[0])
    record["provenance"] = provenance(find_weights(names[0]))
    columns = {"results": descriptor_columns(len(keypoints)), **COLUMNS, "rates": plain_columns(record["rates"])}
    for part in ("results", "optimisations", "pipeline", "memory", "rates"):
        if record.get(part):
            print(text_of(columns[part], record[part]), flush=True)
    write_json(options.out, record)
    return 0


def _command(options: SpeedOptions) -> str:
    words = f"python -m eval speed PHOTO --ours {','.join(options.ours)} --threads {','.join(options.threads)}"
    if options.peers != SpeedOptions.peers:
        words += f" --peers {','.join(options.peers)}"
    return words if options.parts == SpeedOptions.parts else f"{words} --parts {','.join(options.parts)}"


def _descriptors(
    image: Any, keypoints: Keypoints, names: list[str], photo: Path, options: SpeedOptions
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    folder = options.peer_weights or peer_folder(photo.resolve().parent)
    peers, absent = load_peers(options.peers, folder)
    functions = {peer.name: lambda p=peer: p.describe(image, keypoints) for peer in peers}
    sizes = {peer.name: peer.num_bytes for peer in peers}
    for name in names:
        reference = load_ours(name)
        functions |= {peer.name: lambda p=peer: p.describe(image, keypoints) for peer in reference}
        sizes |= {peer.name: peer.num_bytes for peer in reference}
        model = BinGAN.from_pretrained(name, precision="auto")
        short = reference[0].name
        functions[f"{short}, as commands run it"] = lambda m=model: describe(m, image, keypoints)
        sizes[f"{short}, as commands run it"] = reference[0].num_bytes
    seconds = take_turns(functions, options.repeats)
    rows = [
        {
            "descriptor": name,
            "bytes": sizes[name],
            "seconds": round(value, 5),
            "keypoints_per_second": round(len(keypoints) / value, 1),
        }
        for name, value in seconds.items()
    ]
    return rows, absent


def _changes(record: dict[str, Any], image: Any, keypoints: Keypoints, names: list[str]) -> list[dict[str, Any]]:
    rows = []
    if "networks" in record:
        rows += speed_changes.of_networks(record["networks"])
        rows += speed_changes.of_layers(names, _views(image, keypoints)[0])
    if "cutting" in record:
        rows += speed_changes.of_arrays(build_pyramid(image), support_regions(keypoints))
    return rows + (speed_changes.of_matching(record["matching"]) if "matching" in record else [])


def _views(image: Any, keypoints: Keypoints) -> tuple[Any, Any]:
    return speed_networks.two_views(build_pyramid(image), support_regions(keypoints)[: speed_networks.NUM_PATCHES])


def _part(part: str, image: Any, keypoints: Keypoints, names: list[str], scene: Path) -> list[dict[str, Any]]:
    if part == "networks":
        return speed_networks.measure(names, _views(image, keypoints))
    if part == "cutting":
        return speed_pipeline.cutting(image, keypoints)
    model, sift = BinGAN.from_pretrained(names[0], precision="auto"), cv2.SIFT.create()
    codes, vectors = [], []
    for name in list_images(scene)[0][:MOST_PHOTOS]:
        try:
            picture = read_image(scene / name)
        except ImageError as error:
            print(f"skipped: {error}", file=sys.stderr)
            continue
        found = detect(picture, "dog", MAX_KEYPOINTS)
        codes.append(describe(model, picture, found))
        vectors.append(sift.compute(picture, to_opencv(found))[1])
    return speed_matching.measure(np.concatenate(codes), np.concatenate(vectors))
