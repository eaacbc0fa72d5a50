"""COLMAP reconstruction of scenes with different descriptors.

    python -m eval sfm DATA/validate [--scenes herz_jesus,fox] [--peers rootsift,orb] [--out FILE.json]

Protocol. The same DoG keypoints (strongest ``--max-keypoints`` an image) go into every reconstruction; only the
matches differ. All image pairs are matched. ``sift`` is COLMAP's own way: RootSIFT vectors of 128 bytes, COLMAP's
matcher with its default ratio, distance and cross check. Ours are packed codes. Ours and peers are matched by the same
mutual ratio test, each at its own ratio of ``thresholds.json`` (95 % precision on the validation scenes), or ours at
``--ratio``. Verification, mapping, their options and seeds are the same for all; the camera of a scene is shared by
images of one size and its focal length is estimated, as in ``bingan reconstruct``. ``--own-detector`` adds COLMAP's
SIFT and ORB with the keypoints of their own detectors.

Where a scene has ``cameras.json``, poses are compared after a similarity alignment, and relative poses of all image
pairs by their AUC (an image that is not registered makes its pairs failures). Looser matching adds points and error
alike, so ``comparison`` also has the mean reprojection error of the same number of longest tracks. Finished
reconstructions are kept in the cache, with their seconds, so that a killed run can be resumed. Nothing is tuned here.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pycolmap
import tyro
from numpy.typing import NDArray

from eval.harness import matchers
from eval.harness.cache import cached, code_digest, digest
from eval.harness.columns import Column, text_of
from eval.harness.command import Names, OptionalOut, Scenes, SomeNames, command_line
from eval.harness.data import scenes_of
from eval.harness.features import cached_keypoints, keypoints_digest
from eval.harness.matchers import Features, Images, Matcher
from eval.harness.metrics import error_auc
from eval.harness.options import PeerOptions, RegionOptions, WorkOptions, load_models, peer_folder, with_regions
from eval.harness.peers import load_peers
from eval.harness.records import check_clean, write_json
from eval.quality.pairs import pose_error_deg
from eval.quality.thresholds import read_thresholds, threshold_of
from kornia_bingan import BinGAN, colmap, matching
from kornia_bingan.colmap import database as colmap_database
from kornia_bingan.colmap import half_pixel, mapping, reconstruct, write_features, write_matches
from kornia_bingan.colmap import model as colmap_model
from kornia_bingan.colmap.types import Model, cameras_for
from kornia_bingan.datasets.poses import Pose, load_cameras, pose_errors
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.images.read import read_image
from kornia_bingan.network.weights import find_weights
from kornia_bingan.reconstruct.page import model_figure
from kornia_bingan.work.provenance import provenance

MAX_KEYPOINTS = 4096
SEED = 0
AUC_DEG = (1.0, 3.0, 5.0)
SHOWN_POINTS = 1500
COLUMNS = (
    Column("scene", "scene"),
    Column("descriptor", "descriptor"),
    Column(
        "registered", lambda r: len(r["registered"]), lambda r: f"{len(r['registered'])} / {r['images']}", best="most"
    ),
    Column("points", "points", ",", best="most"),
    Column("observations", "observations", ",", best="most"),
    Column("track length", "mean_track_length", ".2f", best="most"),
    Column("reprojection error px", "mean_reprojection_error_px", ".3f", best="least"),
    Column("rotation error deg", "rotation_deg", ".3f", best="least"),
    Column("position error %", "position_percent", ".3f", best="least"),
    Column("matches", "matches", ",", views=("text",)),
    Column("inliers", "inliers", ",", views=("text",)),
    Column("AUC@1", lambda r: r["pair_auc"] and r["pair_auc"]["1"], ".3f", views=("text",)),
    Column("bytes", "descriptor_bytes", ",", best="least"),
    Column("seconds", "seconds", ".1f", best="least", views=("text", "page")),
)
CODE = (matchers, matching, colmap, half_pixel, colmap_database, mapping, colmap_model)
"""Modules that decide a result, beside this one."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class SfmOptions(PeerOptions, RegionOptions, WorkOptions):
    """What is reconstructed with what.

    Attributes:
        scenes: names, separated by commas; all scenes by default.
        ratio: of our mutual ratio test; each its threshold by default.
        own_detector: add SIFT and ORB with their own keypoints.
        max_keypoints: strongest of an image.
    """

    scenes: Names = ()
    ours: SomeNames = ("bingan256",)
    peers: Names = ()
    ratio: float | None = None
    own_detector: bool = False
    max_keypoints: int = MAX_KEYPOINTS
    out: OptionalOut = None


@dataclass(frozen=True)
class Result:
    """One scene with one descriptor; see the names in ``summary.json`` of ``bingan reconstruct``.

    ``descriptor_bytes`` is for all keypoints of the scene; ``rotation_deg`` and ``position_percent`` are medians
    against the true cameras and ``pair_auc`` is of the relative poses of all pairs, at 1, 3 and 5 degrees, None where
    there are no true cameras; ``peak_mib`` is the peak memory of the process so far.
    """

    scene: str
    descriptor: str
    images: int
    keypoints: int
    registered: tuple[str, ...]
    points: int
    observations: int
    mean_track_length: float
    mean_reprojection_error_px: float
    pairs: int
    verified: int
    matches: int
    inliers: int
    rotation_deg: float | None
    position_percent: float | None
    pair_auc: dict[str, float] | None
    descriptor_bytes: int
    seconds: float
    peak_mib: int


def evaluate(scene: Path, matcher: Matcher, images: Images, features: Features, seed: int = SEED) -> tuple[Result, Any]:
    """Reconstruct one scene from its images and keypoints with one way of matching; give the model too, or None."""
    started = time.monotonic()
    matched = matcher.match(images, features)
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "database.db"
        write_features(database, matched.features, cameras_for({n: i.shape[::-1] for n, i in images.items()}))
        verification = write_matches(database, {k: v for k, v in matched.pairs.items() if len(v)}, seed=seed)
        try:
            model = reconstruct(database, scene / "images", Path(folder) / "model", seed=seed)
        except JobError:
            model = None
    truth = scene / "cameras.json"
    result = Result(
        scene=scene.name,
        descriptor=matcher.name,
        images=len(images),
        keypoints=sum(len(points) for points in matched.features.values()),
        registered=() if model is None else model.names,
        points=0 if model is None else len(model.xyz),
        observations=0 if model is None else model.observations,
        mean_track_length=0.0 if model is None else round(model.mean_track_length, 4),
        mean_reprojection_error_px=0.0 if model is None else round(model.mean_reprojection_error_px, 4),
        pairs=verification.pairs,
        verified=verification.verified,
        matches=verification.matches,
        inliers=sum(verification.inliers.values()),
        **against_truth(model, truth if truth.is_file() else None),
        descriptor_bytes=matched.descriptor_bytes,
        seconds=round(time.monotonic() - started, 2),
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )
    return result, model


def against_truth(model: Model | None, cameras: Path | None) -> dict[str, Any]:
    """Compare a model with true cameras: median pose errors, and the AUC of relative poses."""
    nothing: dict[str, Any] = {"rotation_deg": None, "position_percent": None, "pair_auc": None}
    if cameras is None:
        return nothing
    truth = {name: (camera.R, camera.t) for name, camera in load_cameras(cameras).items()}
    if model is None:
        return {**nothing, "pair_auc": dict.fromkeys((f"{limit:g}" for limit in AUC_DEG), 0.0)}
    poses = dict(zip(model.names, zip(model.rotations, model.translations, strict=True), strict=True))
    auc = error_auc(relative_pose_errors(poses, truth), AUC_DEG)
    found = {**nothing, "pair_auc": {f"{limit:g}": round(v, 4) for limit, v in zip(AUC_DEG, auc, strict=True)}}
    if len(model.names) >= 3:
        errors = pose_errors(poses, truth)
        found.update(rotation_deg=errors["median_rotation_deg"], position_percent=errors["median_position_percent"])
    return found


def relative_pose_errors(poses: Mapping[str, Pose], truth: Mapping[str, Pose]) -> list[float]:
    """Give the error of the relative pose of each pair of images, degrees; infinite where one has no pose."""
    errors = []
    for pair in combinations(sorted(truth), 2):
        if not all(name in poses for name in pair):
            errors.append(np.inf)
            continue
        (R, t), (R_true, t_true) = (_relative(known[pair[0]], known[pair[1]]) for known in (poses, truth))
        errors.append(pose_error_deg(R, t, R_true, t_true))
    return errors


def _relative(pose0: Pose, pose1: Pose) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    R0, t0, R1, t1 = (np.asarray(value, np.float64) for value in (*pose0, *pose1))
    return R1 @ R0.T, t1 - R1 @ R0.T @ t0


def cached_evaluate(
    scene: Path, matcher: Matcher, images: Images, features: Features, folder: Path | None
) -> tuple[Result, Arrays]:
    """Give a result, the tracks of its model and a drawing of it, from the cache if they are there."""
    truth = scene / "cameras.json"
    key = {
        "step": "sfm",
        "scene": scene.name,
        "names": list(images),
        "images": digest(*images.values()),
        "keypoints": [keypoints_digest(points) for points in features.values()],
        "cameras": truth.read_text(encoding="utf-8") if truth.is_file() else None,
        "matcher": matcher.name,
        "identity": matcher.identity,
        "seed": SEED,
        "code": code_digest(sys.modules[__name__], *CODE),
        "pycolmap": pycolmap.__version__,
    }

    def make() -> Arrays:
        result, model = evaluate(scene, matcher, images, features)
        figure, track, error = None, np.zeros(0, np.int64), np.zeros(0)
        if model is not None:
            track, error = model.track_length, model.error_px
            figure = model_figure(model, np.argsort(-track, kind="stable")[:SHOWN_POINTS])
        text = json.dumps({"result": asdict(result), "figure": figure})
        return {"text": np.array(text), "track": track, "error": error}

    arrays = cached(folder, key, make)
    values = json.loads(str(arrays["text"]))["result"]
    return Result(**{**values, "registered": tuple(values["registered"])}), arrays


def error_of_longest(arrays: Arrays, count: int) -> float | None:
    """Give the mean reprojection error of the points with the longest tracks, pixels; equal lengths by least error."""
    order = np.lexsort([arrays["error"], -arrays["track"]])[:count]
    return round(float(arrays["error"][order].mean()), 4) if len(order) else None


def load_scene(scene: Path, max_keypoints: int, cache: Path | None) -> tuple[Images, Features]:
    """Read the photos of ``scene/images`` and detect their DoG keypoints."""
    names, skipped = list_images(scene / "images")
    if len(names) < 2:
        raise UsageError(f"{scene / 'images'} has {len(names)} images ({len(skipped)} files skipped); two are needed")
    images = {name: read_image(scene / "images" / name) for name in names}
    return images, {name: cached_keypoints(image, max_keypoints, cache) for name, image in images.items()}


def comparison(results: list[Result], tracks: dict[tuple[str, str], Arrays], first: str) -> dict[str, Any]:
    """Compare a descriptor with each other one.

    For every scene: images that only the other registers, ratios of points and observations, and the reprojection
    error of the same number of longest tracks (all points of the smaller model).
    """
    of = {(result.scene, result.descriptor): result for result in results}
    scenes = list(dict.fromkeys(result.scene for result in results))
    compared: dict[str, Any] = {}
    for other in dict.fromkeys(result.descriptor for result in results if result.descriptor != first):
        rows = {}
        for scene in scenes:
            a, b = of[scene, first], of[scene, other]
            count = min(a.points, b.points)
            rows[scene] = {
                "registered": [len(a.registered), len(b.registered)],
                "lost": sorted(set(b.registered) - set(a.registered)),
                "points": [a.points, b.points],
                "points_ratio": round(a.points / b.points, 4) if b.points else None,
                "observations_ratio": round(a.observations / b.observations, 4) if b.observations else None,
                "longest_tracks": count,
                "longest_error_px": [error_of_longest(tracks[scene, name], count) for name in (first, other)],
            }
        total = [sum(of[scene, name].observations for scene in scenes) for name in (first, other)]
        compared[other] = {"observations_ratio": round(total[0] / total[1], 4) if total[1] else None, "scenes": rows}
    return {"first": first, "others": compared}


def choose_matchers(options: SfmOptions, peers_in: Path, models: list[BinGAN]) -> tuple[list[Matcher], dict[str, str]]:
    """Build the ways of matching that the options name, and say which are absent."""
    names = with_regions(options.peers, options.regions, options.support)
    thresholds = {} if options.ratio is not None and not names and not options.own_detector else read_thresholds()
    chosen = []
    for model in models:
        ratio = threshold_of(thresholds, model.name) if options.ratio is None else options.ratio
        chosen.append(matchers.ours_matcher(model, ratio))
    chosen.append(matchers.sift_matcher())
    peers, absent = load_peers(names, peers_in)
    # The peer "sift" is matched by its ratio; "sift" alone is COLMAP's own way.
    chosen += [matchers.peer_matcher(peer, threshold_of(thresholds, peer.name)) for peer in peers]
    if options.own_detector:
        (orb,), _ = load_peers(["orb"], peers_in)
        chosen.append(matchers.own_sift_matcher())
        chosen.append(matchers.own_orb_matcher(orb, threshold_of(thresholds, "orb"), options.max_keypoints))
    return chosen, absent


@command_line("sfm")
def main(data: Scenes, options: Annotated[SfmOptions, tyro.conf.arg(name="")]) -> int:
    check_clean(options.out)
    cache = options.begin()
    if not data.is_dir():
        raise UsageError(f"{data} is no folder of scenes")
    scenes = scenes_of(data, options.scenes)
    if not scenes:
        raise UsageError(f"{data} has no folder with images/ in it")
    models = load_models(options.ours)
    first = next(iter(models.values()))
    chosen, absent = choose_matchers(options, options.peer_weights or peer_folder(data), list(models.values()))
    results: list[Result] = []
    tracks: dict[tuple[str, str], Arrays] = {}
    figures: dict[str, Any] = {}
    for scene in scenes:
        images, features = load_scene(scene, options.max_keypoints, cache)
        for matcher in chosen:
            result, arrays = cached_evaluate(scene, matcher, images, features, cache)
            results.append(result)
            tracks[scene.name, matcher.name] = arrays
            print(f"{scene.name} {matcher.name} {result.points:,} points", file=sys.stderr, flush=True)
        figures[scene.name] = json.loads(str(tracks[scene.name, first.name]["text"]))["figure"]
    print(text_of(COLUMNS, [asdict(result) for result in results]))
    for name, reason in absent.items():
        print(f"absent: {name}: {reason}")
    if options.out:
        command = f"python -m eval sfm DATA/{data.resolve().name}"
        command += f" --scenes {','.join(options.scenes)}" if options.scenes else ""
        command += f" --peers {','.join(options.peers)}{options.words()}" if options.peers else ""
        command += f" --ratio {options.ratio}" if options.ratio else ""
        command += " --own-detector" if options.own_detector else ""
        record = {
            "protocol": "sfm",
            "command": command,
            "max_keypoints": options.max_keypoints,
            "ratio": chosen[0].identity["ratio"],
            "results": [asdict(result) for result in results],
            "comparison": comparison(results, tracks, first.name),
            "figures": figures,
            "absent": absent,
            "provenance": provenance(find_weights(options.ours[0]), SEED),
        }
        write_json(options.out, record)
    return 0
