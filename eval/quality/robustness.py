"""How much of a change each descriptor bears: one photo against a changed copy of itself.

    python -m eval robustness DATA/validate [--peers rootsift,orb,teblid256,hashsift256] [--out FILE.json]

Protocol. The first photo of every scene. Geometric changes (rotation, scale, tilt) warp it by a known homography, the
others change its grey values; keypoints are detected anew in the changed copy (2,000 strongest DoG). Matching as in
``hpatches``, each descriptor at its own ratio. The value is the matching score: correct matches (within 3 px) over the
keypoints of the photo that are visible in the copy, mean over the photos; what the detector does not repeat is lost for
all. Noise has a fixed seed. Nothing is tuned here.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.harness.columns import Column, text_of
from eval.harness.command import Split, command_line
from eval.harness.data import HomographySequence, find_scenes, read_scene
from eval.harness.features import cached_describe, cached_keypoints
from eval.harness.options import MatchingOptions, setup
from eval.harness.records import write_json
from eval.quality.hpatches import evaluate
from eval.quality.thresholds import read_thresholds, threshold_of
from eval.show.curves import Line, Panel, svg_panels
from kornia_bingan.errors import UsageError
from kornia_bingan.work.files import atomic_path

FOUR_PEERS = MatchingOptions(peers=("rootsift", "orb", "teblid256", "hashsift256"))
MAX_KEYPOINTS = 2000
SEED = 0

Image = NDArray[np.uint8]
Changed = tuple[Image, NDArray[np.float64]]


def rotated(image: Image, degrees: float) -> Changed:
    """Turn a picture about its middle, counter-clockwise on the screen; the canvas grows to hold it."""
    height, width = image.shape
    matrix = np.vstack([cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1), [0, 0, 1]])
    return _warped(image, matrix)


def scaled(image: Image, factor: float) -> Changed:
    """Reduce a picture by a factor, pixel areas averaged."""
    size = [max(1, round(side / factor)) for side in image.shape[::-1]]
    x, y = size[0] / image.shape[1], size[1] / image.shape[0]
    H = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1.0]])
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), H


def tilted(image: Image, tilt: float) -> Changed:
    """Look at a picture from the side: compressed by ``tilt`` along its width, blurred along it first."""
    deviation = 0.8 * np.sqrt(max(tilt**2 - 1, 0))
    smooth = cv2.GaussianBlur(image, (0, 0), deviation, sigmaY=1e-3) if deviation > 0 else image
    return _warped(np.asarray(smooth, np.uint8), np.diag([1 / tilt, 1, 1]))


def _warped(image: Image, matrix: NDArray[np.float64]) -> Changed:
    height, width = image.shape
    corners = np.array([[[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]]], np.float64)
    mapped = cv2.perspectiveTransform(corners, matrix)[0]
    low = mapped.min(0)
    size = np.ceil(mapped.max(0) - low).astype(int) + 1
    H = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]]) @ matrix
    return np.asarray(cv2.warpPerspective(image, H, size.tolist(), flags=cv2.INTER_CUBIC), np.uint8), H


def _unmoved(change: Callable[[NDArray[np.float32], float], NDArray[Any]]) -> Callable[[Image, float], Changed]:
    def changed(image: Image, strength: float) -> Changed:
        values = change(image.astype(np.float32), strength)
        return np.clip(np.round(values), 0, 255).astype(np.uint8), np.eye(3)

    return changed


def _jpeg(image: NDArray[np.float32], quality: float) -> NDArray[Any]:
    data = cv2.imencode(".jpg", image.astype(np.uint8), (cv2.IMWRITE_JPEG_QUALITY, int(quality)))[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


def _noise(image: NDArray[np.float32], deviation: float) -> NDArray[Any]:
    return image + np.random.default_rng(SEED).normal(0, deviation, image.shape)


CHANGES: dict[str, tuple[Callable[[Image, float], Changed], tuple[float, ...], str]] = {
    "rotation": (rotated, (0, 15, 30, 45, 90, 135, 180), "degrees"),
    "scale": (scaled, (1, 1.41, 2, 2.83, 4), "times smaller"),
    "tilt": (tilted, (1, 1.5, 2, 3, 4, 6), "tilt"),
    "brightness": (_unmoved(lambda x, s: s * x), (0.15, 0.3, 0.6, 1, 1.5, 2), "factor"),
    "gamma": (_unmoved(lambda x, s: 255 * (x / 255) ** s), (0.4, 0.63, 1, 1.6, 2.5), "exponent"),
    "blur": (
        _unmoved(lambda x, s: np.asarray(cv2.GaussianBlur(x, (0, 0), s) if s else x)),
        (0, 1, 2, 3, 4),
        "sigma (px)",
    ),
    "jpeg": (_unmoved(_jpeg), (95, 75, 50, 30, 20, 10), "quality"),
    "noise": (_unmoved(_noise), (0, 5, 10, 20, 40), "deviation (grey levels)"),
}


def columns(rows: Sequence[dict[str, Any]]) -> list[Column]:
    """Give the score at each strength of one change."""

    def of_strength(index: int, strength: float) -> Column:
        return Column(f"{strength:g}", lambda r: r["score"][index], ".3f", best="most")

    name = Column(f"{rows[0]['change']} ({rows[0]['unit']})", "descriptor")
    return [name, *itertools.starmap(of_strength, enumerate(rows[0]["strengths"]))]


@command_line("robustness")
def main(data: Split, shared: MatchingOptions = FOUR_PEERS) -> int:
    run = setup("robustness", data, shared)
    thresholds = read_thresholds()
    scenes = [read_scene(path) for path in find_scenes(run.data, run.only)]
    if not scenes:
        raise UsageError(f"{run.data} has no scene")
    rows: list[dict[str, Any]] = []
    for change, (apply, strengths, unit) in CHANGES.items():
        scores: dict[str, list[list[float]]] = {peer.name: [] for peer in run.peers}
        for scene in scenes:
            copies = [apply(scene.images[0], strength) for strength in strengths]
            images = (scene.images[0], *(image for image, _ in copies))
            sequence = HomographySequence(scene.name, change, images, tuple(H for _, H in copies))
            keypoints = [cached_keypoints(image, MAX_KEYPOINTS, run.cache) for image in images]
            for peer in run.peers:
                describe, ratio = cached_describe(peer, run.cache), threshold_of(thresholds, peer.name)
                found = evaluate(describe, peer.norm, ratio, sequence, keypoints)
                scores[peer.name].append([r.correct / max(1, r.visible) for r in found])
        for name, values in scores.items():
            means = [round(float(v), 4) for v in np.mean(values, axis=0)]
            rows.append(
                {"change": change, "unit": unit, "descriptor": name, "strengths": list(strengths), "score": means}
            )
        print(change, file=sys.stderr, flush=True)
    write_json(run.out, {**run.record("robustness", SEED), "scenes": [s.name for s in scenes], "results": rows})
    draw(rows, run.out.with_suffix(".svg"))
    for change in CHANGES:
        chosen = [row for row in rows if row["change"] == change]
        print(text_of(columns(chosen), chosen), end="\n\n")
    return 0


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw a panel a change."""
    panels = []
    for change in dict.fromkeys(row["change"] for row in rows):
        chosen = [row for row in rows if row["change"] == change]
        lines = [
            Line(r["descriptor"], r["strengths"], r["score"], dashed=r["descriptor"].endswith("/float")) for r in chosen
        ]
        panels.append(Panel(f"{change}, {chosen[0]['unit']}", lines))
    with atomic_path(path) as temporary:
        temporary.write_text(svg_panels(panels, "strength", "matching score", (0, 1)), encoding="utf-8")
