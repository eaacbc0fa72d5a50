from __future__ import annotations

import itertools
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.exif import Position
from kornia_bingan.reconstruct import matches
from kornia_bingan.reconstruct import pairs as pairs_module
from kornia_bingan.reconstruct.matches import (
    BLOCK_PAIRS,
    Block,
    block_path,
    blocks_of,
    match_block,
    match_photos,
    match_unit,
)
from kornia_bingan.reconstruct.pairs import (
    SEQUENTIAL_OVERLAP,
    choose_pairs,
    near_pairs,
    parse_choice,
    parse_pairs,
    read_pairs,
    similar_pairs,
)
from kornia_bingan.work.run_folder import TimeLimit
from kornia_bingan.work.unit import Failed

NAMES = ["a.jpg", "b c.jpg", "b", "c.jpg", "sub/a.jpg"]


def chosen(names: list[str], choice: str) -> list[tuple[str, str]]:
    ways = parse_choice(choice)
    assert ways is not None
    return choose_pairs(ways, {name: np.zeros((1, 32), np.uint8) for name in names}, {})[0]


def test_exhaustive_and_sequential() -> None:
    assert chosen(["a", "b", "c"], "exhaustive") == [("a", "b"), ("a", "c"), ("b", "c")]
    names = sorted(f"img{number}.jpg" for number in range(30))
    pairs = {frozenset(pair) for pair in chosen(names, "sequential")}
    assert {"img9.jpg", "img10.jpg"} in pairs
    assert {"img0.jpg", f"img{SEQUENTIAL_OVERLAP}.jpg"} in pairs
    assert {"img0.jpg", f"img{SEQUENTIAL_OVERLAP + 1}.jpg"} not in pairs
    assert len(chosen(names, "sequential:1")) == 29


def test_several_ways_are_joined_and_counted() -> None:
    names = [f"{number}.jpg" for number in range(12)]
    codes = {name: np.full((4, 32), 3 * number, np.uint8) for number, name in enumerate(names)}
    # around the place where longitudes jump, and one photo that does not say where it is
    positions = {name: (10.0, (179.9 + 0.02 * k + 180) % 360 - 180, 5.0) for k, name in enumerate(names[:11])}
    ways = parse_choice("sequential:2,gps:2,retrieval:3")
    assert ways == [("sequential", 2), ("gps", 2), ("retrieval", 3)]
    pairs, counts = choose_pairs(ways, codes, positions)
    assert pairs == sorted(set(pairs), key=lambda pair: (names.index(pair[0]), names.index(pair[1])))
    assert counts["sequential:2"] == 11 + 10
    assert set(near_pairs(positions, 1)) <= set(itertools.pairwise(names))
    assert counts["gps:2"] >= 10
    assert len(pairs) <= sum(counts.values())
    assert len(pairs) <= 12 * 7
    assert all(len(near_pairs(positions, count)) <= 11 * count for count in (1, 2, 3))
    with pytest.raises(UsageError, match="1 photos say where they were taken"):
        choose_pairs([("gps", 3)], codes, {names[0]: (1.0, 2.0, 3.0)})


def test_a_list_with_spaces_tabs_comments_and_repeats() -> None:
    text = "# comment\r\na.jpg b c.jpg\r\n\nb c.jpg\ta.jpg\nsub/a.jpg  a.jpg\n"
    assert parse_pairs(text, NAMES) == [("a.jpg", "b c.jpg"), ("sub/a.jpg", "a.jpg")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a.jpg missing.jpg", "line 1: 'a.jpg missing.jpg' does not name two photos"),
        ("a.jpg a.jpg", "pairs a photo with itself"),
        ("\n\n", "there is no pair"),
        ("x y z", "can be read in two ways"),
    ],
)
def test_bad_lines_are_named(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse_pairs(text, [*NAMES, "x", "y z", "x y", "z"])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither exhaustive, sequential:K"):
        read_pairs(str(tmp_path / "pairs.txt"), NAMES)
    (tmp_path / "pairs.txt").write_text("a.jpg c.jpg\n")
    assert read_pairs(str(tmp_path / "pairs.txt"), NAMES) == [("a.jpg", "c.jpg")]


@pytest.mark.parametrize("counts", [[], [0], [3, 0, 2]])
def test_blocks_round_trip_and_equal_blocks_are_equal_bytes(counts: list[int], tmp_path: Path) -> None:
    rng, folder = np.random.default_rng(0), tmp_path / "out" / "matches"
    pairs = tuple((f"a {n}.jpg", f"ü{n}.jpg") for n in range(len(counts)))
    block = Block(pairs, tuple(rng.integers(0, 99, (count, 2)).astype(np.int32) for count in counts))
    for number in (0, 1):
        block.write(block_path(folder, number))
    again = Block.read(block_path(folder, 0))
    assert again.pairs == pairs
    for a, b in zip(again.matches, block.matches, strict=True):
        np.testing.assert_array_equal(a, b)
    assert block_path(folder, 0).read_bytes() == block_path(folder, 1).read_bytes()


def test_a_block_that_no_process_survives_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = [("000000.npz", None), ("000001.npz", Failed("its process was killed"))]
    monkeypatch.setattr(matches, "run_units", lambda *_, **__: iter(done))
    engine: Any = SimpleNamespace(path=str)
    with pytest.raises(JobError, match=r"000001\.npz could not be made: its process was killed"):
        match_photos([("a", "b")], tmp_path, tmp_path / "matches", 0.8, engine, TimeLimit(0))
    del done[1]
    match_photos([("a", "b")], tmp_path, tmp_path / "matches", 0.8, engine, TimeLimit(0))


def test_a_damaged_block_is_named(tmp_path: Path) -> None:
    path = block_path(tmp_path, 3)
    for content in (b"", b"PK\x03\x04 nothing", b"hello"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"000003\.npz is no file of matches"):
            Block.read(path)


def test_pairs_are_cut_into_blocks() -> None:
    pairs = [("a", str(number)) for number in range(BLOCK_PAIRS + 1)]
    assert [(number, len(block)) for number, block in blocks_of(pairs)] == [(0, BLOCK_PAIRS), (1, 1)]


def test_a_block_is_matched_by_codes() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (50, 32), dtype=np.uint8)
    sets = {"a": codes, "b": codes[::-1].copy(), "one": codes[:1], "none": codes[:0]}
    block = match_block([("a", "b"), ("a", "one"), ("none", "b")], sets.__getitem__, 0.8)
    np.testing.assert_array_equal(block.matches[0], np.stack([np.arange(50), np.arange(49, -1, -1)], 1))
    assert [len(matches) for matches in block.matches] == [50, 0, 0]


def test_pairs_are_matched_side_by_side_with_equal_results(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    place = rng.integers(0, 256, (80, 32), dtype=np.uint8)
    sets = {str(number): np.roll(place, 7 * number, 0) for number in range(5)}
    pairs = list(itertools.combinations(sets, 2))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = match_block(pairs, sets.__getitem__, 0.8)
    assert all(len(rows) == 80 for rows in alone.matches)

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    together, searchers = threading.Barrier(2, timeout=60), set()

    def codes(name: str) -> NDArray[np.uint8]:
        together.wait()  # nobody goes on alone
        searchers.add(threading.get_ident())
        return sets[name]

    block = match_block(pairs, codes, 0.8)
    assert len(searchers) == 2
    assert block.pairs == alone.pairs
    for rows, expected in zip(block.matches, alone.matches, strict=True):
        np.testing.assert_array_equal(rows, expected)


def test_what_one_of_several_pairs_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    codes = {"a": np.zeros((3, 32), np.uint8), "b": np.zeros((3, 32), np.uint8), "wide": np.zeros((3, 64), np.uint8)}
    with pytest.raises(UsageError, match=r"\(3, 64\)"):
        match_block([("a", "b"), ("a", "wide"), ("b", "a")], codes.__getitem__, 0.8)


def test_similar_photos_are_paired() -> None:
    rng = np.random.default_rng(0)
    places = [rng.integers(0, 256, (300, 32), np.uint8) for _ in range(4)]
    codes = {}
    for number, place in enumerate(places):
        for view in range(3):
            flips = np.packbits(rng.random((300, 256)) < 0.05, axis=1)
            codes[f"{view}{number}.jpg"] = place ^ flips
    pairs = similar_pairs(codes, 2)
    assert set(pairs) == {(a, b) for a in codes for b in codes if a < b and a[1] == b[1]}
    assert similar_pairs(codes, 11) == similar_pairs(codes, 99)
    assert len(similar_pairs(codes, 99)) == 66
    same = {name: places[0] for name in ("a", "b", "c", "d")}
    found = similar_pairs(same, 1)
    assert 2 <= len(found) <= 4
    assert all(a < b for a, b in found)


def test_photos_without_votes_are_in_no_pair() -> None:
    rng = np.random.default_rng(2)
    codes = {name: rng.integers(0, 256, (50, 32), np.uint8) for name in "abcd"}
    assert similar_pairs(codes, 1) == []
    assert similar_pairs({**codes, "e": codes["b"]}, 2) == [("b", "e")]


def test_most_votes_come_first_and_count_in_both_directions() -> None:
    rng = np.random.default_rng(3)
    place = rng.integers(0, 256, (60, 32), np.uint8)
    codes = {"all.jpg": place, "few.jpg": place[:10], "many.jpg": place[20:], "other.jpg": place[:0]}
    assert similar_pairs(codes, 1) == [("all.jpg", "few.jpg"), ("all.jpg", "many.jpg")]


def test_many_codes_are_searched_in_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    places = [rng.integers(0, 256, (200, 32), np.uint8) for _ in range(10)]
    codes = {f"{view}{number}.jpg": place.copy() for view in range(2) for number, place in enumerate(places)}
    exact = similar_pairs(codes, 1)
    assert set(exact) == {(f"0{number}.jpg", f"1{number}.jpg") for number in range(10)}
    monkeypatch.setattr(pairs_module, "MOST_EXACT", 100)
    assert similar_pairs(codes, 1) == exact


def test_ways_need_their_number() -> None:
    assert parse_choice("retrieval:12") == [("retrieval", 12)]
    assert parse_choice("exhaustive") == [("exhaustive", 0)]
    assert parse_choice("sequential") == [("sequential", 10)]
    assert parse_choice("my,pairs.txt") is None
    for choice in (
        "retrieval:",
        "retrieval:0",
        "retrieval:ten",
        "retrieval",
        "gps",
        "sequential:0",
        "sequential,gps:x",
    ):
        with pytest.raises(UsageError, match=r"write (retrieval|gps|sequential):K"):
            parse_choice(choice)


METRE_DEG = 1 / 111_194.93
"""Of latitude."""


def test_the_nearest_photo_is_told_by_longitudes_that_shrink_towards_the_pole() -> None:
    # at 60 degrees north a degree of longitude is half as long: east is 60 m away, north 100 m
    positions: dict[str, Position] = {
        "here": (60.0, 10.0, 0.0),
        "east": (60.0, 10 + 120 * METRE_DEG, 0.0),
        "north": (60 + 100 * METRE_DEG, 10.0, 0.0),
        "far": (60 + 190 * METRE_DEG, 10.0, 0.0),
    }
    assert near_pairs(positions, 1) == [("here", "east"), ("north", "far")]


def test_the_nearest_photo_is_told_by_heights_too() -> None:
    positions: dict[str, Position] = {
        "street": (50.0, 10.0, 100.0),
        "along the street": (50 + 50 * METRE_DEG, 10.0, 100.0),
        "tower": (50.0, 10.0, 180.0),
        "on the tower": (50.0, 10 + 10 * METRE_DEG, 181.0),
    }
    assert near_pairs(positions, 1) == [("street", "along the street"), ("tower", "on the tower")]


def test_a_missing_altitude_does_not_part_a_set_in_two() -> None:
    # a row at 520 m, every second without an altitude, which once stood at 0 m
    row: dict[str, Position] = {
        f"{index}.jpg": (47 + 10 * index * METRE_DEG, 11.0, None if index % 2 else 520.0) for index in range(8)
    }
    names = list(row)
    assert set(itertools.pairwise(names)) <= set(near_pairs(row, 2))
    level: dict[str, Position] = {name: (lat, lon, 520.0) for name, (lat, lon, _) in row.items()}
    bare: dict[str, Position] = {name: (lat, lon, None) for name, (lat, lon, _) in row.items()}
    assert near_pairs(level, 3) == near_pairs(bare, 3) == near_pairs(row, 3)


def test_photos_without_a_position_are_paired_by_what_they_show() -> None:
    rng = np.random.default_rng(4)
    places = [rng.integers(0, 256, (40, 32), np.uint8) for _ in range(4)]
    codes = {f"{place}{view}.jpg": places[place].copy() for place in range(4) for view in "ab"}
    codes["alone.jpg"] = rng.integers(0, 256, (40, 32), np.uint8)
    positions: dict[str, Position] = {
        name: (45 + 100 * row * METRE_DEG, 7.0, 5.0)
        for row, name in enumerate(codes)
        if name not in ("2a.jpg", "alone.jpg")
    }
    pairs, counts = choose_pairs([("gps", 1)], codes, positions)
    assert ("2a.jpg", "2b.jpg") in pairs
    assert ("3b.jpg", "alone.jpg") in pairs, "it is similar to none, so its neighbour by name it is"
    assert counts == {"gps:1": len(near_pairs(positions, 1)), "retrieval, no position": 2}
    assert choose_pairs([("gps", 1)], dict(list(codes.items())[:4]), positions)[1].keys() == {"gps:1"}


def test_a_code_votes_for_its_ten_nearest_beside_itself() -> None:
    codes = {f"{bits:02d}": np.packbits(np.arange(256) < bits)[None] for bits in range(11)}
    codes["far"] = np.full((1, 32), 255, np.uint8)
    assert similar_pairs(codes, 10, {"00"}) == [("00", f"{bits:02d}") for bits in range(1, 11)]


def test_a_code_votes_up_to_70_bits_away() -> None:
    def photos(bits: int) -> dict[str, np.ndarray]:
        other, third = (np.packbits(np.roll(np.arange(256) < bits, shift)) for shift in (0, 128))
        return {"a": np.zeros((1, 32), np.uint8), "b": other[None], "c": third[None]}

    assert similar_pairs(photos(70), 1, {"a"}) != []
    assert similar_pairs(photos(71), 1, {"a"}) == []


def test_few_codes_are_compared_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(5).integers(0, 256, (100, 32), np.uint8)
    monkeypatch.setattr(pairs_module, "MOST_EXACT", 100)
    assert type(pairs_module._searchable(codes)) is faiss.IndexBinaryFlat
    monkeypatch.setattr(pairs_module, "MOST_EXACT", 99)
    assert type(pairs_module._searchable(codes)) is faiss.IndexBinaryIVF


@pytest.mark.parametrize("there", ["nothing", "a damaged file", "a block of other pairs"])
def test_a_block_that_is_not_that_of_the_pairs_is_made_again(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = np.random.default_rng(6).integers(0, 256, (5, 32), np.uint8)
    monkeypatch.setattr(matches, "read_features", lambda path: SimpleNamespace(codes=codes))
    path = block_path(tmp_path, 0)
    if there == "a damaged file":
        path.write_bytes(b"PK")
    elif there == "a block of other pairs":
        Block((("a", "a"),), (np.zeros((1, 2), np.int32),)).write(path)
    match_unit([("a", "b")], str(tmp_path), str(path), 0.8)
    made = Block.read(path)
    assert made.pairs == (("a", "b"),)
    np.testing.assert_array_equal(made.matches[0], np.repeat(np.arange(5)[:, None], 2, 1))
    Block(made.pairs, (np.zeros((1, 2), np.int32),)).write(path)
    match_unit([("a", "b")], str(tmp_path), str(path), 0.8)
    assert len(Block.read(path).matches[0]) == 1, "the block of these pairs is kept"
