"""Which photos are compared: all, neighbours in order, the most similar or the nearest ones, or a list."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.images.exif import Position

Pair = tuple[str, str]

SEQUENTIAL_OVERLAP = 10
WAYS = ("exhaustive", "sequential", "retrieval", "gps")
EARTH_RADIUS_M = 6_371_000.0

VOTERS = 600
VOTES = 10
NEAR_SHARE = 70 / 256
"""Largest share of different bits that gives a vote, chosen on a training scene among distractors."""
MOST_EXACT = 200_000
_VOTERS_AT_ONCE = 60_000

Way = tuple[str, int]
"""One of WAYS, and the number of photos that each is paired with (0 for exhaustive)."""


def parse_choice(choice: str) -> list[Way] | None:
    """Read ``exhaustive``, ``sequential[:K]``, ``retrieval:K``, ``gps:K``, or several with commas between.

    Returns:
        The ways, or None for anything else, which stands for a file.

    Raises:
        UsageError: K is no number, or below 1.
    """
    words = choice.split(",")
    if any(word.partition(":")[0] not in WAYS for word in words):
        return None
    ways = []
    for word in words:
        kind, colon, count = word.partition(":")
        if kind == "exhaustive" and not colon:
            ways.append((kind, 0))
        elif kind == "sequential" and not colon:
            ways.append((kind, SEQUENTIAL_OVERLAP))
        elif kind != "exhaustive" and count.isdecimal() and int(count) >= 1:
            ways.append((kind, int(count)))
        else:
            raise UsageError(f"the pairs are '{word}'; write {kind}:K with a number of photos, such as {kind}:10")
    return ways


def choose_pairs(
    ways: Sequence[Way],
    codes: Mapping[str, NDArray[np.uint8]],
    positions: Mapping[str, Position],
) -> tuple[list[Pair], dict[str, int]]:
    """Choose the pairs of photos to compare, by one way or several together.

    ``sequential`` pairs each photo with the K after it, in the order of the numbers in the names (img9 before img10);
    ``retrieval`` with the K most similar ones; ``gps`` with the K nearest ones that say where they are.
    Under ``gps`` a photo that does not say it is paired with the K most similar ones instead, and one that is similar
    to none with the K after it.

    Args:
        ways: see :func:`parse_choice`.
        codes: packed codes of the keypoints of each photo, uint8 (N, bytes).
        positions: latitude and longitude in degrees and height in metres or None, of the photos that say them.

    Returns:
        - Pairs in the order of the photos, none twice; of N photos at most N times the sum of all K.
        - Pairs by way, before they are joined.

    Raises:
        UsageError: ``gps``, and fewer than two photos say where they are.
    """
    names = list(codes)
    number = {name: index for index, name in enumerate(names)}
    together: set[tuple[int, int]] = set()
    counts = {}
    for kind, count in ways:
        if kind == "exhaustive":
            found = list(combinations(names, 2))
        elif kind == "sequential":
            ordered = sorted(names, key=_natural)
            found = [(a, b) for i, a in enumerate(ordered) for b in ordered[i + 1 : i + 1 + count]]
        elif kind == "retrieval":
            found = similar_pairs(codes, count)
        else:
            found = near_pairs({name: positions[name] for name in names if name in positions}, count)
        parts = {f"{kind}:{count}" if count else kind: found}
        if kind == "gps" and len(positions) < len(names):
            parts["retrieval, no position"] = _unplaced_pairs(codes, positions, count)
        for way, found in parts.items():
            pairs = {tuple(sorted((number[a], number[b]))) for a, b in found}
            together |= pairs  # type: ignore[arg-type]
            counts[way] = len(pairs)
    return [(names[i], names[j]) for i, j in sorted(together)], counts


def _unplaced_pairs(
    codes: Mapping[str, NDArray[np.uint8]], positions: Mapping[str, Position], count: int
) -> list[Pair]:
    """Pair the photos without a position by what they show; by time it cannot be, for clocks of cameras differ."""
    unplaced = {name for name in codes if name not in positions}
    found = [pair for pair in similar_pairs(codes, count, unplaced) if unplaced & set(pair)]
    ordered = sorted(codes, key=_natural)
    alone = unplaced - {name for pair in found for name in pair}
    for index, name in enumerate(ordered):
        if name in alone:
            found += [(name, other) for other in (ordered[index + 1 :] + ordered[:index][::-1])[:count]]
    return found


def similar_pairs(
    codes: Mapping[str, NDArray[np.uint8]], count: int, voting: Collection[str] | None = None
) -> list[Pair]:
    """Pair each photo with the most similar other ones: those that hold the nearest codes of most of its keypoints.

    Each of the first ``VOTERS`` codes of a photo gives a vote to the photo of each of its nearest ``VOTES`` codes that
    is near enough; votes of both directions count together. All codes are compared, up to ``MOST_EXACT`` of them; more
    are searched in clusters, so that the cost does not grow with the square of the photos.

    Args:
        codes: packed codes of the keypoints of each photo, the strongest first, uint8 (N, bytes).
        count: others per photo; all pairs if there are not so many photos.
        voting: photos whose codes give votes; all of them if not given.

    Returns:
        Pairs in the order of the photos; at most ``count`` times their number. A photo without votes is in none.
    """
    names = list(codes)
    if count >= len(names) - 1:
        return list(combinations(names, 2))
    voters = [np.ascontiguousarray(codes[name][:VOTERS]) for name in names]
    everything = np.concatenate(voters)
    owner = np.repeat(np.arange(len(names)), [len(part) for part in voters])
    index = _searchable(everything)
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    rows_voting = np.arange(len(everything))
    if voting is not None:
        rows_voting = np.flatnonzero(np.isin(owner, [row for row, name in enumerate(names) if name in voting]))
    for start in range(0, len(rows_voting), _VOTERS_AT_ONCE):
        part = rows_voting[start : start + _VOTERS_AT_ONCE]
        distances, rows = index.search(everything[part], VOTES + 1)  # a code is its own nearest
        near = (distances <= NEAR_SHARE * 8 * everything.shape[1]) & (rows >= 0)
        near &= owner[rows] != owner[part, None]
        voter, column = np.nonzero(near)
        first, second = owner[part][voter], owner[rows[voter, column]]
        both = np.concatenate([first * len(names) + second, second * len(names) + first])
        parts.append(np.unique(both, return_counts=True))
    if not parts:
        return []
    voted, votes = (np.concatenate(values) for values in zip(*parts, strict=True))
    return _most_voted(names, voted, votes, count)


def _most_voted(names: list[str], voted: NDArray[np.int64], votes: NDArray[np.int64], count: int) -> list[Pair]:
    """Take the photos with most votes for each photo; of equal ones, the first. ``voted`` is photo * N + other."""
    keys, place = np.unique(voted, return_inverse=True)
    sums = np.bincount(place, votes, len(keys)).astype(np.int64)
    photo, other = np.divmod(keys, len(names))
    order = np.lexsort((other, -sums, photo))
    photo, other = photo[order], other[order]
    kept = np.arange(len(photo)) - np.searchsorted(photo, photo) < count
    pairs = np.unique(np.sort(np.column_stack([photo[kept], other[kept]]), axis=1), axis=0)
    return [(names[a], names[b]) for a, b in pairs.tolist()]


def _searchable(codes: NDArray[np.uint8]) -> Any:
    bits = 8 * codes.shape[1]
    index: Any = faiss.IndexBinaryFlat(bits)
    if len(codes) > MOST_EXACT:
        clusters = round(4 * len(codes) ** 0.5)
        index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(bits), bits, clusters)
        index.nprobe = 16
        index.cp.niter = 5
        index.train(codes[:: max(1, len(codes) // (40 * clusters))])
    index.add(codes)
    return index


def near_pairs(positions: Mapping[str, Position], count: int) -> list[Pair]:
    """Pair each photo with the nearest other ones, by straight distance; on the ground if one of two has no height.

    Args:
        positions: latitude and longitude in degrees and height in metres, None if it is not known.
        count: others per photo; all pairs if there are not so many photos.

    Raises:
        UsageError: there are fewer than two positions.
    """
    names = list(positions)
    if len(names) < 2:
        raise UsageError(f"{len(names)} photos say where they were taken; gps needs two, choose other pairs")
    if count >= len(names) - 1:
        return list(combinations(names, 2))
    latitude, longitude, height = np.array([positions[name] for name in names], np.float64).T  # None becomes NaN
    lat, lon = np.deg2rad(latitude), np.deg2rad(longitude)
    places = np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    known = np.flatnonzero(~np.isnan(height))
    unknown = np.flatnonzero(np.isnan(height))
    # Photos without a height, and the others as these see them, lie on the ground; about as high as the known ones are.
    ground = places * (EARTH_RADIUS_M + (height[known].mean() if len(known) else 0.0))
    places *= (EARTH_RADIUS_M + height)[:, None]
    middle = ground.mean(0)
    ground -= middle
    places -= middle
    found = np.full((len(names), count + 1), -1, np.int64)
    if len(unknown):
        found[unknown] = _nearest(ground, np.arange(len(names)), ground[unknown], count + 1)[1]
    if len(known):
        distances, rows = _nearest(places, known, places[known], count + 1)
        if len(unknown):
            on_ground, others = _nearest(ground, unknown, ground[known], count + 1)
            order = np.argsort(np.concatenate([distances, on_ground], 1), axis=1, kind="stable")[:, : count + 1]
            rows = np.take_along_axis(np.concatenate([rows, others], 1), order, 1)
        found[known] = rows
    return _pairs_of(names, found, count)


def _nearest(
    places: NDArray[np.float64], rows: NDArray[np.int64], queries: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Give squared distances and rows of the nearest places among some rows, infinite and -1 where there are fewer."""
    index = faiss.IndexFlatL2(3)
    index.add(places[rows].astype(np.float32))
    distances, found = index.search(queries.astype(np.float32), count)
    there = found >= 0
    return np.where(there, distances, np.inf).astype(np.float32), np.where(there, rows[found], -1)


def _pairs_of(names: list[str], found: NDArray[np.int64], count: int) -> list[Pair]:
    pairs = set()
    for row, others in enumerate(found.tolist()):
        pairs |= {(min(row, other), max(row, other)) for other in [o for o in others if o not in (row, -1)][:count]}
    return [(names[i], names[j]) for i, j in sorted(pairs)]


def read_pairs(path: str, names: Sequence[str]) -> list[Pair]:
    """Read a text file with a pair on each line, see :func:`parse_pairs`.

    Raises:
        UsageError: the file is absent or has a bad line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the pairs '{path}' are neither exhaustive, sequential:K, retrieval:K or gps:K nor a readable text file"
        ) from error
    return parse_pairs(text, names, path)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def parse_pairs(text: str, names: Sequence[str], source: str = "the pairs") -> list[Pair]:
    """Read a list of pairs: two names on each line, separated by a tab or by spaces.

    A line with a tab is split there. Another is split at the place where both sides are names of photos, so that names
    may hold spaces; if there are two such places, a tab is needed. Empty lines, and lines that start with ``#`` and
    name no photos, are passed over; a pair that comes again, in either order, counts once.

    Raises:
        UsageError: a line names no two photos, or one photo twice; the message has the number of the line.
    """
    known = set(names)
    pairs: dict[frozenset[str], Pair] = {}
    for number, line in enumerate(re.split(r"\r?\n", text), 1):
        if not line.strip():
            continue
        gaps = re.finditer(r"\t" if "\t" in line else r" +", line)
        sides = [(_name(line[: gap.start()], known), _name(line[gap.end() :], known)) for gap in gaps]
        found = [(a, b) for a, b in sides if a is not None and b is not None]
        if not found and line.startswith("#"):
            continue
        where = f"{source}, line {number}: '{line.strip()}'"
        if not found:
            raise UsageError(f"{where} does not name two photos of the folder (a tab may stand between the names)")
        if len(found) > 1:
            raise UsageError(f"{where} can be read in two ways; put a tab between the names")
        name0, name1 = found[0]
        if name0 == name1:
            raise UsageError(f"{where} pairs a photo with itself")
        pairs.setdefault(frozenset(found[0]), found[0])
    if not pairs:
        raise UsageError(f"{source}: there is no pair in it")
    return list(pairs.values())


def _name(text: str, known: set[str]) -> str | None:
    return next((name for name in (text, text.strip()) if name in known), None)
