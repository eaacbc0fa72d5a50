"""Where training and validation patches come from; a batch is a function of the seed and the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from kornia_bingan.patches import PATCH_SIZE, build_pyramid, cut_patches
from kornia_bingan.train import processes
from kornia_bingan.train.config import PICTURE_NETWORKS, TrainConfig
from kornia_bingan.train.jitter import NO_JITTER, Batch, Jitter, change_grey_values, jitter_lafs
from kornia_bingan.train.photos import VIEW_SIZE, Photo, cut_from, draw_batch, load_photos, split_photos
from kornia_bingan.train.picture_jitter import NO_PICTURE_JITTER, draw_views
from kornia_bingan.train.tracks import draw_tracks, read_tracks

VALIDATION_DATABASE = 5000
"""Pictures that validation searches, beside its queries."""


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


@dataclass(frozen=True)
class Source:
    """Patches to learn from.

    Attributes:
        draw: ``(step, stream) -> Batch``; stream 0 is for the discriminator, 1 for the generator.
        validation: pairs that are not learnt from.
        contents: what there is, by name, for the record of the run.
        skipped: files that are not learnt from.
        first: patches to initialise the published networks on, float32 (500, 1, 32, 32); None draws random ones.
        pictures: what is learnt from if these are small pictures, uint8 (N, 32, 32, 3).
    """

    draw: Callable[[int, int], Batch]
    validation: ValidationPairs | ValidationPictures
    contents: dict[str, int]
    skipped: tuple[Skipped, ...] = ()
    first: NDArray[np.float32] | None = None
    pictures: Tensor | None = None


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
    side = VIEW_SIZE if config.lambda_frames > 0 else PATCH_SIZE

    def draw(step: int, stream: int) -> Batch:
        rng = np.random.default_rng([config.seed, step, stream])
        parts = []
        if count < config.batch_size:
            parts.append(
                draw_batch(
                    learnt, cut, config.batch_size - count, config.photos_per_batch, config.jitter, rng, side=side
                )
            )
        if count:
            parts.append(draw_tracks(tracks, count, config.jitter, rng, device))
        return join_batches(parts) if len(parts) > 1 else parts[0]

    rng = np.random.default_rng(config.seed)
    cut_aside = cut_from(aside, torch.device("cpu"))
    jitter = config.jitter if config.lambda_frames > 0 else Jitter()
    batch = draw_batch(aside, cut_aside, config.validation_pairs, min(len(aside), 16), jitter, rng, side=side)
    contents = {"photos": len(photos), "keypoints": sum(len(photo.lafs) for photo in photos)}
    if tracks:
        contents["tracks"] = sum(len(each.counts) for each in tracks)
    return Source(draw, pairs_of_views(batch), contents)


def picture_source(config: TrainConfig, splits: Splits) -> Source:
    """Learn from small pictures without their labels; validate on labelled pictures of the same, the training, split.

    Every epoch is a random order of all pictures; the last incomplete batch is left out.

    Raises:
        UsageError: there are fewer pictures than a batch, or too few to validate on, or no more than neighbours.
    """
    every, size = splits.train.pictures, config.batch_size
    kept = min(VALIDATION_DATABASE + config.validation_pairs, len(every))
    queries = min(config.validation_pairs, kept // 2)
    chosen_for_validation = np.random.default_rng(config.seed).permutation(len(every))[:kept]
    pictures = np.delete(every, chosen_for_validation[:queries], 0) if config.queries_aside else every
    batches = len(pictures) // size
    if not batches or queries < 1:
        raise UsageError(f"{config.data} has {len(pictures)} pictures to learn from; a batch of {size} needs more")
    if config.neighbours >= len(pictures):
        raise UsageError(f"neighbours is {config.neighbours}, but there are {len(pictures)} pictures to learn from")

    learnt = torch.tensor(pictures, device=processes.local_device(config.device))
    whole = draw_views(torch.tensor(every[chosen_for_validation]), NO_PICTURE_JITTER, np.random.default_rng(0))
    validation = ValidationPictures(whole.numpy(), splits.train.labels[chosen_for_validation], queries)
    return Source(drawer_of_pictures(config, learnt), validation, {"pictures": len(pictures)}, pictures=learnt)


def drawer_of_pictures(
    config: TrainConfig, learnt: Tensor, neighbours: NDArray[np.int32] | None = None
) -> Callable[[int, int], Batch]:
    """Give the function that draws two views of each picture of a batch, see :class:`Source`.

    Args:
        config: batch size, jitter and seed.
        learnt: uint8 (N, 32, 32, 3).
        neighbours: rows of pictures, of which one, at random, gives the second view, (N, K); None takes the same.
    """
    size, device = config.batch_size, learnt.device
    no_other = torch.eye(size, dtype=torch.bool, device=device)
    order_of = _epochs(np.arange(len(learnt)), config.seed)

    def draw(step: int, stream: int) -> Batch:
        epoch, number = divmod(step, len(learnt) // size)
        rows = order_of(epoch, stream)[number * size : (number + 1) * size]
        rng = np.random.default_rng([config.seed, step, stream])
        chosen = other = learnt[torch.from_numpy(rows).to(device)]
        if neighbours is not None:
            near = neighbours[rows, rng.integers(0, neighbours.shape[1], size)]
            other = learnt[torch.from_numpy(near).to(device)]
        first = draw_views(chosen, config.picture_jitter, rng)
        second = draw_views(other, config.picture_jitter, rng) if config.needs_two_views else first
        return Batch(first, second, no_other)

    return draw


def _epochs(rows: NDArray[np.int64], seed: int) -> Callable[[int, int], NDArray[np.int64]]:
    """Give the function ``(epoch, stream) -> rows in a random order``."""

    @lru_cache(maxsize=4)  # of millions of rows, a new order at each step takes longer than the step
    def order_of(epoch: int, stream: int) -> NDArray[np.int64]:
        return np.random.default_rng([seed, epoch, stream]).permutation(rows)

    return order_of


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


DRAWING_THREADS = 4
"""Threads that draw batches for a GPU, which learns faster than one draws."""


def draw_ahead(config: TrainConfig, source: Source, first: int, last: int | None = None) -> Iterator[tuple[Batch, ...]]:
    """Give the batches of the steps from ``first`` to before ``last``; the next are drawn while one is learnt.

    None stands for the steps of the run.
    """
    last = config.steps if last is None else last
    on_gpu = processes.local_device(config.device).type == "cuda"
    threads = DRAWING_THREADS if on_gpu else 1
    # A stream each: in that of the learning, every number that is brought to the GPU would wait for the step.
    streams = [torch.cuda.Stream() if on_gpu else None for _ in range(threads)]  # type: ignore[no-untyped-call]
    kinds = (0, 1) if config.lambda_gan > 0 else (0,)

    def draw(step: int) -> tuple[Batch, ...]:
        stream = streams[step % threads]
        with torch.cuda.stream(stream):  # of None does nothing
            drawn = tuple(source.draw(step, kind) for kind in kinds)
            if stream is not None:
                stream.synchronize()
        return drawn

    def learnt_from(batch: Batch) -> None:
        for tensor in (batch.patches0, batch.patches1, batch.ignore, batch.change0, batch.change1):
            # its memory serves the stream that drew it again only when the step is over
            if tensor is not None and tensor.is_cuda:
                tensor.record_stream(torch.cuda.current_stream())

    with ThreadPoolExecutor(threads) as pool:
        ahead = [pool.submit(draw, step) for step in range(first, min(first + threads + 1, last))]
        for step in range(first, last):
            drawn = ahead.pop(0).result()
            if step + threads + 1 < last:
                ahead.append(pool.submit(draw, step + threads + 1))
            for batch in drawn:
                learnt_from(batch)
            yield drawn
