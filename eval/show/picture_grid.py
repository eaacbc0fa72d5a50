"""Queries and the pictures that codes find for them, drawn as rows: the query first, wrong classes framed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.bits import hamming_distances

SIDE = 64
GAP = 4
RED = (220, 50, 50)
GREY = (90, 90, 90)


def nearest(queries: NDArray[np.uint8], database: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Give the rows of the nearest codes, equal distances in the order of the database, int64 (queries, count)."""
    return np.argsort(hamming_distances(queries, database), axis=1, kind="stable")[:, :count]


def grid(
    queries: NDArray[np.uint8], found: NDArray[np.uint8], wrong: NDArray[np.bool_], side: int = SIDE
) -> NDArray[np.uint8]:
    """Draw one row per query.

    Args:
        queries: RGB pictures, uint8 (Q, h, w, 3).
        found: RGB pictures, nearest first, uint8 (Q, K, h, w, 3).
        wrong: pictures that get a red frame, bool (Q, K).
        side: of a picture in the drawing.

    Returns:
        RGB picture; a grey line stands between the queries and what was found.
    """
    step = side + GAP
    canvas = np.full((len(queries) * step + GAP, (found.shape[1] + 1) * step + 3 * GAP, 3), 255, np.uint8)
    canvas[:, step + GAP : step + GAP + 2] = GREY
    for row, query in enumerate(queries):
        top = GAP + row * step
        canvas[top : top + side, GAP : GAP + side] = _enlarged(query, side)
        for column, picture in enumerate(found[row]):
            left = 3 * GAP + (column + 1) * step
            if wrong[row, column]:
                canvas[top - 3 : top + side + 3, left - 3 : left + side + 3] = RED
            canvas[top : top + side, left : left + side] = _enlarged(picture, side)
    return canvas


def _enlarged(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_NEAREST), np.uint8)
