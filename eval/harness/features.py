"""Images become keypoints and rows of descriptors, each computed once and kept in a cache."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.harness.cache import cached, code_digest, digest
from eval.harness.peers import Describe, Peer
from kornia_bingan import keypoints
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.work.options import Detector
from kornia_bingan.work.provenance import versions

DETECTOR: Detector = "dog"

Image = NDArray[np.uint8]


def cached_keypoints(image: Image, max_keypoints: int, folder: Path | None) -> Keypoints:
    """Detect the strongest DoG keypoints of an image; the same for every descriptor.

    Args:
        image: grey uint8 (H, W).
        max_keypoints: upper bound.
        folder: cache, or None.
    """
    key = {
        "step": "keypoints",
        "image": digest(image),
        "detector": DETECTOR,
        "max_keypoints": max_keypoints,
        "code": code_digest(keypoints),
        "cv2": versions()["cv2"],
    }
    arrays = cached(folder, key, lambda: vars(keypoints.detect(image, DETECTOR, max_keypoints)).copy())
    return Keypoints(**arrays)


def keypoints_digest(points: Keypoints) -> str:
    """Give the SHA-256 of keypoints."""
    return digest(points.xy, points.size, points.angle_deg, points.response, points.octave)


def cached_describe(peer: Peer, folder: Path | None) -> Describe:
    """Give a peer's ``describe`` that reads rows from the cache where they are, and keeps them where they are not."""

    def describe(image: Image, points: Keypoints) -> NDArray[Any]:
        key = {
            "step": "rows",
            "image": digest(image),
            "keypoints": keypoints_digest(points),
            "peer": peer.identity(),
        }
        return cached(folder, key, partial(_rows, peer, image, points))["rows"]

    return describe


def _rows(peer: Peer, image: Image, points: Keypoints) -> dict[str, NDArray[Any]]:
    return {"rows": peer.describe(image, points)}
