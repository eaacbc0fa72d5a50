"""What a reconstruction gave: numbers in ``summary.json``, and as a table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kornia_bingan.colmap.types import Georeference
from kornia_bingan.errors import UsageError
from kornia_bingan.report.text import skipped_lines, text_table
from kornia_bingan.work.files import printable, write_json

MOST_NAMES = 50
"""Names of photos of a model that the table holds; ``summary.json`` and the log have all."""


@dataclass(frozen=True)
class PairStatistics:
    """What matching and two-view geometry made of the pairs of photos.

    Attributes:
        tried: pairs whose codes were compared.
        matched: those with at least one match.
        verified: those with a two-view geometry.
        rejected: those without.
        matches: matches of all pairs.
        inliers: inliers of all verified pairs.
    """

    tried: int
    matched: int
    verified: int
    rejected: int
    matches: int
    inliers: int

    def sentence(self) -> str:
        """Say it in one line."""
        return (
            f"{self.tried} pairs tried, {self.matched} with matches ({self.matches:,}), {self.verified} verified "
            f"({self.inliers:,} inliers), {self.rejected} rejected"
        )


def count_photos(count: int) -> str:
    """Write ``1 photo``, ``2 photos``."""
    return "1 photo" if count == 1 else f"{count:,} photos"


@dataclass(frozen=True)
class ModelPhotos:
    """The photos of one model.

    Attributes:
        folder: of the model in the folder of the results.
        points: of the model.
        photos: names of its photos.
    """

    folder: str
    points: int
    photos: list[str]

    def sentence(self, most: int | None = None) -> str:
        """Say it in one line, with the names of at most so many photos; None names all."""
        names = self.photos[:most]
        more = f" and {len(self.photos) - len(names):,} more" if len(names) < len(self.photos) else ""
        return f"{self.folder}: {count_photos(len(self.photos))}, {self.points:,} points: {', '.join(names)}{more}"


@dataclass(frozen=True)
class Summary:
    """What a reconstruction gave; ``summary.json``.

    Attributes:
        images: photos that took part; ``images`` and ``skipped`` together are everything that was found.
        registered: photos with a pose in the largest model, which the next numbers are of, too.
        points: points of the model.
        observations: keypoints that see a point.
        mean_track_length: photos that see a point, on average.
        mean_reprojection_error_px: mean over the points.
        seconds: by stage, summed over the attempts that ended a stage.
        descriptor: name of the weights.
        sha256: checksum of the weights file.
        versions: of this package and of its libraries.
        skipped: name and reason of each file that took no part.
        unreadable: of these, photos that cannot be read.
        pairs: statistics of the pairs.
        masked: photos that took part with a mask.
        chosen: pairs by the way they were chosen, before they are joined.
        turned: photos that took part and that their EXIF orientation turns or mirrors; the model is in pixels as shown.
        photos: folder of the photos, absolute; empty if it is not known.
        unplaced: photos that do not say where they were taken, where pairs were chosen by that.
        models: all models with their photos, the largest first; a photo may be in two.
        unregistered: name and reason of each photo that took part and is in no model.
        matcher: how photos were matched, in words.
        place: where the largest model is on the earth, see :class:`kornia_bingan.colmap.types.Georeference`; None
            where no photo says its position.
    """

    images: int
    registered: int
    points: int
    observations: int
    mean_track_length: float
    mean_reprojection_error_px: float
    seconds: dict[str, float]
    descriptor: str
    sha256: str
    versions: dict[str, str | None]
    skipped: list[dict[str, str]]
    pairs: PairStatistics
    unreadable: int = 0
    masked: int = 0
    chosen: dict[str, int] = field(default_factory=dict)
    turned: int = 0
    photos: str = ""
    unplaced: list[str] = field(default_factory=list)
    models: list[ModelPhotos] = field(default_factory=list)
    unregistered: list[dict[str, str]] = field(default_factory=list)
    matcher: str = ""
    place: Georeference | None = None

    def to_json(self) -> dict[str, Any]:
        """Give what JSON can hold."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write ``summary.json``, atomically."""
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Summary:
        """Read what :meth:`write` wrote.

        Raises:
            UsageError: the file is something else.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            value["pairs"] = PairStatistics(**value["pairs"])
            value["place"] = None if value.get("place") is None else Georeference(**value["place"])
            value["models"] = [ModelPhotos(**model) for model in value.get("models", [])]
            return cls(**value)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is no summary of a reconstruction; delete it to build it again") from error

    def turned_note(self) -> str:
        """Say what turned photos mean for other programs; empty without any."""
        if not self.turned:
            return ""
        return (
            f"{self.turned} of {self.images} photos have an EXIF orientation. The model is in pixels as a viewer shows "
            "them, while COLMAP's own tools (image_undistorter, pycolmap.undistort_images) read them as they are "
            "stored: bingan scene writes pictures that fit the model."
        )

    def table(self) -> str:
        """Render the numbers as text."""
        rows = [
            ["registered photos", f"{self.registered} / {self.images}"],
            *([["models", f"{len(self.models)}"]] if len(self.models) > 1 else []),
            *([["photos with a mask", f"{self.masked} / {self.images}"]] if self.masked else []),
            *([["photos without a position", f"{len(self.unplaced)} / {self.images}"]] if self.unplaced else []),
            ["points", f"{self.points:,}"],
            ["observations", f"{self.observations:,}"],
            ["mean track length", f"{self.mean_track_length:.2f}"],
            ["mean reprojection error (px)", f"{self.mean_reprojection_error_px:.3f}"],
            *([f"pairs by {way}", f"{count:,}"] for way, count in self.chosen.items() if len(self.chosen) > 1),
            ["verified pairs", f"{self.pairs.verified} / {self.pairs.tried}"],
            ["matches", f"{self.pairs.matches:,}"],
            ["inliers", f"{self.pairs.inliers:,}"],
            *([f"seconds, {stage}", f"{value:.1f}"] for stage, value in self.seconds.items()),
            ["descriptor", f"{self.descriptor} ({self.sha256[:12]})"],
            *([["matched by", self.matcher]] if self.matcher else []),
            *([["on the earth", self.place.sentence()]] if self.place is not None else []),
        ]
        note = f"\n\n{self.turned_note()}" if self.turned else ""
        return text_table(["", "value"], rows) + note + self._models_lines() + skipped_lines(self.skipped)

    def _models_lines(self) -> str:
        """Name the photos of each model and those in none; nothing if one model has all."""
        if len(self.models) < 2 and not self.unregistered:
            return ""
        lines = [printable(model.sentence(MOST_NAMES)) for model in self.models]
        lines += [f"in no model: {printable(item['name'])}: {printable(item['reason'])}" for item in self.unregistered]
        return "\n".join(["", "", *lines])
