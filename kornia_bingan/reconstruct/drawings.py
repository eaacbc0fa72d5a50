"""Keypoints of photos and inlier matches of pairs, thinned, as a page draws them on its small photos."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.keypoints import Keypoints
from kornia_bingan.reconstruct.pairs import Pair

MAX_CIRCLES, CIRCLES_A_PHOTO = 150_000, 500
MAX_LINES, LINES_A_PAIR = 150_000, 200
"""Keypoints and matches that a page draws at most, in all and of one photo or pair: less than 4 MB."""


def read_drawings(database: Path, names: Sequence[str], pairs: Sequence[Pair]) -> dict[str, Any]:
    """Read what is drawn on photos from a database of verified pairs, in whole pixels.

    Args:
        database: COLMAP's.
        names: of the photos; those that are not in the database have no size and no keypoints.
        pairs: whose matches are drawn, of these photos.

    Returns:
        What JSON can hold. ``photos``, in the order of the names: ``width``, ``height``, ``keypoints`` (their number),
        ``circles`` (x, y and size of those that are drawn, see :func:`packed`) and ``inliers``: so many of these, the
        first ones, are in an inlier match of any pair. ``pairs``, in their order: ``photos`` (two rows of ``photos``),
        ``inliers`` (the number of inlier matches) and ``lines`` (x and y in both photos of those that are drawn).

    Raises:
        UsageError: the file is no COLMAP database.
    """
    from kornia_bingan.colmap.database import open_database, read_features, read_verification

    keypoints = read_features(database)
    verified = [pair for pair, count in read_verification(database).inliers.items() if count]
    most = min(LINES_A_PAIR, MAX_LINES // max(1, len(pairs)))
    is_inlier = {name: np.zeros(len(points), bool) for name, points in keypoints.items()}
    lines = {pair: (0, "") for pair in pairs}
    with open_database(database, existing=True) as db:
        images = {image.name: image for image in db.read_all_images()}
        cameras = {camera.camera_id: camera for camera in db.read_all_cameras()}
        for a, b in verified:
            rows = db.read_two_view_geometry(images[a].image_id, images[b].image_id).inlier_matches
            is_inlier[a][rows[:, 0]] = is_inlier[b][rows[:, 1]] = True
            if (a, b) in lines:
                drawn = rows[thinned(len(rows), most)]
                ends = [keypoints[a].xy[drawn[:, 0]], keypoints[b].xy[drawn[:, 1]]]
                lines[a, b] = len(rows), packed(np.hstack(ends))
    most = min(CIRCLES_A_PHOTO, MAX_CIRCLES // max(1, len(names)))
    row_of = {name: row for row, name in enumerate(names)}
    photos: list[dict[str, Any]] = []
    for name in names:
        if name not in images:
            photos.append({"width": 0, "height": 0, "keypoints": 0, "inliers": 0, "circles": ""})
            continue
        camera = cameras[images[name].camera_id]
        photos.append(
            {"width": camera.width, "height": camera.height, **_circles(keypoints[name], is_inlier[name], most)}
        )
    return {
        "photos": photos,
        "pairs": [
            {"photos": [row_of[a], row_of[b]], "inliers": lines[a, b][0], "lines": lines[a, b][1]} for a, b in pairs
        ],
    }


def _circles(keypoints: Keypoints, is_inlier: NDArray[np.bool_], most: int) -> dict[str, Any]:
    drawn = thinned(len(keypoints), most)
    drawn = drawn[np.argsort(~is_inlier[drawn], kind="stable")]
    circles = packed(np.column_stack([keypoints.xy[drawn], keypoints.size[drawn]]))
    return {"keypoints": len(keypoints), "inliers": int(is_inlier[drawn].sum()), "circles": circles}


def thinned(count: int, most: int) -> NDArray[np.int64]:
    """Give at most so many of ``count`` rows, evenly spaced, int64."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def packed(values: NDArray[Any]) -> str:
    """Write numbers as the base64 of little-endian uint16, row by row: rounded, those out of range at its ends."""
    return base64.b64encode(np.clip(np.rint(values), 0, 65535).astype("<u2").tobytes()).decode()
