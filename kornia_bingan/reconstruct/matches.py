"""The codes of pairs of photos become files of matches, some pairs in each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.read import Ranges, read_image
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.patches import Pyramid, build_pyramid
from kornia_bingan.reconstruct.features import DAMAGED, Features, features_path, read_features
from kornia_bingan.reconstruct.options import Context
from kornia_bingan.reconstruct.pairs import Pair
from kornia_bingan.work.engine import Engine, run_units
from kornia_bingan.work.files import atomic_path
from kornia_bingan.work.run_folder import TimeLimit
from kornia_bingan.work.unit import Failed, Unit

BLOCK_PAIRS = 64
"""Pairs in one file: few files for thousands of pairs, and little work lost by a kill."""

MOST_BESIDE = 8
"""Pairs that one process works on at a time, so that memory does not grow with the number of cores."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Block:
    """The matches of some pairs.

    Attributes:
        pairs: names of the photos.
        matches: for each pair, rows of keypoints in its first and second photo, int32, shape (M, 2).
        aligned: for each pair, how its patches were aligned, float32 (M, 3): shift of the second keypoint, pixels, and
            the difference that is left; empty if they were not.
    """

    pairs: tuple[Pair, ...]
    matches: tuple[NDArray[np.int32], ...]
    aligned: tuple[NDArray[np.float32], ...] = ()

    def write(self, path: Path) -> None:
        """Write one ``.npz``; equal blocks give equal bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                pairs=np.array(self.pairs, np.str_).reshape(-1, 2),
                counts=np.array([len(rows) for rows in self.matches], np.int64),
                matches=np.concatenate([*self.matches, np.zeros((0, 2), np.int32)]),
                aligned=np.concatenate([*self.aligned, np.zeros((0, 3), np.float32)]),
            )

    @classmethod
    def read(cls, path: Path) -> Block:
        """Read what :meth:`write` wrote.

        Raises:
            UsageError: the file is absent or something else.
        """
        try:
            with np.load(path) as file:
                pairs, counts, rows, aligned = (file[name] for name in ("pairs", "counts", "matches", "aligned"))
            ends = np.cumsum(counts)[:-1]
            # None are aligned, or all are; without a match that is the same.
            parts = [tuple(np.split(values, ends)) if len(counts) else () for values in (rows, aligned)]
            return cls(
                tuple((a, b) for a, b in pairs.tolist()), parts[0], parts[1] if len(aligned) == len(rows) else ()
            )
        except DAMAGED as error:
            raise UsageError(f"{path} is no file of matches; run the command again to make it anew") from error

    def part(self, rows: Sequence[int]) -> Block:
        """Give some of the pairs."""
        aligned = tuple(self.aligned[row] for row in rows) if self.aligned else ()
        return Block(tuple(self.pairs[row] for row in rows), tuple(self.matches[row] for row in rows), aligned)


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


def read_matches(folder: Path, pairs: Sequence[Pair]) -> Block:
    """Give the matches of some pairs, in the order of the pairs.

    Raises:
        UsageError: a pair is in no block.
    """
    wanted = set(pairs)
    found: dict[Pair, tuple[Block, int]] = {}
    for _, block in read_blocks(folder):
        found.update((pair, (block, row)) for row, pair in enumerate(block.pairs) if pair in wanted)
    if missing := [pair for pair in pairs if pair not in found]:
        raise UsageError(f"{folder} lacks {len(missing)} of {len(wanted)} pairs of photos; run the command again")
    parts = [block.part([row]) for block, row in (found[pair] for pair in pairs)]
    aligned = all(part.aligned for part in parts)
    return Block(
        tuple(pairs),
        tuple(part.matches[0] for part in parts),
        tuple(part.aligned[0] for part in parts) if aligned else (),
    )


def forget_photos(folder: Path, names: Collection[str]) -> None:
    """Take the matches of some photos out of the blocks of a folder."""
    for path, block in read_blocks(folder):
        kept = [row for row, pair in enumerate(block.pairs) if not set(pair) & set(names)]
        if not kept:
            path.unlink()
        elif len(kept) < len(block.pairs):
            block.part(kept).write(path)


def match_block(pairs: Sequence[Pair], codes: Callable[[str], NDArray[np.uint8]], ratio: float) -> Block:
    """Match the codes of each pair by mutual nearest neighbours and a ratio test in both directions.

    Args:
        pairs: names of the photos.
        codes: gives the packed codes of a photo; with fewer than 2 there is no match.
        ratio: largest Hamming ratio.
    """
    from kornia_bingan.matching import match

    def rows(pair: Pair, threads: int) -> NDArray[np.int32]:
        return match(codes(pair[0]), codes(pair[1]), "smnn", ratio, num_threads=threads)[1].astype(np.int32)

    return Block(tuple(pairs), tuple(_of_each(pairs, rows)))


def match_block_in_context(pairs: Sequence[Pair], features: Callable[[str], Features], context: Context) -> Block:
    """Match the keypoints of each pair by codes and by their neighbours.

    Args:
        pairs: names of the photos.
        features: gives the keypoints and codes of a photo; with fewer than 2 there is no match.
        context: what decides.
    """
    from kornia_bingan.matching.context import match_in_context

    def rows(pair: Pair, threads: int) -> NDArray[np.int32]:
        first, second = (features(name) for name in pair)
        _, found = match_in_context(
            first.codes,
            second.codes,
            first.keypoints,
            second.keypoints,
            threshold=context.probability,
            min_matches=context.min_matches,
            model=context.model,
            num_threads=threads,
        )
        return found.astype(np.int32)

    return Block(tuple(pairs), tuple(_of_each(pairs, rows)))


def _of_each(pairs: Sequence[Pair], do: Callable[[Pair, int], _Result]) -> list[_Result]:
    """Give what ``do`` makes of each pair, several at a time; it is also told how many threads are its own."""
    threads = torch.get_num_threads()
    beside = min(threads, MOST_BESIDE, len(pairs))
    if beside < 2:
        return [do(pair, threads) for pair in pairs]
    pool = ThreadPoolExecutor(beside)
    try:
        return list(pool.map(lambda pair: do(pair, threads // beside), pairs))
    finally:
        pool.shutdown(cancel_futures=True)  # an error or an interrupt does not wait for the whole block


def match_photos(
    pairs: Sequence[Pair],
    features: Path,
    folder: Path,
    ratio: float,
    engine: Engine,
    limit: TimeLimit,
    context: Context | None = None,
    photos: tuple[Path, Ranges] | None = None,
) -> None:
    """Write the matches of all pairs that have none yet, or a damaged file, in new blocks.

    Args:
        pairs: names of the photos.
        features: folder of their features.
        folder: of the blocks.
        ratio: largest Hamming ratio.
        engine: does the blocks.
        limit: of the time.
        context: decides instead of the ratio.
        photos: their folder and the ranges of their samples, to align the patches of matches; None aligns none.

    Raises:
        JobError: the time limit was reached between two blocks, or no process survived a block.
        UsageError: a file of features is absent or damaged.
    """
    known = {pair for _, block in read_blocks(folder) for pair in block.pairs}
    missing = [pair for pair in pairs if pair not in known]
    free = (path for path in (block_path(folder, number) for number in count()) if not path.exists())
    pictures = photos and (engine.path(photos[0]), photos[1])
    units = (
        Unit(path.name, (block, engine.path(features), engine.path(path), ratio, context, pictures), len(block))
        for path, (_, block) in zip(free, list(blocks_of(missing)), strict=False)
    )
    for name, found in run_units(
        engine, match_unit, units, len(missing), description="match", done="matched", word="pair", limit=limit
    ):
        if isinstance(found, Failed):
            raise JobError(f"{folder / name} could not be made: {found.reason}")


def match_unit(
    pairs: Sequence[Pair],
    features: str,
    target: str,
    ratio: float,
    context: Context | None = None,
    photos: tuple[str, Ranges] | None = None,
) -> None:
    """Write the matches of one block, unless they are there and whole."""
    path = Path(target)
    if path.is_file() and _holds(path, pairs):
        return

    pyramids = None
    if photos is not None:
        folder, ranges = Path(photos[0]), tuple(photos[1].items())
        pyramids = partial(_pyramid_in, folder, ranges)
    match_features(pairs, partial(_features_in, Path(features)), ratio, context, pyramids).write(path)


def match_features(
    pairs: Sequence[Pair],
    features: Callable[[str], Features],
    ratio: float,
    context: Context | None,
    pyramids: Callable[[str], Pyramid] | None,
) -> Block:
    """Match the features of each pair, and align the patches of its matches if there are pyramids of the photos."""
    if context is None:
        block = match_block(pairs, lambda name: features(name).codes, ratio)
    else:
        block = match_block_in_context(pairs, features, context)
    return block if pyramids is None else align_block(block, features, pyramids)


def _features_in(folder: Path, name: str) -> Features:
    return read_features(features_path(folder, name))


def _pyramid_in(folder: Path, ranges: tuple[tuple[int, tuple[int, int]], ...], name: str) -> Pyramid:
    return read_pyramid(folder / name, ranges)


def exact_matches(
    keypoints: Mapping[str, Keypoints], block: Block, fixed: Mapping[str, Keypoints] | None = None
) -> tuple[dict[str, Keypoints], dict[Pair, NDArray[np.int32]]]:
    """Move aligned keypoints to where their patches agree, over all photos of a track.

    Args:
        keypoints: of each photo.
        block: matches of all pairs, aligned or not.
        fixed: see :func:`kornia_bingan.matching.tracks.exact_keypoints`.

    Returns:
        Keypoints, and the matches that agree; both as they are if nothing is aligned.
    """
    from kornia_bingan.matching.tracks import AlignedMatches, exact_keypoints

    matches = dict(zip(block.pairs, block.matches, strict=True))
    if not block.aligned:
        return dict(keypoints), matches
    parts = zip(block.pairs, block.matches, block.aligned, strict=True)
    aligned = {pair: AlignedMatches(rows, values[:, :2], values[:, 2]) for pair, rows, values in parts}
    exact, agree = exact_keypoints(keypoints, aligned, fixed)
    return exact, {pair: rows[agree[pair]] for pair, rows in matches.items()}


def align_block(block: Block, features: Callable[[str], Features], pyramids: Callable[[str], Pyramid]) -> Block:
    """Align the patches of matched keypoints.

    Args:
        block: matches of some pairs.
        features: gives the keypoints of a photo.
        pyramids: gives the pyramid of a photo.
    """
    from kornia_bingan.matching.refine import align

    matches = dict(zip(block.pairs, block.matches, strict=True))

    def aligned(pair: Pair, _: int) -> NDArray[np.float32]:
        rows = matches[pair]
        if not len(rows):
            return np.zeros((0, 3), np.float32)
        points0, points1 = (features(name).keypoints[rows[:, side]] for side, name in enumerate(pair))
        found = align(pyramids(pair[0]), pyramids(pair[1]), points0, points1)
        return np.column_stack([found.shift, found.after])

    return Block(block.pairs, block.matches, tuple(_of_each(block.pairs, aligned)))


@lru_cache(maxsize=32)
def read_pyramid(path: Path, ranges: tuple[tuple[int, tuple[int, int]], ...]) -> Pyramid:
    """Read a photo that was described and halve it; the last ones are kept, as bytes, since a pair needs two."""
    return [np.round(255 * level).astype(np.uint8) for level in build_pyramid(read_image(path, dict(ranges)))]


def _holds(path: Path, pairs: Sequence[Pair]) -> bool:
    try:
        return Block.read(path).pairs == tuple(pairs)
    except UsageError:
        return False
