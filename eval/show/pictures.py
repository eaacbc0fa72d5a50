"""Match pictures: what descriptors match between two pictures, correct matches green, wrong ones red.

    python -m eval pictures DATA/validate [--peers rootsift,orb] [--ours bingan256] [--out bench/pictures]

One pair a scene with ``cameras.json`` (the first and third photo) and a homography sequence (the first and third
picture), the keypoints and the truth of ``m95``, each descriptor at its ratio of ``thresholds.json``. The pictures
show the photos, so they stay beside the cache and are no part of the results; the page of ``python -m eval report``
has them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.harness.command import Split, command_line
from eval.harness.features import cached_describe
from eval.harness.matching import mutual_matches
from eval.harness.options import MatchingOptions, setup
from eval.harness.peers import Peer
from eval.harness.problems import Problem, epipolar_errors_px, load_problems, transfer_errors_px
from eval.harness.records import write_json
from eval.quality.m95 import THRESHOLD_PX
from eval.quality.thresholds import read_thresholds, threshold_of
from kornia_bingan.work.files import atomic_path

SHOWN = MatchingOptions(peers=("rootsift", "orb"), regions="usual", out=Path("bench/pictures"))
WIDTH = 1200
GREEN, RED = (60, 160, 60), (50, 50, 220)
"""In OpenCV's order: blue, green, red."""


def draw(
    images: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    xy0: NDArray[Any],
    xy1: NDArray[Any],
    correct: NDArray[np.bool_],
    width: int = WIDTH,
) -> NDArray[np.uint8]:
    """Draw matches between two pictures side by side, uint8 (H, width, 3); wrong ones lie on top."""
    height = max(image.shape[0] for image in images)
    canvas = np.zeros((height, images[0].shape[1] + images[1].shape[1], 3), np.uint8)
    canvas[: images[0].shape[0], : images[0].shape[1]] = images[0][:, :, None]
    canvas[: images[1].shape[0], images[0].shape[1] :] = images[1][:, :, None]
    factor = width / canvas.shape[1]
    small = np.asarray(cv2.resize(canvas, (width, max(1, round(height * factor))), interpolation=cv2.INTER_AREA))
    offset = np.array([images[0].shape[1], 0])
    for index in [*np.flatnonzero(correct), *np.flatnonzero(~correct)]:
        ends = [tuple(int(v) for v in np.round(factor * point)) for point in (xy0[index], xy1[index] + offset)]
        cv2.line(small, ends[0], ends[1], GREEN if correct[index] else RED, 1, cv2.LINE_AA)
    return np.asarray(small, np.uint8)


def match_picture(problem: Problem, peer: Peer, ratio: float, cache: Path | None) -> tuple[NDArray[np.uint8], int, int]:
    """Draw one pair of a problem; give the picture, the number of matches and of correct ones."""
    index = min(1, len(problem.pairs) - 1)
    i, j = problem.pairs[index]
    describe = cached_describe(peer, cache)
    rows = [describe(problem.images[k], problem.keypoints[k]) for k in (i, j)]
    found = mutual_matches(rows[0], rows[1], peer.norm)
    kept = found.indices[found.ratio_two_way <= ratio]
    xy0, xy1 = problem.keypoints[i].xy[kept[:, 0]], problem.keypoints[j].xy[kept[:, 1]]
    errors_px = epipolar_errors_px if problem.kind == "epipolar" else transfer_errors_px
    correct = errors_px(problem.matrices[index], xy0, xy1) < THRESHOLD_PX
    picture = draw((problem.images[i], problem.images[j]), xy0, xy1, correct)
    return picture, len(kept), int(correct.sum())


@command_line("pictures")
def main(data: Split, shared: MatchingOptions = SHOWN) -> int:
    run = setup("pictures", data, shared)
    thresholds = read_thresholds()
    run.out.mkdir(parents=True, exist_ok=True)
    rows = []
    shown = [peer for peer in run.peers if not peer.name.endswith("/float")]
    for problem in load_problems(run.data, run.only, run.cache):
        for peer in shown:
            ratio = threshold_of(thresholds, peer.name)
            picture, matches, correct = match_picture(problem, peer, ratio, run.cache)
            file = f"{problem.name}-{peer.name}.jpg"
            with atomic_path(run.out / file) as temporary:
                jpeg = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, 80))[1]
                temporary.write_bytes(jpeg.tobytes())
            text = f"{problem.name}, {peer.name}: {correct:,} of {matches:,} matches are correct"
            rows.append({"text": text, "file": file})
        print(problem.name, file=sys.stderr, flush=True)
    note = "Correct matches are green, wrong ones red; each descriptor at its ratio for 95 % precision."
    about = {"title": "Matches", "note": note, "results": rows}
    write_json(run.out / "pictures.json", {**run.record("pictures"), **about})
    print(f"{len(rows)} pictures in {run.out}")
    return 0
