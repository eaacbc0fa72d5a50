"""A tree of words for bags of words, trained from codes: what ORB-SLAM and others find places they have seen with.

The tree is that of Gálvez-López and Tardós, "Bags of binary words for fast place recognition in image sequences" (IEEE
T-RO 2012): the codes are divided in k groups by k-medians in Hamming distance, each group again, and so on; the leaves
are the words. It is written in the text file of DBoW2 as ORB-SLAM2 and 3 read it: ``k L scoring weighting``, then one
line for each node but the root: its parent, 1 for a leaf, the bytes of its code, its weight. Nodes are numbered by
their lines from 1, words by the lines of the leaves from 0.

Read from ``TemplatedVocabulary::loadFromTextFile`` in ORB-SLAM2 at commit f2e6f51; its ``FORB`` has the order of bits
that our codes have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kornia_bingan import bits
from kornia_bingan.errors import UsageError
from kornia_bingan.work.files import atomic_path

MOST_BRANCHES, MOST_LEVELS = 20, 10
"""More is refused by DBoW2."""
BRANCHES, LEVELS = 10, 5
_ROUNDS = 50
"""Of k-medians; where ties decide, groups may swap codes for ever."""
_ROWS = 4096
"""Codes that go down the tree at a time."""
_L1, _TF_IDF = 0, 0
"""DBoW2's numbers of the score and of the weights."""

Bag = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Words of a photo, ascending, and their weights, which sum to 1."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A tree of words.

    Attributes:
        branches: most children of a node (k).
        levels: most nodes on the way from the root to a word, the root not counted (L).
        parents: int64 (M,), the parent of each node; row 0 is the root, whose parent is -1.
        codes: uint8 (M, bytes), the median of each node's codes; that of the root is 0.
        weights: float64 (M,), ln(photos / photos with the word) of leaves, 0 elsewhere.
    """

    branches: int
    levels: int
    parents: NDArray[np.int64]
    codes: NDArray[np.uint8]
    weights: NDArray[np.float64]

    @cached_property
    def leaves(self) -> NDArray[np.int64]:
        """The node of each word, int64 (W,), ascending."""
        is_leaf = np.ones(len(self.parents), bool)
        is_leaf[self.parents[1:]] = False
        return np.flatnonzero(is_leaf)

    @cached_property
    def _children(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Nodes in the order of their parents, where those of each node begin there, and how many they are."""
        order = 1 + np.argsort(self.parents[1:], kind="stable")
        counts = np.bincount(self.parents[1:], minlength=len(self.parents))
        return order, np.cumsum(counts) - counts, counts

    def words(self, codes: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Give the word of each code: from the root always to the nearest child, of equally near ones to the first.

        Args:
            codes: packed, uint8 (N, bytes).

        Returns:
            int64 (N,), rows of :attr:`leaves`.

        Raises:
            UsageError: the codes are of another width.
        """
        bits.check_packed(codes, "a vocabulary")
        if codes.shape[1] != self.codes.shape[1]:
            raise UsageError(f"the vocabulary has codes of {self.codes.shape[1]} bytes, got {codes.shape[1]}")
        parts = [self._descend(codes[start : start + _ROWS]) for start in range(0, len(codes), _ROWS)]
        return np.searchsorted(self.leaves, np.concatenate([np.empty(0, np.int64), *parts]))

    def _descend(self, codes: NDArray[np.uint8]) -> NDArray[np.int64]:
        order, begins, counts = self._children
        nodes = np.zeros(len(codes), np.int64)
        while (inner := np.flatnonzero(counts[nodes])).size:
            parents = nodes[inner]
            places = np.arange(self.branches)
            is_child = places < counts[parents][:, None]
            children = order[np.where(is_child, begins[parents][:, None] + places, 0)]
            distances = np.bitwise_count(self.codes[children] ^ codes[inner][:, None]).sum(2, dtype=np.int64)
            nearest = np.where(is_child, distances, np.iinfo(np.int64).max).argmin(1)
            nodes[inner] = children[np.arange(len(inner)), nearest]
        return nodes

    def bag(self, codes: NDArray[np.uint8]) -> Bag:
        """Turn the codes of a photo into its bag of words: tf-idf weights that sum to 1, as DBoW2's ``transform``.

        Words that every photo of the training had weigh nothing and are left out.
        """
        found, counts = np.unique(self.words(codes), return_counts=True)
        weights = self.weights[self.leaves[found]] * counts
        found, weights = found[weights > 0], weights[weights > 0]
        return found, weights / weights.sum() if len(weights) else weights


def score(bag0: Bag, bag1: Bag) -> float:
    """Say how alike two photos are, from 0 (no common word) to 1: DBoW2's L1 score, 1 - |v0 - v1| / 2."""
    _, rows0, rows1 = np.intersect1d(bag0[0], bag1[0], assume_unique=True, return_indices=True)
    return float(np.minimum(bag0[1][rows0], bag1[1][rows1]).sum())


def check_size(branches: int, levels: int) -> None:
    """Refuse what DBoW2 does not read.

    Raises:
        UsageError: branches or levels are out of range.
    """
    if not 2 <= branches <= MOST_BRANCHES or not 1 <= levels <= MOST_LEVELS:
        raise UsageError(
            f"{branches} branches and {levels} levels were asked for; give 2 to {MOST_BRANCHES} branches and 1 to "
            f"{MOST_LEVELS} levels"
        )


def train_vocabulary(
    photos: Sequence[NDArray[np.uint8]], branches: int = BRANCHES, levels: int = LEVELS, seed: int = 0
) -> Vocabulary:
    """Divide the codes of photos into words.

    Args:
        photos: packed codes of each photo, uint8 (N, bytes).
        branches: into how many groups each is divided, 2 to 20 (k).
        levels: how often, 1 to 10 (L); a group of equal codes is not divided.
        seed: of the first medians, which are drawn as k-means++ draws.

    Raises:
        UsageError: branches or levels are out of range, or there are not two codes.
    """
    check_size(branches, levels)
    codes = np.concatenate(photos) if photos else np.empty((0, 1), np.uint8)
    if len(codes) < 2:
        raise UsageError(f"a vocabulary needs codes, the {len(photos)} photos have {len(codes)}")
    rng = np.random.default_rng(seed)
    parents, medians = [-1], [np.zeros(codes.shape[1], np.uint8)]
    level = [(0, codes)]
    for _ in range(levels):
        below = []
        for node, group in level:
            for median, part in _divided(group, branches, rng):
                below.append((len(parents), part))
                parents.append(node)
                medians.append(median)
        level = below
    whole = Vocabulary(branches, levels, np.array(parents), np.stack(medians), np.zeros(len(parents)))
    photos_with = np.zeros(len(whole.leaves))
    for each in photos:
        photos_with[np.unique(whole.words(each))] += 1
    whole.weights[whole.leaves] = np.log(len(photos) / np.maximum(photos_with, 1))
    return whole


def _divided(
    codes: NDArray[np.uint8], branches: int, rng: np.random.Generator
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Divide codes into groups by k-medians; gives the median and the codes of each, nothing for equal codes."""
    medians = _first_medians(codes, branches, rng)
    if len(medians) < 2:
        return []
    groups = np.full(len(codes), -1)
    for _ in range(_ROUNDS):
        nearest = bits.hamming_distances(codes, medians).argmin(1)
        if np.array_equal(nearest, groups):
            break
        groups = nearest
        medians = np.stack([_median(codes[groups == k], medians[k]) for k in range(len(medians))])
    return [(medians[k], codes[groups == k]) for k in np.unique(groups)]


def _first_medians(codes: NDArray[np.uint8], branches: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw codes one after another, each with a chance that grows with its distance to those before."""
    rows = [int(rng.integers(len(codes)))]
    nearest = bits.hamming_distances(codes, codes[rows])[:, 0]
    while len(rows) < branches and nearest.any():
        rows.append(int(np.searchsorted(np.cumsum(nearest), rng.integers(nearest.sum()), side="right")))
        nearest = np.minimum(nearest, bits.hamming_distances(codes, codes[rows[-1:]])[:, 0])
    return codes[rows]


def _median(codes: NDArray[np.uint8], before: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give the majority of every bit, 1 where votes are even; of no codes, what it was before."""
    if not len(codes):
        return before
    return np.packbits(2 * np.unpackbits(codes, axis=1).sum(0, dtype=np.int64) >= len(codes))


def write_vocabulary(vocabulary: Vocabulary, path: Path) -> None:
    """Write DBoW2's text file.

    The last line has no end: ORB-SLAM's reader would take the nothing behind it for one more node.

    Raises:
        UsageError: the codes have not the 32 bytes that DBoW2's class for ORB has.
    """
    if vocabulary.codes.shape[1] != 32:
        raise UsageError(f"DBoW2's text file holds codes of 32 bytes, these have {vocabulary.codes.shape[1]}")
    is_leaf = np.isin(np.arange(len(vocabulary.parents)), vocabulary.leaves).astype(int).tolist()
    columns = (vocabulary.parents.tolist(), is_leaf, vocabulary.codes.tolist(), vocabulary.weights.tolist())
    lines = [f"{vocabulary.branches} {vocabulary.levels} {_L1} {_TF_IDF}"]
    for parent, leaf, code, weight in list(zip(*columns, strict=True))[1:]:
        lines.append(f"{parent} {leaf} {' '.join(map(str, code))} {weight!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="ascii")


def read_vocabulary(path: Path) -> Vocabulary:
    """Read DBoW2's text file, also that of ORB (``ORBvoc.txt``).

    Raises:
        UsageError: the file is absent or damaged, or has other weights or another score than tf-idf and L1.
    """
    try:
        first, *lines = path.read_text(encoding="ascii").splitlines()
        branches, levels, *kind = map(int, first.split())
        rows = [line.split() for line in lines if line.strip()]
        parents = np.array([-1, *(int(row[0]) for row in rows)])
        codes = np.array([[0] * 32, *(row[2:34] for row in rows)]).astype(np.int64)
        weights = np.array([0.0, *(float(row[34]) for row in rows)])
    except (OSError, ValueError, IndexError) as error:
        raise UsageError(f"{path} is no vocabulary in DBoW2's text format ({error})") from error
    if kind != [_L1, _TF_IDF]:
        raise UsageError(f"{path} has scoring and weighting {kind}; only L1 and tf-idf, 0 and 0, are read")
    vocabulary = Vocabulary(branches, levels, parents, codes.astype(np.uint8), weights)
    is_leaf = np.array([False, *(row[1] != "0" for row in rows)])
    if (
        not rows
        or (parents[1:] < 0).any()
        or (parents[1:] >= np.arange(1, len(parents))).any()
        or np.bincount(parents[1:]).max() > branches
        or not np.array_equal(np.flatnonzero(is_leaf), vocabulary.leaves)
        or not ((codes >= 0) & (codes < 256)).all()
    ):
        raise UsageError(f"{path} is damaged: its nodes are no tree of at most {branches} branches")
    return vocabulary
