"""What a photo's file says about its lens and its place, by Pillow; most of it is absent more often than not."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from kornia_bingan.images.containers import open_by_pillow, png_exif

FILM_DIAGONAL_MM = math.hypot(36, 24)
"""35 mm equivalents compare diagonals (CIPA DCG-001)."""

Position = tuple[float, float, float | None]
"""Latitude and longitude in degrees, and height in metres."""

_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""Of FocalPlaneResolutionUnit."""


@dataclass(frozen=True)
class Exif:
    """What was found; None for what was not, or makes no sense.

    Attributes:
        focal_diagonal: focal length over the diagonal of the picture.
        position: latitude and longitude in degrees, north and east positive, and metres above sea level (None:
            unknown).
    """

    focal_diagonal: float | None = None
    position: Position | None = None

    def focal_px(self, size: tuple[int, int]) -> float | None:
        """Give the focal length in pixels of a picture of this size, pixels."""
        return None if self.focal_diagonal is None else self.focal_diagonal * math.hypot(*size)


def read_exif(path: Path) -> Exif:
    """Read the file's EXIF block; a file without one, or with a damaged one, gives nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_by_pillow(path) as picture:
                if picture.format == "PNG" and "exif" not in picture.info:
                    # Pillow decodes all pixels to reach a block behind them.
                    if block := png_exif(path.read_bytes()):
                        picture.info["exif"] = block
                    exif = Image.Image.getexif(picture)
                else:
                    exif = picture.getexif()
                size = picture.size
                camera, gps = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    except Exception:  # Pillow raises whatever its parsers meet; the pixels are read and judged elsewhere
        return Exif()
    return Exif(_focal_diagonal(camera, size), _position(gps))


def position_block(position: Position) -> bytes:
    """Write an EXIF block, ``Exif`` marker included, that says where a picture was taken."""
    exif = Image.Exif()
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    axes = ((ExifTags.GPS.GPSLatitude, position[0], "NS"), (ExifTags.GPS.GPSLongitude, position[1], "EW"))
    for key, degrees, letters in axes:
        minutes = abs(degrees) % 1 * 60
        gps[key - 1] = letters[degrees < 0]
        gps[key] = (int(abs(degrees)), int(minutes), minutes % 1 * 60)
    if position[2] is not None:
        gps[ExifTags.GPS.GPSAltitudeRef] = bytes([position[2] < 0])
        gps[ExifTags.GPS.GPSAltitude] = abs(position[2])
    return exif.tobytes()


def _focal_diagonal(tags: dict[int, Any], size: tuple[int, int]) -> float | None:
    """Take the 35 mm equivalent, else the focal length and the resolution of the sensor."""
    equivalent = _number(tags.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if equivalent:
        return _sensible(equivalent / FILM_DIAGONAL_MM)
    focal_mm = _number(tags.get(ExifTags.Base.FocalLength))
    per_unit = _number(tags.get(ExifTags.Base.FocalPlaneXResolution))
    unit = _MM_PER_UNIT.get(int(_number(tags.get(ExifTags.Base.FocalPlaneResolutionUnit, 2)) or 0))
    if not (focal_mm and per_unit and unit):
        return None
    # The resolution counts pixels of the picture as it was taken, whose width the file keeps when it is reduced.
    taken = _number(tags.get(ExifTags.Base.ExifImageWidth)) or max(size)
    reduction = max(size) / max(taken, _number(tags.get(ExifTags.Base.ExifImageHeight)) or 0)
    return _sensible(focal_mm * per_unit / unit * reduction / math.hypot(*size))


def _sensible(focal_diagonal: float) -> float | None:
    return focal_diagonal if 0.1 < focal_diagonal < 50 else None


def _position(tags: dict[int, Any]) -> Position | None:
    angles = []
    for value, reference, most in ((ExifTags.GPS.GPSLatitude, "S", 90), (ExifTags.GPS.GPSLongitude, "W", 180)):
        parts = tags.get(value)
        if not isinstance(parts, tuple) or len(parts) != 3:
            return None
        numbers = [_number(part) for part in parts]
        if any(number is None for number in numbers):
            return None
        degrees = sum(number / 60**index for index, number in enumerate(numbers) if number is not None)
        if degrees > most:
            return None
        sign = str(tags.get(value - 1, "")).strip("\0 ").upper().startswith(reference)
        angles.append(-degrees if sign else degrees)
    height = _number(tags.get(ExifTags.GPS.GPSAltitude))
    below = tags.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\x01")
    return angles[0], angles[1], -height if below and height is not None else height


def _number(value: Any) -> float | None:
    """Turn a rational or a number into a float; None for what is negative, not finite or no number."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number >= 0 else None
