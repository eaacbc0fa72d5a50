"""Whole pipelines as people run them: a picture becomes features, two pictures' features become matches.

A pipeline is named ``FEATURES+MATCHER``: ``bingan256+context``, ``rootsift+ratio``, ``xfeat+lighterglue``. Each has its
own detector, its usual number of keypoints and its own defaults. What is learned by others is in
:mod:`eval.harness.learned_pipelines`; a pipeline whose package is not at hand is absent, with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import cv2
import kornia.feature as KF
import numpy as np
import torch

from eval.harness import learned_pipelines as learned
from eval.harness import pipeline
from eval.harness.cache import code_digest, digest
from eval.harness.peers import AbsentError
from eval.harness.pipeline import Extractor, Features, Indices, Picture, Pipeline, features_of, sorted_pairs
from kornia_bingan import BinGAN, bits, descriptor, keypoints, patches
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import from_opencv, to_opencv, unbiased_orb
from kornia_bingan.kornia import lafs_from_keypoints
from kornia_bingan.matching import context, hamming, match, match_in_context
from kornia_bingan.network import frames, inference, published
from kornia_bingan.network.weights import context_of
from kornia_bingan.reconstruct.options import MatchOptions
from kornia_bingan.work.options import KeypointOptions

LOWE_RATIO = 0.8
"""Of RootSIFT and ORB: Lowe's, and COLMAP's default."""
MODULES = (bits, descriptor, frames, inference, keypoints, patches, published)
"""They decide our features."""


def ours(name_or_path: str) -> tuple[Extractor, list[Pipeline]]:
    """Build our features and their matchers: ``aligned`` is ``bingan match``, ``context`` without aligned keypoints,
    ``ratio`` the ratio test alone; and those of others.

    Raises:
        UsageError: there are no such weights.
    """
    model = BinGAN.from_pretrained(name_or_path, output="packed", precision="auto")
    identity = {
        "sha256": model.sha256,
        "precision": "auto",
        "max_keypoints": KeypointOptions().max_keypoints,
        "code": code_digest(pipeline, sys.modules[__name__], *MODULES),
        "versions": [cv2.__version__, torch.__version__],
    }
    extractor = Extractor(model.name, identity, partial(extract_ours, model))
    known = context.ContextModel.of(context_of(name_or_path))
    matchers: dict[str, tuple[Any, Callable[[Features, Features], Indices]]] = {
        "ratio": (MatchOptions().ratio, match_by_ratio),
        "context": (
            [MatchOptions().probability, MatchOptions().min_matches, known.rounds, digest(*known.layers)],
            partial(match_by_context, known),
        ),
        "adalam": (version("kornia"), match_by_adalam),
        "gms": (cv2.__version__, match_by_gms),
        "logos": (cv2.__version__, match_by_logos),
    }
    code = code_digest(pipeline, sys.modules[__name__], context, hamming)
    every = [
        Pipeline(f"{model.name}+{name}", extractor, {"matcher": name, "settings": settings, "code": code}, function)
        for name, (settings, function) in matchers.items()
    ]
    (in_context,) = (each for each in every if each.identity["matcher"] == "context")
    return extractor, [*every, replace(in_context, name=f"{model.name}+aligned", aligned=True)]


def extract_ours(model: BinGAN, picture: Picture) -> Features:
    """Detect the DoG keypoints of a picture and describe them by codes, as ``bingan match`` does."""
    options = KeypointOptions()
    found = keypoints.detect(picture.grey, options.detector, options.max_keypoints)
    return features_of(picture, found, descriptor.describe(model, picture.grey, found))


def match_by_ratio(features0: Features, features1: Features) -> Indices:
    """Match codes by the mutual ratio test of ``bingan match``."""
    return match(features0.rows, features1.rows, "smnn", MatchOptions().ratio)[1]


def match_by_context(model: context.ContextModel, features0: Features, features1: Features) -> Indices:
    """Match codes in context, as ``bingan match --matcher context`` does."""
    options = MatchOptions()
    pair = (features0.rows, features1.rows, features0.keypoints, features1.keypoints)
    return match_in_context(*pair, threshold=options.probability, min_matches=options.min_matches, model=model)[1]


@torch.no_grad()
def match_by_adalam(features0: Features, features1: Features) -> Indices:
    """Match codes as +1 / -1 floats by Kornia's AdaLAM: their squared distances are four times those of the codes."""
    codes = [torch.from_numpy(bits.unpack(f.rows)) for f in (features0, features1)]
    lafs = [lafs_from_keypoints(f.keypoints) for f in (features0, features1)]
    if min(len(rows) for rows in codes) < 2:
        return np.zeros((0, 2), np.int64)
    _, indices = KF.match_adalam(*codes, *lafs, hw1=features0.shape, hw2=features1.shape)
    return sorted_pairs(indices.numpy())


def match_by_gms(features0: Features, features1: Features) -> Indices:
    """Filter the nearest neighbours of codes by OpenCV's GMS at its defaults."""
    if not len(features0.rows) or not len(features1.rows):
        return np.zeros((0, 2), np.int64)
    points = [to_opencv(f.keypoints) for f in (features0, features1)]
    _, indices = match(features0.rows, features1.rows, "nn", 1.0)
    nearest = [cv2.DMatch(int(i), int(j), 0.0) for i, j in indices]
    sizes = [f.shape[::-1] for f in (features0, features1)]
    return _of_opencv(cv2.xfeatures2d.matchGMS(sizes[0], sizes[1], points[0], points[1], nearest))


def match_by_logos(features0: Features, features1: Features) -> Indices:
    """Filter the mutual nearest neighbours of codes by OpenCV's LOGOS.

    LOGOS looks for keypoints of the same visual words around those of a word. Here each mutual nearest neighbour is a
    word of its own, and keypoints without one are left out: they have no words in common.
    """
    _, indices = match(features0.rows, features1.rows, "mnn", 1.0)
    if not len(indices):
        return np.zeros((0, 2), np.int64)
    points = [to_opencv(f.keypoints[rows]) for f, rows in zip((features0, features1), indices.T, strict=True)]
    words = list(range(len(indices)))
    found = cv2.xfeatures2d.matchLOGOS(points[0], points[1], words, words)
    return indices[sorted(m.queryIdx for m in found)]


def rootsift() -> tuple[Extractor, list[Pipeline]]:
    """Build RootSIFT: OpenCV's SIFT with our detector's settings, and Kornia's mutual ratio test."""
    code = code_digest(pipeline, sys.modules[__name__])
    limit = KeypointOptions().max_keypoints
    identity = {"max_keypoints": limit, "code": code, "versions": [cv2.__version__]}
    extractor = Extractor("rootsift", identity, partial(extract_rootsift, limit))
    settings = {"matcher": "ratio", "settings": LOWE_RATIO, "code": code, "versions": [version("kornia")]}
    return extractor, [Pipeline("rootsift+ratio", extractor, settings, match_floats_by_ratio)]


def extract_rootsift(max_keypoints: int, picture: Picture) -> Features:
    """Detect and describe by SIFT, then take the square root of vectors of sum 1."""
    sift = cv2.SIFT.create(nfeatures=max_keypoints, contrastThreshold=0.02, enable_precise_upscale=True)
    found, rows = sift.detectAndCompute(picture.grey, None)
    if rows is None:
        rows = np.zeros((0, 128), np.float32)
    root = np.sqrt(rows / np.maximum(rows.sum(1, keepdims=True), 1e-9)).astype(np.float32)
    return features_of(picture, from_opencv(found), root)


@torch.no_grad()
def match_floats_by_ratio(features0: Features, features1: Features) -> Indices:
    """Match real values by Kornia's mutual ratio test."""
    rows = [torch.from_numpy(f.rows) for f in (features0, features1)]
    return sorted_pairs(KF.match_smnn(*rows, LOWE_RATIO)[1].numpy())


def orb() -> tuple[Extractor, list[Pipeline]]:
    """Build ORB of OpenCV, with exact positions, and the mutual ratio test."""
    code = code_digest(pipeline, sys.modules[__name__], hamming, keypoints)
    limit = KeypointOptions().max_keypoints
    identity = {"max_keypoints": limit, "code": code, "versions": [cv2.__version__]}
    extractor = Extractor("orb", identity, partial(extract_orb, limit))
    settings = {"matcher": "ratio", "settings": LOWE_RATIO, "code": code}
    return extractor, [Pipeline("orb+ratio", extractor, settings, match_codes_by_ratio)]


def extract_orb(max_keypoints: int, picture: Picture) -> Features:
    """Detect and describe by ORB."""
    found, rows = cv2.ORB.create(max_keypoints).detectAndCompute(picture.grey, None)
    points = unbiased_orb(from_opencv(found), picture.grey.shape)
    return features_of(picture, points, np.zeros((0, 32), np.uint8) if rows is None else rows)


def match_codes_by_ratio(features0: Features, features1: Features) -> Indices:
    """Match codes by the mutual ratio test at Lowe's ratio."""
    return match(features0.rows, features1.rows, "smnn", LOWE_RATIO)[1]


OTHERS: dict[str, tuple[Callable[[], tuple[Extractor, list[Pipeline]]], tuple[str, ...]]] = {
    "rootsift": (rootsift, ("ratio",)),
    "orb": (orb, ("ratio",)),
    "xfeat": (learned.xfeat, ("mutual", "lighterglue")),
    "aliked-n16rot": (learned.aliked, ("mutual", "lightglue")),
    "disk": (learned.disk, ("mutual", "lightglue")),
}
"""How the features of others are built, and by what they are matched."""

OURS = ("ratio", "context", "aligned", "adalam", "gms", "logos")
"""By what features of ours are matched: those of any weights, by their name or file."""

NAMES = (
    *(f"bingan256+{matcher}" for matcher in OURS),
    *(f"bingan256-lite+{matcher}" for matcher in ("ratio", "context", "aligned")),
    *(f"{name}+{matcher}" for name, (_, matchers) in OTHERS.items() for matcher in matchers),
)


def load_pipelines(names: Sequence[str]) -> tuple[list[Pipeline], dict[str, str]]:
    """Build pipelines by name.

    Returns:
        The pipelines that can run here, in the order of the names, and the reason for each that cannot.

    Raises:
        UsageError: an unknown name.
    """
    for name in names:
        features, _, matcher = name.rpartition("+")
        if matcher not in (OTHERS[features][1] if features in OTHERS else OURS):
            raise UsageError(
                f"there is no pipeline '{name}'; choose from {', '.join(NAMES)}, or WEIGHTS+MATCHER of ours"
            )
    found: dict[str, Pipeline] = {}
    absent: dict[str, str] = {}
    for features in dict.fromkeys(name.rpartition("+")[0] for name in names):
        try:
            _, built = OTHERS[features][0]() if features in OTHERS else ours(features)
        except AbsentError as error:
            absent |= {name: str(error) for name in names if name.rpartition("+")[0] == features}
            continue
        found |= {f"{features}+{each.name.rpartition('+')[2]}": each for each in built}
    return [found[name] for name in names if name in found], absent


def _of_opencv(matches: Sequence[cv2.DMatch]) -> Indices:
    return sorted_pairs(np.array([(m.queryIdx, m.trainIdx) for m in matches], np.int64))
