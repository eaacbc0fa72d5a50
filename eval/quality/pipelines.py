"""Whole pipelines as people run them, each with its own detector and matcher, all with one estimator.

    python -m eval pipelines DATA/validate [--only herz_jesus] [--pipelines bingan256+context,orb+ratio] [--colmap]

Protocol. Every pipeline has its usual number of keypoints and the defaults of its package: 4,096 of ours, RootSIFT, ORB
and XFeat, 2,048 of ALIKED and DISK. A match is correct as in ``m95``: within 2.5 px of the epipolar lines, or of where
the homography puts it. ``aligned`` is context with aligned keypoints, as ``bingan match`` and ``bingan reconstruct``
have by default. Parts:

- scenes with ``cameras.json``, all pairs of photos up to 4 apart: AUC of the pose error up to 5, 10, 20 degrees, as in
  ``pairs`` (essential matrix by MAGSAC at 1 px); ``mean`` is the mean over the scenes;
- wide pairs, of ``DATA/pairs/SPLIT`` beside the split: the same;
- homography sequences, EVD apart: AUC of the corner error up to 1, 3, 5 px, as in ``hpatches``.

``--pairs N`` takes N of the pairs of each scene, evenly spread. Seconds are processor seconds of one thread, the median
over pictures and over pairs; bytes are those of the descriptors. Intervals are 95 % bootstrap with the same draws for
all: over photos of a scene, sequences, and wide pairs that share no photo. ``--colmap`` reconstructs the scenes from
the matches of all pairs, as in ``sfm``. Features and matches are kept in the cache, so that a killed run can be
resumed. Nothing is tuned here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.harness import pipeline, problems
from eval.harness.bootstrap import connected_photos, drawn_groups, drawn_photos, interval_of
from eval.harness.cache import Arrays, cached, code_digest, digest
from eval.harness.columns import Column, text_of
from eval.harness.command import Names, OptionalOut, Split, command_line
from eval.harness.data import PosedPair, find_scenes, read_scene
from eval.harness.known_pairs import WIDE, KnownPairs, Truth, load_pairs, pictures_of
from eval.harness.matchers import Features, Images, Matched, Matcher
from eval.harness.metrics import error_auc
from eval.harness.options import RESULTS, CacheOptions, use_threads
from eval.harness.pipeline import (
    Indices,
    Picture,
    Pipeline,
    cached_alignment,
    cached_features,
    cached_matches,
    matched_positions,
)
from eval.harness.pipelines import NAMES, load_pipelines
from eval.harness.problems import epipolar_errors_px, fundamental_of_pose, transfer_errors_px
from eval.harness.records import check_clean, write_json
from eval.quality import hpatches, pairs, sfm
from eval.quality.hpatches import corner_error_px
from eval.quality.m95 import THRESHOLD_PX
from eval.quality.pairs import estimate_pose, pose_error_deg
from kornia_bingan import patches
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.matching import refine, tracks
from kornia_bingan.matching.geometry import homography_inliers
from kornia_bingan.matching.tracks import exact_keypoints
from kornia_bingan.network.weights import find_weights
from kornia_bingan.work.provenance import provenance

NUM_RESAMPLES = 500
SEED = 0
MEAN = "mean"
LIMITS = {"scenes": (5.0, 10.0, 20.0), WIDE: (5.0, 10.0, 20.0), "homographies": (1.0, 3.0, 5.0)}
LIMITS["evd"] = LIMITS["homographies"]
"""Of the AUC, degrees or pixels, by part."""

COLMAP_COLUMNS = tuple(column for column in sfm.COLUMNS if column.header != "seconds")
"""Features and matches may come from the cache, so the seconds of a reconstruction are not those of a pipeline."""

Floats = NDArray[np.float64]


def columns(part: str) -> list[Column]:
    """Give the columns of a part."""
    limits = LIMITS[part]

    def auc(limit: float) -> Column:
        key = f"{limit:g}"
        return Column(f"AUC@{key} (interval)", lambda r: r["auc"][key], ".3f", "most", lambda r: r["auc_interval"][key])

    return [
        Column("pipeline", "pipeline"),
        Column("data", "data"),
        Column("pairs", "pairs", views=("text", "page")),
        *(auc(limit) for limit in limits),
        Column("matches", "matches", ","),
        Column("correct", "correct", ",", best="most"),
        Column("precision", "precision", ".3f", best="most"),
        Column("failures", "failures", ",", views=("text", "page")),
        Column("s / picture", "seconds_per_picture", ".2f", best="least"),
        Column("s / pair", "seconds_per_pair", ".3f", best="least"),
        Column("keypoints / picture", "keypoints_per_picture", ",.0f", views=("text", "page")),
        Column("bytes / picture", "bytes_per_picture", ",.0f", best="least"),
    ]


def judge(truth: Truth, xy0: Floats, xy1: Floats, shape: tuple[int, int]) -> tuple[int, float]:
    """Count the correct matches of a pair, and give the error of what the estimator makes of all of them.

    Args:
        truth: a pose, or a homography.
        xy0: matched points of the first picture, float64 (M, 2).
        xy1: the same in the second.
        shape: height and width of the first picture.

    Returns:
        The error is in degrees of the pose or in pixels of the corners, infinite where there is none.
    """
    if isinstance(truth, PosedPair):
        errors = epipolar_errors_px(fundamental_of_pose(truth.K0, truth.K1, truth.R, truth.t), xy0, xy1)
        pose = estimate_pose(xy0, xy1, truth)
        error = float("inf") if pose is None else pose_error_deg(pose[0], pose[1], truth.R, truth.t)
    else:
        errors = transfer_errors_px(truth, xy0, xy1)
        found, _ = homography_inliers(xy0, xy1, hpatches.RANSAC_PX, seed=SEED)
        error = float("inf") if found is None else corner_error_px(found, truth, shape)
    return int((errors < THRESHOLD_PX).sum()), error


def cached_judge(
    truth: Truth, xy0: Floats, xy1: Floats, shape: tuple[int, int], folder: Path | None
) -> tuple[int, float]:
    """Give what :func:`judge` gives, from the cache if it is there."""
    known = (truth.K0, truth.K1, truth.R, truth.t) if isinstance(truth, PosedPair) else (truth,)
    key = {
        "step": "pipeline-errors",
        "truth": digest(*known, np.array(shape)),
        "matches": digest(xy0, xy1),
        "code": code_digest(sys.modules[__name__], pairs, hpatches, problems),
    }

    def make() -> Arrays:
        correct, error = judge(truth, xy0, xy1, shape)
        return {"correct": np.array(correct), "error": np.array(error)}

    arrays = cached(folder, key, make)
    return int(arrays["correct"]), float(arrays["error"])


def evaluate(chosen: Pipeline, data: KnownPairs, folder: Path | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a pipeline on the pairs of a scene, sequence or list: costs of its pictures, and one entry a pair."""
    found = {name: cached_features(chosen.extractor, picture, folder) for name, picture in data.pictures.items()}
    entries, seconds = [], []
    for (first, second), truth in data.truths.items():
        features = found[first][0], found[second][0]
        pictures = data.pictures[first], data.pictures[second]
        xy0, xy1, took = matched_positions(chosen, pictures, features, folder)
        seconds.append(took)
        correct, error = cached_judge(truth, xy0, xy1, features[0].shape, folder)
        error_or_none = error if np.isfinite(error) else None
        entry = {"pipeline": chosen.name, "part": data.part, "data": data.name, "photos": [first, second]}
        entries.append({**entry, "matches": len(xy0), "correct": correct, "error": error_or_none})
    costs = {
        "keypoints_per_picture": round(float(np.mean([len(f.rows) for f, _ in found.values()])), 1),
        "seconds_per_picture": round(float(np.median([took for _, took in found.values()])), 4),
        "seconds_per_pair": round(float(np.median(seconds)), 4),
        "bytes_per_picture": round(float(np.mean([f.rows.nbytes for f, _ in found.values()]))),
    }
    return costs, entries


def draws_of(part: str, entries: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    """Draw bootstrap samples: how often each pair counts, int64 (R, P); the same for all pipelines."""
    photos = [(entry["data"], entry["photos"][0]) for entry in entries]
    others = [(entry["data"], entry["photos"][1]) for entry in entries]
    both = list(zip(photos, others, strict=True))
    names = [entry["data"] for entry in entries]
    if part == "scenes":
        return drawn_photos(both, names, NUM_RESAMPLES, SEED)
    return drawn_groups(connected_photos(both) if part == WIDE else names, NUM_RESAMPLES, SEED)


def summarise(
    name: str, part: str, entries: Sequence[Mapping[str, Any]], costs: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """Turn the pairs of one pipeline into numbers; the AUC of several scenes is the mean of theirs.

    Args:
        name: of the data in tables.
        part: of ``LIMITS``.
        entries: of :func:`evaluate`.
        costs: of :func:`evaluate`, one for each scene, sequence or list.
    """
    errors = np.array([np.inf if entry["error"] is None else entry["error"] for entry in entries])
    groups = [entry["data"] if part == "scenes" else part for entry in entries]
    inside = [np.array([group == own for own in groups]) for group in dict.fromkeys(groups)]
    counts = draws_of(part, entries)

    def auc(limit: float, count: NDArray[np.int64]) -> float:
        return float(np.mean([error_auc(np.repeat(errors[own], count[own]), [limit])[0] for own in inside]))

    matches, correct = (int(sum(entry[key] for entry in entries)) for key in ("matches", "correct"))
    intervals = {f"{limit:g}": interval_of(partial(auc, limit), counts) for limit in LIMITS[part]}
    return {
        "pipeline": entries[0]["pipeline"],
        "part": part,
        "data": name,
        "pairs": len(entries),
        "auc": {f"{limit:g}": round(auc(limit, np.ones(len(errors), np.int64)), 4) for limit in LIMITS[part]},
        "auc_interval": {limit: [round(end, 4) for end in ends] for limit, ends in intervals.items()},
        "matches": matches,
        "correct": correct,
        "precision": round(correct / max(1, matches), 4),
        "failures": int(np.isinf(errors).sum()),
        **{key: round(float(np.mean([cost[key] for cost in costs])), 4) for key in costs[0]},
    }


def rows_of(measured: Mapping[tuple[str, str, str], tuple[dict[str, Any], list[dict[str, Any]]]]) -> list[Any]:
    """Make the rows of the tables: of each pipeline the mean over scenes, each scene, and each other part.

    Args:
        measured: what :func:`evaluate` gives, by pipeline, part and name of the data.
    """
    rows = []
    for part in LIMITS:
        for chosen in dict.fromkeys(key[0] for key in measured):
            every = {data: found for (own, of, data), found in measured.items() if (own, of) == (chosen, part)}
            together = [entry for _, entries in every.values() for entry in entries]
            costs = [cost for cost, _ in every.values()]
            if len(every) > 1 or (every and part != "scenes"):
                rows.append(summarise(MEAN if part == "scenes" else part, part, together, costs))
            if part == "scenes":
                rows += [summarise(data, part, entries, [cost]) for data, (cost, entries) in every.items()]
    return rows


def matcher_of(chosen: Pipeline, pictures: Mapping[str, Picture], folder: Path | None) -> Matcher:
    """Let ``sfm`` reconstruct from the keypoints and matches of a pipeline."""

    def run(images: Images, features: Features) -> Matched:
        found = {name: cached_features(chosen.extractor, pictures[name], folder)[0] for name in images}
        matched: dict[tuple[str, str], Indices] = {
            (a, b): cached_matches(chosen, found[a], found[b], folder)[0] for a, b in combinations(images, 2)
        }
        points: dict[str, Keypoints] = {name: f.keypoints for name, f in found.items()}
        if chosen.aligned:
            every = {
                (a, b): cached_alignment((pictures[a], pictures[b]), (found[a], found[b]), rows, folder)[0]
                for (a, b), rows in matched.items()
            }
            points, agree = exact_keypoints(points, every)
            matched = {pair: rows[agree[pair]] for pair, rows in matched.items()}
        return Matched(points, matched, sum(f.rows.nbytes for f in found.values()))

    code = code_digest(pipeline, *((refine, tracks, patches) if chosen.aligned else ()))
    identity = {"extractor": chosen.extractor.identity, "matcher": chosen.identity, "code": code}
    return Matcher(chosen.name, identity, run)


def reconstruct(path: Path, every: Sequence[Pipeline], folder: Path | None) -> list[dict[str, Any]]:
    """Reconstruct a scene from the matches of each pipeline."""
    scene = read_scene(path)
    pictures = pictures_of(scene, path)
    images = {name: picture.grey for name, picture in pictures.items()}
    rows = []
    for chosen in every:
        result, _ = sfm.cached_evaluate(path, matcher_of(chosen, pictures, folder), images, {}, folder)
        rows.append(asdict(result))
        print(f"{path.name} {chosen.name} {result.points:,} points", file=sys.stderr, flush=True)
    return rows


@command_line("pipelines")
def main(
    data: Split,
    work: CacheOptions,
    only: Names = (),
    pipelines: Names = NAMES,
    pairs: int | None = None,
    colmap: bool = False,
    out: OptionalOut = None,
) -> int:
    """Run every pipeline.

    Args:
        only: names of scenes and sequences, separated by commas; all by default.
        pipelines: separated by commas; all by default.
        pairs: of each scene, evenly spread; all by default.
        colmap: reconstruct the scenes too.
    """
    if not data.is_dir():
        raise UsageError(f"{data} is no folder; give the folder of a split, such as DATA/validate")
    if pairs is not None and pairs < 1:
        raise UsageError(f"--pairs is {pairs}; give 1 or more")
    out = out or RESULTS / f"pipelines-{data.resolve().name}.json"
    check_clean(out)
    use_threads(1)
    every, absent = load_pipelines(list(pipelines))
    if not every:
        raise UsageError(f"no pipeline can run here: {'; '.join(absent.values()) or 'none was named'}")
    folder = work.place()
    measured = {}
    for each in load_pairs(data, only, pairs):
        for chosen in every:
            measured[chosen.name, each.part, each.name] = evaluate(chosen, each, folder)
            print(f"{each.name} {chosen.name}", file=sys.stderr, flush=True)
    rows = rows_of(measured)
    scenes = find_scenes(data, only) if colmap else []
    models = [row for path in scenes for row in reconstruct(path, every, folder)]
    asked = {"--only": ",".join(only), "--pairs": pairs}
    asked["--pipelines"] = ",".join(pipelines) if pipelines != tuple(NAMES) else ""
    words = [f"{option} {value}" for option, value in asked.items() if value]
    words += ["--colmap"] if colmap else []
    record = {
        "protocol": "pipelines",
        "command": " ".join([f"python -m eval pipelines DATA/{data.resolve().name}", *words]),
        "pipelines": {p.name: {"features": p.extractor.identity, "matcher": p.identity} for p in every},
        "absent": absent,
        "results": rows,
        "colmap": models,
        "pairs": [entry for _, entries in measured.values() for entry in entries],
        "provenance": provenance(find_weights("bingan256"), SEED),
    }
    write_json(out, record)
    for part in dict.fromkeys(row["part"] for row in rows):
        print(text_of(columns(part), [row for row in rows if row["part"] == part]), end="\n\n")
    if models:
        print(text_of(COLMAP_COLUMNS, models))
    for name, reason in absent.items():
        print(f"absent: {name}: {reason}")
    return 0
