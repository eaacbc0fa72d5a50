"""Image files built byte by byte, so that the tests know what is in them without another reader."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray


def encode(extension: str, pixels: NDArray[np.generic], *parameters: int) -> bytes:
    done, data = cv2.imencode(extension, pixels, parameters)
    assert done
    return data.tobytes()


def exif(orientation: int, order: str = "<") -> bytes:
    """A TIFF block with one directory entry: Orientation, SHORT, count 1."""
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    entry = struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    return start + struct.pack(order + "H", 1) + entry + struct.pack(order + "I", 0)


def with_segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """Put a marker segment directly after the start of a JPEG file."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def with_exif(data: bytes, block: bytes, size: tuple[int, int]) -> bytes:
    """Add an EXIF block to a JPEG, PNG or lossless WebP file as written by OpenCV."""
    if data.startswith(b"\xff\xd8"):
        return with_segment(data, 0xE1, b"Exif\0\0" + block)
    if data.startswith(b"\x89PNG"):
        return data[:-12] + png_chunk(b"eXIf", block) + data[-12:]
    image = data[data.index(b"VP8L") :]
    has_exif = 0x08
    extended = bytes([has_exif, 0, 0, 0]) + b"".join((side - 1).to_bytes(3, "little") for side in size)
    body = b"WEBP" + riff_chunk(b"VP8X", extended) + image + riff_chunk(b"EXIF", block)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_chunk(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(width: int, height: int, depth: int, color_type: int, rows: list[bytes], *chunks: bytes) -> bytes:
    """A PNG file from packed rows; ``chunks`` stand before the pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + png_chunk(b"IEND", b"")


def tiff(pixels: NDArray[np.generic], orientation: int = 1, order: str = "<", tag_type: int = 3) -> bytes:
    """An uncompressed TIFF file of (H, W) or (H, W, 3 or 4: unassociated alpha) pixels in one strip."""
    height, width = pixels.shape[:2]
    num_samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    bits = pixels.dtype.itemsize * 8
    sample_format = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    strip = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    photometric = 1 if num_samples == 1 else 2
    values = {256: width, 257: height, 259: 1, 262: photometric, 273: 8, 274: orientation, 277: num_samples}
    values |= {278: height, 279: len(strip), 339: sample_format}
    if num_samples == 4:
        values[338] = 2
    bits_at = 8 + len(strip)
    directory = b""
    for tag in sorted({*values, 258}):
        if tag == 258 and num_samples > 1:
            directory += struct.pack(order + "HHII", 258, 3, num_samples, bits_at)
            continue
        kind = tag_type if tag == 274 else 4 if tag in (256, 257, 273, 279) else 3
        number = struct.pack(
            order + ("I" if kind == 4 else "HH"),
            *((bits,) if tag == 258 else (values[tag],)),
            *((0,) if kind == 3 else ()),
        )
        directory += struct.pack(order + "HHI", tag, kind, 1) + number
    num_entries = len(values) + 1
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", bits_at + 8)
    bits_per_sample = struct.pack(order + "4H", *[bits] * 4)
    return start + strip + bits_per_sample + struct.pack(order + "H", num_entries) + directory + bytes(4)
