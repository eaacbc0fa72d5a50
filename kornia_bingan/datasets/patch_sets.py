"""Folders of photos become a patch set of the PhotoTour layout, to train on and to measure with.

Which patches show the same point is decided by the geometry of a reconstruction and not by a descriptor, see
:mod:`kornia_bingan.datasets.observations`. The set can be read by whatever reads the official ones, see
:mod:`kornia_bingan.datasets.brown`; beside the official files there are

* ``summary.json``: counts, options, the photos and where the numbers come from;
* ``keypoints.txt``: one row per patch, its image (a place in the summary's ``images``), x, y, size and angle of its
  keypoint in OpenCV's terms. ``interest.txt`` holds the reference keypoint instead, in all rows of a point: image, x, y
  (the centre of the first pixel is 0), orientation (radians, clockwise on the screen), log2 of sigma (half the size).

With the same versions and seed, two runs write the same bytes, except for the date in the summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kornia_bingan.datasets.brown import write_patch_set
from kornia_bingan.datasets.patch_options import PatchSetOptions, check_options
from kornia_bingan.datasets.patch_pairs import matching_pairs, non_matching_pairs, pair_files
from kornia_bingan.datasets.scene_patches import SceneSummary, cut_scene
from kornia_bingan.datasets.sparse_scene import Rows
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.work.files import atomic_folder, write_json
from kornia_bingan.work.provenance import provenance


@dataclass(frozen=True)
class PatchSetSummary:
    """What ``summary.json`` holds.

    Attributes:
        patches, points: of the set.
        matching_pairs: how many there are in the set.
        pair_files: sizes A of the pair files.
        scenes: one per folder of photos.
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
    check_options(options)
    folders = [Path(photos)] if isinstance(photos, str | Path) else [Path(folder) for folder in photos]
    models = [None] * len(folders) if model is None else [model] if isinstance(model, str | Path) else list(model)
    if not folders or len(models) != len(folders):
        raise UsageError(f"{len(folders)} folders of photos and {len(models)} models were given; give one for each")
    with atomic_folder(out) as temporary:
        parts = []
        for index, (folder, given) in enumerate(zip(folders, models, strict=True)):
            try:
                parts.append(cut_scene(folder, None if given is None else Path(given), index, options))
            except JobError as error:
                raise JobError(f"{folder}: {error}") from error
        point = _joined([part.point for part in parts], [part.summary.points for part in parts])
        num_images = [part.summary.images for part in parts]
        reference = _joined([part.reference for part in parts], num_images)
        image = _joined([part.image for part in parts], num_images)
        matches = matching_pairs(point, np.random.default_rng([options.seed, 1]))
        most = max(options.pair_counts) // 2
        non_matches = non_matching_pairs(parts, min(most, len(matches)), options)
        pairs = pair_files(matches, non_matches, options)
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


def _joined(ids: list[Rows], counts: list[int]) -> Rows:
    """Join ids that count from 0 in each scene to ids that count on."""
    return np.concatenate([own + sum(counts[:index]) for index, own in enumerate(ids)])
