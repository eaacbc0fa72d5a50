"""Part of ``python -m eval speed``: cutting patches, a reconstruction stage by stage, and peak memory.

``python -m eval.cost.speed_pipeline describe PHOTO NAME HEIGHT WIDTH`` and ``... match COUNT`` print the memory of one
job.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import kornia.feature as KF
import numpy as np
import torch
from numpy.typing import NDArray

from eval.harness.columns import numbers
from eval.harness.timing import machine_rates, take_turns
from kornia_bingan import BinGAN
from kornia_bingan.descriptor import describe
from kornia_bingan.images.read import read_image
from kornia_bingan.keypoints import Keypoints, detect, support_regions
from kornia_bingan.matching import match
from kornia_bingan.patches import PATCH_SIZE, build_pyramid, cut_patches
from kornia_bingan.reconstruct.options import ReconstructOptions
from kornia_bingan.reconstruct.pipeline import reconstruct_photos
from kornia_bingan.work.isolated import run_in_child
from kornia_bingan.work.options import FeatureOptions

MAX_KEYPOINTS = 4096
MEGAPIXELS_12 = (3000, 4000)
NUM_CODES = 100_000
BEFORE_MAPPING = ("describe", "match", "verify")


CUTTING = numbers(
    cutter="",
    threads="threads",
    keypoints_per_second="keypoints / s",
    floor_keypoints_per_second="floor",
    times="x Kornia",
)
PIPELINE = numbers(pipeline="pipeline", stage="stage", seconds="seconds")
MEMORY = numbers(job="job", peak_mb="peak MB", above_start_mb="above start MB")


def cutting(image: NDArray[np.uint8], keypoints: Keypoints) -> list[dict[str, Any]]:
    """Time pyramid and patches of all keypoints: rows ``cutter``, ``keypoints_per_second``, ``floor_...``, ``times``.

    The floor is the time to write the patches at the rate of a copy.
    """
    lafs = support_regions(keypoints)
    picture = torch.from_numpy(image)[None, None].float() / 255
    frames = torch.from_numpy(lafs)[None]
    floor = machine_rates()["copied_bytes"] / (4 * PATCH_SIZE**2)
    seconds = take_turns(
        {
            "ours": lambda: cut_patches(build_pyramid(image), lafs),
            "kornia extract_patches_from_pyramid": lambda: KF.extract_patches_from_pyramid(
                picture, frames, PATCH_SIZE, normalize_lafs_before_extraction=False
            ),
        }
    )
    return [
        {
            "cutter": name,
            "keypoints_per_second": round(len(lafs) / value, 1),
            "floor_keypoints_per_second": round(floor, 1),
            "times": round(seconds["kornia extract_patches_from_pyramid"] / value, 2),
        }
        for name, value in seconds.items()
    ]


def end_to_end(photos: Path, names: list[str], threads: int) -> list[dict[str, Any]]:
    """Time ``bingan reconstruct`` and COLMAP's own SIFT on the same photos, all pairs, the same number of keypoints.

    Returns:
        Rows ``pipeline``, ``stage``, ``seconds``; the stage "before mapping" sums up what both do.
    """
    rows: list[dict[str, Any]] = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            options = ReconstructOptions(FeatureOptions(descriptor=name, max_keypoints=MAX_KEYPOINTS))
            summary = reconstruct_photos(photos, Path(folder) / "out", options)
        before = sum(value for stage, value in summary.seconds.items() if stage in BEFORE_MAPPING)
        stages = {**summary.seconds, "before mapping": before}
        rows += [{"pipeline": Path(name).stem, "stage": s, "seconds": round(v, 2)} for s, v in stages.items()]
    with tempfile.TemporaryDirectory() as folder:
        arguments = {"database": f"{folder}/d.db", "images": str(photos), "threads": threads}
        started = time.perf_counter()
        run_in_child("eval.cost.speed_pipeline:sift_here", arguments, stage="SIFT extraction and matching")
        value = time.perf_counter() - started
    return [*rows, {"pipeline": "COLMAP, SIFT", "stage": "before mapping", "seconds": round(value, 2)}]


def sift_here(report: Any, *, database: str, images: str, threads: int) -> None:
    """Extract SIFT, match all pairs and verify them by pycolmap, in this process."""
    import pycolmap

    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads = threads
    extraction.sift.max_num_features = MAX_KEYPOINTS
    pycolmap.extract_features(database, images, extraction_options=extraction, device=pycolmap.Device.cpu)
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = threads
    pycolmap.match_exhaustive(database, matching, device=pycolmap.Device.cpu)


def memory(
    photo: Path, name: str, num_codes: int = NUM_CODES, size: tuple[int, int] = MEGAPIXELS_12
) -> list[dict[str, Any]]:
    """Measure peak resident memory in processes of their own: rows ``job``, ``peak_mb``, ``above_start_mb``.

    Start is after the libraries, the weights and the input are loaded.
    """
    rows = []
    for job, words in (
        (
            f"describe a picture of {size[0] * size[1] / 1e6:.0f} megapixels with {name}",
            ["describe", str(photo), name, *map(str, size)],
        ),
        (f"match {num_codes:,} with {num_codes:,} codes", ["match", str(num_codes)]),
    ):
        command = [sys.executable, "-m", "eval.cost.speed_pipeline", *words]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append({"job": job, **json.loads(done.stdout)})
    return rows


def _here(words: list[str]) -> dict[str, float]:
    if words[:1] == ["describe"]:
        size = (int(words[4]), int(words[3]))
        image = np.asarray(cv2.resize(read_image(Path(words[1])), size, interpolation=cv2.INTER_CUBIC), np.uint8)
        model = BinGAN.from_pretrained(words[2], precision="auto")
        start = status_mb("VmRSS")
        describe(model, image, detect(image, "dog", MAX_KEYPOINTS))
    else:
        rng = np.random.default_rng(0)
        first, second = (rng.integers(0, 256, (int(words[1]), 32), np.uint8) for _ in range(2))
        match(first[:100], second[:100])
        start = status_mb("VmRSS")
        match(first, second, "smnn", 0.8)
    peak = status_mb("VmHWM")
    return {"peak_mb": round(peak, 1), "above_start_mb": round(peak - start, 1)}


def status_mb(field: str) -> float:
    """Read a size of this process; unlike getrusage's peak, VmHWM does not count the parent's memory."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{field}:"))) / 1024


if __name__ == "__main__":
    print(json.dumps(_here(sys.argv[1:])))
