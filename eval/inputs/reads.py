"""What the reader of pictures takes: a small file of each format and kind of pixels, written by Pillow or OpenCV.

    python -m eval reads [--out FILE.json]

A cell says ``yes`` if the file is read as it was written: within 2 grey levels where the format loses nothing, 12 on
average where it does; ``turned`` if its EXIF orientation is applied too. Otherwise it says why not; ``-`` stands for
what the format, or the library that writes it, does not have.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.harness.columns import plain_columns, text_of
from eval.harness.command import Out, command_line
from eval.harness.options import RESULTS
from eval.harness.records import write_json
from kornia_bingan.datasets.rendered import draw_texture
from kornia_bingan.images.read import ImageError, read_image
from kornia_bingan.work.provenance import provenance

FORMATS = {
    "JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WebP": ".webp", "BMP": ".bmp", "PPM": ".ppm", "AVIF": ".avif",
    "HEIC": ".heic",
}  # fmt: skip
LOSSY = ("JPEG", "WebP", "AVIF", "HEIC")
KINDS = ("grey", "grey 16 bits", "RGB", "RGB 16 bits", "alpha", "palette", "1 bit", "CMYK", "orientation")
_PILLOW = {"JPEG": "JPEG", "PNG": "PNG", "TIFF": "TIFF", "WebP": "WEBP", "BMP": "BMP", "PPM": "PPM", "AVIF": "AVIF"}

Pixels = NDArray[np.uint8]


def sample(kind: str) -> Pixels:
    """Draw the picture of a kind, grey uint8 as it should be read (H, W)."""
    grey = draw_texture(48, 64, np.random.default_rng(3))
    return np.where(grey > 127, 255, 0).astype(np.uint8) if kind == "1 bit" else grey


def encode(name: str, kind: str, grey: Pixels) -> bytes | None:
    """Write a picture; None if the format does not have the kind."""
    if kind in ("grey 16 bits", "RGB 16 bits"):
        if name not in ("PNG", "TIFF", "PPM"):
            return None
        wide = grey.astype(np.uint16) * 257
        pixels = wide if kind.startswith("grey") else np.dstack([wide] * 3)
        extension = ".pgm" if (name, kind) == ("PPM", "grey 16 bits") else FORMATS[name]
        return np.asarray(cv2.imencode(extension, pixels)[1]).tobytes()
    modes: dict[str, Callable[[Image.Image], Image.Image]] = {
        "grey": lambda x: x,
        "RGB": lambda x: x.convert("RGB"),
        "alpha": lambda x: Image.merge("RGBA", [x, x, x, Image.fromarray(grey[::-1].copy())]),
        "palette": lambda x: x.convert("P"),
        "1 bit": lambda x: x.convert("1"),
        "CMYK": lambda x: x.convert("RGB").convert("CMYK"),
        "orientation": lambda x: Image.fromarray(np.rot90(grey).copy()),
    }
    picture = modes[kind](Image.fromarray(grey))
    more: dict[str, Any] = {} if name in ("BMP", "PPM") else {"quality": 98}
    if kind == "orientation":
        if name in ("BMP", "PPM", "HEIC"):
            return None
        exif = Image.Exif()
        exif[274] = 6
        more["exif"] = exif
    if name == "HEIC":
        import pillow_heif

        pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    try:
        picture.save(buffer, _PILLOW.get(name, "HEIF"), **more)
    except (OSError, ValueError, KeyError):
        return None
    stored = Image.open(io.BytesIO(buffer.getvalue())).mode
    wanted = {"grey": "L", "RGB": "RGB", "alpha": "RGBA", "palette": "P", "1 bit": "1", "CMYK": "CMYK"}
    return buffer.getvalue() if kind == "orientation" or stored == wanted[kind] else None


def examine() -> list[dict[str, str]]:
    """Read every sample; one row a format."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, extension in FORMATS.items():
            row = {"format": name, "names": extension}
            for kind in KINDS:
                grey = sample(kind)
                data = encode(name, kind, grey)
                if data is None:
                    row[kind] = "-"
                    continue
                path = Path(folder) / f"picture{extension}"
                path.write_bytes(data)
                row[kind] = _verdict(path, grey, name in LOSSY, "turned" if kind == "orientation" else "yes")
            rows.append(row)
    return rows


def _verdict(path: Path, grey: Pixels, is_lossy: bool, good: str) -> str:
    try:
        found = read_image(path)
    except ImageError as error:
        return f"no: {str(error).removeprefix(str(path)).strip()}"
    if found.shape != grey.shape:
        return f"no: read as {found.shape[1]} x {found.shape[0]}"
    difference = np.abs(found.astype(int) - grey)
    far = difference.mean() > 12 if is_lossy else difference.max() > 2
    return f"no: {difference.mean():.0f} grey levels off" if far else good


@command_line("reads")
def main(out: Out = RESULTS / "reads.json") -> int:
    rows = examine()
    print(text_of(plain_columns(rows), rows))
    record = {"protocol": "reads", "command": "python -m eval reads", "results": rows, "provenance": provenance()}
    write_json(out, record)
    return 0
