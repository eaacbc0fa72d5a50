"""The descriptor for OpenCV users: images and ``cv2.KeyPoint`` in, packed codes for ``cv2.BFMatcher`` out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan import keypoints as kp
from kornia_bingan.bits import dtype_and_shape, unpack
from kornia_bingan.descriptor import BinGAN, describe
from kornia_bingan.errors import UsageError
from kornia_bingan.images.read import to_8_bits

Picture = NDArray[np.uint8] | NDArray[np.uint16] | cv2.UMat
Mask = NDArray[np.uint8] | cv2.UMat
Found = tuple[cv2.KeyPoint, ...]

MAX_KEYPOINTS = 4096

# Half the side of the support region over ``size``, by OpenCV's name of the detector. SIFT is absent, as its keypoints
# say it themselves; so are those whose size means nothing (DISK, ALIKED: 1 px) and AffineFeature, which holds another.
_SUPPORT = {
    "Feature2D.ORB": kp.ORB_SUPPORT,
    "Feature2D.FastFeatureDetector": kp.FAST_SUPPORT,
    "Feature2D.AgastFeatureDetector": kp.FAST_SUPPORT,
    "Feature2D.BRISK": kp.BRISK_SUPPORT,
    **dict.fromkeys(
        (
            *("Feature2D.AKAZE", "Feature2D.KAZE", "Feature2D.GFTTDetector", "Feature2D.MSER"),
            *("Feature2D.SimpleBlobDetector", "Feature2D.STAR", "Feature2D.HARRIS-LAPLACE", "Feature2D.MSD"),
            "Feature2D.TBMR",
        ),
        kp.BLOB_SUPPORT,
    ),
}


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

    Images are uint8, or uint16 whose full range counts (65535 is white): grey (H, W) or (H, W, 1), or colour in
    OpenCV's order, BGR (H, W, 3) or BGRA (H, W, 4), whose alpha is ignored; or such an image as ``cv2.UMat``. Pixel
    centres are at integers. An angle of -1 (unset) counts as 0.

    Args:
        name_or_path: a shipped name, a weights file, or a :class:`kornia_bingan.BinGAN` in evaluation mode.
        detector: used by :meth:`detect` and :meth:`detectAndCompute`; None takes :func:`kornia_bingan.keypoints.detect`
            with its defaults (OpenCV's SIFT detector without its bias, the keypoints that the weights were trained on).
            It also says what the size of keypoints means, where they do not: an ORB with another ``scaleFactor`` or
            ``patchSize`` must be named here, or ``support`` given.
        max_keypoints: the strongest of an image that are kept; None keeps 4,096 of the default detector and all that
            a ``detector`` finds (which has its own limit).
        support: half the side of a support region over the size of its keypoint, for all keypoints; None takes what
            suits ``detector`` or, without one, recognises the keypoints of SIFT, default ORB and FAST, and describes
            others as blobs with a warning (:func:`kornia_bingan.keypoints.support_half_sides`).
        packed: whether codes are uint8, for Hamming distances. Otherwise they are +1 / -1, float32 (N, bits), for
            programs that compare by L2 distance, which is twice the root of Hamming's.

    Raises:
        UsageError: there are no such weights, the detector has no ``detect``, or a number is not positive.
    """

    def __init__(
        self,
        name_or_path: str | Path | BinGAN = "bingan256",
        *,
        detector: OpenCVDetects | None = None,
        max_keypoints: int | None = None,
        support: float | None = None,
        packed: bool = True,
    ) -> None:
        if detector is not None and not callable(getattr(detector, "detect", None)):
            raise UsageError(f"the detector needs a method detect(image, mask), got {type(detector).__name__}")
        if max_keypoints is not None and max_keypoints < 1:
            raise UsageError(f"max_keypoints is {max_keypoints}; give 1 or more")
        if support is not None:
            kp.check_support(support)
        self.model = (
            name_or_path if isinstance(name_or_path, BinGAN) else BinGAN.from_pretrained(name_or_path, precision="auto")
        )
        self.detector = detector
        self.max_keypoints = max_keypoints
        self.support = support
        self.packed = packed

    @classmethod
    def create(
        cls,
        name_or_path: str | Path | BinGAN = "bingan256",
        *,
        detector: OpenCVDetects | None = None,
        max_keypoints: int | None = None,
        support: float | None = None,
        packed: bool = True,
    ) -> BinGANExtractor:
        """Make an extractor, as OpenCV's classes are made; see the class."""
        return cls(name_or_path, detector=detector, max_keypoints=max_keypoints, support=support, packed=packed)

    @overload
    def detect(self, image: Picture, mask: Mask | None = None) -> Found: ...
    @overload
    def detect(self, image: Sequence[Picture], mask: Sequence[Mask] | None = None) -> tuple[Found, ...]: ...
    def detect(
        self, image: Picture | Sequence[Picture], mask: Mask | Sequence[Mask] | None = None
    ) -> Found | tuple[Found, ...]:
        """Find the keypoints of an image, or of each image of a list.

        Args:
            image: see the class.
            mask: uint8, shape (H, W) or (H, W, 1), or as ``cv2.UMat``; keypoints are only found where it is not 0. For
                a list of images, a list of masks.

        Returns:
            Keypoints in the detector's order; a picture without structure gives (). Of a list, a tuple of such tuples.

        Raises:
            UsageError: the image is none of the class's kinds, or the mask has another size or dtype, or lists differ
                in length.
        """
        if isinstance(image, list | tuple):
            masks = [None] * len(image) if mask is None else mask
            return tuple(self.detect(one, own) for one, own in _paired(image, masks, "masks"))
        return self._detect(_grey(image), mask)

    @overload
    def compute(
        self, image: Picture, keypoints: Sequence[cv2.KeyPoint], descriptors: None = None
    ) -> tuple[Found, NDArray[Any] | None]: ...
    @overload
    def compute(
        self, image: Sequence[Picture], keypoints: Sequence[Sequence[cv2.KeyPoint]], descriptors: None = None
    ) -> tuple[tuple[Found, ...], tuple[NDArray[Any] | None, ...]]: ...
    def compute(self, image: Any, keypoints: Any, descriptors: None = None) -> Any:
        """Describe keypoints; each inside the image gets a code, also at the border (where the border pixel repeats).

        Args:
            image: see the class; or a list of images.
            keypoints: of any detector, in pixels; of a list of images, a list of such sequences.
            descriptors: stands for OpenCV's output argument; None.

        Returns:
            - The keypoints inside the image, in the same order; others are left out, as by OpenCV's ORB.
            - Codes, uint8, shape (N, bits / 8), or with ``packed=False`` float32 (N, bits); C-contiguous, row i for
              keypoint i of those (for a ``cv2.UMat`` another one); as in OpenCV, no keypoints give ``((), None)``.

            Of lists, a tuple of each.

        Raises:
            UsageError: the image is none of the class's kinds, a keypoint is not finite in its size or angle or has no
                size (the message names the index), lists differ in length, or the model is in training mode.
        """
        if isinstance(image, list | tuple):
            done = [self.compute(one, own) for one, own in _paired(image, keypoints, "lists of keypoints")]
            return tuple(kept for kept, _ in done), tuple(codes for _, codes in done)
        return self._compute(_grey(image), keypoints, isinstance(image, cv2.UMat))

    def detectAndCompute(
        self,
        image: Picture,
        mask: Mask | None = None,
        descriptors: None = None,
        useProvidedKeypoints: bool = False,
    ) -> tuple[Found, Any]:
        """Find and describe the keypoints of an image: :meth:`detect`, then :meth:`compute`.

        Raises:
            UsageError: as they do; and if provided keypoints shall be used, which OpenCV's call has no place for in
                Python: give them to :meth:`compute`.
        """
        if useProvidedKeypoints:
            raise UsageError("detectAndCompute finds keypoints itself; give those that you have to compute()")
        grey = _grey(image)
        return self._compute(grey, self._detect(grey, mask), isinstance(image, cv2.UMat))

    def descriptorSize(self) -> int:
        """Give the width of codes: 32 bytes for 256 bits, or their number if they are not packed."""
        return self.model.bits // 8 if self.packed else self.model.bits

    def descriptorType(self) -> int:
        """Give ``cv2.CV_8U``, or ``cv2.CV_32F`` of codes that are not packed."""
        return cv2.CV_8U if self.packed else cv2.CV_32F

    def defaultNorm(self) -> int:
        """Give ``cv2.NORM_HAMMING``, for ``cv2.BFMatcher``, or ``cv2.NORM_L2`` of codes that are not packed."""
        return cv2.NORM_HAMMING if self.packed else cv2.NORM_L2

    def empty(self) -> bool:
        """Give False: the weights are loaded as long as the object exists."""
        return False

    def getDefaultName(self) -> str:
        """Give ``Feature2D.BinGAN``, in the style of OpenCV's own extractors."""
        return "Feature2D.BinGAN"

    def _detect(self, grey: NDArray[np.uint8], mask: Any) -> Found:
        allowed = _mask(mask, grey.shape)
        if self.detector is None:
            return tuple(kp.to_opencv(kp.detect(grey, "dog", self.max_keypoints or MAX_KEYPOINTS, allowed)))
        return strongest_of(detect_with(self.detector, grey, allowed), self.max_keypoints)

    def _compute(self, grey: NDArray[np.uint8], keypoints: Sequence[cv2.KeyPoint], as_umat: bool) -> tuple[Found, Any]:
        kept, arrays = inside_keypoints(keypoints, grey.shape)
        if not kept:
            return (), cv2.UMat() if as_umat else None
        support = supports_of(self.detector, arrays) if self.support is None else self.support
        packed = describe(self.model, grey, arrays, support)
        codes: Any = np.ascontiguousarray(packed if self.packed else unpack(packed))
        return kept, cv2.UMat(codes) if as_umat else codes


def detect_with(detector: OpenCVDetects, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> Found:
    """Run a detector so that its own limit keeps the strongest keypoints of those that the mask allows.

    Of OpenCV's detectors only SIFT applies its limit before the mask, so it is switched off for the call and applied
    here. (A SIFT inside ``cv2.AffineFeature`` cannot be reached; a detector of your own has to do it itself.)

    Args:
        detector: see :class:`OpenCVDetects`.
        image: grey uint8 (H, W).
        mask: uint8 (H, W), 0 where nothing is to be found; or None.
    """
    limit = detector.getNFeatures() if mask is not None and isinstance(detector, cv2.SIFT) else 0
    if not isinstance(detector, cv2.SIFT) or limit < 1:
        return tuple(detector.detect(image, mask))
    try:
        detector.setNFeatures(0)
        return strongest_of(tuple(detector.detect(image, mask)), limit)
    finally:
        detector.setNFeatures(limit)


def strongest_of(keypoints: Found, limit: int | None) -> Found:
    """Keep the strongest keypoints, in the order in which they are; None keeps all."""
    if limit is None or len(keypoints) <= limit:
        return keypoints
    chosen = kp.strongest(kp.from_opencv(keypoints))[:limit]
    return tuple(keypoints[index] for index in sorted(chosen))


def supports_of(detector: object, keypoints: kp.Keypoints) -> kp.Support:
    """Give what suits the keypoints of a detector, for :func:`kornia_bingan.keypoints.support_half_sides`.

    None if there is no detector or its kind is not known. Keypoints that say by themselves that they are SIFT's are
    blobs also for an extractor with another detector.
    """
    name = detector.getDefaultName() if isinstance(detector, cv2.Feature2D) else ""
    if name not in _SUPPORT:
        return None
    return np.where(kp.has_layer(keypoints), kp.BLOB_SUPPORT, _SUPPORT[name])


def inside_keypoints(keypoints: Sequence[cv2.KeyPoint], shape: tuple[int, ...]) -> tuple[Found, kp.Keypoints]:
    """Keep the keypoints inside an image (height, width), as they are and as arrays.

    Raises:
        UsageError: one of those has no size, or a size or angle that is not finite; the message names the index.
    """
    found = tuple(keypoints)
    for index, keypoint in enumerate(found):
        if not isinstance(keypoint, cv2.KeyPoint):
            raise UsageError(f"keypoint {index} is {type(keypoint).__name__}; give cv2.KeyPoint objects")
    arrays = kp.from_opencv(found)
    kept = kp.inside(arrays, shape)
    kp.check_inside(arrays, shape, kp.has_region(arrays) | ~kept)
    return tuple(keypoint for keypoint, inside in zip(found, kept, strict=True) if inside), arrays[kept]


def _paired(images: Sequence[Any], others: Any, what: str) -> list[tuple[Any, Any]]:
    if not isinstance(others, list | tuple) or len(others) != len(images):
        got = len(others) if isinstance(others, list | tuple) else type(others).__name__
        raise UsageError(f"there are {len(images)} images but {got} {what}; give one per image")
    return list(zip(images, others, strict=True))


def _grey(image: Any) -> NDArray[np.uint8]:
    pixels = image.get() if isinstance(image, cv2.UMat) else image
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype not in (np.uint8, np.uint16)
        or pixels.size == 0
        or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4)))
    ):
        hint = "; cv2.imread gives None for a file that it cannot read" if image is None else ""
        raise UsageError(
            "the image must be uint8 or uint16, grey (H, W) or (H, W, 1), BGR (H, W, 3) or BGRA (H, W, 4), not empty, "
            f"got {dtype_and_shape(pixels)}{hint}"
        )
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
        raise UsageError(f"an image of shape {pixels.shape} may have its channels first or last; give grey (H, W)")
    pixels = np.ascontiguousarray(pixels)
    if pixels.ndim == 3:
        pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    return to_8_bits(pixels, 0)


def _mask(mask: Any, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    if mask is None:
        return None
    pixels = mask.get() if isinstance(mask, cv2.UMat) else mask
    if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8:
        if pixels.shape == (*shape, 1):
            pixels = pixels[:, :, 0]
        if pixels.shape == shape:
            return np.ascontiguousarray(pixels)
    raise UsageError(f"the mask is {dtype_and_shape(pixels)}; give uint8 {shape}, the size of the image")
