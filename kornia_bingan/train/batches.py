"""Where training and validation patches come from; a batch is a function of the seed and the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kornia_bingan.datasets.brown import PatchSet, read_patch_set
from kornia_bingan.datasets.pictures import Splits, read_picture_set
from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import Skipped
from kornia_bingan.keypoints import BLOB_SUPPORT
from kornia_bingan.patches import build_pyramid, cut_patches
from kornia_bingan.train import processes
from kornia_bingan.train.config import PICTURE_NETWORKS, TrainConfig
from kornia_bingan.train.jitter import NO_JITTER, Batch, Jitter, change_grey_values, jitter_lafs, near_duplicates
from kornia_bingan.train.photos import Photo, cut_from, draw_batch, load_photos, split_photos
from kornia_bingan.train.picture_jitter import NO_PICTURE_JITTER, draw_views

VALIDATION_DATABASE = 5000
"""Pictures that validation searches, beside its queries."""

POINTS_PER_IMAGE = 64
"""Points of one reference image in a batch of real views: they are the hardest negatives of each other."""


@dataclass(frozen=True)
class ValidationPairs:
    """Pairs of patches that match or do not.

    Attributes:
        patches: float32 in [0, 1], shape (P, 1, 32, 32).
        index0, index1: rows of ``patches``, shape (M,).
        is_match: bool, shape (M,).
        views: the first ``views`` patches and the next ``views`` show the same keypoints in two views; 0 if not.
    """

    patches: NDArray[np.float32]
    index0: NDArray[np.int64]
    index1: NDArray[np.int64]
    is_match: NDArray[np.bool_]
    views: int = 0


@dataclass(frozen=True, eq=False)
class ValidationPictures:
    """Pictures with their classes: the first ``queries`` search among the others.

    Attributes:
        patches: float32 in [0, 1], shape (P, 3, 32, 32).
        labels: int64 (P,).
        queries: how many of them are queries.
    """

    patches: NDArray[np.float32]
    labels: NDArray[np.int64]
    queries: int


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


@dataclass(frozen=True)
class Source:
    """Patches to learn from.

    Attributes:
        draw: ``(step, stream) -> Batch``; stream 0 is for the discriminator, 1 for the generator.
        validation: pairs that are not learnt from.
        contents: what there is, by name, for the record of the run.
        skipped: files that are not learnt from.
        first: patches to initialise the published networks on, float32 (500, 1, 32, 32); None draws random ones.
    """

    draw: Callable[[int, int], Batch]
    validation: ValidationPairs | ValidationPictures
    contents: dict[str, int]
    skipped: tuple[Skipped, ...] = ()
    first: NDArray[np.float32] | None = None


def open_source(config: TrainConfig) -> Source:
    """Read the data that a configuration names.

    Raises:
        UsageError: there is nothing to learn from at ``data``.
        JobError: the photos have no texture.
    """
    if config.network in PICTURE_NETWORKS:
        return picture_source(config, read_picture_set(config.data))
    if config.train and not config.validate:
        raise UsageError("a patch set is not validated on itself: give both --train and --validate")
    pairs = (
        pairs_of_set(read_patch_set(config.data / config.validate), config.validation_pairs)
        if config.validate
        else None
    )
    if config.train and pairs is not None:
        return patch_set_source(config, read_patch_set(config.data / config.train), pairs)
    photos, skipped = load_photos(config.data, config.max_keypoints)
    source = replace(photo_source(config, photos), skipped=tuple(skipped))
    if pairs is not None:
        source = replace(
            source, validation=pairs, contents={**source.contents, "validation_pairs": len(pairs.is_match)}
        )
    return source


def photo_source(config: TrainConfig, photos: list[Photo]) -> Source:
    """Learn from photos: two jittered views of detected keypoints; some photos are kept aside for validation."""
    learnt, aside = split_photos(photos)
    tracks = [read_tracks(read_patch_set(folder)) for folder in config.tracks]
    count = round(config.tracks_share * config.batch_size) if tracks else 0
    device = processes.local_device(config.device)
    cut = cut_from(learnt, device)

    def draw(step: int, stream: int) -> Batch:
        rng = np.random.default_rng([config.seed, step, stream])
        parts = []
        if count < config.batch_size:
            parts.append(
                draw_batch(learnt, cut, config.batch_size - count, config.photos_per_batch, config.jitter, rng)
            )
        if count:
            parts.append(draw_tracks(tracks, count, config.jitter, rng, device))
        return join_batches(parts)

    rng = np.random.default_rng(config.seed)
    cut_aside = cut_from(aside, torch.device("cpu"))
    batch = draw_batch(aside, cut_aside, config.validation_pairs, min(len(aside), 16), Jitter(), rng)
    contents = {"photos": len(photos), "keypoints": sum(len(photo.lafs) for photo in photos)}
    if tracks:
        contents["tracks"] = sum(len(each.counts) for each in tracks)
    return Source(draw, pairs_of_views(batch), contents)


def picture_source(config: TrainConfig, splits: Splits) -> Source:
    """Learn from small pictures without their labels; validate on labelled pictures of the same, the training, split.

    Every epoch is a random order of all pictures; the last incomplete batch is left out.

    Raises:
        UsageError: there are fewer pictures than a batch, or too few to validate on.
    """
    every, size = splits.train.pictures, config.batch_size
    kept = min(VALIDATION_DATABASE + config.validation_pairs, len(every))
    queries = min(config.validation_pairs, kept // 2)
    chosen_for_validation = np.random.default_rng(config.seed).permutation(len(every))[:kept]
    pictures = np.delete(every, chosen_for_validation[:queries], 0) if config.queries_aside else every
    batches = len(pictures) // size
    if not batches or queries < 1:
        raise UsageError(f"{config.data} has {len(pictures)} pictures to learn from; a batch of {size} needs more")

    device = processes.local_device(config.device)
    learnt = torch.tensor(pictures, device=device)
    no_other = torch.eye(size, dtype=torch.bool, device=device)
    order_of = _epochs(np.arange(len(pictures)), config.seed)

    def draw(step: int, stream: int) -> Batch:
        epoch, number = divmod(step, batches)
        rows = order_of(epoch, stream)[number * size : (number + 1) * size]
        chosen = learnt[torch.from_numpy(rows).to(device)]
        rng = np.random.default_rng([config.seed, step, stream])
        first = draw_views(chosen, config.picture_jitter, rng)
        second = draw_views(chosen, config.picture_jitter, rng) if config.needs_two_views else first
        return Batch(first, second, no_other)

    whole = draw_views(torch.tensor(every[chosen_for_validation]), NO_PICTURE_JITTER, np.random.default_rng(0))
    validation = ValidationPictures(whole.numpy(), splits.train.labels[chosen_for_validation], queries)
    return Source(draw, validation, {"pictures": len(pictures)})


def _epochs(rows: NDArray[np.int64], seed: int) -> Callable[[int, int], NDArray[np.int64]]:
    """Give the function ``(epoch, stream) -> rows in a random order``."""

    @lru_cache(maxsize=4)  # of millions of rows, a new order at each step takes longer than the step
    def order_of(epoch: int, stream: int) -> NDArray[np.int64]:
        return np.random.default_rng([seed, epoch, stream]).permutation(rows)

    return order_of


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


def join_batches(parts: Sequence[Batch]) -> Batch:
    """Put batches after each other; keypoints of different ones are different."""
    ignore: Tensor = torch.block_diag(*(part.ignore for part in parts))  # type: ignore[no-untyped-call]
    views = (torch.cat([part.patches0 for part in parts]), torch.cat([part.patches1 for part in parts]))
    return Batch(*views, ignore.bool())


def pairs_of_set(validated: PatchSet, most: int) -> ValidationPairs:
    """Read the largest pair file of at most ``most`` pairs.

    Raises:
        UsageError: no pair file is small enough.
    """
    counts = {name: int(name.split("_")[1]) for name in validated.pair_files}
    fitting = [name for name, count in counts.items() if count <= most]
    if not fitting:
        have = ", ".join(counts) or "none"
        raise UsageError(f"{validated.folder} has no pair file of at most {most} pairs; it has {have}")
    index0, index1, is_match = validated.pairs(fitting[-1])
    needed, places = np.unique(np.concatenate([index0, index1]), return_inverse=True)
    return ValidationPairs(validated.patches32(needed), places[: len(index0)], places[len(index0) :], is_match)


def patch_set_source(config: TrainConfig, learnt: PatchSet, pairs: ValidationPairs) -> Source:
    """Learn from the patches of a set in Brown's layout, ignoring its labels; validate on pairs of another.

    Every epoch is a random order of all patches, which are read from the disk batch by batch, so that sets larger than
    the memory serve too; the last incomplete batch is left out, as in the published code.
    With ``train_pairs``, an epoch is all rows of that list, so that a patch comes as often as it is listed.

    Raises:
        UsageError: the set has fewer patches than a batch, or no such list.
    """
    size = config.batch_size
    rows = np.arange(len(learnt))
    if config.train_pairs:
        first, second, _ = learnt.pairs(config.train_pairs)
        rows = np.stack([first, second], 1).ravel()
    batches = len(rows) // size
    if not batches:
        raise UsageError(f"{learnt.folder} has {len(rows)} patches to learn from, fewer than a batch of {size}")

    device = processes.local_device(config.device)
    order_of = _epochs(rows, config.seed)

    def draw(step: int, stream: int) -> Batch:
        epoch, number = divmod(step, batches)
        indices = order_of(epoch, stream)[number * size : (number + 1) * size]
        same_point = torch.from_numpy(learnt.point_ids[indices][:, None] == learnt.point_ids[indices]).to(device)
        if config.jitter == NO_JITTER:
            patches = torch.from_numpy(learnt.patches32(indices)).to(device)
            return Batch(patches, patches, same_point)
        rng = np.random.default_rng([config.seed, step, stream])
        whole = np.array([[[32, 0, 31.5], [0, 32, 31.5]]] * size, np.float32)
        pyramids = [build_pyramid(learnt.patches[index]) for index in indices]
        views = []
        for _ in range(2):
            lafs = jitter_lafs(whole, config.jitter, rng)
            cut = [cut_patches(pyramid, laf[None]) for pyramid, laf in zip(pyramids, lafs, strict=True)]
            views.append(change_grey_values(torch.from_numpy(np.concatenate(cut)).to(device), config.jitter, rng))
        return Batch(views[0], views[1], same_point)

    contents = {"patches": len(rows), "validation_pairs": len(pairs.is_match)}
    initial = learnt.patches32(rows[:500]) if config.initialise_on == "first" else None
    return Source(draw, pairs, contents, first=initial)


def pairs_of_views(batch: Batch) -> ValidationPairs:
    """Make pairs of two views: matches of one keypoint, non-matches of the next keypoint and of one far away.

    The next keypoint is mostly one of the same photo. Keypoints too close to be called different make no pair.
    """
    count = len(batch.patches0)
    near = batch.ignore.numpy()
    rows = np.arange(count)
    index0, index1, is_match = [rows], [rows], [np.ones(count, bool)]
    for shift in (1, count // 2):
        other = (rows + shift) % count
        different = ~near[rows, other]
        index0.append(rows[different])
        index1.append(other[different])
        is_match.append(np.zeros(int(different.sum()), bool))
    patches = torch.cat([batch.patches0, batch.patches1]).numpy()
    return ValidationPairs(
        patches, np.concatenate(index0), np.concatenate(index1) + count, np.concatenate(is_match), count
    )
