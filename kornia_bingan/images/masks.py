"""A folder of masks says where photos are not to be looked at: black means ignore.

The mask of ``a.jpg`` is ``a.jpg.png`` or, failing that, ``a.png``, at the same place below the folder of masks. It is
read like a photo, turned by its own EXIF orientation, and has the size of the photo as a viewer shows it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import list_pictures
from kornia_bingan.images.read import ImageError, image_size, read_image


def find_masks(photos: Path, names: Sequence[str], folder: Path) -> dict[str, Path]:
    """Find the masks of photos and check their sizes; photos without one are looked at whole.

    Args:
        photos: folder of the photos.
        names: of the photos, relative to it.
        folder: of the masks.

    Returns:
        The mask's file by the photo's name.

    Raises:
        UsageError: there is no such folder, no mask fits a photo, a mask fits no photo, or one cannot be read or has
            another size than its photo.
    """
    if folder.is_file():
        raise UsageError(f"{folder} is a file; give the folder of masks, where that of a.jpg is a.jpg.png or a.png")
    if not folder.exists():
        raise UsageError(
            f"{folder}: no such folder; give the folder of masks, where that of a.jpg is a.jpg.png or a.png"
        )
    here, there = os.path.realpath(folder), os.path.realpath(photos)
    present = set(list_pictures(folder, {there: "the folder of photos"})[0])
    if here == there:  # masks beside the photos
        present -= set(names)
    masks: dict[str, Path] = {}
    used = set()
    for name in names:
        own = [f"{name}.png", PurePosixPath(name).with_suffix(".png").as_posix()]
        found = next((mask for mask in own if mask in present), None)
        if found is None:
            continue
        used.add(found)
        masks[name] = folder / found
        try:
            size = image_size(photos / name)
        except ImageError:  # the stage that reads photos says why
            continue
        if image_size(masks[name]) != size:
            of_mask, of_photo = (f"{w} x {h}" for w, h in (image_size(masks[name]), size))
            raise UsageError(f"the mask {masks[name]} is {of_mask} but {name} is {of_photo}; give masks of that size")
    if unused := sorted(present - used):
        others = f" and {len(unused) - 1} others" if len(unused) > 1 else ""
        raise UsageError(f"the mask {folder / unused[0]}{others} fits no photo; that of a.jpg is a.jpg.png or a.png")
    if not masks:
        raise UsageError(f"{folder} has no mask; that of a.jpg is a.jpg.png or a.png")
    return masks


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Read a mask: uint8 (H, W), 0 where the photo is to be ignored.

    Raises:
        ImageError: the file cannot be read.
    """
    return read_image(path)
