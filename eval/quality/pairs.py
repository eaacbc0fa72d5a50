"""Two-view pose on picture pairs with known relative pose.

    python -m eval pairs DATA/pairs/validate [--scenes DATA/validate] [--peers rootsift,orb] [--ours NAME_OR_PATH]

Protocol. The same 2,000 strongest DoG keypoints per picture for every descriptor. Mutual nearest neighbours at the
descriptor's ratio from ``thresholds.json``; essential matrix by MAGSAC at 1 px in normalised coordinates (over the mean
focal length), pose by the cheirality test. The error of a pair is the larger of the angle between the rotations and the
angle between the directions of translation (sign ignored), infinite where there are fewer than 5 matches or no pose.
``auc`` is the area under its curve up to 5, 10, 20 degrees. ``--scenes`` adds the photo pairs up to 4 apart of scenes
with ``cameras.json``, as a part of their own. Intervals are bootstrap: over the photos of each scene, a pair counting
as often as both of its photos, and in the part without scenes over the pairs, those that share a photo drawn together.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.harness.bootstrap import connected_photos, drawn_groups, drawn_photos, interval_of
from eval.harness.columns import Column, text_of
from eval.harness.command import Split, command_line
from eval.harness.data import PosedPair, find_scenes, pairs_of_scene, read_pairs, read_scene
from eval.harness.features import cached_describe, cached_keypoints
from eval.harness.matching import Norm, mutual_matches
from eval.harness.metrics import error_auc
from eval.harness.options import MatchingOptions, setup
from eval.harness.peers import Describe
from eval.harness.records import write_json
from eval.quality.thresholds import read_thresholds, threshold_of
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints

MAX_KEYPOINTS = 2000
MAX_GAP = 4
RANSAC_PX = 1.0
AUC_DEG = (5.0, 10.0, 20.0)
NUM_RESAMPLES = 500
SEED = 0

Floats = NDArray[np.float64]

COLUMNS = (
    Column("descriptor", "descriptor"),
    Column("part", "part"),
    Column("pairs", "pairs"),
    Column("AUC@5", lambda r: r["auc"]["5"], ".3f"),
    Column("AUC@10 (interval)", lambda r: r["auc"]["10"], ".3f", interval="auc10_interval"),
    Column("AUC@20", lambda r: r["auc"]["20"], ".3f"),
    Column("matches", "matches", ","),
    Column("inliers", "inliers", ","),
    Column("failures", "failures", ","),
)


def angle_deg(a: Floats, b: Floats) -> float:
    """Give the angle between two vectors, degrees."""
    return float(np.rad2deg(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def pose_error_deg(R: Floats, t: Floats, R_true: Floats, t_true: Floats) -> float:
    """Give the larger of the rotation's and the translation direction's error, degrees; the sign of t is ignored."""
    turn = R @ R_true.T
    sine = np.linalg.norm(turn - turn.T) / (2 * np.sqrt(2))
    rotation = float(np.rad2deg(np.arctan2(sine, (np.trace(turn) - 1) / 2)))
    direction = angle_deg(t.ravel(), t_true.ravel())
    return max(rotation, min(direction, 180 - direction))


def estimate_pose(xy0: Floats, xy1: Floats, pair: PosedPair) -> tuple[Floats, Floats, int] | None:
    """Give R, t and the number of inliers from matches (M, 2) of a pair, or None."""
    if len(xy0) < 5:
        return None
    normal0, normal1 = (
        np.asarray(cv2.undistortPoints(xy[:, None].astype(np.float64), K, np.zeros(4)), np.float64)[:, 0]
        for xy, K in ((xy0, pair.K0), (xy1, pair.K1))
    )
    focal = float(np.mean([pair.K0[0, 0], pair.K0[1, 1], pair.K1[0, 0], pair.K1[1, 1]]))
    cv2.setRNGSeed(SEED)
    eye = np.eye(3)
    E, mask = cv2.findEssentialMat(
        normal0, normal1, eye, method=cv2.USAC_MAGSAC, prob=0.99999, threshold=RANSAC_PX / focal, maxIters=10_000
    )
    if E is None or E.shape != (3, 3):
        return None
    count, R, t, _ = cv2.recoverPose(E, normal0, normal1, eye, mask=mask.copy())
    return (np.asarray(R, np.float64), np.asarray(t, np.float64), int(np.sum(mask))) if count > 0 else None


def evaluate(
    describe: Describe, norm: Norm, ratio: float, pair: PosedPair, keypoints: tuple[Keypoints, Keypoints]
) -> dict[str, Any]:
    """Match one pair and compare its pose with the truth; an error of None is a failure."""
    rows = [describe(image, k) for image, k in zip((pair.image0, pair.image1), keypoints, strict=True)]
    found = mutual_matches(rows[0], rows[1], norm)
    kept = found.indices[found.ratio_two_way <= ratio]
    xy = [k.xy[kept[:, side]].astype(np.float64) for side, k in enumerate(keypoints)]
    pose = estimate_pose(xy[0], xy[1], pair)
    error = None if pose is None else pose_error_deg(pose[0], pose[1], pair.R, pair.t)
    return {"pair": pair.name, "matches": len(kept), "inliers": 0 if pose is None else pose[2], "error_deg": error}


def draws_of(pairs: list[PosedPair], scenes: list[str] | None) -> NDArray[np.int64]:
    """Draw bootstrap samples: how often each pair counts, int64 (R, P).

    Args:
        pairs: as they are measured.
        scenes: the scene of each pair, whose photos are drawn; None draws groups of pairs that share no photo.
    """
    photos = [pair.photos for pair in pairs]
    if scenes is None:
        return drawn_groups(connected_photos(photos), NUM_RESAMPLES, SEED)
    return drawn_photos(photos, scenes, NUM_RESAMPLES, SEED)


def summarise(results: list[dict[str, Any]], counts: NDArray[np.int64]) -> dict[str, Any]:
    """Turn the pairs of one descriptor into numbers with an interval over the draws of :func:`draws_of`."""
    errors = np.array([np.inf if r["error_deg"] is None else r["error_deg"] for r in results])
    low, high = interval_of(lambda c: error_auc(np.repeat(errors, c), [10.0])[0], counts)
    return {
        "pairs": len(results),
        "auc": {f"{limit:g}": round(v, 4) for limit, v in zip(AUC_DEG, error_auc(errors, AUC_DEG), strict=True)},
        "auc10_interval": [round(low, 4), round(high, 4)],
        "matches": int(sum(r["matches"] for r in results)),
        "inliers": int(sum(r["inliers"] for r in results)),
        "failures": int(np.isinf(errors).sum()),
    }


@command_line("pairs")
def main(data: Split, shared: MatchingOptions, scenes: Path | None = None) -> int:
    """Estimate the pose of every pair.

    Args:
        scenes: folder of scenes with cameras.json, as a second part.
    """
    run = setup("pairs", data, shared)
    thresholds = read_thresholds()
    parts: dict[str, list[PosedPair]] = {"pairs": read_pairs(run.data)}
    scene_of: dict[str, list[str]] = {}
    if scenes is not None:
        read = [read_scene(path) for path in find_scenes(scenes, run.only, with_cameras=True)]
        of_scenes = [(scene.name, pair) for scene in read for pair in pairs_of_scene(scene, MAX_GAP)]
        parts["scenes"], scene_of["scenes"] = [pair for _, pair in of_scenes], [name for name, _ in of_scenes]
    rows, every = [], []
    for part, pairs in parts.items():
        if not pairs:
            raise UsageError(f"there are no pairs in the part '{part}'")
        drawn = draws_of(pairs, scene_of.get(part))
        for peer in run.peers:
            describe, ratio = cached_describe(peer, run.cache), threshold_of(thresholds, peer.name)
            results = []
            for pair in pairs:
                keypoints = [cached_keypoints(image, MAX_KEYPOINTS, run.cache) for image in (pair.image0, pair.image1)]
                results.append(evaluate(describe, peer.norm, ratio, pair, (keypoints[0], keypoints[1])))
            rows.append({"part": part, "descriptor": peer.name, "ratio": ratio, **summarise(results, drawn)})
            every += [{"part": part, "descriptor": peer.name, **result} for result in results]
            print(f"{part} {peer.name} {rows[-1]['auc']}", file=sys.stderr, flush=True)
    write_json(run.out, {**run.record("pairs", SEED), "results": rows, "pairs": every})
    print(text_of(COLUMNS, rows))
    return 0
