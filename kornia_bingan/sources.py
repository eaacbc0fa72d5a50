"""Where training and validation patches come from; a batch is a function of the seed and the step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.brown import PatchSet, read_patch_set
from kornia_bingan.errors import UsageError
from kornia_bingan.patches import build_pyramid, cut_patches
from kornia_bingan.recipe import TrainConfig
from kornia_bingan.views import (
    NO_JITTER,
    Batch,
    Jitter,
    Photo,
    change_grey_values,
    draw_batch,
    jitter_lafs,
    load_photos,
    split_photos,
)


@dataclass(frozen=True)
class ValidationPairs:
    """Pairs of patches that match or do not.

    Attributes:
        patches: float32 in [0, 1], shape (P, 1, 32, 32).
        index0, index1: rows of ``patches``, shape (M,).
        is_match: bool, shape (M,).
    """

    patches: NDArray[np.float32]
    index0: NDArray[np.int64]
    index1: NDArray[np.int64]
    is_match: NDArray[np.bool_]


@dataclass(frozen=True)
class Source:
    """Patches to learn from.

    Attributes:
        draw: ``(step, stream) -> Batch``; stream 0 is for the discriminator, 1 for the generator.
        validation: pairs that are not learnt from.
        contents: what there is, by name, for the record of the run.
    """

    draw: Callable[[int, int], Batch]
    validation: ValidationPairs
    contents: dict[str, int]


def open_source(config: TrainConfig) -> Source:
    """Read the data that a configuration names.

    Raises:
        UsageError: there is nothing to learn from at ``data``.
        JobError: the photos have no texture.
    """
    if not config.train and not config.validate:
        return photo_source(config, load_photos(config.data, config.max_keypoints))
    if not config.train or not config.validate:
        raise UsageError("patch sets come in twos: give both --train and --validate, or neither to learn from photos")
    return patch_set_source(
        config, read_patch_set(config.data / config.train), read_patch_set(config.data / config.validate)
    )


def photo_source(config: TrainConfig, photos: list[Photo]) -> Source:
    """Learn from photos: two jittered views of detected keypoints; some photos are kept aside for validation."""
    learnt, aside = split_photos(photos)

    def draw(step: int, stream: int) -> Batch:
        rng = np.random.default_rng([config.seed, step, stream])
        return draw_batch(learnt, config.batch_size, config.photos_per_batch, config.jitter, rng)

    rng = np.random.default_rng(config.seed)
    batch = draw_batch(aside, config.validation_pairs, min(len(aside), 16), Jitter(), rng)
    contents = {"photos": len(photos), "keypoints": sum(len(photo.lafs) for photo in photos)}
    return Source(draw, pairs_of_views(batch), contents)


def patch_set_source(config: TrainConfig, learnt: PatchSet, validated: PatchSet) -> Source:
    """Learn from the patches of a set in Brown's layout, ignoring its labels; validate on the pairs of another.

    Every epoch is a random order of all patches; the last incomplete batch is left out, as in the published code.
    Validation takes the largest pair file of at most ``validation_pairs`` pairs.

    Raises:
        UsageError: the set has fewer patches than a batch, or no pair file is small enough.
    """
    size = config.batch_size
    batches = len(learnt) // size
    if not batches:
        raise UsageError(f"{learnt.folder} has {len(learnt)} patches, fewer than a batch of {size}")

    def draw(step: int, stream: int) -> Batch:
        epoch, number = divmod(step, batches)
        order = np.random.default_rng([config.seed, epoch, stream]).permutation(len(learnt))
        indices = order[number * size : (number + 1) * size]
        same_point = learnt.point_ids[indices][:, None] == learnt.point_ids[indices]
        if config.jitter == NO_JITTER:
            patches = learnt.patches32(indices)
            return Batch(patches, patches, same_point)
        rng = np.random.default_rng([config.seed, step, stream])
        whole = np.array([[[32, 0, 31.5], [0, 32, 31.5]]] * size, np.float32)
        pyramids = [build_pyramid(learnt.patches[index]) for index in indices]
        views = []
        for _ in range(2):
            lafs = jitter_lafs(whole, config.jitter, rng)
            cut = [cut_patches(pyramid, laf[None]) for pyramid, laf in zip(pyramids, lafs, strict=True)]
            views.append(change_grey_values(np.concatenate(cut), config.jitter, rng))
        return Batch(views[0], views[1], same_point)

    counts = {name: int(name.split("_")[1]) for name in validated.pair_files}
    fitting = [name for name, count in counts.items() if count <= config.validation_pairs]
    if not fitting:
        have = ", ".join(counts) or "none"
        raise UsageError(
            f"{validated.folder} has no pair file of at most {config.validation_pairs} pairs; it has {have}"
        )
    index0, index1, is_match = validated.pairs(fitting[-1])
    needed, rows = np.unique(np.concatenate([index0, index1]), return_inverse=True)
    pairs = ValidationPairs(validated.patches32(needed), rows[: len(index0)], rows[len(index0) :], is_match)
    contents = {"patches": len(learnt), "validation_pairs": len(is_match)}
    return Source(draw, pairs, contents)


def pairs_of_views(batch: Batch) -> ValidationPairs:
    """Make pairs of two views: matches of one keypoint, non-matches of the next keypoint and of one far away.

    The next keypoint is mostly one of the same photo. Keypoints too close to be called different make no pair.
    """
    count = len(batch.patches0)
    rows = np.arange(count)
    index0, index1, is_match = [rows], [rows], [np.ones(count, bool)]
    for shift in (1, count // 2):
        other = (rows + shift) % count
        different = ~batch.ignore[rows, other]
        index0.append(rows[different])
        index1.append(other[different])
        is_match.append(np.zeros(int(different.sum()), bool))
    patches = np.concatenate([batch.patches0, batch.patches1])
    return ValidationPairs(patches, np.concatenate(index0), np.concatenate(index1) + count, np.concatenate(is_match))
