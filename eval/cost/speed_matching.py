"""Part of ``python -m eval speed``: seconds of a mutual match with ratio test, of ours and of what others do."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import faiss
import kornia.feature as KF
import numpy as np
import pycolmap
import torch
from numpy.typing import NDArray

from eval.harness.columns import numbers
from eval.harness.timing import machine_rates, take_turns
from kornia_bingan import bits
from kornia_bingan.colmap import write_features
from kornia_bingan.colmap.types import Camera
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.matching import match

SHARED = 0.3
"""Share of the codes of one set that have a counterpart in the other, as in photos that overlap well."""
NEAR, FAR = 0.08, 0.42
"""Share of bits by which a counterpart differs, and by which invented codes differ from real ones."""
RATIO = 0.8
SIZES = (2_000, 8_000, 30_000, 100_000)
CV2_MOST = 30_000
KORNIA_MOST = 8_000  # its distances take gigabytes beyond
COLMAP_MOST = 8_000

Codes = NDArray[np.uint8]


COLUMNS = numbers(
    matcher="matcher",
    codes="codes per side",
    threads="threads",
    seconds="seconds",
    pairs_per_second="pairs of codes / s",
    floor_seconds="floor, seconds",
    times_slower="x ours",
)


def two_sets(codes: Codes, count: int, rng: np.random.Generator) -> tuple[Codes, Codes]:
    """Make two sets of codes of which a share corresponds; real codes, beside invented ones where there are too few."""

    def flipped(rows: Codes, share: float) -> Codes:
        return rows ^ np.packbits(rng.random((len(rows), 8 * rows.shape[1]), np.float32) < share, axis=1)

    pool = codes[rng.permutation(len(codes))]
    while len(pool) < 2 * count:
        pool = np.concatenate([pool, flipped(codes, FAR)])
    first, second = pool[:count], pool[count : 2 * count].copy()
    shared = round(SHARED * count)
    second[:shared] = flipped(first[:shared], NEAR)
    return first, second[rng.permutation(count)]


def measure(codes: Codes, sift: NDArray[np.float32], sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """Time one pair of images of each size, with the present threads of torch and OpenCV.

    Args:
        codes: real codes, packed.
        sift: real SIFT vectors, for COLMAP's matcher.

    Returns:
        Rows ``matcher``, ``codes`` (a side), ``seconds``, ``pairs_per_second``, ``floor_seconds`` (N^2 codes as matrix
        products of +1 / -1 in bfloat16, once), ``times_slower`` than ours.
    """
    rng = np.random.default_rng(0)
    threads = torch.get_num_threads()
    rate = machine_rates()["bfloat16_multiply_adds"]
    rows: list[dict[str, Any]] = []
    for count in sizes:
        first, second = two_sets(codes, count, rng)
        functions: dict[str, Any] = {"ours": lambda a=first, b=second: match(a, b, "smnn", RATIO)}
        functions["faiss, both directions"] = lambda a=first, b=second: _faiss(a, b, threads)
        if count <= CV2_MOST:
            functions["cv2.BFMatcher"] = lambda a=first, b=second: cv2_mutual(a, b)
        if count <= KORNIA_MOST:
            signs = [bits.unpack(torch.from_numpy(side)) for side in (first, second)]
            functions["Kornia match_smnn on +1 / -1"] = lambda s=signs: KF.match_smnn(*s, RATIO**0.5)
        seconds = take_turns(functions, 3 if count <= KORNIA_MOST else 1)
        if count <= COLMAP_MOST and 2 * count <= len(sift):
            seconds["COLMAP, SIFT"] = _colmap(sift[:count], sift[count : 2 * count], threads)
        floor = 8 * codes.shape[1] * count**2 / rate
        for name, value in seconds.items():
            row = {"matcher": name, "codes": count, "seconds": round(value, 4)}
            row |= {"pairs_per_second": round(count**2 / value), "floor_seconds": round(floor, 4)}
            rows.append(row | {"times_slower": round(value / seconds["ours"], 2)})
    return rows


def cv2_mutual(first: Codes, second: Codes) -> NDArray[np.int64]:
    """Do by ``cv2.BFMatcher`` what :func:`kornia_bingan.match` does, int64 (M, 2)."""
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
    forward, backward = matcher.knnMatch(first, second, 2), matcher.knnMatch(second, first, 2)
    passing = [{} for _ in range(2)]  # type: ignore[var-annotated]
    for kept, found in zip(passing, (forward, backward), strict=True):
        for near, next_near in found:
            if near.distance <= RATIO * next_near.distance and next_near.distance > 0:
                kept[near.queryIdx] = near.trainIdx
    rows = [(i, j) for i, j in passing[0].items() if passing[1].get(j) == i]
    return np.array(rows, np.int64).reshape(-1, 2)


def _faiss(first: Codes, second: Codes, threads: int) -> None:
    previous = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    faiss.knn_hamming(first, second, 2)
    faiss.knn_hamming(second, first, 2)
    faiss.omp_set_num_threads(previous)


def _colmap(first: NDArray[np.float32], second: NDArray[np.float32], threads: int) -> float:
    """Give the seconds of COLMAP's brute force on the CPU for one pair, without verification; the second run counts."""
    seconds = []
    pycolmap.logging.minloglevel = pycolmap.logging.WARNING.value
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            database = Path(folder) / "database.db"
            keypoints = {}
            for name, vectors in (("0", first), ("1", second)):
                xy = np.random.default_rng(0).uniform(0, 900, (len(vectors), 2)).astype(np.float32)
                ones = np.ones(len(vectors), np.float32)
                keypoints[name] = Keypoints(xy, 5 * ones, 0 * ones, ones, np.zeros(len(vectors), np.int32))
            write_features(database, keypoints, dict.fromkeys(keypoints, Camera(1000, 1000)))
            db = pycolmap.Database.open(str(database))
            for image, vectors in zip(db.read_all_images(), (first, second), strict=True):
                data = np.clip(np.round(vectors), 0, 255).astype(np.uint8)
                kind = pycolmap.FeatureExtractorType.SIFT
                db.write_descriptors(image.image_id, pycolmap.FeatureDescriptors(type=kind, data=data))
            db.close()
            options = pycolmap.FeatureMatchingOptions()
            options.skip_geometric_verification = True
            options.num_threads = threads
            started = time.perf_counter()
            pycolmap.match_exhaustive(str(database), matching_options=options, device=pycolmap.Device.cpu)
            seconds.append(time.perf_counter() - started)
    return seconds[-1]
