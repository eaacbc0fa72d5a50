"""A photo becomes a file of keypoints and codes."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kornia_bingan.errors import UsageError
from kornia_bingan.files import atomic_path
from kornia_bingan.images import ImageError, Skipped, read_image
from kornia_bingan.keypoints import Detector, Keypoints, detect
from kornia_bingan.runs import TimeLimit

if TYPE_CHECKING:
    from kornia_bingan.descriptor import BinGAN


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
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise UsageError(f"{path} is no file of features; delete it to have it made again") from error


def features_path(folder: Path, name: str) -> Path:
    """Give the file of a photo's features; sub-folders are kept, so that no two names share a file."""
    return folder / f"{name}.npz"


def describe_photo(path: Path, model: BinGAN, detector: Detector, max_keypoints: int) -> Features:
    """Find and describe the keypoints of one photo; a photo without any gives 0 rows.

    Raises:
        ImageError: the photo cannot be read.
    """
    from kornia_bingan.descriptor import describe

    image = read_image(path)
    keypoints = detect(image, detector, max_keypoints)
    return Features((image.shape[1], image.shape[0]), keypoints, describe(model, image, keypoints))


def describe_photos(
    photos: Path,
    names: Sequence[str],
    folder: Path,
    weights: Path,
    *,
    detector: Detector,
    max_keypoints: int,
    limit: TimeLimit,
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
    for done, name in enumerate(tqdm(names, desc="describe", unit="photo", disable=None)):
        target = features_path(folder, name)
        if target.is_file():
            continue
        limit.check(f"{done} of {len(names)} photos are described")
        if model is None:
            from kornia_bingan.descriptor import BinGAN

            model = BinGAN.from_pretrained(weights, precision="auto")
        try:
            features = describe_photo(photos / name, model, detector, max_keypoints)
        except ImageError as error:
            skipped.append(Skipped(name, str(error).removeprefix(f"{photos / name}").lstrip(": ")))
            continue
        features.write(target)
    return skipped
