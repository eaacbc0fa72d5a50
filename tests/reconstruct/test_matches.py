from __future__ import annotations

from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.reconstruct.features import Features, features_path
from kornia_bingan.reconstruct.matches import (
    Block,
    block_path,
    forget_photos,
    match_photos,
    read_blocks,
    read_matches,
)
from kornia_bingan.work.run_folder import TimeLimit


def test_matches_of_some_pairs_are_read_forgotten_and_made_again(tmp_path: Path) -> None:
    """Blocks hold pairs in any order; a damaged file is removed, and its pairs are missing."""
    rows = {pair: np.full((number, 2), number, np.int32) for number, pair in enumerate(combinations("abcd", 2))}
    pairs = list(rows)
    aligned = {pair: np.full((number, 3), number / 2, np.float32) for number, pair in enumerate(pairs)}
    for number, part in ((0, pairs[3:]), (2, pairs[:3])):
        values = (tuple(each[pair] for pair in part) for each in (rows, aligned))
        Block(tuple(part), *values).write(block_path(tmp_path, number))
    wanted = [pairs[5], pairs[0], pairs[3]]
    found = read_matches(tmp_path, wanted)
    assert found.pairs == tuple(wanted)
    for pair, matches, values in zip(wanted, found.matches, found.aligned, strict=True):
        np.testing.assert_array_equal(matches, rows[pair])
        np.testing.assert_array_equal(values, aligned[pair])
    forget_photos(tmp_path, ["a"])
    assert [path.name for path, _ in read_blocks(tmp_path)] == ["000000.npz"]  # the other one had no pair without a
    forget_photos(tmp_path, ["b"])
    [(_, block)] = read_blocks(tmp_path)
    assert block.pairs == (("c", "d"),)
    np.testing.assert_array_equal(block.matches[0], rows["c", "d"])
    np.testing.assert_array_equal(block.aligned[0], aligned["c", "d"])
    with pytest.raises(UsageError, match="lacks 1 of 2 pairs of photos; run the command again"):
        read_matches(tmp_path, [("c", "d"), ("a", "b")])
    block_path(tmp_path, 0).write_bytes(b"nothing")
    assert read_matches(tmp_path, []) == Block((), ())
    assert list(tmp_path.iterdir()) == []


def test_only_pairs_without_matches_are_matched_in_new_blocks(tmp_path: Path) -> None:
    """Blocks 0 and 2 are there and stay; the two pairs that are in neither get the number between."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (30, 32), np.uint8)
    for name in "abc":
        xy = np.zeros((30, 2), np.float32)
        ones = np.ones(30, np.float32)
        Features((9, 9), Keypoints(xy, ones, ones, ones, np.zeros(30, np.int32)), codes).write(
            features_path(tmp_path / "features", name)
        )
    folder = tmp_path / "matches"
    for number, pair in ((0, ("a", "b")), (2, ("x", "y"))):
        Block((pair,), (np.zeros((0, 2), np.int32),)).write(block_path(folder, number))
    engine: Any = SimpleNamespace(path=str, client=None)
    match_photos(list(combinations("abc", 2)), tmp_path / "features", folder, 0.8, engine, TimeLimit(0))
    assert [(path.name, block.pairs) for path, block in read_blocks(folder)] == [
        ("000000.npz", (("a", "b"),)),
        ("000001.npz", (("a", "c"), ("b", "c"))),
        ("000002.npz", (("x", "y"),)),
    ]
    block = read_matches(folder, [("a", "b"), ("a", "c")])
    assert [len(rows) for rows in block.matches] == [0, 30]
    assert block.aligned == ()
