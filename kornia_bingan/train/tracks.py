"""Points that photos of one place share become batches: two patches of each, which are real views of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from kornia_bingan.datasets.brown import PatchSet
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import BLOB_SUPPORT
from kornia_bingan.train.jitter import Batch, Jitter, change_grey_values, near_duplicates

POINTS_PER_IMAGE = 64
"""Points of one reference image in a batch of real views: they are the hardest negatives of each other."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """Points that were seen from several places, with the patches that show them.

    Attributes:
        patch_set: where the patches are.
        order: patches sorted by point, int64.
        starts, counts: place in ``order`` of the first patch of each point, and their number, int64 (P,).
        lafs: of the points in their reference images, float32 (P, 2, 3).
        groups: rows of the points of each reference image.
    """

    patch_set: PatchSet
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    lafs: NDArray[np.float32]
    groups: list[NDArray[np.int64]]


def read_tracks(patch_set: PatchSet) -> Tracks:
    """Find the points of a patch set that have two patches or more.

    Raises:
        UsageError: the set has no ``interest.txt`` or no such point.
    """
    if patch_set.reference is None or patch_set.interest is None:
        raise UsageError(f"{patch_set.folder} has no interest.txt, so it is not known which points are neighbours")
    order = np.argsort(patch_set.point_ids, kind="stable")
    _, starts, counts = np.unique(patch_set.point_ids[order], return_index=True, return_counts=True)
    seen_twice = counts > 1
    starts, counts = starts[seen_twice], counts[seen_twice]
    if not len(starts):
        raise UsageError(f"{patch_set.folder} has no point with two patches")
    rows = order[starts]
    x, y, angle, log2_sigma = patch_set.interest[rows, :4].T
    half = BLOB_SUPPORT * 2 * 2.0**log2_sigma
    cos, sin = half * np.cos(angle), half * np.sin(angle)
    lafs = np.stack([np.stack([cos, -sin, x], 1), np.stack([sin, cos, y], 1)], 1).astype(np.float32)
    references = patch_set.reference[rows]
    groups = [np.flatnonzero(references == image) for image in np.unique(references)]
    return Tracks(patch_set, order, starts, counts, lafs, groups)


def draw_tracks(
    tracks: Sequence[Tracks], size: int, jitter: Jitter, rng: np.random.Generator, device: torch.device
) -> Batch:
    """Draw real pairs of views: some reference images, some points of each, two patches of every point.

    Their frames differ as those of a detector do, so that only grey values are changed, and nothing is occluded.

    Args:
        tracks: to draw from, by their number of reference images.
        size: number of points B.
        jitter: random changes of the grey values.
        rng: every random number comes from it.
        device: of the batch.
    """
    images = [(each, group) for each in tracks for group in each.groups]
    views: list[list[NDArray[np.float32]]] = [[], []]
    ignore = np.zeros((size, size), bool)
    row = 0
    while row < size:
        each, group = images[rng.integers(len(images))]
        chosen = rng.permutation(group)[: min(POINTS_PER_IMAGE, size - row)]
        stop = row + len(chosen)
        ignore[row:stop, row:stop] = near_duplicates(torch.from_numpy(each.lafs[chosen])).numpy()
        first = rng.integers(each.counts[chosen])
        second = (first + 1 + rng.integers(each.counts[chosen] - 1)) % each.counts[chosen]
        for view, place in zip(views, (first, second), strict=True):
            view.append(each.patch_set.patches32(each.order[each.starts[chosen] + place]))
        row = stop
    grey_values = replace(jitter, occlusion=0.0)
    patches0, patches1 = (
        change_grey_values(torch.from_numpy(np.concatenate(parts)).to(device), grey_values, rng) for parts in views
    )
    return Batch(patches0, patches1, torch.from_numpy(ignore).to(device))
