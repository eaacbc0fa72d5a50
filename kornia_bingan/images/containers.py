"""The bytes of an image file become its size, its orientation and the certainty that it is whole.

Only the container is read, not the pixels: decoders disagree on orientation from format to format and from version to
version, and some return half of a file that is cut short without a word. `kornia_bingan.images.read` builds on this.
"""

from __future__ import annotations

import io
import re
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

_WIDTH, _HEIGHT, _ORIENTATION, _EXTRA_SAMPLES = 256, 257, 274, 338  # TIFF 6.0 tags; EXIF has the orientation too
# 0xFF and a code; in compressed data 0xFF is followed by 0 or a restart marker, between segments by fill bytes 0xFF
_JPEG_MARKER = re.compile(rb"\xff+[^\x00\x01\xff\xd0-\xd7]")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
_PNM_BLANK = rb"(?:\s|#[^\n]*\n)+"
_PNM_SIZE = re.compile(rb"P([1-6])" + _PNM_BLANK + rb"(\d{1,9})" + _PNM_BLANK + rb"(\d{1,9})")
_PNM_MAXIMUM = re.compile(_PNM_BLANK + rb"(\d{1,5})\s")


class ContainerError(ValueError):
    """What is wrong with a file's bytes, as the end of a sentence that starts with the file's name."""


@dataclass(frozen=True)
class ImageHeader:
    """What a container says about its picture.

    Attributes:
        kind: JPEG, PNG, TIFF, WebP, BMP, PNM, or HEIF, which Pillow decodes, for HEIC and AVIF.
        width, height: the stored size in pixels, before orientation.
        orientation: EXIF's value, 1 to 8; 1 if there is none or it makes no sense, as viewers do.
        max_value: the sample value that means white; 0 stands for the whole range of the sample's type.
        patches: (position, bytes) to write over the file's bytes before a decoder sees them.
    """

    kind: str
    width: int
    height: int
    orientation: int = 1
    max_value: int = 0
    patches: tuple[tuple[int, bytes], ...] = ()


def read_header(data: bytes) -> ImageHeader:
    """Read the container of an image file given whole; the format is told by the first bytes, for names lie.

    JPEG, PNG and WebP are followed to their end. TIFF, BMP and PNM have no end to check; their decoders notice.

    Raises:
        ContainerError: the bytes are of no known format, cut short or damaged.
    """
    reader = _reader(data)
    if reader is None:
        raise ContainerError("is not a JPEG, PNG, TIFF, WebP, BMP, PNM, HEIC or AVIF picture, whatever its name says")
    try:
        header = reader(data)
    except (struct.error, OverflowError) as error:  # an offset of 2^63 and more overflows
        raise ContainerError("is cut short or damaged in its header") from error
    if header.width < 1 or header.height < 1:
        raise ContainerError(f"is a damaged {header.kind} file: its size is {header.width} x {header.height}")
    return header


def _reader(data: bytes) -> Callable[[bytes], ImageHeader] | None:
    kinds = (
        (data.startswith(b"\xff\xd8"), _jpeg),
        (data.startswith(b"\x89PNG\r\n\x1a\n"), _png),
        (data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
        (data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
        (data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS, _heif),
        (data.startswith(b"BM"), _bmp),
        (re.match(rb"P[1-6][\s#]", data) is not None, _pnm),
    )
    return next((reader for fits, reader in kinds if fits), None)


def _jpeg(data: bytes) -> ImageHeader:
    """Walk the marker segments (ITU-T T.81, annex B) to the end marker; bytes after it, as phones add, are allowed.

    The walk steps over segments by their length, so the end marker of an embedded thumbnail is not taken for the
    picture's own. Stray bytes before a marker are passed over, as libjpeg does.
    """
    width = height = 0
    orientation = 1
    position = 2
    while found := _JPEG_MARKER.search(data, position):
        position = found.end()
        marker = data[position - 1]
        if marker == 0xD9:
            return ImageHeader("JPEG", width, height, orientation)
        (length,) = struct.unpack_from(">H", data, position)
        segment = data[position + 2 : position + length]
        position += length  # the data after a start of scan has no length and no marker in it: the search ends it
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", segment, 1)
        elif marker == 0xE1 and segment.startswith(b"Exif\0\0") and orientation == 1:
            orientation = _exif_orientation(segment[6:])
    raise ContainerError("is a JPEG file that is cut short: its end marker is missing")


def _png(data: bytes) -> ImageHeader:
    """Walk the chunks (PNG specification, section 5) to IEND and check the sums of those that hold the picture."""
    width, height = struct.unpack_from(">II", data, 16)
    orientation = 1
    for kind, start, end in _png_chunks(data):
        if kind[:1].isupper() and zlib.crc32(memoryview(data)[start - 4 : end]) != _uint32(data, end):
            raise ContainerError(f"is a damaged PNG file: wrong check sum in chunk {kind.decode('latin-1')}")
        if kind == b"eXIf":
            orientation = _exif_orientation(data[start:end])
        elif kind == b"IEND":
            return ImageHeader("PNG", width, height, orientation)
    raise ContainerError("is a PNG file that is cut short: its end chunk is missing")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Give the kind of each whole chunk, and where its content starts and ends."""
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            return
        yield kind, position + 8, end
        position = end + 4


def png_exif(data: bytes) -> bytes:
    """Give the EXIF block of a PNG file, before or behind its pixels; nothing if there is none."""
    return next((data[start:end] for kind, start, end in _png_chunks(data) if kind == b"eXIf"), b"")


def _uint32(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 4], "big")


def _webp(data: bytes) -> ImageHeader:
    """Walk the RIFF chunks; the size stands in the first, in one of three layouts (RFC 9649)."""
    (riff_size,) = struct.unpack_from("<I", data, 4)
    if 8 + riff_size > len(data):
        raise ContainerError("is a WebP file that is cut short")
    width = height = 0
    orientation = 1
    position = 12
    while position + 8 <= 8 + riff_size:
        kind, length = struct.unpack_from("<4sI", data, position)
        chunk = data[position + 8 : position + 8 + length]
        if kind == b"EXIF":
            orientation = _exif_orientation(chunk.removeprefix(b"Exif\0\0"))
        elif width == 0 and kind == b"VP8X":
            width = 1 + int.from_bytes(chunk[4:7], "little")
            height = 1 + int.from_bytes(chunk[7:10], "little")
        elif width == 0 and kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", chunk, 1)
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif width == 0 and kind == b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", chunk, 6))
        position += 8 + length + length % 2
    return ImageHeader("WebP", width, height, orientation)


def _tiff(data: bytes) -> ImageHeader:
    """Read the first page's directory (TIFF 6.0, BigTIFF).

    OpenCV turns TIFF pixels itself whatever its flags say, and libtiff multiplies colour by alpha. The patches tell
    both that there is nothing to do, so that orientation and alpha are treated as in every other format.
    """
    order, tags = _tiff_tags(data)
    patches = []
    for tag, nothing_to_do in ((_ORIENTATION, 1), (_EXTRA_SAMPLES, 0)):
        if tag in tags:
            patches.append((tags[tag].position, struct.pack(order + tags[tag].format, nothing_to_do)))
    if _WIDTH not in tags or _HEIGHT not in tags:
        raise ContainerError("is a damaged TIFF file: it gives no size")
    return ImageHeader(
        "TIFF", tags[_WIDTH].value, tags[_HEIGHT].value, _valid_orientation(tags), patches=tuple(patches)
    )


def _bmp(data: bytes) -> ImageHeader:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # the OS/2 layout
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return ImageHeader("BMP", width, abs(height))  # a negative height says that the top row comes first


def _heif(data: bytes) -> ImageHeader:
    """Read HEIC and AVIF by Pillow; whether the picture is whole shows when it is decoded."""
    with open_heif(data) as picture:
        orientation = picture.getexif().get(_ORIENTATION, 1)
        valid = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
        return ImageHeader("HEIF", *picture.size, orientation=valid)


def open_heif(data: bytes) -> Image.Image:
    """Open HEIC or AVIF.

    Raises:
        ContainerError: the file is damaged, or Pillow has no decoder for it.
    """
    from PIL import UnidentifiedImageError  # only here, for training on a bare machine needs no Pillow

    try:
        return open_by_pillow(io.BytesIO(data))
    except UnidentifiedImageError as error:
        if sys.modules.get("pillow_heif") is None:
            raise ContainerError("is a HEIC or AVIF picture, which needs pip install 'kornia_bingan[heic]'") from error
        raise ContainerError("is a HEIC or AVIF file that is cut short or damaged") from error
    except (OSError, ValueError, SyntaxError, EOFError, RuntimeError) as error:
        raise ContainerError("is a HEIC or AVIF file that is cut short or damaged") from error


_pillow_lock = threading.Lock()


def open_by_pillow(source: Path | IO[bytes]) -> Image.Image:
    """Open a picture of any size by Pillow, which gets the decoder of HEIC if it is installed; nothing is decoded yet.

    Raises:
        OSError, ValueError, SyntaxError, EOFError, RuntimeError: whatever Pillow raises for files that it cannot open.
    """
    from PIL import Image

    try:
        import pillow_heif
    except ImportError:
        pass  # AVIF needs none where Pillow was built with it
    else:
        pillow_heif.register_heif_opener()
    with _pillow_lock:  # Pillow's limit, 179 megapixels, holds for the process; `kornia_bingan.images.read` has its own
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _pnm(data: bytes) -> ImageHeader:
    found = _PNM_SIZE.match(data)
    if found is None:
        raise ContainerError("is a PNM file that is cut short or damaged in its header")
    width, height = int(found[2]), int(found[3])
    if found[1] in b"14":  # bitmaps have no maximum
        return ImageHeader("PNM", width, height)
    maximum = _PNM_MAXIMUM.match(data, found.end())
    if maximum is None or not 0 < int(maximum[1]) < 65536:
        raise ContainerError("is a PNM file whose maximum sample value is not between 1 and 65535")
    if found[1] in b"23" and int(maximum[1]) < 256:  # of all kinds, OpenCV scales the ASCII ones below 256 itself
        return ImageHeader("PNM", width, height)
    return ImageHeader("PNM", width, height, max_value=int(maximum[1]))


class _Tag(NamedTuple):
    value: int
    position: int  # of the value, from the start of the file
    format: str  # of the value, as struct writes it


def _tiff_tags(data: bytes) -> tuple[str, dict[int, _Tag]]:
    """Read the whole numbers of a TIFF's first directory.

    Returns:
        The byte order as struct writes it ("<" or ">"), and the tags with one SHORT, LONG or LONG8.

    Raises:
        struct.error: the directory reaches past the end.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    (directory,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, directory)
    first, step, value_at = (directory + 8, 20, 12) if big else (directory + 2, 12, 8)
    tags = {}
    for entry in range(first, first + count * step, step):
        tag, kind, num_values = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, entry)
        if num_values == 1 and kind in (3, 4, 16):
            number = {3: "H", 4: "I", 16: "Q"}[kind]
            (value,) = struct.unpack_from(order + number, data, entry + value_at)
            tags[tag] = _Tag(value, entry + value_at, number)
    return order, tags


def _exif_orientation(block: bytes) -> int:
    if block[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    try:
        return _valid_orientation(_tiff_tags(block)[1])
    except (struct.error, OverflowError):
        return 1


def _valid_orientation(tags: dict[int, _Tag]) -> int:
    return tags[_ORIENTATION].value if _ORIENTATION in tags and 1 <= tags[_ORIENTATION].value <= 8 else 1
