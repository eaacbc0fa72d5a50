"""A photo becomes a file of keypoints and codes."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kornia_bingan.errors import UsageError
from kornia_bingan.files import atomic_path
from kornia_bingan.images import ImageError, Skipped, read_image, skipped_for
from kornia_bingan.keypoints import Detector, Keypoints, detect
from kornia_bingan.masks import read_mask
from kornia_bingan.patches import SIDE_LIMIT
from kornia_bingan.runs import TimeLimit, no_progress

if TYPE_CHECKING:
    from kornia_bingan.descriptor import BinGAN


_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise for damaged files; RuntimeError and its kin for compression and passwords."""


LEAST_SIZE = 64
"""Smallest size that photos may be reduced to, pixels."""


def check_max_size(max_size: int) -> None:
    """Refuse a size that no photo can be reduced to.

    Raises:
        UsageError: it is neither 0 nor ``LEAST_SIZE`` or more.
    """
    if max_size < 0 or 0 < max_size < LEAST_SIZE:
        raise UsageError(f"max_size is {max_size}; give {LEAST_SIZE} pixels or more, or 0 to reduce nothing")


@dataclass(frozen=True)
class Features:
    """What is known of one photo.

    Attributes:
        size: width and height of the photo as a viewer shows it.
        keypoints: N keypoints in its pixels.
        codes: packed codes, uint8, shape (N, bits / 8).
    """

    size: tuple[int, int]
    keypoints: Keypoints
    codes: NDArray[np.uint8]

    def write(self, path: Path) -> None:
        """Write a ``.npz`` with the arrays of :class:`Keypoints`, ``codes`` and ``image_size``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        k = self.keypoints
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                image_size=np.array(self.size, np.int32),
                xy=k.xy,
                size=k.size,
                angle_deg=k.angle_deg,
                response=k.response,
                octave=k.octave,
                codes=self.codes,
            )

    @classmethod
    def read(cls, path: Path) -> Features:
        """Read what :meth:`write` wrote.

        Raises:
            UsageError: the file is absent or something else.
        """
        try:
            with np.load(path) as file:
                arrays = (file[name] for name in ("xy", "size", "angle_deg", "response", "octave"))
                width, height = file["image_size"].tolist()
                return cls((width, height), Keypoints(*arrays), file["codes"])
        except _DAMAGED as error:
            raise UsageError(f"{path} is no file of features; delete it to have it made again") from error


def features_path(folder: Path, name: str) -> Path:
    """Give the file of a photo's features; sub-folders are kept, so that no two names share a file."""
    return folder / f"{name}.npz"


def describe_photo(
    path: Path,
    model: BinGAN,
    detector: Detector,
    max_keypoints: int,
    *,
    mask: Path | None = None,
    max_size: int = 0,
) -> Features:
    """Find and describe the keypoints of one photo; a photo without any gives 0 rows.

    Args:
        path: of the photo.
        model: describes.
        detector: finds.
        max_keypoints: strongest that are kept.
        mask: a picture of the photo's size, black where nothing is to be found; see :mod:`kornia_bingan.masks`.
        max_size: a photo with a longer side is reduced to this many pixels before; keypoints are given in pixels of the
            photo all the same. 0 reduces nothing.

    Raises:
        ImageError: photo or mask cannot be read.
        UsageError: the mask has another size.
    """
    from kornia_bingan.descriptor import describe

    image = read_image(path)
    height, width = image.shape
    allowed = None if mask is None else read_mask(mask)
    if allowed is not None and allowed.shape != image.shape:
        raise UsageError(f"the mask {mask} is {allowed.shape[1]} x {allowed.shape[0]}, {path} is {width} x {height}")
    reduction = max_size / max(image.shape) if max_size else 1.0
    if reduction < 1:
        size = (max(1, round(width * reduction)), max(1, round(height * reduction)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        if allowed is not None:
            # A reduced pixel is ignored if any of its pixels is.
            black = cv2.resize((allowed == 0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
            allowed = np.where(black > 0, 0, 255).astype(np.uint8)
    if max(image.shape) >= SIDE_LIMIT:
        sides = f"{image.shape[1]} x {image.shape[0]}"
        raise ImageError(f"{path} is {sides}; sides must be below {SIDE_LIMIT:,} pixels, give a max_size below")
    keypoints = detect(image, detector, max_keypoints, allowed)
    codes = describe(model, image, keypoints)
    if reduction < 1:
        keypoints = keypoints.enlarged((width / image.shape[1], height / image.shape[0]))
    return Features((width, height), keypoints, codes)


def describe_photos(
    photos: Path,
    names: Sequence[str],
    folder: Path,
    weights: Path,
    *,
    detector: Detector,
    max_keypoints: int,
    limit: TimeLimit,
    masks: Mapping[str, Path] | None = None,
    max_size: int = 0,
) -> list[Skipped]:
    """Write the features of each photo that has none yet.

    Returns:
        The photos that cannot be read, with the reason.

    Raises:
        JobError: the time limit was reached between two photos.
        UsageError: the weights are no weights, or an option is impossible.
    """
    model: BinGAN | None = None
    skipped: list[Skipped] = []
    for done, name in enumerate(tqdm(names, desc="describe", unit="photo", disable=no_progress())):
        target = features_path(folder, name)
        if target.is_file():
            continue
        limit.check(f"{done} of {len(names)} photos are described")
        if model is None:
            from kornia_bingan.descriptor import BinGAN

            model = BinGAN.from_pretrained(weights, precision="auto")
        try:
            mask = (masks or {}).get(name)
            features = describe_photo(photos / name, model, detector, max_keypoints, mask=mask, max_size=max_size)
        except ImageError as error:
            skipped.append(skipped_for(error, name, photos / name))
            continue
        features.write(target)
    return skipped
