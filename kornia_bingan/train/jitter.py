"""Photos become training batches: two jittered views of the patches of detected keypoints.

No labels are needed: both views come from one keypoint of one photo. Everything random in a batch is a function of the
seed and the batch's number, so a resumed run sees the batches that an undisturbed run sees.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kornia_bingan.errors import JobError
from kornia_bingan.images.folders import Skipped, list_images, no_photos, reason_for, without_copies
from kornia_bingan.images.read import ImageError, read_image, sample_ranges, shrink
from kornia_bingan.keypoints import detect, support_regions
from kornia_bingan.patches import PATCH_SIZE, build_pyramid, cut_patches
from kornia_bingan.work.run_folder import checksums, no_progress

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Jitter:
    """Deviations of the random changes of one view; two views differ by about 1.4 times as much.

    Attributes:
        log2_scale: of the support region's scale, octaves.
        rotation_deg: of its angle.
        shift: of its centre, in halves of its side.
        log2_stretch: of the affine stretch along a random direction, octaves (its area stays).
        log2_gamma: of the exponent of the grey values, octaves.
        contrast: of the factor on grey values (log2) around the mean of the patch.
        brightness: of the value added, 1 = black to white.
        blur: largest weight of the neighbours in the blur (0 to 0.25; 0.25 halves the resolution).
        defocus: largest standard deviation of a Gaussian blur, patch pixels (32 a side); its square root is uniform,
            so that most views stay sharp.
        noise: largest standard deviation of the sensor noise, 1 = black to white.
        occlusion: share of the views whose far side is replaced by another patch, as at an edge in depth.
        occlusion_nearest: least distance of that edge from the middle, in halves of the side; the largest is 0.9.
        relief: of smooth shifts inside the patch, in halves of its side, as of a surface that is not flat; the middle
            stays.
    """

    log2_scale: float = 0.15
    rotation_deg: float = 8.0
    shift: float = 0.04
    log2_stretch: float = 0.2
    log2_gamma: float = 0.3
    contrast: float = 0.4
    brightness: float = 0.1
    blur: float = 0.25
    noise: float = 0.03
    occlusion: float = 0.3
    occlusion_nearest: float = 0.2
    relief: float = 0.0
    defocus: float = 0.0


NO_JITTER = Jitter(*(0.0,) * 13)
DEFOCUS_LEVELS = 12


@dataclass(frozen=True)
class Photo:
    """A photo in memory: its name, pyramid (uint8 levels) and the LAFs of its keypoints, float32 (N, 2, 3)."""

    name: str
    pyramid: list[NDArray[np.uint8]]
    lafs: Floats


@dataclass(frozen=True)
class Batch:
    """Two views of B keypoints.

    Attributes:
        patches0, patches1: float32 in [0, 1], shape (B, 1, 32, 32); row i of both is one keypoint.
        ignore: bool, shape (B, B): pairs of different keypoints too close to call them different.
    """

    patches0: Floats
    patches1: Floats
    ignore: NDArray[np.bool_]


LEAST_KEYPOINTS = 16
"""Of a photo that is learnt from."""


def load_photos(
    folder: Path, max_keypoints: int, *, max_size: int = 1024, workers: int = 2
) -> tuple[list[Photo], list[Skipped]]:
    """Read all photos of a folder and detect their DoG keypoints.

    Args:
        folder: searched recursively.
        max_keypoints: strongest keypoints kept of a photo.
        max_size: longer photos are reduced to this many pixels on the long side.
        workers: threads.

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

    with ThreadPoolExecutor(workers) as pool:
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


def draw_batch(
    photos: list[Photo], size: int, photos_per_batch: int, jitter: Jitter, rng: np.random.Generator
) -> Batch:
    """Draw a batch: some photos, some keypoints of each, two views of every keypoint.

    Args:
        photos: to draw from, with replacement only when there are too few.
        size: number of keypoints B.
        photos_per_batch: photos that the batch is drawn from; keypoints of one photo are the hardest negatives.
        jitter: random changes of each view.
        rng: every random number comes from it.
    """
    counts = np.full(photos_per_batch, size // photos_per_batch)
    counts[: size % photos_per_batch] += 1
    chosen = rng.choice(len(photos), photos_per_batch, replace=photos_per_batch > len(photos))
    views: list[list[Floats]] = [[], []]
    ignore = np.zeros((size, size), bool)
    row = 0
    for photo, count in zip((photos[index] for index in chosen), counts, strict=True):
        lafs = photo.lafs[rng.choice(len(photo.lafs), count, replace=count > len(photo.lafs))]
        ignore[row : row + count, row : row + count] = near_duplicates(lafs)
        row += count
        jittered = np.concatenate([jitter_lafs(lafs, jitter, rng), jitter_lafs(lafs, jitter, rng)])
        patches = cut_patches(photo.pyramid, jittered)
        if jitter.relief > 0:
            patches = bend(patches, jitter.relief, rng)
        views[0].append(patches[:count])
        views[1].append(patches[count:])
    patches0, patches1 = (change_grey_values(np.concatenate(parts), jitter, rng) for parts in views)
    return Batch(patches0, patches1, ignore)


def jitter_lafs(lafs: Floats, jitter: Jitter, rng: np.random.Generator) -> Floats:
    """Move, turn, scale and stretch LAFs at random, float32, shape (N, 2, 3)."""
    count = len(lafs)
    scale = 2 ** (jitter.log2_scale * rng.standard_normal(count))
    turn = _rotation(np.deg2rad(jitter.rotation_deg) * rng.standard_normal(count))
    direction = _rotation(rng.uniform(0, np.pi, count))
    stretch = 2 ** (jitter.log2_stretch * rng.standard_normal(count) / 2)
    diagonal = np.zeros((count, 2, 2))
    diagonal[:, 0, 0], diagonal[:, 1, 1] = stretch * scale, scale / stretch
    change = turn @ direction @ diagonal @ direction.transpose(0, 2, 1)
    shift = jitter.shift * rng.standard_normal((count, 2, 1))
    frames = lafs[:, :, :2]
    return np.concatenate([frames @ change, frames @ shift + lafs[:, :, 2:]], 2).astype(np.float32)


def near_duplicates(lafs: Floats) -> NDArray[np.bool_]:
    """Say which LAFs show the same thing: centres, scales and angles closer than a detector repeats, shape (N, N)."""
    frames = lafs[:, :, :2].astype(np.float64)
    half = np.sqrt(np.abs(np.linalg.det(frames)))
    distance = np.linalg.norm(lafs[:, None, :, 2] - lafs[None, :, :, 2], axis=2)
    angle = np.arctan2(frames[:, 1, 0], frames[:, 0, 0])
    turn = np.abs((angle[:, None] - angle + np.pi) % (2 * np.pi) - np.pi)
    octaves = np.abs(np.log2(half[:, None] / half))
    close: NDArray[np.bool_] = (distance < 0.1 * half) & (octaves < 0.5) & (turn < np.deg2rad(22.5))
    return close


def _rotation(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1)


def change_grey_values(patches: Floats, jitter: Jitter, rng: np.random.Generator) -> Floats:
    """Occlude, blur, change gamma, contrast and brightness, add noise; all in place, clipped to [0, 1]."""
    count = len(patches)

    def normal(deviation: float) -> Floats:
        return (deviation * rng.standard_normal((count, 1, 1, 1))).astype(np.float32)

    if jitter.occlusion > 0:
        _occlude(patches, rng.random(count) < jitter.occlusion, jitter.occlusion_nearest, rng)
    if jitter.blur > 0:
        weight = (jitter.blur * rng.random((count, 1, 1, 1))).astype(np.float32)
        for axis in (2, 3):
            padded = np.pad(patches, [(0, 0), (0, 0), *((1, 1) if a == axis else (0, 0) for a in (2, 3))], "edge")
            sides = np.take(padded, range(PATCH_SIZE), axis) + np.take(padded, range(2, PATCH_SIZE + 2), axis)
            patches += weight * (sides - 2 * patches)
    if jitter.defocus > 0:
        _defocus(patches, jitter.defocus * rng.random(count) ** 2)
    if jitter.log2_gamma > 0:
        np.power(np.maximum(patches, 1e-3), 2 ** normal(jitter.log2_gamma), out=patches)
    if jitter.contrast > 0 or jitter.brightness > 0:
        mean = patches.mean((1, 2, 3), keepdims=True)
        patches -= mean
        patches *= 2 ** normal(jitter.contrast)
        patches += mean + normal(jitter.brightness)
    if jitter.noise > 0:
        deviation = (jitter.noise * rng.random((count, 1, 1, 1))).astype(np.float32)
        patches += deviation * rng.standard_normal(patches.shape, np.float32)
    return np.clip(patches, 0, 1, out=patches)


def _defocus(patches: Floats, deviations: NDArray[np.float64]) -> None:
    """Blur every patch by the nearest of a few Gaussians up to the largest deviation, the border repeated; in place."""
    levels = np.linspace(0, deviations.max(), DEFOCUS_LEVELS + 1)
    nearest = np.abs(deviations[:, None] - levels).argmin(1)
    for level in range(1, len(levels)):
        rows = np.flatnonzero(nearest == level)
        kernel = cv2.getGaussianKernel(2 * int(np.ceil(3 * levels[level])) + 1, levels[level])
        blur = cv2.sepFilter2D(
            np.eye(PATCH_SIZE, dtype=np.float32), -1, np.ones(1), kernel, borderType=cv2.BORDER_REPLICATE
        )
        patches[rows, 0] = blur @ patches[rows, 0] @ blur.T


def bend(patches: Floats, deviation: float, rng: np.random.Generator) -> Floats:
    """Shift the inside of patches smoothly; the middle and its surroundings stay about where they are.

    Args:
        patches: float32 (N, 1, S, S).
        deviation: of the shifts of a 3 x 3 net over the patch, in halves of its side.
        rng: every random number comes from it.
    """
    side = patches.shape[2]
    net = (deviation * side / 2 * rng.standard_normal((len(patches), 3, 3, 2))).astype(np.float32)
    net[:, 1, 1] = 0
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    straight = np.stack([columns, rows], 2).astype(np.float32)
    bent = np.empty_like(patches)
    for patch, out, shifts in zip(patches, bent, net, strict=True):
        place = straight + cv2.resize(shifts, (side, side), interpolation=cv2.INTER_CUBIC)
        x, y = place[..., 0], place[..., 1]
        out[0] = cv2.remap(patch[0], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return bent


def _occlude(patches: Floats, chosen: NDArray[np.bool_], nearest: float, rng: np.random.Generator) -> None:
    """Replace the far side of a random line by another patch of the batch; the keypoint's own middle stays."""
    rows = np.flatnonzero(chosen)
    angle, distance = rng.uniform(0, 2 * np.pi, len(rows)), rng.uniform(nearest, 0.9, len(rows))
    unit = (2 * np.arange(PATCH_SIZE) + 1) / PATCH_SIZE - 1
    side = np.cos(angle)[:, None, None] * unit + np.sin(angle)[:, None, None] * unit[:, None]
    other = patches[rng.permutation(len(patches))[: len(rows)]]
    patches[rows] = np.where((side > distance[:, None, None])[:, None], other, patches[rows])
