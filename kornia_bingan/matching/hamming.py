"""Two sets of codes become matches: nearest neighbours in Hamming distance, ratio test, mutual check.

The rules, for :func:`match` and :class:`HammingMatcher` alike:

- A nearest neighbour is the code at the smallest Hamming distance; of several, the one with the lowest index.
- The ratio of a code is the distance of its nearest over that of its second neighbour, between 0 and 1; a ratio equal
  to the threshold passes. Two neighbours at distance 0 are ambiguous: their ratio is 1.
- A ratio needs a second neighbour: where it does not exist (a set of 0 or 1 codes), no match passes a ratio test.
  The modes without a ratio test take sets of 1 code like any other.
- No match gives shapes (0, 1) and (0, 2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args, overload

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kornia_bingan import bits
from kornia_bingan.errors import UsageError

MatchMode = Literal["nn", "mnn", "snn", "smnn"]

_REAL = ("float16", "bfloat16", "float32", "float64")

_QUERY_CHUNK = 2**10
_BASE_CHUNK = 2**14
"""Rows compared at a time by matrix products: 2^24 products, 64 MiB in float32."""


@dataclass(frozen=True)
class Calibration:
    """A logistic model of how likely a match is right, fitted for one set of weights by ``python -m eval calibrate``.

    Attributes:
        intercept: log odds at distance 0 and ratio 0.
        distance: change of the log odds from distance 0 to all bits.
        ratio: change of the log odds from ratio 0 to 1.
    """

    intercept: float
    distance: float
    ratio: float


def match_probability(
    distances: NDArray[Any], ratios: NDArray[Any], bits: int, calibration: Calibration
) -> NDArray[np.float64]:
    """Say how likely matches are right: the two keypoints lie on one point of the scene.

    Args:
        distances: Hamming distances of mutual nearest neighbours, shape (M,).
        ratios: larger of the ratios of both directions, shape (M,), as :func:`match` with ``smnn`` gives them.
        bits: width of the codes.
        calibration: of the weights, see :func:`kornia_bingan.network.weights.calibration_of`.

    Returns:
        Probabilities, float64 (M,).

    Raises:
        UsageError: the shapes differ, a distance is not between 0 and ``bits``, or a ratio not between 0 and 1.
    """
    d, r = np.asarray(distances, np.float64), np.asarray(ratios, np.float64)
    if d.shape != r.shape or d.ndim != 1:
        raise UsageError(f"give one distance and one ratio per match, got shapes {d.shape} and {r.shape}")
    if not ((d >= 0) & (d <= bits)).all() or not ((r >= 0) & (r <= 1)).all():
        raise UsageError(f"distances lie between 0 and {bits} and ratios between 0 and 1")
    log_odds = calibration.intercept + calibration.distance * d / bits + calibration.ratio * r
    return np.asarray(1 / (1 + np.exp(-log_odds)), np.float64)


@dataclass(frozen=True)
class _Neighbours:
    """The two smallest distances of each query, float32 (N,), and the nearest's row, int64 (N,).

    ``second`` is inf where it was not asked for.
    """

    first: Tensor
    second: Tensor
    index: Tensor

    def ratio(self) -> Tensor:
        return torch.where(self.second == 0, 1.0, self.first / self.second)


_Search = Callable[[Tensor, Tensor, int], _Neighbours]


@overload
def match(
    codes0: NDArray[Any],
    codes1: NDArray[Any],
    mode: MatchMode = "smnn",
    threshold: float = 0.8,
    *,
    num_threads: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...
@overload
def match(
    codes0: Tensor,
    codes1: Tensor,
    mode: MatchMode = "smnn",
    threshold: float = 0.8,
    *,
    num_threads: int | None = None,
) -> tuple[Tensor, Tensor]: ...
def match(
    codes0: NDArray[Any] | Tensor,
    codes1: NDArray[Any] | Tensor,
    mode: MatchMode = "smnn",
    threshold: float = 0.8,
    *,
    num_threads: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]] | tuple[Tensor, Tensor]:
    """Match the codes of two images in Hamming distance, exactly.

    Arrays and CPU tensors are searched by faiss, tensors on another device by matrix products there. Memory beside the
    codes stays below some hundred megabytes for any number of codes.

    Args:
        codes0: codes of image 0: packed, uint8 (N0, bits / 8), or +1 / -1 floats (N0, bits); numpy or torch.
        codes1: codes of image 1, in the same library.
        mode: Kornia's names: ``nn`` nearest neighbour, ``mnn`` mutual nearest neighbours, ``snn`` nearest neighbour
            with a ratio test, ``smnn`` mutual nearest neighbours with a ratio test in both directions.
        threshold: largest Hamming ratio, in [0, 1], of ``snn`` and ``smnn``; ``nn`` and ``mnn`` do not use it. Of
            +1 / -1 vectors, the L2 ratio is the root of the Hamming ratio: 0.8 here is 0.894 in Kornia's L2 matchers.
        num_threads: of faiss; None takes torch's number.

    Returns:
        - Values, float32, shape (M, 1): Hamming distances for ``nn`` and ``mnn``, ratios for ``snn`` and ``smnn``
          (the larger of the two directions).
        - Indices, int64, shape (M, 2): rows of ``codes0`` and ``codes1``, sorted by the row of ``codes0``.

        numpy for numpy, torch on the same device for torch. The module's docstring has the rules for ties and for sets
        of 0 and 1 codes.

    Raises:
        UsageError: another dtype, floats other than +1 / -1, two kinds or widths that differ, an unknown mode, or a
            threshold outside [0, 1]; the message names the dtypes and shapes.
    """
    mode = _checked_mode(mode, threshold)
    if num_threads is not None and num_threads < 1:
        raise UsageError(f"num_threads is {num_threads}; give 1 or more")
    packed0, packed1 = _packed_pair(codes0, codes1)

    def search_with_faiss(queries: Tensor, base: Tensor, num_neighbours: int) -> _Neighbours:
        return _nearest_faiss(queries, base, num_neighbours, num_threads or torch.get_num_threads())

    search = search_with_faiss if packed0.device.type == "cpu" else _nearest_products
    distances, indices = _match(packed0, packed1, mode, threshold, search)
    if isinstance(codes0, np.ndarray):
        return distances.numpy(), indices.numpy()
    return distances, indices


def two_nearest(
    codes0: NDArray[Any], codes1: NDArray[Any], num_threads: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the two nearest codes of image 1 for each code of image 0.

    Args:
        codes0: as :func:`match` takes them.
        codes1: 2 or more.
        num_threads: of faiss; None takes torch's number.

    Returns:
        Row of the nearest one, int64 (N0,), and the distances of both, float32 (N0, 2).

    Raises:
        UsageError: as :func:`match` does on its codes.
    """
    packed0, packed1 = _packed_pair(codes0, codes1)
    found = _nearest_faiss(packed0, packed1, 2, num_threads or torch.get_num_threads())
    return found.index.numpy(), torch.stack([found.first, found.second], 1).numpy()


class HammingMatcher(nn.Module):
    """:func:`match` as a module, in the place of ``kornia.feature.DescriptorMatcher``.

    ``forward`` takes the codes of two images, +1 / -1 floats (N, bits) or packed uint8 (N, bits / 8), and gives
    ``(distances, indices)``, float32 (M, 1) and int64 (M, 2), on their device. Inside
    ``kornia.feature.LocalFeatureMatcher``, ``confidence`` is 1 - distance: between 0 and 1 for ``snn`` and ``smnn``.

    Args:
        match_mode: ``nn``, ``mnn``, ``snn`` or ``smnn``, in any case.
        th: largest Hamming ratio, in [0, 1], of ``snn`` and ``smnn``.

    Raises:
        UsageError: an unknown mode, or a threshold outside [0, 1].
    """

    def __init__(self, match_mode: MatchMode | str = "smnn", th: float = 0.8) -> None:
        super().__init__()
        self.match_mode = _checked_mode(match_mode, th)
        self.th = th

    def forward(self, desc0: Tensor, desc1: Tensor) -> tuple[Tensor, Tensor]:
        """Match two sets of codes; see :func:`match` for shapes and errors.

        Without codes on a side the widths may differ, since Kornia before 0.9 gives an image without keypoints 128.
        """
        if isinstance(desc0, Tensor) and isinstance(desc1, Tensor) and min(len(desc0), len(desc1)) == 0:
            return _no_match(desc0.device)
        return match(desc0, desc1, self.match_mode, self.th)

    def extra_repr(self) -> str:
        """Give the mode and the threshold for ``print(module)``."""
        return f"match_mode={self.match_mode!r}, th={self.th}"


def _match(codes0: Tensor, codes1: Tensor, mode: str, threshold: float, search: _Search) -> tuple[Tensor, Tensor]:
    has_ratio, is_mutual = mode in ("snn", "smnn"), mode in ("mnn", "smnn")
    num_neighbours = 2 if has_ratio else 1
    if min(len(codes0), len(codes1)) == 0 or len(codes1) < num_neighbours:
        return _no_match(codes0.device)
    if is_mutual and len(codes0) < num_neighbours:
        return _no_match(codes0.device)
    forward = search(codes0, codes1, num_neighbours)
    rows0 = torch.arange(len(codes0), device=codes0.device)
    rows1, values = forward.index, forward.ratio() if has_ratio else forward.first
    if has_ratio:
        kept = values <= threshold
        rows0, rows1, values = rows0[kept], rows1[kept], values[kept]
    if is_mutual and len(rows0):
        # Only the codes that are somebody's nearest neighbour can take part in a match.
        queries, position = torch.unique(rows1, return_inverse=True)
        backward = search(codes1[queries], codes0, num_neighbours)
        kept = backward.index[position] == rows0
        if has_ratio:
            ratio = backward.ratio()[position]
            kept &= ratio <= threshold
            values = torch.maximum(values, ratio)
        rows0, rows1, values = rows0[kept], rows1[kept], values[kept]
    return values[:, None], torch.stack([rows0, rows1], 1)


def _no_match(device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.empty(0, 1, dtype=torch.float32, device=device), torch.empty(0, 2, dtype=torch.int64, device=device)


def _nearest_faiss(queries: Tensor, base: Tensor, num_neighbours: int, num_threads: int) -> _Neighbours:
    previous = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(num_threads)
    try:
        distances, indices = faiss.knn_hamming(queries.numpy(), base.numpy(), num_neighbours)
    finally:
        faiss.omp_set_num_threads(previous)
    # The search keeps the lowest indices among equal distances, but their order is not documented.
    is_tie = distances == distances[:, :1]
    index = np.where(is_tie, indices, len(base)).min(1)
    values = torch.from_numpy(distances.astype(np.float32))
    second = values[:, 1] if num_neighbours == 2 else torch.full_like(values[:, 0], torch.inf)
    return _Neighbours(values[:, 0], second, torch.from_numpy(index))


def _nearest_products(queries: Tensor, base: Tensor, num_neighbours: int) -> _Neighbours:
    """Search by +1 / -1 matrix products: distance = (bits - product) / 2, exact in the dtypes chosen here."""
    num_bits = 8 * queries.shape[1]
    # Sums of up to 2,048 signs are integers that float16 holds exactly; only GPUs are faster in it.
    dtype = torch.float16 if queries.device.type == "cuda" and num_bits <= 2048 else torch.float32
    first = torch.full((len(queries),), torch.inf, dtype=torch.float32, device=queries.device)
    second, index = first.clone(), torch.zeros_like(first, dtype=torch.int64)
    for base_start in range(0, len(base), _BASE_CHUNK):
        signs = bits.unpack(base[base_start : base_start + _BASE_CHUNK]).to(dtype).T
        for start in range(0, len(queries), _QUERY_CHUNK):
            part = slice(start, start + _QUERY_CHUNK)
            products = bits.unpack(queries[part]).to(dtype) @ signs
            best, column = products.max(1)  # of equal values, torch takes the first
            near = (num_bits - best.float()) / 2
            if num_neighbours == 2:
                products.scatter_(1, column[:, None], -torch.inf)
                next_near = (num_bits - products.amax(1).float()) / 2
                loser = torch.maximum(first[part], near)
                second[part] = torch.minimum(loser, torch.minimum(second[part], next_near))
            index[part] = torch.where(near < first[part], column + base_start, index[part])
            first[part] = torch.minimum(first[part], near)
    return _Neighbours(first, second, index)


def _checked_mode(mode: str, threshold: float) -> MatchMode:
    """Give the mode in small letters (Kornia takes any case), once it and the threshold are checked."""
    name = mode.lower() if isinstance(mode, str) else mode
    if name not in get_args(MatchMode):
        raise UsageError(f"the match mode is '{mode}'; choose one of {', '.join(get_args(MatchMode))}")
    if name in ("snn", "smnn") and not 0 <= threshold <= 1:
        raise UsageError(f"the threshold is {threshold}; it is a ratio of Hamming distances, give one in [0, 1]")
    return cast(MatchMode, name)


def _packed_pair(codes0: object, codes1: object) -> tuple[Tensor, Tensor]:
    """Check two sets of codes and turn them into packed, contiguous tensors of one width."""
    message = (
        "match needs two numpy arrays, or torch tensors on one device, of packed codes, uint8 (N, bits / 8), or of "
        f"+1 / -1 floats (N, bits), got {bits.dtype_and_shape(codes0)} and {bits.dtype_and_shape(codes1)}"
    )
    is_numpy = isinstance(codes0, np.ndarray) and isinstance(codes1, np.ndarray)
    is_torch = isinstance(codes0, Tensor) and isinstance(codes1, Tensor) and codes0.device == codes1.device
    if not (is_numpy or is_torch):
        raise UsageError(message)
    packed0, packed1 = _packed(codes0, message), _packed(codes1, message)
    if packed0.shape[1] != packed1.shape[1]:
        raise UsageError(message)
    return packed0, packed1


def _packed(codes: object, message: str) -> Tensor:
    if isinstance(codes, np.ndarray) and bits.dtype_name(codes) in ("uint8", *_REAL):
        codes = torch.from_numpy(np.array(codes, order="C"))
    if not isinstance(codes, Tensor) or codes.ndim != 2 or codes.shape[1] == 0:
        raise UsageError(message)
    if codes.dtype == torch.uint8:
        return codes.contiguous()
    if bits.dtype_name(codes) not in _REAL or codes.shape[1] % 8:
        raise UsageError(message)
    wrong = codes[codes.abs() != 1]
    if len(wrong):
        raise UsageError(f"{message} with the value {float(wrong[0]):g}")
    return bits.pack(codes)
