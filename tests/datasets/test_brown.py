from __future__ import annotations

import os
import shutil
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_bingan.datasets import brown_files
from kornia_bingan.datasets.brown import halve_patches, read_patch_set, write_patch_set
from kornia_bingan.datasets.pair_arrays import read_pair_arrays
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.read import ImageError

COUNT = 600  # three sheets, the last one 88 patches long


# --- a second reader, which shares nothing with the first: plain Python, the bitmap taken apart by hand ---------------


def parse_bitmap(data: bytes) -> list[bytes]:
    """Rows of grey pixels of an 8-bit bitmap, top first."""
    assert data[:2] == b"BM"
    (start,) = struct.unpack_from("<I", data, 10)
    header_size, width, height, _, depth, compression = struct.unpack_from("<IiiHHI", data, 14)
    assert (depth, compression) == (8, 0)
    palette = [data[14 + header_size + 4 * i : 14 + header_size + 4 * i + 3] for i in range(256)]
    assert all(b == g == r for b, g, r in palette)
    grey = bytes(entry[0] for entry in palette)
    stride = (width + 3) // 4 * 4
    rows = [data[start + y * stride : start + y * stride + width].translate(grey) for y in range(abs(height))]
    return rows[::-1] if height > 0 else rows


def parse_patches(folder: Path) -> list[bytes]:
    """Every patch of the set as 4096 bytes, the padding of the last sheet left out."""
    patches = []
    for sheet in sorted(folder.glob("patches*.bmp")):
        rows = parse_bitmap(sheet.read_bytes())
        assert (len(rows), len(rows[0])) == (1024, 1024)
        for top in range(0, 1024, 64):
            for left in range(0, 1024, 64):
                patches.append(b"".join(row[left : left + 64] for row in rows[top : top + 64]))
    return patches[: len((folder / "info.txt").read_text().splitlines())]


def parse_pairs(path: Path) -> list[tuple[int, int, bool]]:
    fields = [line.split() for line in path.read_text().splitlines()]
    return [(int(a), int(b), p == q) for a, p, _, b, q, _ in fields]


# --- a hand-made set --------------------------------------------------------------------------------------------------


@pytest.fixture
def content() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    point_ids = np.repeat(np.arange(200) * 7, 3)
    return {
        "patches": rng.integers(0, 256, (COUNT, 64, 64), dtype=np.uint8),
        "point_ids": point_ids,
        "reference": point_ids // 100,
        "interest": rng.uniform(-1000, 1000, (COUNT, 4)).astype(np.float32),
    }


def some_pairs(number: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of patches of a point and of the next point in turn, shuffled."""
    rng = np.random.default_rng(seed)
    index0 = 3 * rng.integers(0, 199, number)
    index1 = index0 + np.where(np.arange(number) % 2 == 0, 1, 4)
    order = rng.permutation(number)
    return index0[order], index1[order]


@pytest.fixture
def folder(tmp_path: Path, content: dict[str, np.ndarray]) -> Path:
    """All files of the layout, written by hand."""
    folder = tmp_path / "hand made"
    folder.mkdir()
    for number in range(3):
        sheet = np.full((1024, 1024), 77, np.uint8)
        for place, patch in enumerate(content["patches"][256 * number : 256 * number + 256]):
            y, x = divmod(place, 16)
            sheet[64 * y : 64 * y + 64, 64 * x : 64 * x + 64] = patch
        cv2.imwrite(str(folder / f"patches{number:04d}.bmp"), sheet)
    ids = content["point_ids"]
    (folder / "info.txt").write_text("".join(f"{point} 0\n" for point in ids))
    rows = zip(content["reference"], content["interest"], strict=True)
    (folder / "interest.txt").write_text("".join(f"{i} {a} {b} {c} {d}\n" for i, (a, b, c, d) in rows))
    (folder / "sim.txt").write_text("not read\n")
    for number in (10, 100):
        text = "".join(f"{a} {ids[a]} 0 {b} {ids[b]} 0\n" for a, b in zip(*some_pairs(number), strict=True))
        (folder / f"m50_{number}_{number}_0.txt").write_text(text)
    return folder


def test_the_reader_gives_what_the_files_hold(folder: Path, content: dict[str, np.ndarray]) -> None:
    found = read_patch_set(folder)
    assert len(found) == COUNT
    assert found.patches.dtype == np.uint8
    np.testing.assert_array_equal(found.patches, content["patches"])
    assert not found.patches.flags.writeable
    assert found.reference is not None
    for name in ("point_ids", "reference"):
        assert getattr(found, name).dtype == np.int64
        np.testing.assert_array_equal(getattr(found, name), content[name])
    np.testing.assert_allclose(found.interest, content["interest"], rtol=1e-6)
    assert found.pair_files == ["m50_10_10_0.txt", "m50_100_100_0.txt"]
    index0, index1, is_match = found.pairs(100)
    assert (index0.dtype, index1.dtype, is_match.dtype) == (np.int64, np.int64, np.bool_)
    np.testing.assert_array_equal((index0, index1), some_pairs(100))
    assert is_match.sum() == 50
    np.testing.assert_array_equal(found.pairs("m50_10_10_0.txt")[0], found.pairs(10)[0])


def test_the_writer_writes_what_the_reader_read_and_a_second_reader_agrees(folder: Path, tmp_path: Path) -> None:
    first = read_patch_set(folder, tmp_path / "cache")
    pairs = {number: first.pairs(number)[:2] for number in (10, 100)}
    copy = tmp_path / "copy"
    write_patch_set(copy, first.patches, first.point_ids, first.reference, interest=first.interest, pairs=pairs)
    sheets = [f"patches000{number}.bmp" for number in range(3)]
    texts = ["info.txt", "interest.txt", "m50_100_100_0.txt", "m50_10_10_0.txt"]
    assert sorted(path.name for path in copy.iterdir()) == sorted(sheets + texts)
    second = read_patch_set(copy, tmp_path / "cache")
    np.testing.assert_array_equal(second.patches, first.patches)
    np.testing.assert_array_equal(second.point_ids, first.point_ids)
    np.testing.assert_array_equal(second.reference, first.reference)
    np.testing.assert_allclose(second.interest, first.interest, rtol=1e-8)
    for place in (folder, copy):
        parsed = parse_patches(place)
        assert len(parsed) == COUNT
        assert parsed == [patch.tobytes() for patch in second.patches]
        lines = (place / "info.txt").read_text().splitlines()
        assert [int(line.split()[0]) for line in lines] == second.point_ids.tolist()
        lines = (place / "interest.txt").read_text().splitlines()
        assert [int(line.split()[0]) for line in lines] == second.reference.tolist()
        for number in (10, 100):
            index0, index1, is_match = second.pairs(number)
            parsed_pairs = parse_pairs(place / f"m50_{number}_{number}_0.txt")
            assert parsed_pairs == list(zip(index0.tolist(), index1.tolist(), is_match.tolist(), strict=True))
    assert parse_bitmap((copy / "patches0002.bmp").read_bytes())[1023] == bytes(1024), "the last sheet is padded"


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 512])
def test_any_number_of_patches_fits_the_sheets(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(count)
    patches = rng.integers(0, 256, (count, 64, 64), dtype=np.uint8)
    write_patch_set(tmp_path / "set", patches, np.arange(count))
    found = read_patch_set(tmp_path / "set")
    np.testing.assert_array_equal(found.patches, patches)
    assert found.reference is None
    assert found.interest is None
    assert found.pair_files == []
    assert len(list((tmp_path / "set").glob("*.bmp"))) == -(-count // 256)


def test_the_files_in_circulation_are_read_too(folder: Path) -> None:
    """Seven columns in pair files, line ends of Windows, empty lines at the end, sheets in colour."""
    path = folder / "m50_10_10_0.txt"
    path.write_bytes(b"".join(line + b" 0\r\n" for line in path.read_bytes().splitlines()) + b"\r\n\n")
    grey = cv2.imread(str(folder / "patches0001.bmp"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(folder / "patches0001.bmp"), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    found = read_patch_set(folder)
    np.testing.assert_array_equal(found.pairs(10)[:2], some_pairs(10))
    assert found.patches[256:512].tobytes() == b"".join(
        grey[y : y + 64, x : x + 64].tobytes() for y in range(0, 1024, 64) for x in range(0, 1024, 64)
    )


# --- patches for networks ---------------------------------------------------------------------------------------------


def test_patches_are_halved_by_the_mean_of_four_pixels(folder: Path) -> None:
    found = read_patch_set(folder)
    indices = np.array([599, 0, 256, 0])
    halved = found.patches32(indices)
    assert (halved.dtype, halved.shape) == (np.float32, (4, 1, 32, 32))
    expected = found.patches[indices].reshape(4, 32, 2, 32, 2).astype(np.float64).mean((2, 4)) / 255
    np.testing.assert_allclose(halved[:, 0], expected, atol=1e-7)
    by_opencv = cv2.resize(found.patches[599].astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA) / 255
    np.testing.assert_allclose(halved[0, 0], by_opencv, atol=1e-6)
    one = np.zeros((1, 64, 64), np.uint8)
    one[0, :2, :2] = [[1, 2], [3, 4]]
    assert halve_patches(one)[0, 0, 0, 0] == np.float32(2.5 / 255)
    assert halve_patches(np.full((1, 64, 64), 255, np.uint8)).min() == 1


@pytest.mark.parametrize("count", [0, 1, 2, 5000])
def test_any_number_of_patches_can_be_asked_for(folder: Path, count: int) -> None:
    found = read_patch_set(folder)
    indices = np.random.default_rng(count).integers(0, COUNT, count)
    halved = found.patches32(indices)
    assert (halved.dtype, halved.shape) == (np.float32, (count, 1, 32, 32))
    np.testing.assert_array_equal(halved, halve_patches(found.patches[indices]))


@pytest.mark.parametrize("bad", [np.array([0, COUNT]), np.array([-1]), np.array([0.5]), np.array([[1]])])
def test_indices_that_do_not_exist_are_refused(folder: Path, bad: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"there is no patch (-1|600); the set has 600|integers \(n,\)"):
        read_patch_set(folder).patches32(bad)


def test_patches_that_were_looked_at_do_not_stay_resident(tmp_path: Path) -> None:
    """All patches of a set of 128 MiB pass through one process, which keeps a fraction of them in memory."""
    if not Path("/proc/self/smaps").exists():
        pytest.skip("resident pages of a mapping are told by Linux alone")
    count = 32768
    (tmp_path / "set").mkdir()
    write_patch_set(tmp_path / "set", np.zeros((256, 64, 64), np.uint8), np.arange(256))
    for number in range(1, count // 256):
        os.link(tmp_path / "set" / "patches0000.bmp", tmp_path / "set" / f"patches{number:04d}.bmp")
    (tmp_path / "set" / "info.txt").write_text("".join(f"{i} 0\n" for i in range(count)))
    found = read_patch_set(tmp_path / "set")

    def resident_kib() -> int:
        text = Path("/proc/self/smaps").read_text()
        entry = text[text.index(str(found.cache)) :]
        return int(entry[entry.index("Rss:") + 4 :].split()[0])

    for start in range(0, count, 8192):
        found.patches32(np.random.default_rng(start).integers(0, count, 8192))
    assert resident_kib() < 1000
    found.patches.sum(dtype=np.int64)
    assert resident_kib() > 100_000, "the probe sees pages that were touched"


def test_a_cache_that_is_cut_short_while_open_is_noticed(folder: Path) -> None:
    found = read_patch_set(folder)
    os.truncate(found.cache, 599 * 4096)
    assert found.patches32(np.array([598])).shape == (1, 1, 32, 32)
    with pytest.raises(JobError, match=r"\.patches was cut short while it was read; delete it"):
        found.patches32(np.array([599]))


# --- the cache --------------------------------------------------------------------------------------------------------


def test_the_second_start_decodes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_patch_set(folder)
    assert first.cache.parent == folder
    assert first.cache.stat().st_size == COUNT * 4096

    def never(path: Path) -> np.ndarray:
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr(brown_files, "read_image", never)
    second = read_patch_set(folder)
    assert second.cache == first.cache
    np.testing.assert_array_equal(second.patches, first.patches)


def test_a_changed_sheet_is_decoded_again(folder: Path, tmp_path: Path) -> None:
    old = read_patch_set(folder, tmp_path / "cache")
    assert old.cache.parent == tmp_path / "cache"
    sheet = cv2.imread(str(folder / "patches0001.bmp"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(folder / "patches0001.bmp"), 255 - sheet)
    new = read_patch_set(folder, tmp_path / "cache")
    assert new.cache != old.cache
    np.testing.assert_array_equal(new.patches[256:512], 255 - old.patches[256:512])
    np.testing.assert_array_equal(new.patches[:256], old.patches[:256])
    assert not list(folder.glob("*.patches"))


def test_a_cache_that_is_cut_short_is_made_again(folder: Path) -> None:
    path = read_patch_set(folder).cache
    path.write_bytes(path.read_bytes()[:-1])
    again = read_patch_set(folder)
    assert again.cache.stat().st_size == COUNT * 4096
    assert parse_patches(folder) == [patch.tobytes() for patch in again.patches]


def test_a_damaged_sheet_leaves_no_cache(folder: Path) -> None:
    (folder / "patches0002.bmp").write_bytes(b"BM")
    with pytest.raises(ImageError, match=r"patches0002\.bmp"):
        read_patch_set(folder)
    assert not [path.name for path in folder.iterdir() if ".patches" in path.name]


@pytest.fixture
def read_only_folder(folder: Path) -> Iterator[Path]:
    """The set in a folder that may be read and not written, also when the tests run as root."""
    with tempfile.TemporaryDirectory() as parent:
        place = Path(parent) / "set"
        shutil.copytree(folder, place)
        (Path(parent) / "user").mkdir()
        os.chmod(Path(parent) / "user", 0o777)
        os.chmod(parent, 0o755)
        os.chmod(place, 0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield place
        finally:
            if root:
                os.seteuid(0)
            os.chmod(place, 0o755)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders are made read-only the POSIX way")
def test_a_read_only_folder_is_cached_for_the_user_and_says_so(
    read_only_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = read_only_folder.parent / "user"
    monkeypatch.setenv("XDG_CACHE_HOME", str(user))
    with pytest.warns(UserWarning, match=r"not writable: .*set \(.*denied\); the patches are cached in .*user"):
        found = read_patch_set(read_only_folder)
    assert found.cache.parent == user / "kornia_bingan"
    assert parse_patches(read_only_folder) == [patch.tobytes() for patch in found.patches]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_patch_set(read_only_folder).cache == found.cache
    monkeypatch.setenv("XDG_CACHE_HOME", str(read_only_folder))
    with pytest.raises(
        JobError, match=r"cached neither in .*set \(.*denied\) nor in .*kornia_bingan .*; give a folder"
    ):
        read_patch_set(read_only_folder)
    given = user / "given"
    assert read_patch_set(read_only_folder, given).cache.parent == given


# --- damage -----------------------------------------------------------------------------------------------------------


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Replace the first occurrence of a text."""

    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


def cut_lines(name: str, keep: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:keep]))

    return change


def truncate(share: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = (folder / "patches0001.bmp").read_bytes()
        (folder / "patches0001.bmp").write_bytes(data[: min(len(data) - 1, round(share * len(data)))])

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def empty(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.unlink()


def become_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("liberty")


def shrink(folder: Path) -> None:
    cv2.imwrite(str(folder / "patches0001.bmp"), np.zeros((1024, 1000), np.uint8))


def wrap(folder: Path) -> None:
    shutil.move(folder, folder.with_name("x"))
    shutil.move(folder.with_name("x"), folder / "liberty")


DAMAGE = {
    "no folder": (shutil.rmtree, r"hand made: no such folder; .*archives from matthewalunbrown\.com"),
    "a file": (become_a_file, r"hand made is a file; give the folder"),
    "empty folder": (empty, r"hand made has no patches0000\.bmp, so it is no patch set; .*archives from"),
    "one folder too high": (wrap, r"hand made has no patches0000\.bmp.*did you mean one of its folders liberty\?"),
    "first sheet missing": (remove("patches0000.bmp"), r"patches0000\.bmp is missing, but patches0002\.bmp is there"),
    "sheet missing between": (remove("patches0001.bmp"), r"patches0001\.bmp is missing, but patches0002\.bmp is there"),
    "last sheet missing": (
        remove("patches0002.bmp"),
        r"info\.txt has 600 rows, but 2 sheets hold at most 512 patches; patches0002\.bmp is missing",
    ),
    "sheet of another size": (shrink, r"patches0001\.bmp is 1000 x 1024; a sheet .* is 1024 x 1024"),
    "sheet one byte short": (truncate(1), r"patches0001\.bmp is a BMP file that is cut short"),
    "half a sheet": (truncate(0.5), r"patches0001\.bmp is a BMP file that is cut short"),
    "empty sheet": (truncate(0), r"patches0001\.bmp is empty"),
    "no info": (remove("info.txt"), r"info\.txt is missing, so nobody knows"),
    "empty info": (cut_lines("info.txt", 0), r"info\.txt is empty; every line has at least 1 numbers: point unused"),
    "info too short": (cut_lines("info.txt", 512), r"info\.txt has 512 rows, but 3 sheets hold more than 512 patches"),
    "word in info": (replace("info.txt", "21 0", "21 zero"), r"info\.txt, line 10: 'zero' is not a number"),
    "ragged info": (replace("info.txt", "21 0", "21"), r"info\.txt, line 10 has 1 numbers instead of 2: point unused"),
    "gap in info": (replace("info.txt", "21 0", "\n21 0"), r"info\.txt, line 10 has 0 numbers instead of 2"),
    "no id in info": (replace("info.txt", "21 0", "21.5 0"), r"info\.txt, line 10: 21\.5 in column 1 is no id"),
    "negative id": (replace("info.txt", "21 0", "-21 0"), r"info\.txt, line 10: -21 in column 1 is no id"),
    "infinite id": (replace("info.txt", "21 0", "inf 0"), r"info\.txt, line 10: 'inf' is not a number"),
    "interest too short": (cut_lines("interest.txt", 599), r"interest\.txt has 599 rows, but info\.txt has 600"),
    "word in interest": (
        lambda folder: replace("interest.txt", (folder / "interest.txt").read_text().split()[7], "east")(folder),
        r"interest\.txt, line 2: 'east' is not a number; the line holds reference x y orientation scale",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_with_file_and_line(folder: Path, kind: str) -> None:
    change, words = DAMAGE[kind]
    change(folder)
    with pytest.raises(UsageError, match=words):
        read_patch_set(folder)


FIRST = " ".join(f"{i} {i // 3 * 7} 0" for i in (some_pairs(10)[0][0], some_pairs(10)[1][0]))

PAIR_DAMAGE = {
    "too few columns": (FIRST, FIRST[:-2], r"m50_10_10_0\.txt, line 1 has 5 numbers instead of 6 or 7: patch point"),
    "too many columns": (FIRST, FIRST + " 0 0", r"m50_10_10_0\.txt, line 1 has 8 numbers instead of 6 or 7"),
    "ragged": ("\n", " 0\n", r"m50_10_10_0\.txt, line 2 has 6 numbers instead of 7"),
    "word": (FIRST, FIRST[:-1] + "o", r"m50_10_10_0\.txt, line 1: 'o' is not a number"),
    "unknown patch": (FIRST, "600 0 0 601 0 0", r"m50_10_10_0\.txt, line 1: the set has no patch 600, only 600"),
    "fraction": (FIRST, "1.5 0 0 1 0 0", r"m50_10_10_0\.txt, line 1: 1\.5 in column 1 is no id"),
    "other point": (FIRST, "0 7 0 1 0 0", r"m50_10_10_0\.txt, line 1: point 7 is not that of the patch in info\.txt"),
    "other second point": (FIRST, "0 0 0 1 7 0", r"line 1: point 7 is not that of the patch in info\.txt"),
    "line missing": (FIRST + "\n", "", r"m50_10_10_0\.txt has 9 lines instead of 10"),
}


@pytest.mark.parametrize("kind", PAIR_DAMAGE)
def test_damage_in_pair_files_is_named(folder: Path, kind: str) -> None:
    old, new, words = PAIR_DAMAGE[kind]
    replace("m50_10_10_0.txt", old, new)(folder)
    found = read_patch_set(folder)
    with pytest.raises(UsageError, match=words):
        found.pairs(10)
    assert len(found.pairs(100)[0]) == 100, "the other file is as it was"


def test_a_missing_pair_file_names_those_that_exist(folder: Path) -> None:
    found = read_patch_set(folder)
    with pytest.raises(UsageError, match=r"m50_7_7_0\.txt: no such pair file; the set has m50_10_10.*, m50_100_100_"):
        found.pairs(7)
    for name in found.pair_files:
        (folder / name).unlink()
    with pytest.raises(UsageError, match=r"m50_10_10_0\.txt: no such pair file; the set has none"):
        found.pairs(10)


# --- the writer's own refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patches": np.zeros((6, 32, 32), np.uint8)}, r"patches are uint8 \(N, 64, 64\).*got uint8 \(6, 32, 32\)"),
        ({"patches": np.zeros((6, 64, 64), np.float32)}, r"got float32"),
        ({"patches": np.zeros((0, 64, 64), np.uint8)}, r"at least one"),
        ({"point_ids": np.arange(5)}, r"point_ids are 6 integers from 0 on, got int64 \(5,\)"),
        ({"point_ids": np.arange(6) - 1}, r"point_ids are 6 integers from 0 on"),
        ({"reference": np.zeros(6)}, r"reference are 6 integers from 0 on, got float64"),
        ({"interest": np.zeros((5, 4))}, r"interest has shape \(5, 4\)"),
        ({"interest": np.full((6, 4), np.nan)}, r"interest has a value that is not finite"),
        ({"interest": np.zeros((6, 4)), "reference": None}, r"needs reference"),
        ({"pairs": {2: (np.array([0, 1]), np.array([1, 6]))}}, r"there is no patch 6; the set has 6"),
        ({"pairs": {4: (np.array([0, 1]), np.array([1, 2]))}}, r"2 pairs were given for the file of 4"),
        ({"pairs": {2: (np.array([0, 1]), np.array([2, 3]))}}, r"0 of 2 pairs are matches"),
    ],
)
def test_the_writer_refuses_what_no_reader_could_use(tmp_path: Path, change: dict[str, object], words: str) -> None:
    ids = np.array([0, 0, 1, 1, 2, 2])
    good = {
        "patches": np.zeros((6, 64, 64), np.uint8),
        "point_ids": ids,
        "reference": ids,
        "interest": np.zeros((6, 4)),
        "pairs": {2: (np.array([0, 0]), np.array([1, 2]))},
    }
    with pytest.raises(UsageError, match=words):
        write_patch_set(tmp_path / "set", **(good | change))
    assert list(tmp_path.iterdir()) == []
    write_patch_set(tmp_path / "set", **good)
    with pytest.raises(UsageError, match="set exists and is no empty folder"):
        write_patch_set(tmp_path / "set", **good)


# --- the arrays of the published code ---------------------------------------------------------------------------------


def write_arrays(folder: Path, dtype: str = "uint8") -> tuple[np.ndarray, Path, Path]:
    """Three matching and two non-matching pairs, every patch of one grey value that tells it: 10, 11, ..., 19."""
    grey = np.arange(10, 20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 32, 32), np.uint8)
    values = grey if dtype == "uint8" else ((grey.astype(np.float64) - 127.5) / 128).astype(dtype)
    np.save(folder / "match.npy", values[:6])
    np.save(folder / "non-match.npy", values[6:])
    return grey, folder / "match.npy", folder / "non-match.npy"


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_published_arrays_become_the_same_patches_and_pairs(tmp_path: Path, dtype: str) -> None:
    grey, *paths = write_arrays(tmp_path, dtype)
    scale = {} if dtype == "uint8" else {"black": -127.5 / 128, "white": 127.5 / 128}
    found = read_pair_arrays(*paths, **scale)
    assert len(found) == 10
    index0, index1, is_match = found.pairs()
    assert index0.tolist() == [0, 2, 4, 6, 8]
    assert index1.tolist() == [1, 3, 5, 7, 9]
    assert is_match.tolist() == [True, True, True, False, False]
    for indices in (np.array([9, 0, 5, 6]), np.arange(10), np.zeros(0, np.int64)):
        patches = found.patches32(indices)
        assert (patches.dtype, patches.shape) == (np.float32, (len(indices), 1, 32, 32))
        np.testing.assert_allclose(patches, grey[indices][:, :1] / 255, atol=1e-7)


def test_the_range_of_published_arrays_is_not_guessed(tmp_path: Path) -> None:
    _, *paths = write_arrays(tmp_path, "float32")
    with pytest.raises(UsageError, match=r"holds float32, black is None and white None; give the values that mean"):
        read_pair_arrays(*paths)
    with pytest.raises(UsageError, match=r"black is 1 and white 0"):
        read_pair_arrays(*paths, black=1, white=0)
    wrong = read_pair_arrays(*paths, black=0, white=1)
    with pytest.raises(UsageError, match=r"values from -0\.9\d+ to -0\.8\d+ are outside of black 0 to white 1"):
        wrong.patches32(np.arange(10))
    with pytest.raises(UsageError, match="there is no patch 10; the set has 10"):
        wrong.patches32(np.array([10]))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((5, 3, 32, 32), np.uint8), r"non-match\.npy holds uint8 \(5, 3, 32, 32\); an even number"),
        (np.zeros((4, 1, 32, 32), np.uint8), r"non-match\.npy holds uint8 \(4, 1, 32, 32\)"),
        (np.zeros((4, 3, 32, 32), bool), r"non-match\.npy holds bool"),
        (np.zeros((4, 3, 32, 32), np.float32), r"match\.npy holds uint8 and .*non-match\.npy float32; they must be"),
        (np.zeros((4, 3, 32, 32), object), r"non-match\.npy is no \.npy array that can be read"),
        (b"", r"non-match\.npy is no \.npy array that can be read"),
        (b"\x93NUMPY", r"non-match\.npy is no \.npy array that can be read"),
        (None, r"non-match\.npy is no \.npy array that can be read: .*No such file"),
    ],
)
def test_published_arrays_of_another_kind_are_refused(tmp_path: Path, value: object, words: str) -> None:
    _, matches, path = write_arrays(tmp_path)
    path.unlink()
    if isinstance(value, np.ndarray):
        np.save(path, value)
    elif isinstance(value, bytes):
        path.write_bytes(value)
    with pytest.raises(UsageError, match=words):
        read_pair_arrays(matches, path)


def test_an_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    _, matches, _ = write_arrays(tmp_path)
    np.savez(tmp_path / "both.npz", np.zeros(3))
    with pytest.raises(UsageError, match=r"both\.npz is an archive of arrays"):
        read_pair_arrays(matches, tmp_path / "both.npz")
