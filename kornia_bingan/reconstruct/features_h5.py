"""One HDF5 file of the features of many photos, as hloc (Hierarchical-Localization) and those who read its files do."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_bingan import bits
from kornia_bingan.errors import JobError
from kornia_bingan.reconstruct.features import Features, features_path
from kornia_bingan.work.files import atomic_path

UNCERTAINTY_PX = 1.0
"""What hloc says of its own DoG keypoints: its triangulation multiplies its tolerances by it."""


def hloc_arrays(features: Features) -> dict[str, NDArray[Any]]:
    """Turn the features of a photo into what hloc stores of it.

    Returns:
        - ``keypoints``: pixels, float32 (N, 2). The centre of the first pixel is (0, 0): hloc itself adds COLMAP's half
          pixel when it writes a database.
        - ``scales``: sigma of the blob, half of OpenCV's size, pixels, float32 (N,).
        - ``oris``: OpenCV's angles in degrees, float32 (N,).
        - ``scores``: responses, float32 (N,).
        - ``descriptors``: codes as +1 / -1 over the root of the number of bits, float32 (bits, N). They have length 1,
          which hloc's own matchers need, and those of 256 bits are exact in the float16 that hloc stores.
        - ``image_size``: width and height, int64 (2,).
    """
    points = features.keypoints
    signs = bits.unpack(features.codes)
    return {
        "keypoints": points.xy,
        "scales": points.size / np.float32(2),
        "oris": points.angle_deg,
        "scores": points.response,
        "descriptors": np.ascontiguousarray(signs.T / np.float32(np.sqrt(signs.shape[1]))),
        "image_size": np.array(features.size, np.int64),
    }


def check_h5() -> None:
    """Refuse before any work is done.

    Raises:
        JobError: the package ``h5py`` is not installed.
    """
    if find_spec("h5py") is None:
        raise JobError("h5py is not installed; pip install 'kornia_bingan[h5]' brings it")


def write_h5(path: Path, folder: Path, names: Sequence[str]) -> None:
    """Write the features of the photos of a folder as one file, with a group for each photo.

    Its datasets are those of :func:`hloc_arrays`, the descriptors as float16 and compressed, which readers do not see.

    Args:
        path: file to write; appears whole or not at all.
        folder: of the files of features, see :func:`kornia_bingan.reconstruct.features.features_path`.
        names: of the photos, relative to their folder.

    Raises:
        UsageError: a file of features is absent or damaged.
    """
    import h5py

    with atomic_path(path) as temporary, h5py.File(temporary, "w", libver="latest") as file:
        for name in names:
            arrays = hloc_arrays(Features.read(features_path(folder, name)))
            group = file.create_group(name)
            descriptors = arrays.pop("descriptors").astype(np.float16)
            packing = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if descriptors.size else {}
            group.create_dataset("descriptors", data=descriptors, **packing)
            for key, values in arrays.items():
                group.create_dataset(key, data=values)
            group["keypoints"].attrs["uncertainty"] = UNCERTAINTY_PX
