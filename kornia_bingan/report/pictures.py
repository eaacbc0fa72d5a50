"""Two photos and their matches become a picture."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def draw_matches(
    image0: NDArray[np.uint8],
    image1: NDArray[np.uint8],
    xy0: NDArray[Any],
    xy1: NDArray[Any],
    inliers: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """Draw two photos side by side with a line for each match: inliers in colours, the others thin and grey.

    Args:
        image0: RGB, uint8, shape (H0, W0, 3).
        image1: RGB, uint8, shape (H1, W1, 3).
        xy0: keypoints of the matches in image 0, shape (M, 2); M = 0 gives the photos alone.
        xy1: keypoints of the same matches in image 1.
        inliers: shape (M,).

    Returns:
        RGB, uint8, shape (max(H0, H1), W0 + W1, 3); the rest is black.
    """
    height, width0 = max(len(image0), len(image1)), image0.shape[1]
    picture = np.zeros((height, width0 + image1.shape[1], 3), np.uint8)
    picture[: len(image0), :width0] = image0
    picture[: len(image1), width0:] = image1
    thick = max(1, round(height / 500))
    sixteenth = 4  # OpenCV draws at 1/16 px when coordinates are shifted by 4 bits
    start = np.rint(np.asarray(xy0, np.float64) * 2**sixteenth).astype(int)
    end = np.rint((np.asarray(xy1, np.float64) + np.array([width0, 0])) * 2**sixteenth).astype(int)
    # Colours by the row in image 0, so that neighbouring lines differ little and crossing ones stand out.
    hue = np.zeros((1, len(start), 3), np.uint8)
    if len(start):
        hue[0, :, 0] = np.clip(start[:, 1] / 2**sixteenth / len(image0) * 150, 0, 150)
        hue[0, :, 1:] = 255
        colours = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0].tolist()
        for index in np.argsort(inliers, kind="stable"):  # inliers on top
            colour, line = (colours[index], thick) if inliers[index] else ((128, 128, 128), 1)
            cv2.line(picture, start[index].tolist(), end[index].tolist(), colour, line, cv2.LINE_AA, sixteenth)
    return picture
