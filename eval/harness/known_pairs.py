"""Scenes, wide pairs and homography sequences of a split as one thing: pictures, and what is true of pairs of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.harness.data import (
    HomographySequence,
    Matrix,
    PosedPair,
    Scene,
    find_scenes,
    find_sequences,
    pairs_of_scene,
    read_pairs,
    read_scene,
    read_sequence,
)
from eval.harness.pipeline import Picture
from eval.harness.problems import MAX_GAP
from kornia_bingan.errors import UsageError

Truth = PosedPair | Matrix
"""A pose, or the homography from the first picture to the second."""

WIDE = "wide pairs"


@dataclass(frozen=True, eq=False)
class KnownPairs:
    """Pictures, and pairs of them with what is true of each.

    Attributes:
        name: of the scene or sequence.
        part: in which table.
        pictures: by name.
        truths: by the names of two pictures.
    """

    name: str
    part: str
    pictures: Mapping[str, Picture]
    truths: Mapping[tuple[str, str], Truth]


def of_scene(scene: Scene, folder: Path, most: int | None) -> KnownPairs:
    """Take the pairs of photos up to 4 apart of a scene with cameras, or ``most`` of them, evenly spread."""
    posed = pairs_of_scene(scene, MAX_GAP)
    if most is not None and most < len(posed):
        posed = [posed[index] for index in np.linspace(0, len(posed) - 1, most).round().astype(int)]
    truths: dict[tuple[str, str], Truth] = {}
    for pair in posed:
        first, second = (photo.removeprefix(f"{scene.name}/") for photo in pair.photos)
        truths[first, second] = pair
    used = {name for names in truths for name in names}
    pictures = {n: i for n, i in pictures_of(scene, folder).items() if n in used}
    return KnownPairs(scene.name, "scenes", pictures, truths)


def pictures_of(scene: Scene, folder: Path) -> dict[str, Picture]:
    """Give the photos of a scene by name."""
    return {n: Picture(image, folder / "images" / n) for n, image in zip(scene.names, scene.images, strict=True)}


def of_sequence(sequence: HomographySequence) -> KnownPairs:
    """Pair the first picture of a sequence with each other one."""
    names = [f"{path.parent.name}/{path.name}" for path in sequence.paths]  # EVD has one name in two folders
    pictures = {n: Picture(i, p) for n, i, p in zip(names, sequence.images, sequence.paths, strict=True)}
    truths = {(names[0], other): H for other, H in zip(names[1:], sequence.homographies, strict=True)}
    return KnownPairs(sequence.name, "evd" if sequence.group == "evd" else "homographies", pictures, truths)


def of_wide_pairs(folder: Path) -> KnownPairs:
    """Read the pairs of ``folder/pairs.json``."""
    posed = read_pairs(folder)
    pictures = {
        name: Picture(image, folder / "images" / name)
        for pair in posed
        for name, image in zip(pair.photos, (pair.image0, pair.image1), strict=True)
    }
    return KnownPairs(WIDE, WIDE, pictures, {pair.photos: pair for pair in posed})


def load_pairs(data: Path, only: Sequence[str], most: int | None) -> Iterable[KnownPairs]:
    """Read the scenes with cameras, the wide pairs and the sequences of a split, one at a time.

    Raises:
        UsageError: there is none, or a name of ``only`` is none of them.
    """
    scenes, sequences = find_scenes(data, with_cameras=True), find_sequences(data)
    wide = data.resolve().parent / "pairs" / data.resolve().name
    with_wide = (wide / "pairs.json").is_file()
    names = [path.name for path in scenes] + [path.stem for path in sequences] + [WIDE] * with_wide
    if missing := sorted(set(only) - set(names)):
        raise UsageError(f"{data} has no '{missing[0]}' with ground truth; it has {', '.join(names) or 'none'}")
    if not names:
        raise UsageError(f"{data} has no scene with cameras.json, no homography sequence and no pairs beside it")
    wanted = set(only) or set(names)
    for path in scenes:
        if path.name in wanted:
            yield of_scene(read_scene(path), path, most)
    if WIDE in wanted:
        yield of_wide_pairs(wide)
    for path in sequences:
        if path.stem in wanted:
            yield of_sequence(read_sequence(path))
