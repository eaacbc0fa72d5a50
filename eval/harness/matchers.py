"""Images and keypoints become matches of all image pairs: one way a descriptor, for the reconstruction protocol."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from eval.harness.matching import mutual_matches
from eval.harness.peers import Peer
from kornia_bingan import BinGAN
from kornia_bingan.colmap import read_features, write_features
from kornia_bingan.colmap import sift as sift_model
from kornia_bingan.colmap.types import cameras_for
from kornia_bingan.descriptor import describe
from kornia_bingan.keypoints import Keypoints, from_opencv, to_opencv, unbiased_orb
from kornia_bingan.matching import match
from kornia_bingan.work.isolated import run_in_child

Images = Mapping[str, NDArray[np.uint8]]
Features = Mapping[str, Keypoints]
Pairs = dict[tuple[str, str], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Matched:
    """What a matcher found.

    Attributes:
        features: the keypoints that the matches count.
        pairs: matches by image pair, int64 (M, 2).
        descriptor_bytes: of all keypoints of the scene.
    """

    features: Features
    pairs: Pairs
    descriptor_bytes: int


@dataclass(frozen=True, eq=False)
class Matcher:
    """One way to match the images of a scene.

    Attributes:
        name: as in tables.
        identity: what decides the matches beside images and keypoints, as JSON can hold it.
        match: ``(images, features) -> Matched``; a matcher with its own detector ignores the features.
    """

    name: str
    identity: dict[str, Any]
    match: Callable[[Images, Features], Matched]


def ours_matcher(model: BinGAN, ratio: float) -> Matcher:
    """Match packed codes by the package's own mutual ratio test."""

    def run(images: Images, features: Features) -> Matched:
        codes = {name: describe(model, images[name], features[name]) for name in images}
        pairs = {(a, b): match(codes[a], codes[b], "smnn", ratio)[1] for a, b in combinations(images, 2)}
        return Matched(features, pairs, sum(c.nbytes for c in codes.values()))

    return Matcher(model.name, {"weights": model.sha256, "ratio": ratio}, run)


def peer_matcher(peer: Peer, ratio: float) -> Matcher:
    """Match the rows of another descriptor by mutual ratio test."""

    def run(images: Images, features: Features) -> Matched:
        rows = {name: peer.describe(images[name], features[name]) for name in images}
        pairs: Pairs = {}
        for a, b in combinations(images, 2):
            found = mutual_matches(rows[a], rows[b], peer.norm)
            pairs[a, b] = found.indices[found.ratio_two_way <= ratio]
        return Matched(features, pairs, peer.num_bytes * sum(len(r) for r in rows.values()))

    return Matcher(f"{peer.name} (ratio)", {"peer": peer.identity(), "ratio": ratio}, run)


def sift_matcher() -> Matcher:
    """Match RootSIFT bytes by COLMAP's own matcher with its default options."""
    return Matcher("sift", {"matcher": "colmap", "versions": [cv2.__version__, pycolmap.__version__]}, _match_sift)


def _match_sift(images: Images, features: Features) -> Matched:
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
        return Matched(features, read_raw_matches(database), total)


def read_raw_matches(database: Path) -> Pairs:
    """Read the matches of a COLMAP database before verification, by image names."""
    db = pycolmap.Database.open(str(database))
    names = {image.image_id: image.name for image in db.read_all_images()}
    pairs: Pairs = {}
    for pair_id, rows in zip(*db.read_all_matches(), strict=True):
        id0, id1 = pycolmap.pair_id_to_image_pair(pair_id)
        pairs[names[id0], names[id1]] = np.asarray(rows).astype(np.int64).reshape(-1, 2)
    db.close()
    return pairs


def colmap_sift(images: Images, folder: Path, *, seed: int = 0) -> Path:
    """Let COLMAP extract, match and verify SIFT with its default options; give the database.

    Args:
        images: grey pictures by name; COLMAP gets them as PNG.
        folder: an existing folder for the pictures and the database.
        seed: of the verification.
    """
    groups: dict[str, list[str]] = {}
    for name, image in images.items():
        groups.setdefault(f"{image.shape[1]} x {image.shape[0]}", []).append(name)
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", image, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes())
    database = folder / "sift.db"
    arguments = {"database": str(database), "images": str(folder / "images"), "groups": list(groups.values())}
    run_in_child(f"{sift_model.__name__}:match_here", {**arguments, "seed": seed, "threads": 1}, stage="SIFT")
    return database


def own_sift_matcher() -> Matcher:
    """COLMAP's SIFT with its own keypoints and its own matcher, all options at their defaults."""

    def run(images: Images, features: Features) -> Matched:
        with tempfile.TemporaryDirectory() as folder:
            database = colmap_sift(images, Path(folder))
            own = read_features(database)
            return Matched(own, read_raw_matches(database), 128 * sum(len(points) for points in own.values()))

    return Matcher("sift, own detector", {"matcher": "colmap", "version": pycolmap.__version__}, run)


def own_orb_matcher(peer: Peer, ratio: float, max_keypoints: int) -> Matcher:
    """ORB codes of ORB's own keypoints, as ``detectAndCompute`` gives them."""

    def run(images: Images, features: Features) -> Matched:
        orb = cv2.ORB.create(nfeatures=max_keypoints)
        own, rows = {}, {}
        for name, image in images.items():
            found, codes = orb.detectAndCompute(image, None)
            own[name] = unbiased_orb(from_opencv(found), image.shape)
            rows[name] = np.zeros((0, 32), np.uint8) if codes is None else np.asarray(codes, np.uint8)
        pairs: Pairs = {}
        for a, b in combinations(images, 2):
            matches = mutual_matches(rows[a], rows[b], "hamming")
            pairs[a, b] = matches.indices[matches.ratio_two_way <= ratio]
        return Matched(own, pairs, 32 * sum(len(r) for r in rows.values()))

    identity = {"peer": peer.identity(), "ratio": ratio, "own": max_keypoints}
    return Matcher("orb, own detector", identity, run)
