from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image

from kornia_bingan.errors import UsageError
from kornia_bingan.images import read as images
from kornia_bingan.images.folders import Skipped, list_images
from kornia_bingan.images.read import ImageError, image_size, read_color, read_image, read_opacity, sample_ranges
from tests.helpers.image_bytes import encode, exif, png, png_chunk, tiff, with_exif
from tests.helpers.photos import texture
from tests.helpers.programs import run_program

WIDTH, HEIGHT = 80, 60
LOSSLESS_WEBP = (64, 101)
RAMP = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(3, 0)

# a JPEG file of 16 x 8 pixels with four components marked as CMYK by Adobe's segment: full cyan ink, no other
CYAN_INK = bytes.fromhex(
    "ffd8ffee000e41646f626500640000000000ffdb0043000302020302020303030304030304050805050404050a070706080c0a0c"
    "0c0b0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f171816141812141514ffc000140800080010044311004d110059"
    "11004b1100ffc4001500010100000000000000000000000000000009ffc40014100100000000000000000000000000000000ffda"
    "000e0443004d0059004b00003f00954aa6aa6aa600ffd9"
)


def picture() -> NDArray[np.uint8]:
    """Grey, smooth, and different under every turn and mirroring."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (40 + 2 * x + y // 2 + 20 * ((x < 20) & (y < 10))).astype(np.uint8)


def shown(stored: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """What a viewer shows, from EXIF's definition of the eight values."""
    return {
        1: stored,
        2: np.fliplr(stored),
        3: np.rot90(stored, 2),
        4: np.flipud(stored),
        5: stored.T,
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).T,
        8: np.rot90(stored, 1),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tif"])
def test_orientation_is_applied_exactly_once(tmp_path: Path, extension: str, orientation: int) -> None:
    path = tmp_path / f"photo{extension}"
    if extension == ".tif":
        data = tiff(picture(), orientation)
    else:
        plain = encode(extension, picture(), *(LOSSLESS_WEBP if extension == ".webp" else ()))
        data = with_exif(plain, exif(orientation, ">"), (WIDTH, HEIGHT))
    path.write_bytes(data)
    expected = shown(picture(), orientation)
    grey = read_image(path)
    assert grey.shape == expected.shape
    assert grey.flags.c_contiguous
    assert image_size(path) == (grey.shape[1], grey.shape[0])
    assert np.abs(grey.astype(int) - expected).max() <= (6 if extension == ".jpg" else 0)
    color = read_color(path)
    assert color.flags.c_contiguous
    assert np.abs(color.astype(int) - expected[:, :, None]).max() <= (6 if extension == ".jpg" else 0)


@pytest.mark.parametrize(
    ("order", "dtype", "tag_type"), [("<", "u1", 3), (">", "u1", 4), ("<", "u2", 4), (">", "u2", 3)]
)
def test_orientation_of_every_kind_of_tiff(tmp_path: Path, order: str, dtype: str, tag_type: int) -> None:
    stored = picture().astype(dtype) * (257 if dtype == "u2" else 1)
    for orientation in range(1, 9):
        (tmp_path / "a.tiff").write_bytes(tiff(stored, orientation, order, tag_type))
        np.testing.assert_array_equal(read_image(tmp_path / "a.tiff"), shown(picture(), orientation))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_jpeg_is_what_opencv_reads(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "IMG_0001.JPG"
    path.write_bytes(with_exif(encode(".jpg", picture()), exif(orientation), (WIDTH, HEIGHT)))
    expected = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert expected is not None
    np.testing.assert_array_equal(read_image(path), expected)
    assert image_size(path) == ((60, 80) if orientation >= 5 else (80, 60))


@pytest.mark.parametrize("extension", [".png", ".tif", ".webp", ".bmp", ".ppm", ".PNG", ".TIFF", ".WebP"])
def test_lossless_colour_comes_back_as_rgb(tmp_path: Path, extension: str) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / f"photo{extension}"
    path.write_bytes(
        encode(extension.lower(), rgb[:, :, ::-1], *(LOSSLESS_WEBP if "webp" in extension.lower() else ()))
    )
    np.testing.assert_array_equal(read_color(path), rgb)
    grey = rgb @ np.array([0.299, 0.587, 0.114])
    assert read_image(path).shape == (5, 7)
    assert np.abs(read_image(path) - grey).max() <= 1
    assert image_size(path) == (7, 5)


@pytest.mark.parametrize("extension", [".png", ".tiff", ".pgm"])
def test_16_bits_are_scaled_by_the_full_range(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"ramp{extension}"
    path.write_bytes(encode(extension, RAMP))
    np.testing.assert_array_equal(read_image(path)[0], np.arange(256))
    dark = tmp_path / f"dark{extension}"
    dark.write_bytes(encode(extension, RAMP // 16))  # a 12-bit sensor in the low bits stays dark, not stretched
    np.testing.assert_array_equal(read_image(dark)[0], np.round((RAMP[0] // 16) / 257))


def test_16_bit_colour_with_alpha(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(".png", np.dstack([RAMP, RAMP, RAMP, np.zeros_like(RAMP)])))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], np.arange(256))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P5 3 1 100\n" + bytes([0, 50, 100]), [0, 128, 255]),
        (b"P5 3 1 1023\n" + np.array([0, 512, 1023], ">u2").tobytes(), [0, 128, 255]),
        (b"P2 3 1 100\n0 50 100", [0, 127, 255]),
        (b"P2 3 1 1023\n0 512 1023", [0, 128, 255]),
        (b"P1 3 1\n0 1 0", [255, 0, 255]),
        (b"P4 3 1\n\x40", [255, 0, 255]),
    ],
)
def test_pnm_white_is_the_files_own_maximum(tmp_path: Path, data: bytes, expected: list[int]) -> None:
    (tmp_path / "a.pgm").write_bytes(data)
    assert read_image(tmp_path / "a.pgm").tolist() == [expected]


def test_few_bits_and_palettes(tmp_path: Path) -> None:
    palette = png_chunk(b"PLTE", bytes([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]))
    path = tmp_path / "a.png"
    path.write_bytes(png(8, 2, 1, 0, [b"\xaa", b"\x0f"]))
    assert read_image(path).tolist() == [[255, 0] * 4, [0] * 4 + [255] * 4]
    path.write_bytes(png(4, 1, 2, 0, [b"\x1b"]))
    assert read_image(path).tolist() == [[0, 85, 170, 255]]
    path.write_bytes(png(4, 1, 2, 3, [b"\x1b"], palette, png_chunk(b"tRNS", b"\0\0\0\0")))
    assert read_color(path).tolist() == [[[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    assert np.abs(read_image(path)[0] - np.array([0.0, 76.2, 149.7, 29.1])).max() <= 1


def test_alpha_is_ignored(tmp_path: Path) -> None:
    rgb = np.random.default_rng(2).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    alpha = np.zeros((6, 9, 1), np.uint8)
    bgra = np.concatenate([rgb[:, :, ::-1], alpha], axis=2)
    files = {
        "a.png": encode(".png", bgra),
        "a.bmp": encode(".bmp", bgra),
        "a.tif": tiff(np.concatenate([rgb, alpha], axis=2)),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        np.testing.assert_array_equal(read_color(tmp_path / name), rgb)
        assert np.abs(read_image(tmp_path / name) - rgb @ np.array([0.299, 0.587, 0.114])).max() <= 1


def test_alpha_says_where_a_photo_is_transparent(tmp_path: Path) -> None:
    """The left third has little alpha, the rest much; in all formats that have it, turned by EXIF like the pixels."""
    rng = np.random.default_rng(3)
    rgba = rng.integers(160, 256, (6, 9, 4), dtype=np.uint8)
    rgba[:, :3, 3] -= 160
    wanted = np.where(rgba[:, :, 3] > 127, 255, 0)
    bgra = rgba[:, :, [2, 1, 0, 3]]
    palette = png_chunk(b"PLTE", bytes([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]))
    files = {
        "rgba.png": encode(".png", bgra),
        "wide.png": encode(".png", bgra.astype(np.uint16) * 257),
        "rgba.tif": tiff(rgba),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for name, options in (("lossless.webp", {"lossless": True, "exact": True}), ("lossy.webp", {}), ("a.avif", {})):
        Image.fromarray(rgba).save(tmp_path / name, **options)
        files[name] = b""
    grey = Image.merge("LA", [Image.fromarray(rgba[:, :, 0]), Image.fromarray(rgba[:, :, 3])])
    grey.save(tmp_path / "grey.png")
    for name in (*files, "grey.png"):
        found = read_opacity(tmp_path / name)
        assert found is not None, name
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, wanted, err_msg=name)
    Image.fromarray(rgba).save(tmp_path / "turned.png", exif=orientation_6())
    turned = read_opacity(tmp_path / "turned.png")
    assert turned is not None
    assert turned.shape == read_image(tmp_path / "turned.png").shape == (9, 6)
    np.testing.assert_array_equal(turned, np.rot90(wanted, -1))
    (tmp_path / "palette.png").write_bytes(png(4, 1, 2, 3, [b"\x1b"], palette, png_chunk(b"tRNS", b"\xff\0\xff\xff")))
    found = read_opacity(tmp_path / "palette.png")
    assert found is not None
    assert found.tolist() == [[255, 0, 255, 255]]


def orientation_6() -> Image.Exif:
    turned = Image.Exif()
    turned[274] = 6
    return turned


def test_photos_that_are_transparent_nowhere_or_everywhere(tmp_path: Path) -> None:
    rgb = np.random.default_rng(4).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    for name in ("a.jpg", "a.png", "a.webp", "a.tif", "a.bmp", "a.avif"):
        Image.fromarray(rgb).save(tmp_path / name)
        assert read_opacity(tmp_path / name) is None, name
    for name in ("opaque.png", "opaque.webp"):
        Image.fromarray(rgb).convert("RGBA").save(tmp_path / name)
        assert read_opacity(tmp_path / name) is None, name
    clear = Image.fromarray(rgb).convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    with pytest.raises(ImageError, match=r"clear\.png is transparent everywhere; save it without transparency"):
        read_opacity(tmp_path / "clear.png")


def test_a_cmyk_jpeg_is_read(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    path.write_bytes(CYAN_INK)
    color = read_color(path)
    assert color.shape == (8, 16, 3)
    assert np.abs(color.astype(int) - [0, 255, 255]).max() <= 3
    assert np.abs(read_image(path).astype(int) - 179).max() <= 3
    assert image_size(path) == (16, 8)


@pytest.mark.parametrize("kind", ["jpg", "progressive", "png", "webp", "tiff", "bmp", "ppm", "ascii"])
def test_a_cut_file_is_refused_without_noise(tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    if kind == "progressive":
        data = encode(".jpg", rgb, 2, 1)
    elif kind == "ascii":
        data = b"P2 80 60 255\n" + b" ".join(b"%d" % value for value in rgb[:, :, 0].ravel())
    else:
        data = tiff(rgb) if kind == "tiff" else encode(f".{kind}", rgb)
    path = tmp_path / f"photo.{kind}"
    path.write_bytes(data)
    assert read_image(path).shape == (HEIGHT, WIDTH)
    for share in (0.001, 0.01, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(data[: int(share * len(data))] or b"\0")
        with pytest.raises(ImageError, match="photo"):
            read_image(path)
    if kind != "ascii":  # the digits of the last number may be fewer and still a number
        path.write_bytes(data[: -5 if kind == "tiff" else -1])  # a TIFF's last 4 bytes say only that no page follows
        with pytest.raises(ImageError, match="cut short"):
            read_image(path)
    assert capfd.readouterr() == ("", "")


def test_what_is_not_a_picture_is_named(tmp_path: Path) -> None:
    cases = {
        "absent.jpg": "No such file",
        "folder.jpg": "is a folder",
        "empty.jpg": "is empty",
        "text.jpg": "is not a JPEG",
        "loop.jpg": "cannot be read",
        "pipe.jpg": "not a regular file",
        "float.tif": "float32 samples",
        "signed.tif": "int16 samples",
    }
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("a shopping list\n" * 20)
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "float.tif").write_bytes(tiff(np.ones((4, 4), np.float32)))
    (tmp_path / "signed.tif").write_bytes(tiff(np.ones((4, 4), np.int16)))
    for name, words in cases.items():
        with pytest.raises(ImageError, match=words) as raised:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(UsageError):
        image_size(tmp_path / "text.jpg")


def test_a_picture_over_the_limit_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(30_000, 20_000, 1, 0, [bytes(3750)]))
    for read in (read_image, read_color, image_size):
        with pytest.raises(ImageError, match=r"30000 x 20000, 600 megapixels; the limit is 400"):
            read(tmp_path / "bomb.png")


def test_a_header_that_lies_about_the_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(encode(".png", picture()))
    turned = np.ascontiguousarray(picture().T)
    monkeypatch.setattr(images.cv2, "imdecode", lambda data, flags: turned)  # a decoder that turns by itself
    with pytest.raises(ImageError, match="decodes to 60 x 80, its header says 80 x 60"):
        read_image(tmp_path / "a.png")


def test_an_error_of_the_decoder_becomes_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(encode(".png", picture()))

    def fail(data: NDArray[np.uint8], flags: int) -> object:
        return cv2.cvtColor(np.zeros((0, 0), np.uint8), cv2.COLOR_BGR2GRAY)

    monkeypatch.setattr(images.cv2, "imdecode", fail)
    with pytest.raises(ImageError, match=r"a\.png cannot be decoded as PNG"):
        read_image(tmp_path / "a.png")


def test_any_file_name_is_read(tmp_path: Path) -> None:
    for name in ("写真 №1.JPG", "façade — copie.jpeg", "a'b\"c.jpg", os.fsdecode(b"latin-\xe9.jpg")):
        (tmp_path / name).write_bytes(encode(".jpg", picture()))
        assert read_image(tmp_path / name).shape == (HEIGHT, WIDTH)
        assert read_image(str(tmp_path / name)).shape == (HEIGHT, WIDTH)


def test_the_log_level_of_opencv_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(picture())[:-20])
    logging = cv2.utils.logging
    before = logging.setLogLevel(logging.LOG_LEVEL_WARNING)
    try:

        def read_often() -> None:
            for _ in range(20):
                with pytest.raises(ImageError):
                    read_image(path)

        threads = [threading.Thread(target=read_often) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert logging.getLogLevel() == logging.LOG_LEVEL_WARNING
    finally:
        logging.setLogLevel(before)


def test_list_images(tmp_path: Path) -> None:
    for name in ("IMG_1.JPG", "b.PNG", "sub/c.tif", "sub/deeper/a b.webp", "sub-x/d.jpeg", "Z.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in (".DS_Store", "notes.txt", "README", "movie.MP4", "._IMG_1.JPG", ".git/x.png", "sub/.thumbs/y.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "again").symlink_to(tmp_path / "sub")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "IMG_1.JPG")
    (tmp_path / "album.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / os.fsdecode(b"latin-\xe9.jpg")).touch()
    names, skipped = list_images(tmp_path)
    assert names == ["IMG_1.JPG", "Z.bmp", "b.PNG", "link.jpg", "sub-x/d.jpeg", "sub/c.tif", "sub/deeper/a b.webp"]
    assert skipped == [
        Skipped(".DS_Store", "hidden file"),
        Skipped("._IMG_1.JPG", "hidden file"),
        Skipped(".git", "hidden folder"),
        Skipped("README", "no extension"),
        Skipped("again", "link to a folder that is listed as sub"),
        Skipped("gone.jpg", "broken link"),
        Skipped(os.fsdecode(b"latin-\xe9.jpg"), "the name is not valid UTF-8; rename the file"),
        Skipped("movie.MP4", ".MP4 is not a kind of picture read here"),
        Skipped("notes.txt", ".txt is not a kind of picture read here"),
        Skipped("pipe.png", "not a regular file"),
        Skipped("sub/.thumbs", "hidden folder"),
        Skipped("sub/up", "link to a folder that holds it, not followed"),
    ]


def test_list_images_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.jpg", "a.jpg", "B/c.jpg", "a/d.jpg", "x.txt", "é.txt", "A.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    expected = list_images(tmp_path)
    assert expected[0] == ["B/c.jpg", "a.jpg", "a/d.jpg", "b.jpg"]
    scandir = os.scandir

    class Backwards:
        def __init__(self, path: str) -> None:
            self.entries = iter(sorted(scandir(path), key=lambda entry: entry.name, reverse=True))

        def __enter__(self) -> Backwards:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __iter__(self) -> Backwards:
            return self

        def __next__(self) -> os.DirEntry[str]:
            return next(self.entries)

    monkeypatch.setattr(os, "scandir", Backwards)
    assert list_images(tmp_path) == expected


def test_list_images_counts_a_folder_it_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    names, skipped = list_images(tmp_path)
    assert names == ["a.jpg"]
    assert skipped == [Skipped("locked", "the folder cannot be read (Permission denied)")]


def test_list_images_of_nothing_and_of_what_is_no_folder(tmp_path: Path) -> None:
    assert list_images(tmp_path) == ([], [])
    with pytest.raises(UsageError, match="no such folder"):
        list_images(tmp_path / "absent")
    (tmp_path / "a.jpg").touch()
    with pytest.raises(UsageError, match=r"a\.jpg is a file"):
        list_images(tmp_path / "a.jpg")


def test_real_photos_agree_with_opencv(shared_data: Path) -> None:
    folder = shared_data / "validate" / "herz_jesus"
    names, _ = list_images(folder)
    assert names
    for name in names[:2]:
        expected = cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE)
        assert expected is not None
        np.testing.assert_array_equal(read_image(folder / name), expected)
        assert image_size(folder / name) == (expected.shape[1], expected.shape[0])


@pytest.mark.parametrize(("kind", "extension"), [("HEIF", ".heic"), ("AVIF", ".avif")])
def test_heic_and_avif_are_read_like_the_others(tmp_path: Path, kind: str, extension: str) -> None:
    colour = np.stack([texture(60, 80, seed) for seed in range(3)], 2)
    path = tmp_path / f"photo{extension}"
    pillow_heif.register_heif_opener()
    Image.fromarray(colour).save(path, kind, quality=95)
    assert image_size(path) == (80, 60)
    assert np.abs(read_color(path).astype(int) - colour).mean() < 12
    grey = read_image(path)
    assert grey.flags.c_contiguous
    assert np.abs(grey.astype(int) - cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)).mean() < 6
    assert list_images(tmp_path)[0] == [path.name]
    data = path.read_bytes()
    for part in (len(data) // 2, 40):
        path.write_bytes(data[:part])
        with pytest.raises(ImageError, match="cut short or damaged"):
            read_image(path)


def test_avif_is_turned_by_its_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    upright = texture(60, 80)
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "a.avif", exif=exif, quality=95)
    assert image_size(tmp_path / "a.avif") == (80, 60)
    assert np.abs(read_image(tmp_path / "a.avif").astype(int) - upright).mean() < 8


def test_heic_says_what_it_needs(tmp_path: Path) -> None:
    pillow_heif.register_heif_opener()
    Image.fromarray(texture(60, 80)).save(tmp_path / "a.heic", "HEIF")
    program = "import sys; sys.modules['pillow_heif'] = None\nfrom kornia_bingan.images import read_image\n"
    program += "read_image('a.heic')"
    done = run_program(program, tmp_path)
    assert "a.heic is a HEIC or AVIF picture, which needs pip install 'kornia_bingan[heic]'" in done.stderr


@pytest.mark.parametrize(("low", "high"), [(1, 4088), (29_000, 30_530)])
def test_thermal_and_12_bit_pictures_in_16_bit_files_are_stretched_by_one_range_for_the_folder(
    low: int, high: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    middle = low + (high - low) // 4
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, low, middle]], np.uint16))
    cv2.imwrite(str(tmp_path / "b.tiff"), np.array([[middle, high, 65535]], np.uint16))
    cv2.imwrite(str(tmp_path / "c.png"), np.array([[7, 8, 9]], np.uint8))
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    ranges = sample_ranges(tmp_path, ["a.png", "b.tiff", "c.png", "d.png", "absent.png"])
    assert ranges == {65535: (low, high)}
    assert f"use {low} to {high} of 65535" in caplog.text
    assert read_image(tmp_path / "a.png", ranges).tolist() == [[0, 0, 64]]
    assert read_image(tmp_path / "b.tiff", ranges).tolist() == [[64, 255, 255]]
    assert read_image(tmp_path / "c.png", ranges).tolist() == [[7, 8, 9]]


def test_pictures_that_use_16_bits_and_those_of_one_value_are_not_stretched(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "dark.png"), np.array([[3000, 4000]], np.uint16))
    cv2.imwrite(str(tmp_path / "full.png"), np.array([[500, 50_000]], np.uint16))
    cv2.imwrite(str(tmp_path / "flat.png"), np.array([[500, 500]], np.uint16))
    (tmp_path / "own.pgm").write_bytes(b"P5 2 1 4095\n" + np.array([10, 4000], ">u2").tobytes())
    assert sample_ranges(tmp_path, ["dark.png", "full.png"]) == sample_ranges(tmp_path, ["full.png", "dark.png"]) == {}
    assert sample_ranges(tmp_path, ["flat.png"]) == sample_ranges(tmp_path, ["own.pgm"]) == {}
