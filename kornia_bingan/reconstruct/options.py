"""What decides a reconstruction, beside the photos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from kornia_bingan.colmap.types import Mapper, Sharing, fixed_camera
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Detector
from kornia_bingan.reconstruct.describe import check_max_size
from kornia_bingan.work.engine import check_engine

DEFAULT_RATIO = 0.8
"""Largest Hamming ratio of a match, see :func:`kornia_bingan.match`."""


@dataclass(frozen=True)
class ReconstructOptions:
    """What decides a reconstruction, beside the photos.

    Attributes:
        descriptor: a shipped name, or a weights file.
        detector: dog for blobs at all scales, orb for fast corners.
        max_keypoints: the strongest of a photo that are described.
        ratio: largest Hamming ratio of a match, between 0 and 1.
        pairs: exhaustive, sequential:K (each photo with the K after it, 10 if K is not given), retrieval:K (with the K
            most similar ones), gps:K (with the K nearest ones), several of these with commas between, or a text file
            with two names a line.
        camera: one camera for all photos (single), for each folder (per-folder), for those of one size and focal length
            (per-size), or for each (per-image).
        camera_model: COLMAP's name of the camera model.
        focal_px: focal length of all photos in pixels, as a start; none takes what the photos say of their lens, and
            1.2 times the longer side where they say nothing.
        intrinsics: fx fy cx cy, and k1 k2 p1 p2 as far as they are known, of all photos, kept as they are; the centre
            of the first pixel is (0, 0).
        cameras: COLMAP's cameras.txt with one camera for each size of photos, kept as they are.
        mapper: incremental, or global (GLOMAP) for hundreds of photos.
        gps: write the positions that photos say into the database.
        seed: of everything random.
        time_limit: seconds after which the command stops, to be continued by the same command; 0 is no limit.
        masks: folder of masks, see :mod:`kornia_bingan.images.masks`.
        max_size: photos with a longer side are reduced to so many pixels for detection and description; the model is in
            pixels of the photos all the same. 0 reduces nothing.
        workers: processes on this machine that describe and match; 0 works in this one. A program that asks for them
            must guard its start by ``if __name__ == "__main__":``.
        scheduler: address of a running Dask scheduler whose workers describe and match; photos and results must lie
            on a file system that all share.
    """

    descriptor: str = "bingan256"
    detector: Detector = "dog"
    max_keypoints: int = 4096
    ratio: float = DEFAULT_RATIO
    pairs: str = "exhaustive"
    camera: Sharing = "per-size"
    camera_model: str = "SIMPLE_RADIAL"
    focal_px: float | None = None
    intrinsics: tuple[float, ...] | None = None
    cameras: Path | None = None
    mapper: Mapper = "incremental"
    gps: bool = True
    seed: int = 0
    time_limit: float = 0.0
    masks: Path | None = None
    max_size: int = 0
    workers: int = 0
    scheduler: str | None = None


def check_options(options: ReconstructOptions) -> None:
    """Refuse impossible options before any work is done.

    Raises:
        UsageError: one of them is impossible; the message names it.
    """
    from kornia_bingan.colmap import CAMERA_MODELS, read_cameras

    check_engine(options.workers, options.scheduler)
    if options.detector not in get_args(Detector):
        raise UsageError(f"the detector is '{options.detector}'; choose {' or '.join(get_args(Detector))}")
    if options.max_keypoints < 1:
        raise UsageError(f"max_keypoints is {options.max_keypoints}; give 1 or more")
    if options.mapper not in get_args(Mapper):
        raise UsageError(f"the mapper is '{options.mapper}'; choose {' or '.join(get_args(Mapper))}")
    check_max_size(options.max_size)
    if options.seed < 0:
        raise UsageError(f"the seed is {options.seed}; give 0 or more")
    if not 0 <= options.ratio <= 1:
        raise UsageError(f"the ratio is {options.ratio}; give one between 0 and 1")
    if options.camera not in get_args(Sharing):
        raise UsageError(f"the camera is '{options.camera}'; choose {', '.join(get_args(Sharing))}")
    if options.camera_model not in CAMERA_MODELS:
        raise UsageError(f"the camera model is '{options.camera_model}'; choose one of {', '.join(CAMERA_MODELS)}")
    lengths = [options.focal_px or 1.0] if options.intrinsics is None else [*options.intrinsics[:2]]
    if not all(0 < length < float("inf") for length in lengths):
        raise UsageError(f"the focal length is {lengths[0]:g}; give pixels, more than 0")
    fixed = [name for name in ("intrinsics", "cameras") if getattr(options, name) is not None]
    if fixed and (options.focal_px, options.camera_model) != (None, "SIMPLE_RADIAL"):
        raise UsageError(f"{fixed[0]} say all about the camera; give no focal length and no model")
    if len(fixed) == 2:
        raise UsageError("intrinsics and cameras say the same thing; give one of them")
    if options.intrinsics is not None:
        fixed_camera((1, 1), options.intrinsics)
    if options.cameras is not None:
        read_cameras(options.cameras)
