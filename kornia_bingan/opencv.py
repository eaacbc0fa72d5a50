"""The descriptor for OpenCV users: images and ``cv2.KeyPoint`` in, packed codes for ``cv2.BFMatcher`` out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan import keypoints as kp
from kornia_bingan.bits import dtype_and_shape
from kornia_bingan.descriptor import BinGAN, describe
from kornia_bingan.errors import UsageError


class OpenCVDetects(Protocol):
    """Anything with OpenCV's ``detect``: ``cv2.ORB.create()``, ``cv2.SIFT.create()``, or an object of your own."""

    def detect(self, image: Any, mask: Any, /) -> Sequence[cv2.KeyPoint]:
        """Find the keypoints of a grey uint8 image (H, W), where the mask (uint8 (H, W), or None) is not 0."""
        ...


class BinGANExtractor:
    """OpenCV's ``Feature2D`` methods for the learned descriptor.

    Works on the keypoints of any detector, and its codes go into ``cv2.BFMatcher(cv2.NORM_HAMMING)``. It is not a
    subclass of ``cv2.Feature2D``, because Python subclasses of that class crash the process; functions of OpenCV that
    want a ``Feature2D`` refuse it.

    Images are uint8: grey (H, W) or (H, W, 1), or colour (H, W, 3) in OpenCV's order (blue first). Pixel centres are
    at integers. An angle of -1 (unset) counts as 0.

    Args:
        name_or_path: a shipped name, a weights file, or a :class:`kornia_bingan.BinGAN` in evaluation mode.
        detector: used by :meth:`detect` and :meth:`detectAndCompute`; None takes :func:`kornia_bingan.keypoints.detect`
            with its defaults (OpenCV's SIFT detector without its bias, the keypoints that the weights were trained on).

    Raises:
        UsageError: there are no such weights, or the detector has no ``detect``.
    """

    def __init__(
        self, name_or_path: str | Path | BinGAN = "bingan256", *, detector: OpenCVDetects | None = None
    ) -> None:
        if detector is not None and not callable(getattr(detector, "detect", None)):
            raise UsageError(f"the detector needs a method detect(image, mask), got {type(detector).__name__}")
        self.model = (
            name_or_path if isinstance(name_or_path, BinGAN) else BinGAN.from_pretrained(name_or_path, precision="auto")
        )
        self.detector = detector

    def detect(self, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None) -> tuple[cv2.KeyPoint, ...]:
        """Find the keypoints of an image.

        Args:
            image: see the class.
            mask: uint8, shape (H, W); keypoints are only found where it is not 0.

        Returns:
            Keypoints in the detector's order; a picture without structure gives ().

        Raises:
            UsageError: the image is none of the class's kinds, or the mask has another size or dtype.
        """
        return self._detect(_grey(image), mask)

    def compute(
        self, image: NDArray[np.uint8], keypoints: Sequence[cv2.KeyPoint]
    ) -> tuple[tuple[cv2.KeyPoint, ...], NDArray[np.uint8] | None]:
        """Describe keypoints; every keypoint gets a code, also at the border (where the border pixel repeats).

        Args:
            image: see the class.
            keypoints: of any detector, inside the image, in pixels.

        Returns:
            - The same keypoints in the same order.
            - Codes, uint8, shape (N, bits / 8), C-contiguous, row i for keypoint i; as in OpenCV, no keypoints give
              ``((), None)``.

        Raises:
            UsageError: the image is none of the class's kinds, or a keypoint is outside of it, is not finite, or has no
                size (the message names the index), or the model is in training mode.
        """
        return self._compute(_grey(image), keypoints)

    def detectAndCompute(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None
    ) -> tuple[tuple[cv2.KeyPoint, ...], NDArray[np.uint8] | None]:
        """Find and describe the keypoints of an image: :meth:`detect`, then :meth:`compute`."""
        grey = _grey(image)
        return self._compute(grey, self._detect(grey, mask))

    def descriptorSize(self) -> int:
        """Give the bytes of a code: 32 for 256 bits."""
        return self.model.bits // 8

    def descriptorType(self) -> int:
        """Give ``cv2.CV_8U``."""
        return cv2.CV_8U

    def defaultNorm(self) -> int:
        """Give ``cv2.NORM_HAMMING``, for ``cv2.BFMatcher``."""
        return cv2.NORM_HAMMING

    def empty(self) -> bool:
        """Give False: the weights are loaded as long as the object exists."""
        return False

    def getDefaultName(self) -> str:
        """Give ``Feature2D.BinGAN``, in the style of OpenCV's own extractors."""
        return "Feature2D.BinGAN"

    def _detect(self, grey: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> tuple[cv2.KeyPoint, ...]:
        if mask is not None and (
            not isinstance(mask, np.ndarray) or mask.shape != grey.shape or mask.dtype != np.uint8
        ):
            raise UsageError(f"the mask is {dtype_and_shape(mask)}; give uint8 {grey.shape}, the size of the image")
        if self.detector is None:
            return tuple(kp.to_opencv(kp.detect(grey, mask=mask)))
        return tuple(self.detector.detect(grey, mask))

    def _compute(
        self, grey: NDArray[np.uint8], keypoints: Sequence[cv2.KeyPoint]
    ) -> tuple[tuple[cv2.KeyPoint, ...], NDArray[np.uint8] | None]:
        found = tuple(keypoints)
        if not found:
            return (), None
        arrays = checked_keypoints(found, grey.shape)
        return found, np.ascontiguousarray(describe(self.model, grey, arrays))


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.size == 0
        or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3)))
    ):
        got = dtype_and_shape(image)
        raise UsageError(f"the image must be uint8, grey (H, W) or (H, W, 1) or BGR (H, W, 3), not empty, got {got}")
    if image.ndim == 3 and image.shape[0] in (1, 3):
        raise UsageError(f"an image of shape {image.shape} may have its channels first or last; give grey (H, W)")
    pixels = np.ascontiguousarray(image)
    if pixels.ndim == 2:
        return pixels
    return pixels[:, :, 0] if pixels.shape[2] == 1 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)


def checked_keypoints(keypoints: Sequence[cv2.KeyPoint], shape: tuple[int, ...]) -> kp.Keypoints:
    """Turn the keypoints of any detector into arrays, each inside an image (height, width) and with a support region.

    Raises:
        UsageError: a keypoint is outside of the image, is not finite, or has no size; the message names the index.
    """
    for index, keypoint in enumerate(keypoints):
        if not isinstance(keypoint, cv2.KeyPoint):
            raise UsageError(f"keypoint {index} is {type(keypoint).__name__}; give cv2.KeyPoint objects")
    arrays = kp.from_opencv(keypoints)
    kp.check_inside(arrays, shape)
    return arrays
