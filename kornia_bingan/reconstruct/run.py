"""What the stages of a run hand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kornia_bingan.images.folders import Skipped
from kornia_bingan.reconstruct.features import Features
from kornia_bingan.reconstruct.options import ReconstructOptions
from kornia_bingan.reconstruct.pairs import Pair
from kornia_bingan.work.run_folder import Stopwatch, TimeLimit


@dataclass(frozen=True)
class Run:
    """What all stages of a run need."""

    photos: Path
    out: Path
    options: ReconstructOptions
    weights: Path
    masks: dict[str, Path]
    limit: TimeLimit
    watch: Stopwatch


@dataclass(frozen=True)
class Matched:
    """What describing and matching left: features of the photos that take part, and which pairs of them were compared.

    ``chosen`` counts the pairs by the way they were chosen, ``unplaced`` names photos in which gps misses a position.
    """

    features: dict[str, Features]
    skipped: list[Skipped]
    unreadable: int
    pairs: list[Pair]
    chosen: dict[str, int]
    unplaced: list[str]
