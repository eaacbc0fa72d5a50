"""Folders of photos become a patch set of the PhotoTour layout, to train on and to measure with.

Which patches show the same point is decided by the geometry of a reconstruction and not by a descriptor, see
:mod:`kornia_bingan.datasets.observations`. The set can be read by whatever reads the official ones, see
:mod:`kornia_bingan.datasets.brown`; beside the official files there are

* ``summary.json``: counts, options, the photos and where the numbers come from;
* ``keypoints.txt``: a row a patch, its image (a place in the summary's ``images``), x, y, size and angle of its
  keypoint in OpenCV's terms. ``interest.txt`` holds the reference keypoint instead, in all rows of a point: image, x, y
  (the centre of the first pixel is 0), orientation (radians, clockwise on the screen), log2 of sigma (half the size).

With the same versions and seed, two runs write the same bytes, except for the date in the summary.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kornia_bingan.colmap.sift import reconstruct_with_sift
from kornia_bingan.datasets.brown import write_patch_set
from kornia_bingan.datasets.brown_files import PATCH_SIDE
from kornia_bingan.datasets.observations import Tolerances, come_close, find_observations
from kornia_bingan.datasets.sparse_scene import SparseScene, read_scene
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.folders import Skipped
from kornia_bingan.images.read import Ranges, read_image, sample_ranges
from kornia_bingan.keypoints import Detector, Keypoints, detect, support_regions
from kornia_bingan.patches import build_pyramid, cut_patches
from kornia_bingan.work.files import atomic_folder, write_json
from kornia_bingan.work.provenance import provenance
from kornia_bingan.work.run_folder import no_progress

Rows = NDArray[np.int64]
_TRIES = 50  # rounds of drawing non-matching pairs: small sets run out of them


@dataclass(frozen=True)
class PatchSetOptions:
    """What decides a patch set, beside the photos.

    Attributes:
        detector: dog for blobs at all scales, orb for fast corners.
        max_keypoints: the strongest of a photo that are looked at.
        tolerances: what counts as an observation of a point; the defaults are those of the official sets.
        whole_regions: leave out keypoints whose support region reaches out of the picture.
        jitter_octaves: deviation of random changes of the support region's scale, for harder sets.
        jitter_deg: of its angle.
        jitter_shift: of its centre, in halves of its side.
        negative_px: two points make no non-matching pair if they come closer than this in any image.
        pair_counts: sizes A of the pair files m50_A_A_0.txt; those for which the set has too few pairs are left out.
        seed: of everything random.
        threads: of the reconstruction; only 1 gives equal sets in every run.
    """

    detector: Detector = "dog"
    max_keypoints: int = 8192
    tolerances: Tolerances = field(default_factory=Tolerances)
    whole_regions: bool = True
    jitter_octaves: float = 0.0
    jitter_deg: float = 0.0
    jitter_shift: float = 0.0
    negative_px: float = 10.0
    pair_counts: tuple[int, ...] = (1000, 2000, 5000, 10000, 20000, 50000, 100000)
    seed: int = 0
    threads: int = 1


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


@dataclass(frozen=True)
class PatchSetSummary:
    """What ``summary.json`` holds.

    Attributes:
        patches, points: of the set.
        matching_pairs: how many there are in the set.
        pair_files: sizes A of the pair files.
        scenes: one a folder of photos.
        images: (place in ``scenes``, name) of every image; ids in ``interest.txt`` and ``keypoints.txt`` count them.
        options: what was asked.
        provenance: see :func:`kornia_bingan.work.provenance.provenance`.
    """

    patches: int
    points: int
    matching_pairs: int
    pair_files: tuple[int, ...]
    scenes: tuple[SceneSummary, ...]
    images: tuple[tuple[int, str], ...]
    options: PatchSetOptions
    provenance: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Part:
    """The patches of one scene, those of a reference image one after the other, and in it those of a point."""

    scene: SparseScene
    summary: SceneSummary
    patches: NDArray[np.uint8]
    point: Rows  # from 0 on in this scene
    model_point: Rows  # row in the scene's points
    image: Rows
    reference: Rows
    interest: NDArray[np.float64]
    keypoints: NDArray[np.float64]


def make_patch_set(
    photos: Path | Sequence[Path],
    model: Path | Sequence[Path] | None,
    out: Path,
    *,
    options: PatchSetOptions | None = None,
) -> PatchSetSummary:
    """Make a patch set of one or several folders of photos.

    Args:
        photos: a folder of photos of one place, or several of them. Several must show different places: pairs are
            formed within a folder, but nobody checks that a place has one id over all folders.
        model: COLMAP's model of the photos, one for each folder, with names relative to it; None makes it with
            COLMAP's own SIFT.
        out: folder of the set, absent or empty; it appears whole or not at all.
        options: see :class:`PatchSetOptions`.

    Raises:
        UsageError: a folder or model cannot be read, does not fit the other, or an option is impossible.
        JobError: the photos give no model, or no point with two observations, or too few pairs for a pair file.
    """
    options = options or PatchSetOptions()
    _check_options(options)
    folders = [Path(photos)] if isinstance(photos, str | Path) else [Path(folder) for folder in photos]
    models = [None] * len(folders) if model is None else [model] if isinstance(model, str | Path) else list(model)
    if not folders or len(models) != len(folders):
        raise UsageError(f"{len(folders)} folders of photos and {len(models)} models were given; give one for each")
    with atomic_folder(out) as temporary:
        parts = []
        for index, (folder, given) in enumerate(zip(folders, models, strict=True)):
            try:
                parts.append(_scene_part(folder, None if given is None else Path(given), index, options))
            except JobError as error:
                raise JobError(f"{folder}: {error}") from error
        point = _joined([part.point for part in parts], [part.summary.points for part in parts])
        num_images = [part.summary.images for part in parts]
        reference = _joined([part.reference for part in parts], num_images)
        image = _joined([part.image for part in parts], num_images)
        matches = matching_pairs(point, np.random.default_rng([options.seed, 1]))
        most = max(options.pair_counts) // 2
        non_matches = _non_matching_pairs(parts, min(most, len(matches)), options)
        pairs = _pair_files(matches, non_matches, options)
        if not pairs:
            raise JobError(
                f"the set has {len(point)} patches, {len(matches)} matching and {len(non_matches)} non-matching pairs, "
                f"too few for a file of {min(options.pair_counts)}; give more photos, or a smaller size in pair_counts"
            )
        write_patch_set(
            temporary,
            np.concatenate([part.patches for part in parts]),
            point,
            reference,
            interest=np.concatenate([part.interest for part in parts]),
            pairs=pairs,
        )
        rows = zip(image, np.concatenate([part.keypoints for part in parts]), strict=True)
        text = "".join(f"{i} {' '.join(f'{value:.9g}' for value in row)}\n" for i, row in rows)
        (temporary / "keypoints.txt").write_text(text, encoding="ascii")
        summary = PatchSetSummary(
            patches=len(point),
            points=len(np.unique(point)),
            matching_pairs=len(matches),
            pair_files=tuple(sorted(pairs)),
            scenes=tuple(part.summary for part in parts),
            images=tuple((index, view.name) for index, part in enumerate(parts) for view in part.scene.views),
            options=options,
            provenance=provenance(seed=options.seed),
        )
        write_json(temporary / "summary.json", asdict(summary))
    return summary


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


def _check_options(options: PatchSetOptions) -> None:
    counts = options.pair_counts
    if not counts or min(counts) < 2 or any(count % 2 for count in counts):
        raise UsageError(f"pair_counts are {counts}; give even numbers from 2 on, half of a file's pairs are matches")
    names = ("jitter_octaves", "jitter_deg", "jitter_shift", "negative_px", "seed")
    numbers = {**asdict(options.tolerances), **{name: getattr(options, name) for name in names}}
    for name, value in numbers.items():
        if not 0 <= value < np.inf:
            raise UsageError(f"{name} is {value}; give a number from 0 on")
    if options.threads < 1:
        raise UsageError(f"threads is {options.threads}; give 1 or more")


def _scene_part(photos: Path, model: Path | None, index: int, options: PatchSetOptions) -> _Part:
    """Find and cut the patches of one scene."""
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
    return _Part(scene, summary, patches, point, found.point[order], view, view[first], interest, rows)


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


def _non_matching_pairs(parts: list[_Part], wanted: int, options: PatchSetOptions) -> Rows:
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


def _pair_files(matches: Rows, non_matches: Rows, options: PatchSetOptions) -> dict[int, tuple[Rows, Rows]]:
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


def _joined(ids: list[Rows], counts: list[int]) -> Rows:
    """Join ids that count from 0 in each scene to ids that count on."""
    return np.concatenate([own + sum(counts[:index]) for index, own in enumerate(ids)])
