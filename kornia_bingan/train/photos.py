"""Photos become batches of patches: two jittered views of the patches of detected keypoints.

No labels are needed: both views come from one keypoint of one photo.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from kornia_bingan.errors import JobError
from kornia_bingan.images.folders import Skipped, list_images, no_photos, reason_for, without_copies
from kornia_bingan.images.read import ImageError, read_image, sample_ranges, shrink
from kornia_bingan.keypoints import detect, support_regions
from kornia_bingan.patches import PATCH_SIZE, build_pyramid, cut_patches
from kornia_bingan.train.jitter import Batch, Jitter, bend, change_grey_values, jitter_lafs, near_duplicates
from kornia_bingan.work.run_folder import checksums, no_progress

Floats = NDArray[np.float32]
Cut = Callable[[NDArray[np.int64], Floats, int], Tensor]
"""(number of the photo of each row (N,), LAFs (N, 2, 3), side S) -> patches, float32 in [0, 1], (N, 1, S, S)."""


@dataclass(frozen=True)
class Photo:
    """A photo in memory: its name, pyramid (uint8 levels) and the LAFs of its keypoints, float32 (N, 2, 3)."""

    name: str
    pyramid: list[NDArray[np.uint8]]
    lafs: Floats


VIEW_SIZE = 48
"""Cells a side of the views that the frame network learns from, as large as those of a patch of 32."""

LEAST_KEYPOINTS = 16
"""Of a photo that is learnt from."""


def load_photos(
    folder: Path, max_keypoints: int, *, max_size: int = 1024, workers: int = 0
) -> tuple[list[Photo], list[Skipped]]:
    """Read all photos of a folder and detect their DoG keypoints.

    Args:
        folder: searched recursively.
        max_keypoints: strongest keypoints kept of a photo.
        max_size: longer photos are reduced to this many pixels on the long side.
        workers: threads; 0 is one per core.

    Returns:
        The photos, and what was passed over with the reason; of equal files only the first is used.

    Raises:
        UsageError: there are no photos.
        JobError: no photo has 16 keypoints or more.
    """
    names, foreign = list_images(folder)
    if not names:
        raise no_photos(folder, foreign)
    names, copies = without_copies(names, checksums(folder, names))

    ranges = sample_ranges(folder, names)

    def load(name: str) -> Photo | Skipped:
        try:
            image = shrink(read_image(folder / name, ranges), max_size)
        except ImageError as error:
            return Skipped(name, reason_for(error, folder / name))
        keypoints = detect(image, "dog", max_keypoints)
        if len(keypoints) < LEAST_KEYPOINTS:
            return Skipped(name, f"it has {len(keypoints)} keypoints; {LEAST_KEYPOINTS} are needed")
        levels = [np.round(level * 255).astype(np.uint8) for level in build_pyramid(image)]
        return Photo(name, levels, support_regions(keypoints))

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        bar = tqdm(pool.map(load, names), total=len(names), desc="photos", unit="photo", disable=no_progress())
        loaded = list(bar)
    photos = [item for item in loaded if isinstance(item, Photo)]
    if not photos:
        raise JobError(f"no photo in {folder} has enough texture: 16 keypoints are needed in at least one")
    return photos, [*foreign, *copies, *(item for item in loaded if isinstance(item, Skipped))]


def split_photos(photos: list[Photo], validation_share: float = 0.05) -> tuple[list[Photo], list[Photo]]:
    """Keep some photos aside for validation: every n-th by name, at least one of two photos and more."""
    if len(photos) < 2:
        return photos, photos
    stride = max(2, round(1 / validation_share))
    aside = photos[stride // 2 :: stride] or photos[-1:]
    names = {photo.name for photo in aside}
    return [photo for photo in photos if photo.name not in names], aside


def cut_from(photos: Sequence[Photo], device: torch.device) -> Cut:
    """Give the function that cuts patches of these photos: on the processor by OpenCV, on a GPU by itself."""
    if device.type != "cpu":
        return cut_on_device(photos, device)

    def cut(photo_of: NDArray[np.int64], lafs: Floats, side: int) -> Tensor:
        patches = np.empty((len(lafs), 1, side, side), np.float32)
        for number in np.unique(photo_of):
            rows = photo_of == number
            patches[rows] = cut_patches(photos[number].pyramid, lafs[rows], side)
        return torch.from_numpy(patches)

    return cut


def cut_on_device(photos: Sequence[Photo], device: torch.device) -> Cut:
    """Hold all photos on a device and cut patches there, as :func:`kornia_bingan.patches.cut_patches` does."""
    levels = [level for photo in photos for level in photo.pyramid]
    pixels = torch.from_numpy(np.concatenate([level.ravel() for level in levels])).to(device)
    sizes = torch.tensor([level.shape for level in levels], device=device)
    start = torch.cat([sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]])
    counts = torch.tensor([len(photo.pyramid) for photo in photos], device=device)
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]])

    def cut(photo_of: NDArray[np.int64], lafs: Floats, side: int) -> Tensor:
        unit = ((2 * torch.arange(side, device=device) + 1) / side - 1).float()
        number, frames = torch.from_numpy(photo_of).to(device), torch.from_numpy(lafs).to(device)
        area = (frames[:, 0, 0] * frames[:, 1, 1] - frames[:, 0, 1] * frames[:, 1, 0]).abs()
        step = 2 * area.sqrt() / side
        level = step.log2().round().long().clamp_min(0)
        row = first[number] + torch.minimum(level, counts[number] - 1)
        scale = (sizes[row] / sizes[first[number]]).flip(1)[:, :, None]  # of x and of y
        frames = frames * scale
        x, y = (
            axis[:, 0, None, None] * unit + axis[:, 1, None, None] * unit[:, None] + axis[:, 2, None, None]
            for axis in (frames + torch.cat([0 * scale, 0 * scale, 0.5 * scale - 0.5], 2)).unbind(1)
        )
        height, width = sizes[row, 0, None, None], sizes[row, 1, None, None]
        x, y = torch.minimum(x.clamp_min(0), width - 1), torch.minimum(y.clamp_min(0), height - 1)
        left, top = x.floor().long(), y.floor().long()
        right, bottom = torch.minimum(left + 1, width - 1), torch.minimum(top + 1, height - 1)
        base, across, down = start[row, None, None], x - left, y - top

        def between(line: Tensor) -> Tensor:
            near, far = (pixels[base + line * width + column].float() for column in (left, right))
            return torch.lerp(near, far, across)

        return torch.lerp(between(top), between(bottom), down)[:, None] / 255

    return cut


def draw_batch(
    photos: Sequence[Photo],
    cut: Cut,
    size: int,
    photos_per_batch: int,
    jitter: Jitter,
    rng: np.random.Generator,
    *,
    side: int = PATCH_SIZE,
) -> Batch:
    """Draw a batch: some photos, some keypoints of each, two views of every keypoint.

    Args:
        photos: to draw from, with replacement only when there are too few.
        cut: cuts their patches, see :func:`cut_from`.
        size: number of keypoints B.
        photos_per_batch: photos that the batch is drawn from; keypoints of one photo are the hardest negatives.
        jitter: random changes of each view.
        rng: every random number comes from it.
        side: cells a side; more than 32 show more than the support region, in cells of the same size.
    """
    counts = np.full(photos_per_batch, size // photos_per_batch)
    counts[: size % photos_per_batch] += 1
    chosen = rng.choice(len(photos), photos_per_batch, replace=photos_per_batch > len(photos))
    photo_of = np.repeat(chosen, counts)
    lafs = np.concatenate(
        [
            photos[number].lafs[rng.choice(len(photos[number].lafs), count, replace=count > len(photos[number].lafs))]
            for number, count in zip(chosen, counts, strict=True)
        ]
    )
    views, changes = [], []
    for _ in range(2):
        jittered = jitter_lafs(lafs, jitter, rng)
        changes.append(_unscaled(np.linalg.solve(lafs[:, :, :2], jittered[:, :, :2])))
        jittered[:, :, :2] *= side / PATCH_SIZE
        patches = cut(photo_of, jittered, side)
        if jitter.relief > 0:
            patches = bend(patches, jitter.relief, rng)
        views.append(change_grey_values(patches, jitter, rng))
    device = views[0].device
    place = torch.from_numpy(np.repeat(np.arange(photos_per_batch), counts)).to(device)
    ignore = near_duplicates(torch.from_numpy(lafs).to(device)) & (place[:, None] == place)
    return Batch(views[0], views[1], ignore, *(torch.from_numpy(change).to(device) for change in changes))


def _unscaled(change: Floats) -> Floats:
    return np.asarray(change / np.sqrt(np.linalg.det(change))[:, None, None], np.float32)
