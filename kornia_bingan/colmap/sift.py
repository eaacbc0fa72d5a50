"""A folder of photos becomes a sparse model with COLMAP's own SIFT.

A patch set that is to judge descriptors must not depend on the one that this package ships, so its model comes from
another one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2  # before pycolmap, see half_pixel
import pycolmap
from tqdm import tqdm

from kornia_bingan import colmap
from kornia_bingan.errors import JobError
from kornia_bingan.images.folders import Skipped, list_images, no_photos, reason_for
from kornia_bingan.images.read import ImageError, read_image, sample_ranges
from kornia_bingan.work.isolated import Report, run_in_child
from kornia_bingan.work.run_folder import no_progress

MAX_KEYPOINTS = 8192
"""COLMAP's own default."""


def reconstruct_with_sift(
    photos: Path, out: Path, *, seed: int = 0, threads: int = 1, max_keypoints: int = MAX_KEYPOINTS
) -> list[Skipped]:
    """Do :func:`match_with_sift` and map, with COLMAP's defaults.

    Args:
        photos: folder, searched recursively.
        out: folder of the model, absent or empty; gets COLMAP's binary files of the largest model. Names are relative
            to ``photos``.
        seed: seed of all random choices.
        threads: 1 gives equal models in every run.
        max_keypoints: strongest places of a photo, some of which have two orientations.

    Returns:
        The photos that cannot be read, with the reason.

    Raises:
        UsageError: there is no such folder, it holds no photos, or ``out`` is not empty.
        JobError: fewer than two photos can be read, they give no model, or COLMAP crashed.
    """
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "database.db"
        skipped = match_with_sift(photos, database, seed=seed, threads=threads, max_keypoints=max_keypoints)
        colmap.reconstruct(database, None, out, seed=seed, threads=threads)
    return skipped


def match_with_sift(
    photos: Path, database: Path, *, seed: int = 0, threads: int = 1, max_keypoints: int = MAX_KEYPOINTS
) -> list[Skipped]:
    """Extract SIFT, match every photo with every other and verify; COLMAP's defaults, one camera an image size.

    COLMAP gets upright copies of the photos, because it reads them without their EXIF orientation.

    Args:
        photos: folder, searched recursively.
        database: COLMAP's database, absent; names are relative to ``photos``.
        seed: as of :func:`reconstruct_with_sift`, like ``threads`` and ``max_keypoints``.
        threads: see there.
        max_keypoints: see there.

    Returns:
        The photos that cannot be read, with the reason.

    Raises:
        UsageError: there is no such folder, or it holds no photos.
        JobError: fewer than two photos can be read, no two have a match, or COLMAP crashed.
    """
    names, foreign = list_images(photos)
    if not names:
        raise no_photos(photos, foreign)
    skipped: list[Skipped] = []
    with tempfile.TemporaryDirectory() as folder:
        copies = Path(folder) / "images"
        groups: dict[str, list[str]] = {}
        ranges = sample_ranges(photos, names)
        for name in tqdm(names, desc="read", unit="photo", disable=no_progress()):
            try:
                image = read_image(photos / name, ranges)
            except ImageError as error:
                skipped.append(Skipped(name, reason_for(error, photos / name)))
                continue
            groups.setdefault(f"{image.shape[1]} x {image.shape[0]}", []).append(name)
            _, data = cv2.imencode(".png", image, (cv2.IMWRITE_PNG_COMPRESSION, 1))
            (copies / name).parent.mkdir(parents=True, exist_ok=True)
            (copies / name).write_bytes(data.tobytes())  # COLMAP goes by the content, not by the name's extension
        if len(names) - len(skipped) < 2:
            raise JobError(
                f"only {len(names) - len(skipped)} of {len(names)} photos of {photos} can be read; a model needs two"
            )
        arguments = {
            "database": str(database),
            "images": str(copies),
            "groups": list(groups.values()),
            "seed": seed,
            "threads": threads,
            "max_keypoints": max_keypoints,
        }
        run_in_child(f"{__name__}:match_here", arguments, stage="SIFT extraction and matching")
        state = colmap.verify(database, seed=seed, threads=threads)
    if state.pairs == 0:
        raise JobError(f"no two photos of {photos} have a match; they must show one place with some texture")
    return skipped


def match_here(
    report: Report,
    *,
    database: str,
    images: str,
    groups: list[list[str]],
    seed: int,
    threads: int,
    max_keypoints: int = MAX_KEYPOINTS,
) -> None:
    """Do the work of :func:`match_with_sift` in this process."""
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads = threads
    extraction.sift.max_num_features = max_keypoints
    for names in groups:
        pycolmap.extract_features(
            database,
            images,
            names,
            pycolmap.CameraMode.SINGLE,
            extraction_options=extraction,
            device=pycolmap.Device.cpu,
        )
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = threads
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = seed
    pycolmap.match_exhaustive(database, matching, verification_options=verification, device=pycolmap.Device.cpu)
