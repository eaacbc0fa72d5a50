"""A photo becomes a grey array.

One policy for everything that reads a picture: pixels stand as a viewer shows them (EXIF orientation applied, once),
alpha changes none of them (`read_opacity` gives it), and a file that is cut short is refused although OpenCV gives half
a JPEG without a word. What the container says is read in `kornia_bingan.images.containers`; only the pixels are left to
OpenCV.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.images.containers import ContainerError, ImageHeader, open_heif, read_header
from kornia_bingan.work.files import atomic_path
from kornia_bingan.work.run_folder import LOG

MAX_PIXELS = 400_000_000  # a 400-megapixel grey image and its pyramid fill 4 GB; anything larger is a mistake or a bomb


class ImageError(UsageError):
    """A picture cannot be read; the message names the file and says why."""


def write_image(path: Path, pixels: NDArray[np.uint8], exif: bytes = b"") -> None:
    """Write a picture, grey or blue first, in the format of its extension, atomically; a JPEG with an EXIF block.

    Not by cv2.imwrite: a name that is not valid UTF-8 crashes it.

    Raises:
        UsageError: there is no such format, or the file cannot be written.
    """
    try:
        _, data = cv2.imencode(path.suffix, pixels)
        written = data.tobytes()
        if exif:
            segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
            written = written[:2] + segment + written[2:]
        with atomic_path(path) as temporary:
            temporary.write_bytes(written)
    except (OSError, cv2.error) as error:
        raise UsageError(f"{path} cannot be written; give a file in an existing, writable folder") from error


Ranges = Mapping[int, tuple[int, int]]
"""By the sample value that means white, the samples of more than 8 bits that become 0 and 255."""


def read_image(path: Path | str, ranges: Ranges | None = None) -> NDArray[np.uint8]:
    """Read a photo as grey, as a viewer shows it.

    Reads JPEG (CMYK too), PNG, TIFF (first page), WebP, BMP, PNM, AVIF and, with the extra ``heic``, HEIC; 1-bit,
    palette, grey and colour. EXIF orientation is applied, alpha is ignored, and samples wider than 8 bits are scaled by
    their full range: 65535, or the file's own maximum for PNM, becomes 255. Nothing is stretched or clipped, unless
    ``ranges`` of :func:`sample_ranges` say so.

    Returns:
        uint8, shape (H, W), C-contiguous; H and W after orientation.

    Raises:
        ImageError: the file is absent, a folder, empty, cut short, damaged, not a picture, of an unsupported sample
            type (floating point, signed, 32 bits) or over 400 megapixels.
    """
    return _read(Path(path), cv2.IMREAD_GRAYSCALE, ranges)


def sample_ranges(folder: Path, names: Iterable[str], *, say: bool = True) -> dict[int, tuple[int, int]]:
    """Find the range to which the photos of a folder that have more than 8 bits are to be stretched, one for all.

    Thermal cameras and 12-bit sensors use a small part of 16 bits; by the full range there is nothing to see. If all
    samples lie within a quarter of the range, its ends are the smallest and the largest one; 0 and white do not count,
    for they also mark missing and saturated pixels. Photos that cannot be read are passed over. ``say`` logs it.

    Returns:
        For :func:`read_image`; empty if the photos use their full range, or have 8 bits.
    """
    found: dict[int, tuple[int, int]] = {}
    for name in names:
        try:
            if not _may_be_wide(folder / name):
                continue
            pixels, header = _samples(folder / name, cv2.IMREAD_GRAYSCALE)
        except (ImageError, OSError):  # the stage that reads photos says why
            continue
        white = header.max_value or int(np.iinfo(pixels.dtype).max)
        counted = pixels[(pixels > 0) & (pixels < white)]
        if pixels.dtype != np.uint16 or not counted.size:
            continue
        low, high = found.get(white, (white, 0))
        found[white] = min(low, int(counted.min())), max(high, int(counted.max()))
        if white == _WHITE and found[white][1] - found[white][0] >= white // 4:
            break  # of ordinary photos one is enough to know
    ranges = {white: ends for white, ends in found.items() if 0 < ends[1] - ends[0] < white // 4}
    for white, (low, high) in ranges.items() if say else ():
        LOG.warning("photos of 16 bits use %d to %d of %d: all are stretched from there to 0 to 255", low, high, white)
    return ranges


_WHITE = 65535


def _may_be_wide(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(25)
    if start.startswith(b"\x89PNG"):
        return start[24:] == b"\x10"
    return start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") or start[:2] in (b"P2", b"P3", b"P5", b"P6")


def read_color(path: Path | str, ranges: Ranges | None = None) -> NDArray[np.uint8]:
    """Read a photo as RGB; everything else as in `read_image`.

    Returns:
        uint8, shape (H, W, 3) in the order R, G, B, C-contiguous; a grey file gives three equal channels.

    Raises:
        ImageError: as in `read_image`.
    """
    bgr = _read(Path(path), cv2.IMREAD_COLOR, ranges)
    return np.ascontiguousarray(bgr[:, :, ::-1])


def read_opacity(path: Path | str) -> NDArray[np.uint8] | None:
    """Read where a photo is transparent, in the pixels of `read_image`.

    Returns:
        uint8, shape (H, W), 0 where alpha is below half (lossy formats make 0 a little more) and 255 elsewhere; None
        for a photo that is transparent nowhere.

    Raises:
        ImageError: as in `read_image`, or the photo is transparent everywhere.
    """
    path = Path(path)
    if not _may_be_transparent(*_open(path)):
        return None
    pixels, header = _samples(path, cv2.IMREAD_UNCHANGED)
    if pixels.ndim != 3 or pixels.shape[2] != 4:
        return None
    shown = np.where(pixels[:, :, 3] > np.iinfo(pixels.dtype).max // 2, 255, 0).astype(np.uint8)
    if shown.all():
        return None
    if not shown.any():
        raise ImageError(f"{path} is transparent everywhere; save it without transparency")
    return np.array(_orient(shown, header.orientation), order="C")


def _may_be_transparent(data: bytes, header: ImageHeader) -> bool:
    """Say whether a file may have alpha; only then is it decoded a second time."""
    if header.kind == "PNG":
        return data[25] in (4, 6) or b"tRNS" in data[: data.find(b"IDAT")]
    if header.kind == "WebP":  # a flag of VP8X, or of VP8L
        return (data[12:16] == b"VP8X" and bool(data[20] & 0x10)) or (data[12:16] == b"VP8L" and bool(data[24] & 0x10))
    return header.kind in ("TIFF", "HEIF")


def shrink(image: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """Reduce a picture whose long side is over ``longest`` pixels to that, areas averaged; give others as they are.

    Args:
        image: grey or colour, uint8, shape (H, W) or (H, W, 3).
        longest: pixels, 1 or more.
    """
    factor = longest / max(image.shape[:2])
    if factor >= 1:
        return image
    size = [max(1, round(side * factor)) for side in image.shape[1::-1]]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def image_size(path: Path | str) -> tuple[int, int]:
    """Give (width, height) in pixels of the array that `read_image` returns, without decoding the pixels.

    Raises:
        ImageError: as in `read_image`, as far as the container shows it.
    """
    header = image_header(path)
    return (header.height, header.width) if header.orientation >= 5 else (header.width, header.height)


def image_header(path: Path | str) -> ImageHeader:
    """Give what the container of a photo says: its kind, the stored size and the orientation that `read_image` applies.

    Raises:
        ImageError: as in `read_image`, as far as the container shows it.
    """
    return _open(Path(path))[1]


def _open(path: Path) -> tuple[bytes, ImageHeader]:
    """Read a file whole and check its container."""
    if path.is_dir():
        raise ImageError(f"{path} is a folder, not a picture; give the name of one photo")
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise ImageError(f"{path} is not a regular file; give the name of one photo")
    try:
        data = path.read_bytes()  # not cv2.imread: on Windows it cannot open every Unicode name
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error
    if not data:
        raise ImageError(f"{path} is empty (0 bytes); copy it again from its source")
    try:
        header = read_header(data)
    except ContainerError as error:
        raise ImageError(f"{path} {error}; copy it again from its source or convert it") from error
    if header.width * header.height > MAX_PIXELS:
        megapixels = header.width * header.height / 1e6
        raise ImageError(
            f"{path} is {header.width} x {header.height}, {megapixels:.0f} megapixels; "
            f"the limit is {MAX_PIXELS // 1_000_000}, so reduce it first"
        )
    return data, header


def _read(path: Path, mode: int, ranges: Ranges | None = None) -> NDArray[np.uint8]:
    pixels, header = _samples(path, mode)
    if header.kind != "HEIF":
        ends = (ranges or {}).get(header.max_value or _WHITE) if pixels.dtype == np.uint16 else None
        pixels = to_8_bits(pixels, header.max_value) if ends is None else _stretch(pixels, *ends)
    return np.array(_orient(pixels, header.orientation), order="C")


def _samples(path: Path, mode: int) -> tuple[NDArray[Any], ImageHeader]:
    """Decode the samples as the file has them, 8 or 16 bits, rows and columns as stored."""
    data, header = _open(path)
    if header.patches:
        patched = bytearray(data)
        for position, new in header.patches:
            patched[position : position + len(new)] = new
        data = bytes(patched)
    if header.kind == "HEIF":
        return _decode_heif(path, data, mode), header
    if header.kind == "PNM" and data[1:2] in b"123":
        data += b"\n"  # OpenCV gives up on the last number of an ASCII file unless a blank follows
    try:
        with _quiet_opencv():
            pixels = cv2.imdecode(
                np.frombuffer(data, np.uint8), mode | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
            )
    except cv2.error as error:
        raise ImageError(f"{path} cannot be decoded as {header.kind}: {error.err}") from error
    if pixels is None:
        raise ImageError(f"{path} is a {header.kind} file that is cut short, damaged or of an unsupported variant")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path} holds {pixels.dtype} samples; save it with 8 or 16 unsigned bits")
    if pixels.shape[:2] != (header.height, header.width):
        raise ImageError(
            f"{path} decodes to {pixels.shape[1]} x {pixels.shape[0]}, "
            f"its header says {header.width} x {header.height}; save it again from its source"
        )
    return pixels, header


def _decode_heif(path: Path, data: bytes, mode: int) -> NDArray[np.uint8]:
    """Decode HEIC or AVIF as OpenCV would the other formats: blue first, with alpha, or grey by its weights."""
    alpha = mode == cv2.IMREAD_UNCHANGED
    try:
        with open_heif(data) as picture:
            rgb = np.asarray(picture.convert("RGBA" if alpha else "RGB"), np.uint8)
    except (ContainerError, OSError, ValueError, SyntaxError, EOFError, RuntimeError) as error:
        raise ImageError(f"{path} is a HEIC or AVIF file that is cut short or damaged") from error
    if alpha:
        return rgb
    conversion = cv2.COLOR_RGB2GRAY if mode == cv2.IMREAD_GRAYSCALE else cv2.COLOR_RGB2BGR
    return np.asarray(cv2.cvtColor(rgb, conversion), np.uint8)


def to_8_bits(pixels: NDArray[Any], max_value: int) -> NDArray[np.uint8]:
    """Scale samples so that ``max_value`` (0: the largest value of the type) becomes 255, rounded to nearest."""
    top = int(np.iinfo(pixels.dtype).max)
    white = max_value or top
    if pixels.dtype == np.uint8 and white == 255:
        return pixels.astype(np.uint8, copy=False)
    values = np.minimum(np.arange(top + 1), white)
    return np.take(((values * 255 + white // 2) // white).astype(np.uint8), pixels)


def _stretch(pixels: NDArray[np.uint16], low: int, high: int) -> NDArray[np.uint8]:
    """Scale samples so that ``low`` becomes 0 and ``high`` 255, rounded to nearest; what lies outside is clipped."""
    span = high - low
    values = np.clip(np.arange(_WHITE + 1), low, high) - low
    return np.take(((values * 255 + span // 2) // span).astype(np.uint8), pixels)


def _orient(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn stored rows and columns into the ones shown (EXIF 2.32, Orientation: where row 0 and column 0 belong)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


_quiet_lock = threading.Lock()
_quiet_depth = 0
_loud_level = 0


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's log off stderr meanwhile: the caller gets one sentence instead. The level is restored."""
    global _quiet_depth, _loud_level  # noqa: PLW0603 - the level is global in OpenCV; threads must not restore early
    with _quiet_lock:
        if _quiet_depth == 0:
            _loud_level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                cv2.utils.logging.setLogLevel(_loud_level)
