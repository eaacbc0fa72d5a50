"""The codes of a photo's keypoints become one code of the whole photo, to find photos that show the same place.

The first bits of a code say to which cell it belongs: a vocabulary that needs no training, since bits are balanced and
hardly correlated. The other bits are summed up cell by cell as +1 / -1, scaled against bursts of repeated texture, and
projected at random to the signs of a shorter vector, whose Hamming distance follows the angle of the sums.

Source: Jegou et al., "Aggregating local image descriptors into compact codes", PAMI 2012 (sums by cell, power law);
Charikar, STOC 2002 (signs of random projections).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError

CELL_BITS = 5
GLOBAL_BITS = 1024
SEED = 0


def aggregate(codes: NDArray[np.uint8], cell_bits: int = CELL_BITS) -> NDArray[np.float32]:
    """Sum up the codes of one photo.

    Args:
        codes: packed, uint8 (N, bytes); N may be 0.
        cell_bits: first bits of a code that choose its cell, 0 to 8.

    Returns:
        A vector of length 1 (0 without codes), float32 (2^cell_bits * (bits - cell_bits),).

    Raises:
        UsageError: the codes are not packed, or cell_bits is out of range.
    """
    if codes.ndim != 2 or codes.dtype != np.uint8 or not 0 <= cell_bits <= 8:
        raise UsageError(f"aggregate takes packed codes and 0 to 8 cell bits, got {codes.dtype} {codes.shape}")
    cell = codes[:, 0].astype(np.int64) >> (8 - cell_bits) if codes.shape[1] else np.zeros(len(codes), np.int64)
    values = 2 * np.unpackbits(codes, axis=1)[:, cell_bits:].astype(np.float32) - 1
    sums = np.zeros((2**cell_bits, values.shape[1]), np.float32)
    np.add.at(sums, cell, values)
    # The root keeps repeated texture from drowning the rest; cells count alike.
    rooted = np.asarray(np.sign(sums) * np.sqrt(np.abs(sums)), np.float32)
    length = np.linalg.norm(rooted, axis=1, keepdims=True)
    flat = (rooted / np.maximum(length, 1e-9)).ravel()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-9), np.float32)


@lru_cache(maxsize=2)
def _projection(length: int, bits: int) -> NDArray[np.float32]:
    return np.random.default_rng([SEED, length, bits]).standard_normal((length, bits), np.float32)


def global_code(codes: NDArray[np.uint8], bits: int = GLOBAL_BITS, cell_bits: int = CELL_BITS) -> NDArray[np.uint8]:
    """Turn the packed codes of a photo's keypoints, uint8 (N, bytes), into one packed code, uint8 (bits / 8,)."""
    if bits % 8 or bits < 8:
        raise UsageError(f"a global code has a multiple of 8 bits, got {bits}")
    vector = aggregate(codes, cell_bits)
    return np.packbits(vector @ _projection(len(vector), bits) >= 0)
