"""Which patches of a set are compared: pairs that show one point, and pairs that do not."""

from __future__ import annotations

import numpy as np

from kornia_bingan.datasets.observations import come_close
from kornia_bingan.datasets.patch_options import PatchSetOptions
from kornia_bingan.datasets.scene_patches import ScenePatches
from kornia_bingan.datasets.sparse_scene import Rows

_TRIES = 50  # rounds of drawing non-matching pairs: small sets run out of them


def matching_pairs(point: Rows, rng: np.random.Generator) -> Rows:
    """List all pairs of patches of one point in a random order, int64, shape (M, 2).

    One pair of every point comes first, then another one of every point that has more, and so on.

    Args:
        point: the point of each patch, those of a point one after the other.
        rng: every random number comes from it.
    """
    start = np.flatnonzero(np.diff(point, prepend=-1))
    pairs, rounds = [], []
    for first, count in zip(start, np.diff(start, append=len(point)), strict=True):
        own = np.column_stack(np.triu_indices(count, 1)) + first
        pairs.append(own)
        rounds.append(rng.permutation(len(own)))
    if not pairs:
        return np.zeros((0, 2), np.int64)
    turn = np.concatenate(rounds)
    order = np.lexsort((rng.random(len(turn)), turn))
    return np.concatenate(pairs)[order].astype(np.int64)


def non_matching_pairs(parts: list[ScenePatches], wanted: int, options: PatchSetOptions) -> Rows:
    """Draw pairs of patches of different points with one reference image, int64, shape (at most ``wanted``, 2).

    No pair is drawn twice, and the points are nowhere closer than ``negative_px``.
    """
    rng = np.random.default_rng([options.seed, 2])
    counts = np.array([len(part.point) for part in parts])
    offsets = np.cumsum(counts) - counts
    drawn: dict[tuple[int, int], None] = {}
    for _ in range(_TRIES):
        if len(drawn) >= wanted:
            break
        share = rng.multinomial(max(wanted - len(drawn), 100) * 2, counts / counts.sum())
        for part, offset, number in zip(parts, offsets, share, strict=True):
            start = np.searchsorted(part.reference, np.arange(part.reference[-1] + 2))
            index0 = rng.integers(0, len(part.point), number)
            image = part.reference[index0]
            index1 = rng.integers(start[image], start[image + 1])
            apart = part.point[index0] != part.point[index1]
            index0, index1 = index0[apart], index1[apart]
            points = part.model_point
            apart = ~come_close(part.scene, points[index0], points[index1], options.negative_px)
            ordered = np.sort(np.column_stack([index0, index1])[apart] + offset, axis=1)
            drawn.update(dict.fromkeys(map(tuple, ordered.tolist())))
    rows = np.array(list(drawn), np.int64).reshape(-1, 2)
    # The scenes stand one after the other in a round, and files take the first pairs.
    return rows[rng.permutation(len(rows))[:wanted]]


def pair_files(matches: Rows, non_matches: Rows, options: PatchSetOptions) -> dict[int, tuple[Rows, Rows]]:
    """Give the pairs of each file that the set allows, in a random order; a small file's are in the larger ones too."""
    files = {}
    for count in sorted(set(options.pair_counts)):
        half = count // 2
        if half <= min(len(matches), len(non_matches)):
            rng = np.random.default_rng([options.seed, 3, count])
            rows = rng.permutation(np.concatenate([matches[:half], non_matches[:half]]))
            swapped = np.where(rng.random(count)[:, None] < 0.5, rows[:, ::-1], rows)
            files[count] = (swapped[:, 0], swapped[:, 1])
    return files
