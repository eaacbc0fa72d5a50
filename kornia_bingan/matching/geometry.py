"""Matches become inliers of one fundamental matrix or one homography, by OpenCV's MAGSAC.

The same input and seed give the same output, whatever ran before in the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError

_CONFIDENCE = 0.9999
_MAX_ITERATIONS = 10_000


def fundamental_inliers(
    xy0: NDArray[Any], xy1: NDArray[Any], threshold_px: float = 1.5, seed: int = 0
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_]]:
    """Find the fundamental matrix that most matches agree with.

    Args:
        xy0: keypoints of the matches in image 0, pixels, shape (M, 2).
        xy1: keypoints of the same matches in image 1, pixels, shape (M, 2).
        threshold_px: largest distance of an inlier from its epipolar line, in pixels.
        seed: of the random samples.

    Returns:
        - F, float64, shape (3, 3), with ``[xy1, 1] F [xy0, 1]^T = 0``; None where none was found: fewer than 8 matches,
          or inliers that lie on one line in an image (within ``threshold_px``, root mean square).
        - Inliers, bool, shape (M,); all False where F is None. M = 0 gives (0,).

    Raises:
        UsageError: another shape, two lengths that differ, a value that is not a finite number (the message names the
            row), or a threshold that is not positive.
    """
    return _inliers(cv2.findFundamentalMat, 8, xy0, xy1, threshold_px=threshold_px, seed=seed)


def epipolar_distances(matrix: NDArray[np.float64], xy0: NDArray[Any], xy1: NDArray[Any]) -> NDArray[np.float64]:
    """Measure how far matches are from their epipolar lines.

    Args:
        matrix: F, shape (3, 3), with ``[xy1, 1] F [xy0, 1]^T = 0``.
        xy0: keypoints of the matches in image 0, pixels, shape (M, 2).
        xy1: keypoints of the same matches in image 1, pixels, shape (M, 2).

    Returns:
        The larger distance of the two images, pixels, float64 (M,); infinite where a keypoint lies in the epipole.
    """
    points0, points1 = (
        np.column_stack([_points(xy, name), np.ones(len(xy))]) for xy, name in ((xy0, "xy0"), (xy1, "xy1"))
    )
    lines1, lines0 = points0 @ matrix.T, points1 @ matrix
    steepness = np.minimum(np.hypot(lines0[:, 0], lines0[:, 1]), np.hypot(lines1[:, 0], lines1[:, 1]))
    product = np.abs((points1 * lines1).sum(1))
    distances = np.full(len(points0), np.inf)
    np.divide(product, steepness, out=distances, where=steepness > 0)
    return distances


def homography_inliers(
    xy0: NDArray[Any], xy1: NDArray[Any], threshold_px: float = 1.5, seed: int = 0
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_]]:
    """Find the homography that most matches agree with.

    Args:
        xy0: keypoints of the matches in image 0, pixels, shape (M, 2).
        xy1: keypoints of the same matches in image 1, pixels, shape (M, 2).
        threshold_px: largest distance of an inlier from where the homography puts it, in pixels.
        seed: of the random samples.

    Returns:
        - H, float64, shape (3, 3), with ``[xy1, 1]^T ~ H [xy0, 1]^T`` and ``H[2, 2] = 1``; None where none was found:
          fewer than 4 matches, or inliers that lie on one line in an image (within ``threshold_px``, root mean square).
        - Inliers, bool, shape (M,); all False where H is None. M = 0 gives (0,).

    Raises:
        UsageError: as for :func:`fundamental_inliers`.
    """
    return _inliers(cv2.findHomography, 4, xy0, xy1, threshold_px=threshold_px, seed=seed)


def _inliers(
    estimate: Callable[..., Any],
    min_matches: int,
    xy0: NDArray[Any],
    xy1: NDArray[Any],
    *,
    threshold_px: float,
    seed: int,
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_]]:
    points0, points1 = _points(xy0, "xy0"), _points(xy1, "xy1")
    if len(points0) != len(points1):
        raise UsageError(f"xy0 has {len(points0)} rows and xy1 has {len(points1)}; give one row per match in both")
    if not (np.isfinite(threshold_px) and threshold_px > 0):
        raise UsageError(f"threshold_px is {threshold_px}; give a positive number of pixels")
    none = np.zeros(len(points0), np.bool_)
    if len(points0) < min_matches:
        return None, none
    # The parameters that cv2.USAC_MAGSAC stands for, which itself has no seed.
    params = cv2.UsacParams()
    params.score = cv2.SCORE_METHOD_MAGSAC
    params.loMethod = cv2.LOCAL_OPTIM_SIGMA
    params.final_polisher = cv2.MAGSAC
    params.confidence = _CONFIDENCE
    params.maxIterations = _MAX_ITERATIONS
    params.threshold = threshold_px
    params.randomGeneratorState = seed
    try:
        matrix, mask = estimate(points0, points1, params)
    except cv2.error:  # OpenCV 5.0 fails by an assertion where its best sample has no model
        return None, none
    if matrix is None or matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return None, none
    inliers = mask.ravel().astype(np.bool_)
    # Many models agree with points on one line; OpenCV returns one of them when rounding hides the line.
    if min(_distance_from_line(points0[inliers]), _distance_from_line(points1[inliers])) < threshold_px:
        return None, none
    return matrix, inliers


def _distance_from_line(points: NDArray[np.float64]) -> float:
    """Root mean square distance of points from the line that fits them best; 0 for fewer than 3 points."""
    if len(points) < 3:
        return 0.0
    smallest = np.linalg.svd(points - points.mean(0), compute_uv=False)[-1]
    return float(smallest / np.sqrt(len(points)))


def _points(xy: NDArray[Any], name: str) -> NDArray[np.float64]:
    values = np.asarray(xy)
    if values.ndim != 2 or values.shape[1] != 2 or values.dtype.kind not in "fiu":
        raise UsageError(f"{name} must be numbers of shape (M, 2), got {values.dtype} {values.shape}")
    bad = ~np.isfinite(values).all(1)
    if bad.any():
        row = int(np.argmax(bad))
        raise UsageError(f"{name} must be finite, but row {row} is {values[row].tolist()}")
    return np.ascontiguousarray(values, np.float64)
