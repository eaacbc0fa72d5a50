"""COLMAP reconstruction of scenes with different descriptors.

    python -m eval sfm DATA/validate [--scenes herz_jesus,fox] [--peers rootsift,orb] [--out FILE.json]

Protocol. The same DoG keypoints (strongest ``--max-keypoints`` an image) go into every reconstruction; only the
matches differ. All image pairs are matched. ``sift`` is COLMAP's own way: RootSIFT vectors of 128 bytes, COLMAP's
matcher with its default ratio, distance and cross check. Ours are packed codes, matched by mutual ratio test at the
package's default ratio, or at ``--ratio``. Peers are matched by the same mutual ratio test, each at its own ratio of
``thresholds.json`` (95 % precision on the validation scenes). Verification, mapping, their options and seeds are the
same for all; the camera of a scene is shared by images of one size and its focal length is estimated, as in
``bingan reconstruct``. Where a scene has ``cameras.json``, poses are compared after a similarity alignment. Nothing is
tuned here.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from eval.matching import mutual_matches
from eval.peers import Peer, load_peers
from eval.thresholds import read_thresholds, threshold_of
from kornia_bingan import BinGAN
from kornia_bingan.colmap import reconstruct, write_features, write_matches
from kornia_bingan.descriptor import describe
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.files import write_json
from kornia_bingan.images import list_images, read_image
from kornia_bingan.keypoints import Keypoints, detect, to_opencv
from kornia_bingan.matching import match
from kornia_bingan.memory import keep_freed_memory
from kornia_bingan.model import cameras_for
from kornia_bingan.provenance import provenance
from kornia_bingan.reconstruction import DEFAULT_RATIO
from kornia_bingan.report import text_table
from kornia_bingan.scene import load_cameras, pose_errors
from kornia_bingan.weights import find_weights

MAX_KEYPOINTS = 4096
SEED = 0

Images = Mapping[str, NDArray[np.uint8]]
Features = Mapping[str, Keypoints]
Matches = dict[tuple[str, str], NDArray[np.int64]]
Matcher = Callable[[Images, Features], tuple[Matches, int]]


@dataclass(frozen=True)
class Result:
    """One scene with one descriptor; see the names in ``summary.json`` of ``bingan reconstruct``.

    ``descriptor_bytes`` is for all keypoints of the scene; ``rotation_deg`` and ``position_percent`` are medians
    against the true cameras, None where there are none; ``peak_mib`` is the peak memory of the process so far.
    """

    scene: str
    descriptor: str
    images: int
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
    descriptor_bytes: int
    seconds: float
    peak_mib: int


def match_ours(model: BinGAN, ratio: float) -> Matcher:
    """Match packed codes of every image pair by mutual ratio test."""

    def run(images: Images, features: Features) -> tuple[Matches, int]:
        codes = {name: describe(model, images[name], features[name]) for name in images}
        pairs = {(a, b): match(codes[a], codes[b], "smnn", ratio)[1] for a, b in combinations(images, 2)}
        return pairs, sum(c.nbytes for c in codes.values())

    return run


def match_peer(peer: Peer, ratio: float) -> Matcher:
    """Match the rows of another descriptor by mutual ratio test."""

    def run(images: Images, features: Features) -> tuple[Matches, int]:
        rows = {name: peer.describe(images[name], features[name]) for name in images}
        pairs: Matches = {}
        for a, b in combinations(images, 2):
            found = mutual_matches(rows[a], rows[b], peer.norm)
            pairs[a, b] = found.indices[found.ratio_two_way <= ratio]
        return pairs, peer.num_bytes * sum(len(r) for r in rows.values())

    return run


def match_sift(images: Images, features: Features) -> tuple[Matches, int]:
    """Match RootSIFT bytes of every image pair by COLMAP's own matcher with its default options."""
    sift = cv2.SIFT.create()
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "database.db"
        write_features(database, features, cameras_for({n: image.shape[::-1] for n, image in images.items()}))
        db = pycolmap.Database.open(str(database))
        ids = {image.name: image.image_id for image in db.read_all_images()}
        for name, image in images.items():
            _, vectors = sift.compute(image, to_opencv(features[name]))
            if vectors is None:
                continue
            assert len(vectors) == len(features[name])
            root = np.sqrt(vectors / np.maximum(vectors.sum(1, keepdims=True), 1e-9))
            data = np.clip(np.round(512 * root), 0, 255).astype(np.uint8)
            total += data.nbytes
            kind = pycolmap.FeatureExtractorType.SIFT
            db.write_descriptors(ids[name], pycolmap.FeatureDescriptors(type=kind, data=data))
        db.close()
        options = pycolmap.FeatureMatchingOptions()
        options.skip_geometric_verification = True
        pycolmap.match_exhaustive(str(database), matching_options=options, device=pycolmap.Device.cpu)
        db = pycolmap.Database.open(str(database))
        pairs: Matches = {}
        for a, b in combinations(images, 2):
            rows = np.asarray(db.read_matches(ids[a], ids[b])).astype(np.int64).reshape(-1, 2)
            if len(rows):
                pairs[a, b] = rows
        db.close()
    return pairs, total


def evaluate(scene: Path, descriptor: str, matcher: Matcher, images: Images, features: Features) -> Result:
    """Reconstruct one scene from its images and keypoints with one way of matching."""
    started = time.monotonic()
    pairs, descriptor_bytes = matcher(images, features)
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "database.db"
        write_features(database, features, cameras_for({n: image.shape[::-1] for n, image in images.items()}))
        verification = write_matches(database, {k: v for k, v in pairs.items() if len(v)}, seed=SEED)
        names: tuple[str, ...] = ()
        points = observations = 0
        track = error = 0.0
        rotation = position = None
        try:
            model = reconstruct(database, None, Path(folder) / "model", seed=SEED)
        except JobError:
            model = None
        if model is not None:
            names, points, observations = model.names, len(model.xyz), model.observations
            track, error = model.mean_track_length, model.mean_reprojection_error_px
            truth = scene / "cameras.json"
            if truth.is_file() and len(names) >= 3:
                cameras = {name: (camera.R, camera.t) for name, camera in load_cameras(truth).items()}
                poses = dict(zip(names, zip(model.rotations, model.translations, strict=True), strict=True))
                errors = pose_errors(poses, cameras)
                rotation, position = errors["median_rotation_deg"], errors["median_position_percent"]
    return Result(
        scene=scene.name,
        descriptor=descriptor,
        images=len(images),
        registered=names,
        points=points,
        observations=observations,
        mean_track_length=round(track, 4),
        mean_reprojection_error_px=round(error, 4),
        pairs=verification.pairs,
        verified=verification.verified,
        matches=verification.matches,
        inliers=sum(verification.inliers.values()),
        rotation_deg=rotation,
        position_percent=position,
        descriptor_bytes=descriptor_bytes,
        seconds=round(time.monotonic() - started, 2),
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )


def load_scene(scene: Path, max_keypoints: int) -> tuple[Images, Features]:
    """Read the photos of ``scene/images`` and detect their DoG keypoints."""
    names, skipped = list_images(scene / "images")
    if len(names) < 2:
        raise UsageError(f"{scene / 'images'} has {len(names)} images ({len(skipped)} files skipped); two are needed")
    images = {name: read_image(scene / "images" / name) for name in names}
    return images, {name: detect(image, "dog", max_keypoints) for name, image in images.items()}


def comparison(results: list[Result], first: str, second: str) -> dict[str, Any]:
    """Compare two descriptors over the scenes: images lost, and ratios of points and observations."""
    rows = {}
    for scene in dict.fromkeys(result.scene for result in results):
        a, b = (next(r for r in results if (r.scene, r.descriptor) == (scene, name)) for name in (first, second))
        rows[scene] = {
            "registered": [len(a.registered), len(b.registered)],
            "lost": sorted(set(b.registered) - set(a.registered)),
            "points": [a.points, b.points],
            "points_ratio": round(a.points / b.points, 4) if b.points else None,
            "observations_ratio": round(a.observations / b.observations, 4) if b.observations else None,
        }
    return {"first": first, "second": second, "scenes": rows}


def table(results: list[Result]) -> str:
    """Render the results as text."""
    header = [
        "scene",
        "descriptor",
        "registered",
        "points",
        "observations",
        "track",
        "reproj. px",
        "matches",
        "inliers",
    ]
    header += ["rotation deg", "position %", "bytes", "seconds"]
    rows = [
        [
            r.scene,
            r.descriptor,
            f"{len(r.registered)} / {r.images}",
            f"{r.points:,}",
            f"{r.observations:,}",
            f"{r.mean_track_length:.3f}",
            f"{r.mean_reprojection_error_px:.3f}",
            f"{r.matches:,}",
            f"{r.inliers:,}",
            "" if r.rotation_deg is None else f"{r.rotation_deg:.3f}",
            "" if r.position_percent is None else f"{r.position_percent:.3f}",
            f"{r.descriptor_bytes:,}",
            f"{r.seconds:.1f}",
        ]
        for r in results
    ]
    return text_table(header, rows)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval sfm", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="folder of scenes, each with images/ and perhaps cameras.json")
    parser.add_argument("--scenes", default="", help="names, separated by commas; all scenes by default")
    parser.add_argument("--descriptor", default="bingan256", help="shipped name or weights file")
    parser.add_argument("--ratio", type=float, default=DEFAULT_RATIO, help="of our mutual ratio test")
    parser.add_argument("--peers", default="", help="others of eval/peers.py, separated by commas")
    parser.add_argument("--peer-weights", type=Path, default=Path("../shared/data/peers"))
    parser.add_argument("--max-keypoints", type=int, default=MAX_KEYPOINTS)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args(argv)
    keep_freed_memory()
    if not arguments.data.is_dir():
        raise UsageError(f"{arguments.data} is no folder of scenes")
    wanted = [name for name in arguments.scenes.split(",") if name]
    scenes = [arguments.data / name for name in wanted] or sorted(p.parent for p in arguments.data.glob("*/images"))
    if not scenes:
        raise UsageError(f"{arguments.data} has no folder with images/ in it")
    model = BinGAN.from_pretrained(arguments.descriptor)
    matchers: dict[str, Matcher] = {model.name: match_ours(model, arguments.ratio), "sift": match_sift}
    absent: dict[str, str] = {}
    if names := [name for name in arguments.peers.split(",") if name]:
        peers, absent = load_peers(names, arguments.peer_weights)
        thresholds = read_thresholds()
        for peer in peers:  # "sift" alone is COLMAP's own way
            matchers[f"{peer.name} (ratio)"] = match_peer(peer, threshold_of(thresholds, peer.name))
    results: list[Result] = []
    for scene in scenes:
        images, features = load_scene(scene, arguments.max_keypoints)
        for name, matcher in matchers.items():
            results.append(evaluate(scene, name, matcher, images, features))
            print(table(results[-1:]), flush=True)
    compared = comparison(results, model.name, "sift")
    print(table(results))
    if arguments.out:
        record = {
            "protocol": "sfm",
            "command": f"python -m eval sfm DATA/{arguments.data.resolve().name} {' '.join(argv[1:])}".rstrip(),
            "max_keypoints": arguments.max_keypoints,
            "ratio": arguments.ratio,
            "results": [asdict(result) for result in results],
            "comparison": compared,
            "absent": absent,
            "provenance": provenance(find_weights(arguments.descriptor), SEED),
        }
        write_json(arguments.out, record)
    return 0
