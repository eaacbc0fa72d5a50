"""The halves of a pipeline, and the cache of what each gives: features of pictures, matches of pairs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.harness.cache import Arrays, Key, cached, code_digest, digest
from kornia_bingan import patches
from kornia_bingan.images.read import read_color
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.matching import refine
from kornia_bingan.matching.tracks import AlignedMatches, exact_keypoints
from kornia_bingan.patches import build_pyramid

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture and its file; pixel centres are at integers.

    Attributes:
        grey: uint8 (H, W).
        path: of the file, which is read again where colour is needed.
    """

    grey: NDArray[np.uint8]
    path: Path

    @cached_property
    def color(self) -> NDArray[np.uint8]:
        """The picture as RGB, uint8 (H, W, 3)."""
        return read_color(self.path)


@dataclass(frozen=True, eq=False)
class Features:
    """What a pipeline keeps of a picture.

    Attributes:
        keypoints: N; only positions are sure to be set.
        rows: packed codes, uint8 (N, bytes), or float32 (N, D).
        shape: height and width of the picture.
    """

    keypoints: Keypoints
    rows: NDArray[Any]
    shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Extractor:
    """The first half of a pipeline.

    Attributes:
        name: as in names of pipelines.
        identity: everything that decides its features beside the picture, as JSON can hold it.
        extract: picture to features.
        in_color: whether it looks at colours.
    """

    name: str
    identity: dict[str, Any]
    extract: Callable[[Picture], Features]
    in_color: bool = False


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A pipeline that can run here.

    Attributes:
        name: ``FEATURES+MATCHER``.
        extractor: pipelines of the same features share it.
        identity: everything that decides its matches beside the features, as JSON can hold it.
        match: features of two pictures to rows of both, int64 (M, 2), sorted by the first.
        aligned: the patches of matches are aligned, as ``bingan match`` does.
    """

    name: str
    extractor: Extractor
    identity: dict[str, Any]
    match: Callable[[Features, Features], Indices]
    aligned: bool = False


def cached_features(extractor: Extractor, picture: Picture, folder: Path | None) -> tuple[Features, float]:
    """Give the features of a picture and the processor seconds that they took, from the cache if they are there."""
    pixels = picture.color if extractor.in_color else picture.grey
    key = {"step": "pipeline-features", "image": digest(pixels), "extractor": extractor.identity}

    def make() -> Arrays:
        features, seconds = _timed(partial(extractor.extract, picture))
        return {**vars(features.keypoints), "rows": features.rows, "seconds": np.array(seconds)}

    arrays = cached(folder, key, make)
    rows, seconds = arrays.pop("rows"), float(arrays.pop("seconds"))
    height, width = picture.grey.shape
    return Features(Keypoints(**arrays), rows, (height, width)), seconds


def cached_matches(
    pipeline: Pipeline, features0: Features, features1: Features, folder: Path | None
) -> tuple[Indices, float]:
    """Give the matches of two pictures and the processor seconds that they took, from the cache if they are there."""
    key: Key = {
        "step": "pipeline-matches",
        "features": [digest(*vars(f.keypoints).values(), f.rows, np.array(f.shape)) for f in (features0, features1)],
        "extractor": pipeline.extractor.identity,
        "matcher": pipeline.identity,
    }

    def make() -> Arrays:
        indices, seconds = _timed(partial(pipeline.match, features0, features1))
        return {"indices": indices, "seconds": np.array(seconds)}

    arrays = cached(folder, key, make)
    return arrays["indices"], float(arrays["seconds"])


def cached_alignment(
    pictures: tuple[Picture, Picture],
    features: tuple[Features, Features],
    indices: Indices,
    folder: Path | None,
) -> tuple[AlignedMatches, float]:
    """Align the patches of matches, and give the processor seconds; from the cache if it is there."""
    points = [f.keypoints[indices[:, side]] for side, f in enumerate(features)]
    a, b = (picture.grey for picture in pictures)
    key: Key = {
        "step": "pipeline-alignment",
        "pictures": [digest(a), digest(b)],
        "keypoints": [digest(each.xy, each.size, each.angle_deg) for each in points],
        "code": code_digest(refine, patches),
    }

    def make() -> Arrays:
        found, seconds = _timed(lambda: refine.align(build_pyramid(a), build_pyramid(b), points[0], points[1]))
        return {"shift": found.shift, "after": found.after, "seconds": np.array(seconds)}

    arrays = cached(folder, key, make)
    return AlignedMatches(indices, arrays["shift"], arrays["after"]), float(arrays["seconds"])


def matched_positions(
    chosen: Pipeline,
    pictures: tuple[Picture, Picture],
    features: tuple[Features, Features],
    folder: Path | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Match two pictures: positions in both, float64 (M, 2) each, and processor seconds."""
    indices, seconds = cached_matches(chosen, *features, folder)
    keypoints = {str(side): f.keypoints for side, f in enumerate(features)}
    if chosen.aligned:
        found, took = cached_alignment(pictures, features, indices, folder)
        keypoints, agree = exact_keypoints(keypoints, {("0", "1"): found})
        indices, seconds = indices[agree["0", "1"]], seconds + took
    xy0, xy1 = (keypoints[str(side)].xy[indices[:, side]].astype(np.float64) for side in (0, 1))
    return xy0, xy1, seconds


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()  # other programs of the machine do not count
    result = function()
    return result, time.process_time() - started


def features_of(picture: Picture, keypoints: Keypoints, rows: NDArray[Any]) -> Features:
    """Put together what was found in a picture."""
    height, width = picture.grey.shape
    return Features(keypoints, rows, (height, width))


def sorted_pairs(indices: NDArray[Any]) -> Indices:
    """Sort index pairs (M, 2) by the first, then by the second."""
    indices = indices.astype(np.int64).reshape(-1, 2)
    return indices[np.lexsort(indices.T[::-1])]
