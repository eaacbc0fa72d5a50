"""The verified pairs of a COLMAP database become a sparse model."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, get_args

import cv2  # noqa: F401 - before pycolmap, see half_pixel
import pycolmap

from kornia_bingan.colmap.database import open_database, read_verification
from kornia_bingan.colmap.model import colour_points, read_model
from kornia_bingan.colmap.types import Mapper, Model, NoModelError
from kornia_bingan.errors import UsageError
from kornia_bingan.work.files import atomic_folder, check_empty
from kornia_bingan.work.isolated import Report, run_in_child


def reconstruct(
    database: Path,
    images: Path | None,
    out: Path,
    *,
    mapper: Mapper = "incremental",
    refine: bool = True,
    min_model_size: int = 3,
    seed: int = 0,
    threads: int = 1,
    time_limit_s: float | None = None,
    log: Path | None = None,
    progress: Report | None = None,
) -> Model:
    """Build a sparse model from the verified pairs of a database.

    Args:
        database: an existing COLMAP database with verified pairs.
        images: the folder that the names are relative to, for the colours of the points; None leaves them black.
        out: folder of the model, absent or empty; gets COLMAP's binary files of the largest model found.
        mapper: incremental adds image after image; global (GLOMAP) solves for all at once, which is faster for hundreds
            of images and needs good focal lengths.
        refine: False keeps the intrinsics as they are in the database.
        min_model_size: images that a second and later model must have.
        seed: seed of all random choices.
        threads: 1 gives equal bytes in every run; more do only on a machine with as many cores.
        time_limit_s: stop after so many seconds.
        log: a text file for the end of COLMAP's log.
        progress: called with the number of registered images each time it grows; the global mapper does not say it.

    Raises:
        UsageError: the mapper is unknown, the file is no COLMAP database, has matched pairs that are not verified,
            ``out`` is not empty, or ``images`` lacks one.
        NoModelError: no model was found.
        JobError: COLMAP crashed, or the time limit was reached.
    """
    database, out = Path(database), Path(out)
    if mapper not in get_args(Mapper):
        raise UsageError(f"the mapper is '{mapper}'; choose one of {', '.join(get_args(Mapper))}")
    check_empty(out)
    _check_mappable(database, images)
    with atomic_folder(out) as temporary:
        arguments = {
            "database": str(database),
            "out": str(temporary),
            "refine": refine,
            "min_model_size": min_model_size,
            "seed": seed,
            "threads": threads,
        }
        largest = run_in_child(
            f"{__name__}:{'map_here' if mapper == 'incremental' else 'map_globally_here'}",
            arguments,
            stage="mapping",
            log=log,
            time_limit_s=time_limit_s,
            progress=progress,
        )
        if largest is None:
            raise NoModelError(
                "no model was found: no two images have enough inliers and a wide enough angle to start one"
            )
        for path in temporary.iterdir():
            if path.name != largest:
                shutil.rmtree(path)
        folder = temporary / largest
        if images is not None:
            colour_points(folder, images)
        for path in folder.iterdir():
            path.rename(temporary / path.name)
        folder.rmdir()
    return read_model(out)


def map_here(
    report: Report, *, database: str, out: str, refine: bool, min_model_size: int, seed: int, threads: int
) -> str | None:
    """Do the work of :func:`reconstruct` in this process; gives the name of the largest model's folder in ``out``."""
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = min_model_size
    options.extract_colors = False
    for part in (options, options.mapper, options.triangulation):
        part.random_seed = seed
    for part in (options, options.mapper):
        part.num_threads = threads
    if not refine:
        with open_database(Path(database), existing=True) as db:
            options.constant_cameras = {camera.camera_id for camera in db.read_all_cameras()}
    registered = 0

    def count(first: int = 1) -> None:
        nonlocal registered
        registered += first
        report(registered)

    with tempfile.TemporaryDirectory() as no_images:  # the folder must exist, and nothing is read from it
        models = pycolmap.incremental_mapping(
            database,
            no_images,
            out,
            options,
            initial_image_pair_callback=lambda: count(2),
            next_image_callback=count,
        )
    return _largest(models)


def map_globally_here(
    report: Report, *, database: str, out: str, refine: bool, min_model_size: int, seed: int, threads: int
) -> str | None:
    """Do the work of :func:`reconstruct` by the global mapper in this process."""
    options = pycolmap.GlobalPipelineOptions()
    options.min_model_size = min_model_size
    adjustment = options.mapper.bundle_adjustment
    adjustment.refine_focal_length = adjustment.refine_extra_params = refine
    adjustment.ceres.use_gpu = options.mapper.global_positioning.use_gpu = False
    parts = (options.mapper, options.mapper.rotation_averaging, options.mapper.global_positioning)
    for part in (options, *parts, options.mapper.retriangulation):
        part.random_seed = seed
    options.num_threads = options.mapper.num_threads = adjustment.ceres.solver_options.num_threads = threads
    with tempfile.TemporaryDirectory() as no_images:
        return _largest(pycolmap.global_mapping(database, no_images, out, options))


def _largest(models: dict[int, Any]) -> str | None:
    sizes = [(model.num_reg_images(), model.num_points3D(), -key) for key, model in models.items()]
    return str(-max(sizes)[2]) if sizes else None


def _check_mappable(database: Path, images: Path | None) -> None:
    state = read_verification(database)
    if state.pairs == 0:
        raise UsageError(f"{database} has no matched pairs; add them with write_matches")
    if untried := state.pairs - state.verified - state.rejected:
        raise UsageError(f"{untried} of the {state.pairs} matched pairs in {database} are not verified; call verify")
    if state.verified == 0:
        best = max(state.inliers, key=lambda pair: state.inliers[pair])
        raise NoModelError(
            f"none of the {state.pairs} matched pairs passed verification ({state.matches} matches in all), as with "
            f"photos of different places; the first was {best[0]} - {best[1]}"
        )
    if images is not None:
        with open_database(database, existing=True) as db:
            for image in db.read_all_images():
                if not (images / image.name).is_file():
                    raise UsageError(f"{image.name} is in {database} but not in {images}")
