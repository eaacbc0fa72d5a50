"""A panorama by cv2.detail with our features: python examples/panorama.py OUT.jpg PHOTO PHOTO [PHOTO ...]

The camera turns in one place, and neighbouring photos overlap.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.opencv import BinGANExtractor

Picture = NDArray[np.uint8]


def features_of(photos: Sequence[Picture], max_keypoints: int = 2000) -> list[Any]:
    """Turn photos (H, W, 3) into what the matchers of cv2.detail take."""
    extractor = BinGANExtractor(max_keypoints=max_keypoints)
    # OpenCV 4 crashes where an empty ImageFeatures() is given descriptors, so others are replaced
    features = list(cv2.detail.computeImageFeatures(cv2.ORB.create(1), photos))
    for each, photo in zip(features, photos, strict=True):
        each.keypoints, codes = extractor.detectAndCompute(photo, None)
        each.descriptors = cv2.UMat(codes)
    return features


def cameras_of(features: Sequence[Any]) -> list[Any]:
    """Match all photos with each other and find how the camera stood at each; gives cv2.detail.CameraParams."""
    # 1 - 0.2 is our ratio
    matches = cv2.detail.BestOf2NearestMatcher(False, 0.2).apply2(features)
    estimated, cameras = cv2.detail.HomographyBasedEstimator().apply(features, matches, [])
    if not estimated:
        raise SystemExit("the photos do not overlap enough")
    for camera in cameras:
        camera.R = camera.R.astype(np.float32)
    adjusted, cameras = cv2.detail.BundleAdjusterRay().apply(features, matches, cameras)
    if not adjusted:
        raise SystemExit("the cameras do not fit each other")
    return list(cameras)


def blend(photos: Sequence[Picture], cameras: Sequence[Any]) -> Picture:
    """Put photos onto a sphere around their cameras and blend them: uint8 (H, W, 3)."""
    focal = float(np.median([camera.focal for camera in cameras]))
    warper = cv2.PyRotationWarper("spherical", focal)
    corners, warped, masks = [], [], []
    for photo, camera in zip(photos, cameras, strict=True):
        matrix = camera.K().astype(np.float32)
        corner, picture = warper.warp(photo, matrix, camera.R, cv2.INTER_LINEAR, cv2.BORDER_REFLECT)
        whole = np.full(photo.shape[:2], 255, np.uint8)
        masks.append(warper.warp(whole, matrix, camera.R, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)[1])
        corners.append(corner)
        warped.append(picture)
    blender = cv2.detail.MultiBandBlender()
    blender.prepare(cv2.detail.resultRoi(corners=corners, sizes=[picture.shape[1::-1] for picture in warped]))
    for corner, picture, mask in zip(corners, warped, masks, strict=True):
        blender.feed(picture.astype(np.int16), mask, corner)
    result, _ = blender.blend(None, None)  # type: ignore[call-overload]  # OpenCV makes the arrays
    return np.asarray(np.clip(result, 0, 255), np.uint8)


def main(out: Path, names: Sequence[str]) -> None:
    """Read photos and write their panorama."""
    photos = [np.asarray(cv2.imread(name), np.uint8) for name in names]
    cv2.imwrite(str(out), blend(photos, cameras_of(features_of(photos))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
