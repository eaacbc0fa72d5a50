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
    """What all stages of a run need.

    ``home`` is the folder of the run, with features, matches and logs; ``out`` gets the database, the models and the
    summary, and is the same or, where finished results are brought up to date, a folder in it. ``base`` is the folder
    of results that go on: their database and largest model; None if all is made anew.
    """

    photos: Path
    home: Path
    out: Path
    base: Path | None
    options: ReconstructOptions
    weights: Path
    masks: dict[str, Path]
    limit: TimeLimit
    watch: Stopwatch

    def kept(self) -> str:
        """Say that older results are kept, for the end of an error; empty if there are none."""
        older = self.out != self.home and (self.home / "model").exists()
        return f"; {self.home / 'model'} stays as it was" if older else ""


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
