"""The three patch tasks of HPatches: verification, matching, retrieval, each as mean average precision.

    python -m eval patch_tasks DATA/validate              # patches made from homography sequences
    python -m eval patch_tasks HPATCHES_RELEASE --out FILE.json   # the official release

Protocol (Balntas et al., CVPR 2017). A sequence has N reference patches and the same N places in other images, with
geometric noise of three levels: easy, hard, tough. The official release has a folder a sequence with ``ref.png``,
``e1.png``, ``h1.png``, ``t1.png`` ..., each a column of 65 x 65 patches. A folder of homography sequences gives the
same from its pictures: DoG keypoints of the first picture, squares of 10 sigma, moved into the other pictures by the
true homography with noise of our own three levels (``LEVELS``; not the official ones), whole in every picture.

- verification: is a pair one place? As many matching pairs as there are places; five times as many others, half of the
  same sequence, half of other sequences; average precision of the distances.
- matching: every reference patch takes its nearest patch of one other image; average precision of these by distance,
  where all N count in the recall.
- retrieval: a reference patch ranks its own places in all other images of its level among patches of other sequences.

Each is a mean over sequences, with an interval by bootstrap over sequences. Equal distances are accepted together. All
patches are reduced to 64 x 64 (peers) and 32 x 32 (networks), see ``brown``; splits and pairs are drawn with a seed, so
figures are not those of the official split files. Nothing is tuned here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from eval.harness.bootstrap import bootstrap_interval
from eval.harness.columns import Column, text_of
from eval.harness.command import Data, command_line
from eval.harness.data import HomographySequence, find_sequences, read_sequence, transform
from eval.harness.metrics import average_precision
from eval.harness.options import RESULTS, PatchOptions, load_models, peer_folder
from eval.harness.patch_peers import patch_peers
from eval.harness.records import check_clean, write_json
from eval.quality.brown import PEERS, describe_all, distances
from kornia_bingan.bits import hamming_distances
from kornia_bingan.datasets.brown import halve_patches
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import detect
from kornia_bingan.network.weights import find_weights
from kornia_bingan.patches import build_pyramid, cut_patches
from kornia_bingan.train.jitter import NO_JITTER, Jitter, jitter_lafs, near_duplicates
from kornia_bingan.work.provenance import provenance

SIDE = 65
HALF_SIDE_SIZE = 2.5
"""Half a side of a patch in sizes of the keypoint (2 sigma)."""
LEVELS = {"easy": 1.0, "hard": 2.0, "tough": 3.0}
TASKS = ("verification", "matching", "retrieval")
NOISE = Jitter(**{**vars(NO_JITTER), "log2_scale": 0.1, "rotation_deg": 5.0, "shift": 0.06, "log2_stretch": 0.1})
"""Of level 1; the others multiply every value."""
MAX_PATCHES = 200
MAX_DISTRACTORS = 2000
NEGATIVES = 5
SEED = 0

Rows = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PatchSequence:
    """Patches of one sequence: ``reference`` uint8 (N, 65, 65), and by level one array of the same shape an image."""

    name: str
    reference: NDArray[np.uint8]
    views: dict[str, list[NDArray[np.uint8]]]


def read_release(folder: Path) -> list[PatchSequence]:
    """Read the official release, or what is laid out like it.

    Raises:
        UsageError: a picture is no column of 65 x 65 patches, or has another number of them than ``ref.png``.
    """
    found = []
    for path in sorted(p.parent for p in folder.glob("*/ref.png")):
        reference = _read_column(path / "ref.png")
        views = {}
        for level in LEVELS:
            files = sorted(path.glob(f"{level[0]}[0-9]*.png"))
            views[level] = [_read_column(file) for file in files]
            for file, patches in zip(files, views[level], strict=True):
                if len(patches) != len(reference):
                    raise UsageError(f"{file} has {len(patches)} patches, ref.png {len(reference)}")
            if not files:
                raise UsageError(f"{path} has no {level[0]}1.png; a sequence needs ref.png, e1.png, h1.png, t1.png")
        found.append(PatchSequence(path.name, reference, views))
    return found


def _read_column(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None or image.shape[1] != SIDE or image.shape[0] % SIDE:
        size = "unreadable" if image is None else f"{image.shape[1]} x {image.shape[0]}"
        raise UsageError(f"{path} is {size}; it must be a column of {SIDE} x {SIDE} patches")
    return np.asarray(image, np.uint8).reshape(-1, SIDE, SIDE)


def make_patches(sequence: HomographySequence, max_patches: int, rng: np.random.Generator) -> PatchSequence:
    """Cut the patches of the three tasks from a homography sequence."""
    keypoints = detect(sequence.images[0], "dog", 4000)
    half = HALF_SIDE_SIZE * keypoints.size
    angle = np.deg2rad(keypoints.angle_deg)
    frame = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(-1, 2, 2)
    lafs = np.concatenate([half[:, None, None] * frame, keypoints.xy[:, :, None]], 2).astype(np.float32)
    usable = _inside(lafs, sequence.images[0].shape)
    moved: dict[str, list[NDArray[np.float32]]] = {level: [] for level in LEVELS}
    for level, factor in LEVELS.items():
        for H, image in zip(sequence.homographies, sequence.images[1:], strict=True):
            noise = Jitter(**{name: factor * value for name, value in vars(NOISE).items()})
            there = jitter_lafs(_map_lafs(lafs, H), noise, rng)
            usable &= _inside(there, image.shape)
            moved[level].append(there)
    candidates = np.flatnonzero(usable)[: 4 * max_patches]  # the strongest come first
    # Of keypoints at one place (a second orientation, a neighbouring scale) the strongest stays.
    same = np.tril(near_duplicates(torch.from_numpy(lafs[candidates])).numpy(), -1)
    chosen = candidates[~same.any(1)][:max_patches]

    def cut(image: NDArray[np.uint8], at: NDArray[np.float32]) -> NDArray[np.uint8]:
        return np.round(255 * cut_patches(build_pyramid(image), at[chosen], SIDE)[:, 0]).astype(np.uint8)

    views = {
        level: [cut(image, at) for image, at in zip(sequence.images[1:], moved[level], strict=True)] for level in LEVELS
    }
    return PatchSequence(sequence.name, cut(sequence.images[0], lafs), views)


def _map_lafs(lafs: NDArray[np.float32], H: NDArray[np.float64]) -> NDArray[np.float32]:
    """Move frames by a homography, by its derivative at their centres."""
    centre = transform(H, lafs[:, :, 2])
    step = 1e-3
    columns = [(transform(H, lafs[:, :, 2] + step * lafs[:, :, k]) - centre) / step for k in (0, 1)]
    return np.stack([*columns, centre], 2).astype(np.float32)


def _inside(lafs: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    ok: NDArray[np.bool_] = np.isfinite(lafs).all((1, 2)) & (np.abs(np.linalg.det(lafs[:, :, :2])) > 1)
    for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        corner = lafs @ np.array([x, y, 1], np.float32)
        ok &= (corner >= 0).all(1) & (corner <= np.array(shape[::-1]) - 1).all(1)
    return ok


def verification(rows: dict[str, Rows], level: str, others: list[dict[str, Rows]], rng: np.random.Generator) -> float:
    """Average precision of telling pairs of one place from others; ``rows`` has ``ref`` and ``easy0`` .. by view."""
    reference = rows["ref"]
    count = len(reference)
    near, far, match = [], [], []
    views = _views(rows, level)
    for view in views:
        near.append(reference)
        far.append(view)
        match.append(np.ones(count, bool))
    negatives = NEGATIVES * count * len(views)
    first = rng.integers(count, size=negatives)
    own = negatives // 2 if others else negatives
    shift = rng.integers(1, count, size=own)
    near.append(reference[first])
    far.append(np.stack(views)[rng.integers(len(views), size=own), (first[:own] + shift) % count])
    if others:
        pool = np.concatenate([view for other in others for view in _views(other, level)])
        far.append(pool[rng.integers(len(pool), size=negatives - own)])
    match.append(np.zeros(negatives, bool))
    a, b = np.concatenate(near), np.concatenate(far)
    index = np.arange(len(a))
    return average_precision(distances(np.concatenate([a, b]), index, index + len(a)), np.concatenate(match))


def matching(rows: dict[str, Rows], level: str) -> float:
    """Mean over the views of the average precision of nearest neighbours, with all patches in the recall."""
    values = []
    for view in _views(rows, level):
        between = all_distances(rows["ref"], view)
        nearest = between.argmin(1)
        correct = nearest == np.arange(len(nearest))
        found = average_precision(between.min(1), correct) * correct.mean() if correct.any() else 0.0
        values.append(float(found))
    return float(np.mean(values))


def retrieval(rows: dict[str, Rows], level: str, others: list[dict[str, Rows]], rng: np.random.Generator) -> float:
    """Mean average precision of ranking the places of a reference patch among patches of other sequences."""
    pool = np.concatenate([view for other in others for view in [other["ref"], *_views(other, level)]])
    pool = pool[rng.permutation(len(pool))[:MAX_DISTRACTORS]]
    far = all_distances(rows["ref"], pool)
    near = np.stack([_row_distances(rows["ref"], view) for view in _views(rows, level)], 1)
    is_match = np.arange(near.shape[1] + far.shape[1]) < near.shape[1]
    return float(np.mean([average_precision(np.concatenate(pair), is_match) for pair in zip(near, far, strict=True)]))


def _views(rows: dict[str, Rows], level: str) -> list[Rows]:
    return [value for name, value in rows.items() if name.startswith(level)]


def all_distances(a: Rows, b: Rows) -> NDArray[np.float64]:
    """Give the distances of every row of a to every row of b."""
    if a.dtype == np.uint8:
        return np.asarray(hamming_distances(a, b), np.float64)
    a, b = a.astype(np.float64), b.astype(np.float64)
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


def _row_distances(a: Rows, b: Rows) -> NDArray[np.float64]:
    index = np.arange(len(a))
    return distances(np.concatenate([a, b]), index, index + len(a))


def evaluate(every: list[dict[str, Rows]]) -> dict[str, Any]:
    """Score the rows of all sequences: for each task and level the mean over sequences and its interval."""
    result: dict[str, Any] = {}
    for task in ("verification", "matching", "retrieval"):
        by_level = []
        for level in LEVELS:
            values = []
            for index, rows in enumerate(every):
                others = every[:index] + every[index + 1 :]
                rng = np.random.default_rng([SEED, index])
                if task == "matching":
                    values.append(matching(rows, level))
                elif task == "verification":
                    values.append(verification(rows, level, others, rng))
                elif others:
                    values.append(retrieval(rows, level, others, rng))
            if values:
                result[f"{task}_{level}"] = round(float(np.mean(values)), 4)
                by_level.append(values)
        if by_level:
            means = np.mean(by_level, axis=0)
            low, high = bootstrap_interval(lambda c, m=means: float(c @ m / c.sum()), [len(means)], 500, SEED)  # type: ignore[misc]
            result[task] = round(float(means.mean()), 4)
            result[f"{task}_interval"] = [round(low, 4), round(high, 4)]
    return result


def split_rows(rows: Rows, sequences: list[PatchSequence]) -> list[dict[str, Rows]]:
    """Undo the concatenation of all patches: rows by sequence, ``ref`` and ``LEVELk`` each."""
    built, start = [], 0
    for sequence in sequences:
        count, named = len(sequence.reference), {}
        for name in ["ref", *(f"{level}{k}" for level in LEVELS for k in range(len(sequence.views[level])))]:
            named[name] = rows[start : start + count]
            start += count
        built.append(named)
    return built


def load(data: Path, max_patches: int) -> list[PatchSequence]:
    """Read the release at a folder, or make patches from the homography sequences there.

    Raises:
        UsageError: there are neither.
    """
    if any(data.glob("*/ref.png")):
        return read_release(data)
    rng = np.random.default_rng(SEED)
    paths = [path for path in find_sequences(data) if not path.name.startswith("evd")]
    found = [make_patches(read_sequence(path), max_patches, rng) for path in paths]
    usable = [sequence for sequence in found if len(sequence.reference) >= 10]
    if not usable:
        raise UsageError(f"{data} has neither */ref.png nor homography sequences with enough texture")
    return usable


def columns(results: list[dict[str, Any]]) -> list[Column]:
    """Give mean average precision by task and level, then by task; retrieval needs several sequences."""
    tasks = [task for task in TASKS if task in results[0]]
    levels = [Column(f"{task} {level}", f"{task}_{level}", ".3f", best="most") for task in tasks for level in LEVELS]
    means = [Column(f"{task} (interval)", task, ".3f", best="most", interval=f"{task}_interval") for task in tasks]
    return [Column("descriptor", "descriptor"), *levels, *means]


@command_line("patch_tasks")
def main(data: Data, shared: PatchOptions, max_patches: int = MAX_PATCHES) -> int:
    """Score every task.

    Args:
        max_patches: of a sequence, when patches are made.
    """
    check_clean(shared.out)
    cache, best = shared.begin(), shared.best_sides()
    sequences = load(data, max_patches)
    parts = [part for s in sequences for part in (s.reference, *(view for level in LEVELS for view in s.views[level]))]
    whole = np.stack([cv2.resize(patch, (64, 64), interpolation=cv2.INTER_AREA) for patch in np.concatenate(parts)])
    made = not any(data.glob("*/ref.png"))
    peers, absent = patch_peers(PEERS, peer_folder(data), best, 4 * HALF_SIDE_SIZE if made else None)
    side_px = {seeing.peer.name: round(seeing.side_px, 2) for seeing in peers}
    models = load_models(shared.ours)
    results = []
    for name, (norm, call) in describe_all(whole, halve_patches(whole), peers, models, cache).items():
        if name.endswith("/median"):
            continue
        row = {
            "descriptor": name,
            "norm": norm,
            "side_px": side_px.get(name, 64),
            **evaluate(split_rows(call(), sequences)),
        }
        results.append(row)
        print(f"{name} {row['matching']:.3f}", file=sys.stderr, flush=True)
    print(text_of(columns(results), results))
    for name, reason in absent.items():
        print(f"absent: {name}: {reason}")
    split = data.resolve().name
    words = f"--ours {' '.join(models)}{shared.words()}"
    record = {
        "protocol": "patch_tasks",
        "command": f"python -m eval patch_tasks DATA/{split} {words}",
        "sequences": {s.name: len(s.reference) for s in sequences},
        "made": made,
        "results": results,
        "absent": absent,
        "provenance": provenance(find_weights(shared.ours[0]) if shared.ours else None, SEED),
    }
    write_json(shared.out or RESULTS / f"patch-tasks-{split}.json", record)
    return 0
