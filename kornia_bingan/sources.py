"""Where training and validation patches come from; a batch is a function of the seed and the step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.recipe import TrainConfig
from kornia_bingan.views import Batch, Jitter, Photo, draw_batch, load_photos, split_photos


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
    return photo_source(config, load_photos(config.data, config.max_keypoints))


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
