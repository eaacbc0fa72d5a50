"""Photos whose codes are nearly equal become groups of near duplicates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.search.index import open_store

MOST_BITS = 40
"""Bits of 256 in which pictures that are described as one patch may differ; ``python -m eval duplicates`` tells what is
found up to there."""

_QUERIES = 2**12  # at a time, so that pairs of a part are kept and not those of all


@dataclass(frozen=True)
class Group:
    """Near duplicates: names, sorted, and for each the bits by which its code differs from that of the first."""

    names: tuple[str, ...]
    distances: tuple[int, ...]


def group_codes(codes: NDArray[np.uint8], most: int) -> list[NDArray[np.int64]]:
    """Group the rows whose codes differ in at most so many bits, each with one other of the group at least.

    Args:
        codes: packed, uint8 (N, bytes).
        most: bits, 0 or more.

    Returns:
        Rows of each group of two or more, sorted; the largest group first, of equally large ones by their first row.
    """
    if len(codes) == 0:
        return []
    # Equal codes are one: a folder of empty pictures would have pairs without number.
    different, same = np.unique(codes, axis=0, return_inverse=True)
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.add(different)
    first = np.arange(len(different))
    while True:
        before = first.copy()
        for start in range(0, len(different), _QUERIES):
            ends, _, near = index.range_search(different[start : start + _QUERIES], most + 1)
            rows = start + np.repeat(np.arange(len(ends) - 1), np.diff(ends).astype(np.int64))
            np.minimum.at(first, rows, first[near])
        first = first[first]
        if (first == before).all():
            break
    labels = first[same.ravel()]
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, 1 + np.flatnonzero(np.diff(labels[order])))
    return sorted((rows for rows in groups if len(rows) > 1), key=lambda rows: (-len(rows), int(rows[0])))


def find_duplicates(index: Path | str, most: int | None = None) -> list[Group]:
    """Find near duplicates among the photos of an index.

    Args:
        index: made by :func:`kornia_bingan.search.index.update_index`.
        most: bits in which two codes may differ; None takes ``MOST_BITS`` for pictures as patches.

    Raises:
        UsageError: the index is absent, unfinished or damaged; ``most`` is below 0, or not given for codes of another
            kind.
    """
    store = open_store(index)
    about = store.about()
    if most is None:
        if about["kind"] != "patch" or about["bits"] != 256:
            raise UsageError(
                f"{index} has codes of {about['bits']} bits of kind '{about['kind']}'; say by --most in how many bits "
                "two of them may differ, or index the pictures by --code patch"
            )
        most = MOST_BITS
    if most < 0:
        raise UsageError(f"most is {most}; give 0 bits or more")
    names, codes = store.codes()
    by_name = np.argsort(np.array(names))
    names, codes = [names[row] for row in by_name], codes[by_name]
    groups = []
    for rows in group_codes(codes, most):
        distances = np.bitwise_count(codes[rows] ^ codes[rows[0]]).sum(1, dtype=np.int64)
        groups.append(Group(tuple(names[row] for row in rows), tuple(distances.tolist())))
    return groups
