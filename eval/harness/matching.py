"""Two sets of descriptors become mutual nearest neighbours with their ratios: one matcher for every peer and protocol.

The rules are those of ``kornia_bingan.match``, also for real values in Euclidean distance: of several nearest rows the
lowest index counts, two neighbours at distance 0 have the ratio 1, and a set of fewer than 2 rows has no ratios and
therefore no matches. All mutual nearest neighbours are returned; a protocol keeps those with a ratio <= its threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.bits import dtype_and_shape, hamming_distances
from kornia_bingan.errors import UsageError

Norm = Literal["hamming", "l2"]


@dataclass(frozen=True, eq=False)
class Matches:
    """Mutual nearest neighbours, sorted by the row in image 0.

    Attributes:
        indices: rows of image 0 and image 1, int64 (M, 2).
        ratio: nearest over second distance from image 0 to image 1, float32 (M,), in [0, 1].
        ratio_two_way: the larger of the ratios of both directions, as ``kornia_bingan.match`` and COLMAP test it.
    """

    indices: NDArray[np.int64]
    ratio: NDArray[np.float32]
    ratio_two_way: NDArray[np.float32]


def mutual_matches(descriptors0: NDArray[Any], descriptors1: NDArray[Any], norm: Norm) -> Matches:
    """Find the mutual nearest neighbours of two images.

    Args:
        descriptors0: packed codes, uint8 (N0, bytes), for ``hamming``; finite real values (N0, D) for ``l2``.
        descriptors1: the same of image 1.
        norm: the distance.

    Raises:
        UsageError: another dtype, two widths, or values that are not finite.
    """
    if norm == "l2":
        for values in (descriptors0, descriptors1):
            if values.ndim != 2 or values.dtype.kind != "f" or not np.isfinite(values).all():
                raise UsageError(f"l2 needs finite real values (N, D), got {dtype_and_shape(values)}")
        if descriptors0.shape[1] != descriptors1.shape[1]:
            raise UsageError(f"two widths: {dtype_and_shape(descriptors0)}, {dtype_and_shape(descriptors1)}")
        distances: NDArray[Any] = squared_distances(descriptors0, descriptors1)
    elif norm == "hamming":
        distances = hamming_distances(descriptors0, descriptors1)
    else:
        raise UsageError(f"the norm is '{norm}'; choose hamming or l2")
    if min(distances.shape) < 2:
        return Matches(np.zeros((0, 2), np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32))
    nearest1, nearest0 = distances.argmin(1), distances.argmin(0)
    rows0 = np.flatnonzero(nearest0[nearest1] == np.arange(len(nearest1)))
    rows1 = nearest1[rows0]
    first = distances[rows0, rows1]
    forward = _ratio(first, np.partition(distances[rows0], 1, axis=1)[:, 1], norm)
    backward = _ratio(first, np.partition(distances[:, rows1], 1, axis=0)[1], norm)
    return Matches(np.stack([rows0, rows1], 1).astype(np.int64), forward, np.maximum(forward, backward))


def squared_distances(values0: NDArray[Any], values1: NDArray[Any]) -> NDArray[np.float64]:
    """Compare all rows of (N0, D) with all of (N1, D), float64 (N0, N1)."""
    # float64: the subtraction would leave float32 with three digits between similar descriptors
    values0, values1 = values0.astype(np.float64), values1.astype(np.float64)
    squares0, squares1 = (np.einsum("ij,ij->i", values, values) for values in (values0, values1))
    distances = squares0[:, None] + squares1 - 2 * values0 @ values1.T
    # Equal rows differ by rounding only; they count as equal.
    scale = np.maximum(squares0[:, None], squares1)
    distances[distances < 1e-12 * scale] = 0
    return np.asarray(distances, np.float64)


def _ratio(first: NDArray[Any], second: NDArray[Any], norm: Norm) -> NDArray[np.float32]:
    ratio = np.where(second == 0, 1.0, first / np.where(second == 0, 1, second))
    return (np.sqrt(ratio) if norm == "l2" else ratio).astype(np.float32)
