"""The codes of pairs of photos become files of matches, some pairs in each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.reconstruct.features import DAMAGED, Features, features_path, read_features
from kornia_bingan.reconstruct.pairs import Pair
from kornia_bingan.work.engine import Engine, run_units
from kornia_bingan.work.files import atomic_path
from kornia_bingan.work.run_folder import TimeLimit
from kornia_bingan.work.unit import Failed, Unit

if TYPE_CHECKING:
    from kornia_bingan.matching.context import ContextModel

BLOCK_PAIRS = 64
"""Pairs in one file: few files for thousands of pairs, and little work lost by a kill."""


@dataclass(frozen=True)
class Block:
    """The matches of some pairs.

    Attributes:
        pairs: names of the photos.
        matches: for each pair, rows of keypoints in its first and second photo, int32, shape (M, 2).
    """

    pairs: tuple[Pair, ...]
    matches: tuple[NDArray[np.int32], ...]

    def write(self, path: Path) -> None:
        """Write one ``.npz``; equal blocks give equal bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                pairs=np.array(self.pairs, np.str_).reshape(-1, 2),
                counts=np.array([len(rows) for rows in self.matches], np.int64),
                matches=np.concatenate([*self.matches, np.zeros((0, 2), np.int32)]),
            )

    @classmethod
    def read(cls, path: Path) -> Block:
        """Read what :meth:`write` wrote.

        Raises:
            UsageError: the file is absent or something else.
        """
        try:
            with np.load(path) as file:
                pairs, counts, matches = file["pairs"].tolist(), file["counts"], file["matches"]
            parts = tuple(np.split(matches, np.cumsum(counts)[:-1])) if len(counts) else ()
            return cls(tuple((a, b) for a, b in pairs), parts)
        except DAMAGED as error:
            raise UsageError(f"{path} is no file of matches; run the command again to make it anew") from error


def blocks_of(pairs: Sequence[Pair]) -> Iterator[tuple[int, Sequence[Pair]]]:
    """Cut a list of pairs into numbered blocks."""
    for start in range(0, len(pairs), BLOCK_PAIRS):
        yield start // BLOCK_PAIRS, pairs[start : start + BLOCK_PAIRS]


def block_path(folder: Path, number: int) -> Path:
    """Give the file of a block."""
    return folder / f"{number:06d}.npz"


def read_blocks(folder: Path) -> Iterator[tuple[Path, Block]]:
    """Read the blocks of a folder in the order of their numbers; damaged files are removed, so as to be made anew."""
    for path in sorted(folder.glob("*.npz")):
        try:
            block = Block.read(path)
        except UsageError:
            path.unlink()
            continue
        yield path, block


def read_matches(folder: Path, pairs: Collection[Pair]) -> dict[Pair, NDArray[np.int32]]:
    """Give the matches of some pairs, in the order of the pairs.

    Raises:
        UsageError: a pair is in no block.
    """
    wanted = set(pairs)
    found: dict[Pair, NDArray[np.int32]] = {}
    for _, block in read_blocks(folder):
        found.update((pair, rows) for pair, rows in zip(block.pairs, block.matches, strict=True) if pair in wanted)
    if missing := [pair for pair in pairs if pair not in found]:
        raise UsageError(f"{folder} lacks {len(missing)} of {len(wanted)} pairs of photos; run the command again")
    return {pair: found[pair] for pair in pairs}


def forget_photos(folder: Path, names: Collection[str]) -> None:
    """Take the matches of some photos out of the blocks of a folder."""
    for path, block in read_blocks(folder):
        kept = [row for row, pair in enumerate(block.pairs) if not set(pair) & set(names)]
        if not kept:
            path.unlink()
        elif len(kept) < len(block.pairs):
            Block(tuple(block.pairs[row] for row in kept), tuple(block.matches[row] for row in kept)).write(path)


def match_block(pairs: Sequence[Pair], codes: Callable[[str], NDArray[np.uint8]], ratio: float) -> Block:
    """Match the codes of each pair by mutual nearest neighbours and a ratio test in both directions.

    Args:
        pairs: names of the photos.
        codes: gives the packed codes of a photo; with fewer than 2 there is no match.
        ratio: largest Hamming ratio.
    """
    from kornia_bingan.matching import match

    found = [match(codes(a), codes(b), "smnn", ratio)[1].astype(np.int32) for a, b in pairs]
    return Block(tuple(pairs), tuple(found))


def match_block_in_context(
    pairs: Sequence[Pair], features: Callable[[str], Features], model: ContextModel, probability: float
) -> Block:
    """Match the codes of each pair by mutual nearest neighbours whose neighbours agree.

    Args:
        pairs: names of the photos.
        features: gives the keypoints and codes of a photo; with fewer than 2 there is no match.
        model: of the weights.
        probability: least probability of a match.
    """
    from kornia_bingan.matching.context import match_in_context

    found = []
    for first, second in ((features(a), features(b)) for a, b in pairs):
        _, rows = match_in_context(
            first.codes, second.codes, first.keypoints, second.keypoints, threshold=probability, model=model
        )
        found.append(rows.astype(np.int32))
    return Block(tuple(pairs), tuple(found))


def match_photos(
    pairs: Sequence[Pair],
    features: Path,
    folder: Path,
    ratio: float,
    engine: Engine,
    limit: TimeLimit,
    context: tuple[ContextModel, float] | None = None,
) -> None:
    """Write the matches of all pairs that have none yet, or a damaged file, in new blocks.

    Args:
        pairs: names of the photos.
        features: folder of their features.
        folder: of the blocks.
        ratio: largest Hamming ratio.
        engine: does the blocks.
        limit: of the time.
        context: the model and the least probability, instead of the ratio.

    Raises:
        JobError: the time limit was reached between two blocks, or no process survived a block.
        UsageError: a file of features is absent or damaged.
    """
    known = {pair for _, block in read_blocks(folder) for pair in block.pairs}
    missing = [pair for pair in pairs if pair not in known]
    free = (path for path in (block_path(folder, number) for number in count()) if not path.exists())
    units = (
        Unit(path.name, (block, engine.path(features), engine.path(path), ratio, context), len(block))
        for path, (_, block) in zip(free, list(blocks_of(missing)), strict=False)
    )
    for name, found in run_units(
        engine, match_unit, units, len(missing), description="match", done="matched", word="pair", limit=limit
    ):
        if isinstance(found, Failed):
            raise JobError(f"{folder / name} could not be made: {found.reason}")


def match_unit(
    pairs: Sequence[Pair], features: str, target: str, ratio: float, context: tuple[ContextModel, float] | None = None
) -> None:
    """Write the matches of one block, unless they are there and whole."""
    path = Path(target)
    if path.is_file() and _holds(path, pairs):
        return

    def read(name: str) -> Features:
        return read_features(features_path(Path(features), name))

    if context is None:
        match_block(pairs, lambda name: read(name).codes, ratio).write(path)
    else:
        match_block_in_context(pairs, read, *context).write(path)


def _holds(path: Path, pairs: Sequence[Pair]) -> bool:
    try:
        return Block.read(path).pairs == tuple(pairs)
    except UsageError:
        return False
