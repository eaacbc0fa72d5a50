"""The codes of a photo's keypoints become one code of the whole photo, to find photos that show the same place.

The first three bits of a code say to which of eight cells it belongs; in each cell, the majority of the codes decides
every bit. So the code of a photo is eight times as long as that of a keypoint: 256 bytes. Photos of one place share
keypoints, whose votes agree. It needs no vocabulary and no training; ``python -m eval overlap`` compares it with
coarser and finer divisions and with the networks of whole pictures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError

CELL_BITS = 3


def global_code(codes: NDArray[np.uint8], cell_bits: int = CELL_BITS) -> NDArray[np.uint8]:
    """Turn the codes of a photo's keypoints into one code of the photo.

    Args:
        codes: packed, uint8 (N, bytes); N may be 0.
        cell_bits: first bits of a code that choose its cell, 0 to 8; each cell votes for itself. An even vote, and
            that of a cell without codes, gives 1.

    Returns:
        Packed code, uint8 (2^cell_bits * bytes,).

    Raises:
        UsageError: the codes are not packed, or cell_bits is out of range.
    """
    if codes.ndim != 2 or codes.dtype != np.uint8 or not 0 <= cell_bits <= 8 or codes.shape[1] == 0:
        raise UsageError(f"global_code takes packed codes and 0 to 8 cell bits, got {codes.dtype} {codes.shape}")
    cell = codes[:, 0].astype(np.int64) >> (8 - cell_bits)
    votes = np.zeros((2**cell_bits, 8 * codes.shape[1]), np.int64)
    np.add.at(votes, cell, 2 * np.unpackbits(codes, axis=1).astype(np.int64) - 1)
    return np.packbits(votes >= 0)
