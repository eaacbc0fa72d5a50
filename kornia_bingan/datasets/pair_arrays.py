"""The ``.npy`` arrays of pairs of patches that the published code reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.datasets.brown import Indices, Pairs, checked_indices
from kornia_bingan.errors import UsageError


@dataclass(frozen=True, eq=False)
class PairArrays:
    """The arrays of the published code: P matching and Q non-matching pairs, interleaved.

    Rows 2k and 2k + 1 of an array are pair k. The index of a patch counts the rows of both arrays, matches first.

    Attributes:
        matches: shape (2P, 3, 32, 32), mapped from its file.
        non_matches: shape (2Q, 3, 32, 32), likewise.
        black, white: the values that mean 0 and 1.
    """

    matches: NDArray[Any]
    non_matches: NDArray[Any]
    black: float
    white: float

    def __len__(self) -> int:
        return len(self.matches) + len(self.non_matches)

    def patches32(self, indices: Indices) -> NDArray[np.float32]:
        """Give patches in grey, the mean of the three channels, float32 in [0, 1], shape (n, 1, 32, 32).

        Raises:
            UsageError: an index has no patch, or a value lies outside of ``black`` to ``white``.
        """
        indices = checked_indices(indices, len(self))
        first = indices < len(self.matches)
        rows = np.empty((len(indices), 3, 32, 32), np.float64)
        rows[first] = self.matches[indices[first]]
        rows[~first] = self.non_matches[indices[~first] - len(self.matches)]
        grey = (rows.mean(1, keepdims=True) - self.black) / (self.white - self.black)
        if not ((grey >= -1e-6) & (grey <= 1 + 1e-6)).all():  # float32 rounds; NaN is refused too
            raise UsageError(
                f"values from {rows.min():.4g} to {rows.max():.4g} are outside of black {self.black:.4g} to white "
                f"{self.white:.4g}; give the values that mean black and white in these arrays"
            )
        out: NDArray[np.float32] = np.clip(grey, 0, 1).astype(np.float32)
        return out

    def pairs(self) -> Pairs:
        """Give indices of the first and second patches and which pairs are matches, as ``PatchSet.pairs`` does."""
        index0 = np.arange(0, len(self), 2, dtype=np.int64)
        return index0, index0 + 1, index0 < len(self.matches)


def read_pair_arrays(
    matches: Path, non_matches: Path, *, black: float | None = None, white: float | None = None
) -> PairArrays:
    """Open the ``.npy`` files of the published code, without reading them whole.

    Args:
        matches: array (2P, 3, 32, 32), pairs interleaved: rows 2k and 2k + 1 show one point.
        non_matches: array (2Q, 3, 32, 32) of pairs of different points, likewise.
        black, white: the values that mean 0 and 1. uint8 arrays need none, they are 0 and 255. For others they must be
            given, since the published code does not tell them: (x - 127.5) / 128, which it uses elsewhere, has
            -127.5 / 128 and 127.5 / 128.

    Raises:
        UsageError: a file is no such array, the two have different types, or black and white are missing or equal.
    """
    opened = []
    for path in (Path(matches), Path(non_matches)):
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            raise UsageError(f"{path} is no .npy array that can be read: {error}") from error
        if not isinstance(array, np.ndarray):
            raise UsageError(f"{path} is an archive of arrays; one .npy array is wanted")
        if array.ndim != 4 or array.shape[1:] != (3, 32, 32) or len(array) % 2 or array.dtype.kind not in "fiu":
            raise UsageError(
                f"{path} holds {array.dtype} {array.shape}; an even number of patches (2P, 3, 32, 32) is wanted"
            )
        opened.append(array)
    if opened[0].dtype != opened[1].dtype:
        raise UsageError(f"{matches} holds {opened[0].dtype} and {non_matches} {opened[1].dtype}; they must be alike")
    if black is None and white is None and opened[0].dtype == np.uint8:
        black, white = 0.0, 255.0
    if black is None or white is None or not black < white:
        raise UsageError(
            f"{matches} holds {opened[0].dtype}, black is {black} and white {white}; "
            "give the values that mean black and white, such as -1 and 1, or 0 and 255"
        )
    return PairArrays(opened[0], opened[1], black, white)
