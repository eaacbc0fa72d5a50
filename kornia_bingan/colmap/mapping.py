"""The verified pairs of a COLMAP database become sparse models."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import cv2  # noqa: F401 - before pycolmap, see half_pixel
import pycolmap

from kornia_bingan.colmap.adjustment import limit_px, settle
from kornia_bingan.colmap.database import open_database, read_verification
from kornia_bingan.colmap.georeference import georeference
from kornia_bingan.colmap.model import colour_points, open_model, read_model
from kornia_bingan.colmap.types import Mapper, Model, NoModelError
from kornia_bingan.errors import UsageError
from kornia_bingan.work.files import atomic_folder, check_empty
from kornia_bingan.work.isolated import Report, run_in_child

AHEAD, LEAST_ANGLE_DEG = 1.0, 4.0
"""COLMAP starts a model with two images that moved sideways and see points at 16 degrees. A camera on a car that looks
ahead has none. Where fewer than half of the images get a pose, a second try may start with any motion, at 4 degrees."""


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
    others: Path | None = None,
    start: Path | None = None,
    robust: bool = False,
    place: bool = False,
) -> Model:
    """Build sparse models from the verified pairs of a database, and give the largest.

    Args:
        database: an existing COLMAP database with verified pairs.
        images: the folder that the names are relative to, for the colours of the points; None leaves them black.
        out: folder of the model, absent or empty; gets COLMAP's binary files of the model with most images, of equal
            ones that with most points.
        mapper: incremental adds image after image; global (GLOMAP) solves for all at once, which is faster for hundreds
            of images and needs good focal lengths.
        refine: False keeps the intrinsics as they are in the database.
        min_model_size: images that a second and later model must have.
        seed: seed of all random choices.
        threads: 1 gives equal bytes in every run; more do only on a machine with as many cores.
        time_limit_s: stop after so many seconds.
        log: a text file for the end of COLMAP's log.
        progress: called with the number of registered images each time it grows; the global mapper does not say it.
        others: folder, absent or empty, that gets the other models as ``1``, ``2``, ..., the larger first; it is not
            made where there are none. None leaves them out.
        start: folder of a model that was made from this database before images and pairs were added, which the
            incremental mapper continues.
        robust: allow observations less than COLMAP does, and let the finished models settle
            (:mod:`kornia_bingan.colmap.adjustment`); False gives what COLMAP gives.
        place: move the models to where the positions in the database put them
            (:mod:`kornia_bingan.colmap.georeference`).

    Raises:
        UsageError: the mapper is unknown or cannot continue a model, the file is no COLMAP database, has matched
            pairs that are not verified, ``out`` or ``others`` is not empty, ``start`` is no model, or ``images`` lacks
            one.
        NoModelError: no model was found.
        JobError: COLMAP crashed, or the time limit was reached.
    """
    database, out = Path(database), Path(out)
    if mapper not in get_args(Mapper):
        raise UsageError(f"the mapper is '{mapper}'; choose one of {', '.join(get_args(Mapper))}")
    if start is not None and mapper != "incremental":
        raise UsageError(f"the {mapper} mapper cannot continue the model {start}; take the incremental one")
    for folder in (out, *([] if others is None else [others])):
        check_empty(folder)
    check_mappable(database, images)
    known = 0 if start is None else open_model(start).num_reg_images()
    with atomic_folder(out) as temporary:
        arguments: dict[str, Any] = {
            "database": str(database),
            "out": str(temporary),
            "refine": refine,
            "min_model_size": min_model_size,
            "seed": seed,
            "threads": threads,
            "robust": robust,
        }
        if start is not None:
            arguments |= {"start": str(start), "known": known}
        by_size = run_in_child(
            f"{__name__}:{'map_here' if mapper == 'incremental' else 'map_globally_here'}",
            arguments,
            stage="mapping",
            log=log,
            time_limit_s=time_limit_s,
            progress=progress,
        )
        if not by_size:
            raise NoModelError(
                "no model was found: no two images have enough inliers and a wide enough angle to start one"
            )
        largest, *smaller = [temporary / name for name in by_size[: 1 if others is None else None]]
        for folder in (largest, *smaller):
            if images is not None:
                colour_points(folder, images)
            if place:
                georeference(folder, database, seed)
        if others is not None and smaller:
            with atomic_folder(others) as beside:
                for number, folder in enumerate(smaller, 1):
                    folder.rename(beside / str(number))
        for path in [path for path in temporary.iterdir() if path != largest]:
            shutil.rmtree(path)
        for path in largest.iterdir():
            path.rename(temporary / path.name)
        largest.rmdir()
    return read_model(out)


def map_here(
    report: Report,
    *,
    database: str,
    out: str,
    refine: bool,
    min_model_size: int,
    seed: int,
    threads: int,
    robust: bool = False,
    start: str = "",
    known: int = 2,
) -> list[str]:
    """Do the work of :func:`reconstruct` in this process; names the models in ``out``, the largest first.

    ``known`` are the images of the model that is continued, or those of the pair that starts a new one.
    """
    with open_database(Path(database), existing=True) as db:
        cameras = db.read_all_cameras()
    options = pipeline_options(cameras, seed=seed, threads=threads, robust=robust)
    options.min_model_size = min_model_size
    if not refine:
        options.constant_cameras = {camera.camera_id for camera in cameras}
    registered = 0
    first = known

    def count(more: int = 1) -> None:
        nonlocal registered
        registered += more
        report(registered)

    def count_first() -> None:
        nonlocal first
        count(first)
        first = 2  # a model that is continued comes before new ones

    def run(folder: str) -> dict[int, Any]:
        nonlocal registered
        registered = 0
        with tempfile.TemporaryDirectory() as no_images:  # the folder must exist, and nothing is read from it
            models: dict[int, Any] = pycolmap.incremental_mapping(
                database,
                no_images,
                folder,
                options,
                input_path=start,
                initial_image_pair_callback=count_first,
                next_image_callback=count,
            )
        return models

    models = run(out)
    verified = {name for pair, inliers in read_verification(Path(database)).inliers.items() if inliers for name in pair}
    if not start and 2 * _extent(models)[0] < len(verified):
        options.mapper.init_max_forward_motion, options.mapper.init_min_tri_angle = AHEAD, LEAST_ANGLE_DEG
        with tempfile.TemporaryDirectory(dir=out) as other:
            again = run(other)
        if _extent(again) > _extent(models):
            models = again
            for path in Path(out).iterdir():
                shutil.rmtree(path)
            _write(models, Path(out))
    if start:  # then COLMAP writes the first model only, into out itself
        for path in Path(out).iterdir():
            path.unlink()
        _write(models, Path(out))
    if robust:
        _settle(models, Path(out), refine, threads)
    return _by_size(models)


def pipeline_options(cameras: Sequence[Any], *, seed: int, threads: int, robust: bool) -> Any:
    """Give COLMAP's options for photos of some cameras, pycolmap's; the others are those of :func:`reconstruct`."""
    options = pycolmap.IncrementalPipelineOptions()
    options.extract_colors = options.ba_refine_sensor_from_rig = False
    for part in (options, options.mapper, options.triangulation):
        part.random_seed = seed
    for part in (options, options.mapper):
        part.num_threads = threads
    if robust:
        limit = limit_px(max(max(camera.width, camera.height) for camera in cameras))
        options.mapper.filter_max_reproj_error = limit
        options.triangulation.merge_max_reproj_error = options.triangulation.complete_max_reproj_error = limit
    return options


def map_globally_here(
    report: Report,
    *,
    database: str,
    out: str,
    refine: bool,
    min_model_size: int,
    seed: int,
    threads: int,
    robust: bool = False,
) -> list[str]:
    """Do the work of :func:`reconstruct` by the global mapper in this process."""
    options = pycolmap.GlobalPipelineOptions()
    options.min_model_size = min_model_size
    adjustment = options.mapper.bundle_adjustment
    adjustment.refine_focal_length = adjustment.refine_extra_params = refine
    adjustment.ceres.use_gpu = options.mapper.global_positioning.use_gpu = False
    parts = (options.mapper, options.mapper.rotation_averaging, options.mapper.global_positioning)
    for part in (options, *parts, options.mapper.retriangulation):
        part.random_seed = seed
    for part in (*parts, adjustment):
        part.refine_sensor_from_rig = False
    options.num_threads = options.mapper.num_threads = adjustment.ceres.solver_options.num_threads = threads
    with tempfile.TemporaryDirectory() as no_images:
        models = pycolmap.global_mapping(database, no_images, out, options)
    if robust:
        _settle(models, Path(out), refine, threads)
    return _by_size(models)


def _settle(models: dict[int, Any], out: Path, refine: bool, threads: int) -> None:
    for model in models.values():
        settle(model, refine=refine, threads=threads)
    _write(models, out)


def _write(models: dict[int, Any], out: Path) -> None:
    for key, model in models.items():
        (out / str(key)).mkdir(exist_ok=True)
        model.write(str(out / str(key)))


def _extent(models: dict[int, Any]) -> tuple[int, int]:
    """Count the images that are in any model, and the points of all models."""
    images = {image_id for model in models.values() for image_id in model.reg_image_ids()}
    return len(images), sum(model.num_points3D() for model in models.values())


def _by_size(models: dict[int, Any]) -> list[str]:
    """Name the models, those with most images first, then those with most points, then those that were made first."""
    sizes = [(-model.num_reg_images(), -model.num_points3D(), key) for key, model in models.items()]
    return [str(key) for _, _, key in sorted(sizes)]


def check_mappable(database: Path, images: Path | None) -> None:
    """Refuse a database without verified pairs, or with images that are not in the folder.

    Raises:
        UsageError, NoModelError: as :func:`reconstruct`.
    """
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
