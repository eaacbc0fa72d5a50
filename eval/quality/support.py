"""Which support region suits the keypoints of each detector: M95 against half the side over OpenCV's ``size``.

    python -m eval support DATA/validate --only herz_jesus,fox [--ours bingan256] [--out FILE.json]

Protocol. As ``m95`` on scenes with cameras, but with the 2,000 strongest keypoints of each detector, and our codes
only, cut with several multiples of the keypoint's size. The best multiple of each detector is what
``kornia_bingan.keypoints.support_half_sides`` uses. RootSIFT stands beside ours for its own detector.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.harness.columns import Column, text_of
from eval.harness.command import Split, command_line
from eval.harness.data import find_scenes, read_scene
from eval.harness.metrics import matches_at_precision
from eval.harness.options import OURS_ALONE, MatchingOptions, setup
from eval.harness.peer_rows import root_sift_rows
from eval.harness.problems import MAX_KEYPOINTS, scene_problem
from eval.harness.records import write_json
from eval.quality.m95 import PRECISION, THRESHOLD_PX, evaluate
from kornia_bingan import BinGAN
from kornia_bingan.descriptor import describe
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import BLOB_SUPPORT, Keypoints, detect, from_opencv, support_half_sides

Image = NDArray[np.uint8]


def strongest(found: Any) -> Keypoints:
    """Keep the strongest keypoints of an OpenCV detector."""
    keypoints = from_opencv(found)
    order = np.lexsort((keypoints.xy[:, 0], keypoints.xy[:, 1], -keypoints.response))
    return keypoints[order[:MAX_KEYPOINTS]]


DETECTORS: dict[str, tuple[Callable[[Image], Keypoints], tuple[float, ...]]] = {
    "dog": (lambda image: detect(image, "dog", MAX_KEYPOINTS), (3, 4, 5, 6, 7)),
    "orb": (lambda image: detect(image, "orb", MAX_KEYPOINTS), (0.45, 0.55, 0.65, 0.8, 1)),
    "fast": (lambda image: strongest(cv2.FastFeatureDetector.create(10).detect(image)), (1, 1.5, 2, 2.5, 3, 4, 5)),
    "gftt": (
        lambda image: strongest(cv2.GFTTDetector.create(MAX_KEYPOINTS, 0.001).detect(image)),
        (2, 3, 4, 5, 6, 7),
    ),
}
if hasattr(cv2, "xfeatures2d") and hasattr(cv2.xfeatures2d, "AKAZE_create"):
    DETECTORS["akaze"] = (
        lambda image: strongest(cv2.xfeatures2d.AKAZE_create(threshold=1e-4).detect(image)),  # type: ignore[attr-defined]
        (3, 4, 5, 6, 7),
    )


def describe_scaled(model: BinGAN, factor: float, image: Image, points: Keypoints) -> NDArray[np.uint8]:
    """Describe keypoints with a support region of ``factor`` times their size."""
    # Octave -1 is that of no ORB keypoint, so the size alone decides.
    blobs = replace(
        points, size=points.size * np.float32(factor / BLOB_SUPPORT), octave=np.full_like(points.octave, -1)
    )
    return describe(model, image, blobs)


def columns(rows: list[dict[str, Any]]) -> list[Column]:
    """Give the detector and its support region, M95 of each scene, and their sum."""

    def of_scene(name: str) -> Column:
        return Column(name, lambda r: r["m95"][name], ",", best="most")

    return [
        Column("detector", "detector"),
        Column("half side / size", lambda r: f"{r['factor']:g}" if r["factor"] else r["described"]),
        Column("in use", lambda r: "yes" if r["in_use"] else ""),
        *map(of_scene, rows[0]["m95"]),
        Column("sum", "sum", ",", best="most"),
    ]


@command_line("support")
def main(data: Split, shared: MatchingOptions = OURS_ALONE) -> int:
    run = setup("support", data, shared)
    model = BinGAN.from_pretrained(run.ours[0])
    scenes = [read_scene(path) for path in find_scenes(run.data, run.only, with_cameras=True)]
    if not scenes:
        raise UsageError(f"{run.data} has no scene with cameras.json")
    rows: list[dict[str, Any]] = []
    for name, (find, factors) in DETECTORS.items():
        problems = [scene_problem(scene, [find(image) for image in scene.images]) for scene in scenes]
        used = support_half_sides(problems[0].keypoints[0])[:1] / problems[0].keypoints[0].size[:1]
        ways: dict[str, Any] = {f"ours {f:g}": (partial(describe_scaled, model, f), "hamming", f) for f in factors}
        if name == "dog":
            ways["rootsift"] = (root_sift_rows, "l2", None)
        for way, (call, norm, factor) in ways.items():
            counts = {}
            for problem in problems:
                result = evaluate(call, problem, norm)
                found = matches_at_precision(result.ratio, result.correct, PRECISION, ties="in order")
                counts[problem.name] = int(found.num_correct)
            rows.append(
                {
                    "detector": name,
                    "described": way,
                    "factor": factor,
                    "in_use": bool(factor is not None and abs(factor - float(used[0])) < 1e-3),
                    "m95": counts,
                    "sum": sum(counts.values()),
                }
            )
            print(f"{name} {way} {rows[-1]['sum']:,}", file=sys.stderr, flush=True)
    constants = {"threshold_px": THRESHOLD_PX, "max_keypoints": MAX_KEYPOINTS}
    write_json(run.out, {**run.record("support"), **constants, "results": rows})
    print(text_of(columns(rows), rows))
    return 0
