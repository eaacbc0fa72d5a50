from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kornia_bingan.images.containers import ContainerError, ImageHeader, read_header
from tests.helpers.image_bytes import encode, exif, png, png_chunk, tiff, with_exif, with_segment

WIDTH, HEIGHT = 80, 60
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
LOSSLESS_WEBP, PROGRESSIVE = (64, 101), (2, 1)
FILES = {
    "jpeg": encode(".jpg", NOISE),
    "progressive jpeg": encode(".jpg", NOISE, *PROGRESSIVE),
    "png": encode(".png", NOISE),
    "webp": encode(".webp", NOISE, 64, 80),
    "lossless webp": encode(".webp", NOISE, *LOSSLESS_WEBP),
    "extended webp": with_exif(encode(".webp", NOISE, *LOSSLESS_WEBP), exif(1), (WIDTH, HEIGHT)),
    "tiff": tiff(NOISE),
    "big-endian tiff": tiff(NOISE, order=">"),
    "bmp": encode(".bmp", NOISE),
    "ppm": encode(".ppm", NOISE),
    "pgm": b"P5 # a remark\n# another\n80\n60 255\n" + NOISE[:, :, 0].tobytes(),
    "pbm": b"P4\n80 60\n" + bytes(600),
}


@pytest.mark.parametrize("name", FILES)
def test_size_is_read_from_the_header(name: str) -> None:
    header = read_header(FILES[name])
    assert (header.width, header.height, header.orientation) == (WIDTH, HEIGHT, 1)
    assert header.kind.lower() in name or header.kind == "PNM"


def test_other_headers_worked_by_hand() -> None:
    os2 = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 7, 5, 1, 24) + bytes(120)
    assert read_header(os2) == ImageHeader("BMP", 7, 5)
    top_down = b"BM" + bytes(12) + struct.pack("<Iii", 40, 7, -5) + bytes(140)
    assert read_header(top_down) == ImageHeader("BMP", 7, 5)
    assert read_header(b"P5 3 2 1023\n" + bytes(12)) == ImageHeader("PNM", 3, 2, max_value=1023)
    entries = b"".join(struct.pack("<HHQQ", tag, 4, 1, value) for tag, value in ((256, 9), (257, 4), (274, 6)))
    big_tiff = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 3) + entries + bytes(8)
    header = read_header(big_tiff)
    assert (header.width, header.height, header.orientation) == (9, 4, 6)
    ((position, patch),) = header.patches
    assert big_tiff[position : position + 4] == struct.pack("<I", 6)
    assert patch == struct.pack("<I", 1)


@pytest.mark.parametrize("name", ["jpeg", "png", "lossless webp"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_read_in_both_byte_orders(name: str, order: str) -> None:
    for orientation, meant in ((1, 1), (3, 3), (6, 6), (8, 8), (0, 1), (9, 1)):
        data = with_exif(FILES[name], exif(orientation, order), (WIDTH, HEIGHT))
        assert read_header(data).orientation == meant


@pytest.mark.parametrize("block", [b"", b"II", b"nonsense", exif(6)[:12], exif(6)[:4] + b"\xff" * 40])
def test_a_damaged_exif_block_means_no_orientation(block: bytes) -> None:
    for name in ("jpeg", "png", "lossless webp"):
        assert read_header(with_exif(FILES[name], block, (WIDTH, HEIGHT))).orientation == 1


@pytest.mark.parametrize("name", ["jpeg", "progressive jpeg", "png", "webp", "lossless webp", "extended webp"])
def test_every_cut_is_noticed(name: str) -> None:
    data = FILES[name]
    for length in [*range(12, len(data), max(1, len(data) // 100)), len(data) - 2, len(data) - 1]:
        with pytest.raises(ContainerError, match="cut short"):
            read_header(data[:length])


def test_the_end_marker_of_a_thumbnail_does_not_hide_a_cut() -> None:
    thumbnail = encode(".jpg", NOISE[:20, :20])
    data = with_segment(FILES["jpeg"], 0xE1, b"Exif\0\0" + exif(8) + thumbnail)
    assert read_header(data) == ImageHeader("JPEG", WIDTH, HEIGHT, 8)
    with pytest.raises(ContainerError, match="end marker"):
        read_header(data[:-500])


@pytest.mark.parametrize("name", ["jpeg", "progressive jpeg", "png", "webp"])
def test_bytes_after_the_end_are_allowed(name: str) -> None:
    assert read_header(FILES[name] + b"maker's data \xff\xd8 of a phone").width == WIDTH


def test_stray_and_fill_bytes_between_jpeg_segments_are_passed_over() -> None:
    jpeg = FILES["jpeg"]
    assert read_header(jpeg[:2] + b"\0\0stray\xff\xff\xff" + jpeg[2:]).width == WIDTH


def test_a_wrong_check_sum_in_a_png_is_noticed() -> None:
    data = bytearray(FILES["png"])
    data[data.index(b"IDAT") + 100] ^= 1
    with pytest.raises(ContainerError, match="check sum in chunk IDAT"):
        read_header(bytes(data))
    remark = png_chunk(b"tEXt", b"a\0b")[:-4] + b"oops"  # a remark is not the picture
    assert read_header(png(1, 1, 8, 0, [b"\0"], remark)).width == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"plain text", "is not a JPEG, PNG"),
        (b"GIF89a" + bytes(40), "is not a JPEG, PNG"),
        (b"\xff\xd8\xff\xd9", "size is 0 x 0"),
        (b"\x89PNG\r\n\x1a\n", "cut short"),
        (b"BM", "cut short"),
        (b"II*\0\xff\xff\xff\xff", "cut short"),
        (b"II*\0\x08\0\0\0\0\0", "no size"),
        (b"P5 12", "PNM file that is cut short"),
        (b"P5 12 12 0 ", "maximum"),
        (b"P5 12 12 70000 ", "maximum"),
        (png(0, 5, 8, 0, []), "size is 0 x 5"),
    ],
)
def test_what_cannot_be_a_picture_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(ContainerError, match=words):
        read_header(data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.integers(0, 400), st.binary(min_size=1, max_size=8), st.integers(0, 20000))
def test_damage_gives_a_header_or_the_one_error(name: str, at: int, junk: bytes, length: int) -> None:
    data = FILES[name][:length]
    data = data[:at] + junk + data[at + len(junk) :]
    try:
        header = read_header(data)
    except ContainerError:
        return
    assert header.width > 0
    assert header.height > 0
    assert 1 <= header.orientation <= 8
