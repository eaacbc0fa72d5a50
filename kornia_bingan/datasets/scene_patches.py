"""A folder of photos of one place becomes patches that show known points."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kornia_bingan.colmap.sift import reconstruct_with_sift
from kornia_bingan.datasets.brown_files import PATCH_SIDE
from kornia_bingan.datasets.observations import find_observations
from kornia_bingan.datasets.patch_options import PatchSetOptions
from kornia_bingan.datasets.sparse_scene import Rows, SparseScene, read_scene
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.folders import Skipped
from kornia_bingan.images.read import Ranges, read_image, sample_ranges
from kornia_bingan.keypoints import Keypoints, detect, support_regions
from kornia_bingan.patches import build_pyramid, cut_patches
from kornia_bingan.work.run_folder import no_progress


@dataclass(frozen=True)
class SceneSummary:
    """What became of one folder of photos.

    Attributes:
        photos: the folder, as it was given.
        model: the folder of the model; None if it was made here.
        images: registered photos.
        model_points: 3D points of the model.
        points: those of them that became points of the set.
        patches: observations of these points.
        in_track: observations, references left out, that the reconstruction's own matching had found too.
        by_geometry: those that it had not.
        visible: pairs of a point and an image, references left out, in which an observation was looked for.
        skipped: photos that cannot be read.
    """

    photos: str
    model: str | None
    images: int
    model_points: int
    points: int
    patches: int
    in_track: int
    by_geometry: int
    visible: int
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, eq=False)
class ScenePatches:
    """The N patches of one scene, those of a reference image one after the other, and in it those of a point.

    Attributes:
        scene: images and points.
        summary: counts.
        patches: grey, uint8, shape (N, 64, 64).
        point: of each patch, from 0 on in this scene, int64, shape (N,).
        model_point: row of that point in the scene's points, int64, shape (N,).
        image: of each patch, int64, shape (N,).
        reference: its reference image, int64, shape (N,).
        interest: x, y, orientation and log2 of the scale of the point in its reference image, float64, shape (N, 4).
        keypoints: x, y, size and angle in degrees of the patch's own keypoint, float64, shape (N, 4).
    """

    scene: SparseScene
    summary: SceneSummary
    patches: NDArray[np.uint8]
    point: Rows
    model_point: Rows
    image: Rows
    reference: Rows
    interest: NDArray[np.float64]
    keypoints: NDArray[np.float64]


def cut_scene(photos: Path, model: Path | None, index: int, options: PatchSetOptions) -> ScenePatches:
    """Find and cut the patches of one scene.

    Args:
        photos: folder of the photos.
        model: folder of COLMAP's model of them; None makes one with COLMAP's own SIFT.
        index: number of the scene in its set, for the seed of its jitter.
        options: see :class:`kornia_bingan.datasets.patch_options.PatchSetOptions`.

    Raises:
        UsageError: a folder cannot be read, or the model does not fit the photos.
        JobError: the photos give no model, or no point with two observations.
    """
    skipped: list[Skipped] = []
    if model is not None:
        scene = read_scene(model)
    else:
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "model"
            skipped = reconstruct_with_sift(photos, made, seed=options.seed, threads=options.threads)
            scene = read_scene(made)
    ranges = sample_ranges(photos, [view.name for view in scene.views])
    keypoints = [
        _keypoints_of(photos, scene, view, options, ranges)
        for view in tqdm(range(len(scene.views)), desc="detect", unit="photo", disable=no_progress())
    ]
    found = find_observations(scene, keypoints, options.tolerances)
    if not len(found):
        raise JobError(f"no point of {photos} has two observations; the model has {len(scene.xyz)} points")
    # Patches of a reference image one after the other, and in it those of a point.
    order = np.lexsort((np.arange(len(found)), found.point, found.view[found.reference]))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    view, keypoint, first = found.view[order], found.keypoint[order], place[found.reference[order]]
    point = np.cumsum(np.diff(found.point[order], prepend=-1) != 0) - 1
    patches = np.empty((len(order), PATCH_SIDE, PATCH_SIDE), np.uint8)
    rows = np.empty((len(order), 4))
    for number in tqdm(range(len(scene.views)), desc="cut", unit="photo", disable=no_progress()):
        mine = np.flatnonzero(view == number)
        chosen = keypoints[number][keypoint[mine]]
        lafs = _jittered(support_regions(chosen), options, np.random.default_rng([options.seed, 0, index, number]))
        cut = cut_patches(build_pyramid(read_image(photos / scene.views[number].name, ranges)), lafs, PATCH_SIDE)
        patches[mine] = np.rint(cut[:, 0] * 255).astype(np.uint8)
        rows[mine] = np.column_stack([chosen.xy, chosen.size, np.where(chosen.angle_deg == -1, 0, chosen.angle_deg)])
    interest = rows[first]
    interest[:, 2:] = np.column_stack([np.deg2rad(interest[:, 3]), np.log2(interest[:, 2] / 2)])
    matched = np.arange(len(found)) != found.reference
    summary = SceneSummary(
        photos=str(photos),
        model=None if model is None else str(model),
        images=len(scene.views),
        model_points=len(scene.xyz),
        points=int(point[-1]) + 1,
        patches=len(found),
        in_track=int(found.in_track[matched].sum()),
        by_geometry=int((~found.in_track[matched]).sum()),
        visible=found.visible,
        skipped=tuple(skipped),
    )
    return ScenePatches(scene, summary, patches, point, found.point[order], view, view[first], interest, rows)


def _keypoints_of(photos: Path, scene: SparseScene, index: int, options: PatchSetOptions, ranges: Ranges) -> Keypoints:
    view = scene.views[index]
    if not (photos / view.name).is_file():
        raise UsageError(f"the model has the image {view.name}, but {photos} has not; give the folder it was made from")
    image = read_image(photos / view.name, ranges)
    height, width = image.shape
    if (width, height) != (view.camera.width, view.camera.height):
        raise UsageError(
            f"{photos / view.name} is {width} x {height} as a viewer shows it, but {view.camera.width} x "
            f"{view.camera.height} in the model; make the model from upright photos of this size"
        )
    keypoints = detect(image, options.detector, options.max_keypoints)
    if options.whole_regions:
        lafs = support_regions(keypoints)
        reach = np.abs(lafs[:, :, :2]).sum(2)
        inside = (lafs[:, :, 2] - reach >= -0.5) & (lafs[:, :, 2] + reach <= np.array([width, height]) - 0.5)
        keypoints = keypoints[inside.all(1)]
    return keypoints


def _jittered(lafs: NDArray[np.float32], options: PatchSetOptions, rng: np.random.Generator) -> NDArray[np.float32]:
    """Move, turn and scale LAFs at random; without jitter they stay what they are."""
    octaves, turn = rng.standard_normal((2, len(lafs)))
    shift = rng.standard_normal((len(lafs), 2, 1)) * options.jitter_shift
    turn = np.deg2rad(turn * options.jitter_deg)
    cos, sin = np.cos(turn), np.sin(turn)
    change = 2 ** (octaves * options.jitter_octaves) * np.array([[cos, -sin], [sin, cos]])
    frames = lafs[:, :, :2].astype(np.float64)
    moved = np.concatenate([frames @ change.transpose(2, 0, 1), lafs[:, :, 2:] + frames @ shift], 2)
    return moved.astype(np.float32)
