"""The verified pairs of a COLMAP database become points, with poses that are known and stay as they are."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import cv2  # noqa: F401 - before pycolmap, see half_pixel
import numpy as np
import pycolmap
from numpy.typing import NDArray

from kornia_bingan.colmap.adjustment import settle
from kornia_bingan.colmap.database import open_database
from kornia_bingan.colmap.mapping import check_mappable, pipeline_options
from kornia_bingan.colmap.model import colour_points, read_model
from kornia_bingan.colmap.types import Model, NoModelError
from kornia_bingan.work.files import atomic_folder, check_empty
from kornia_bingan.work.isolated import Report, run_in_child


def triangulate(
    database: Path,
    images: Path | None,
    out: Path,
    poses: Mapping[str, NDArray[np.float64]],
    *,
    seed: int = 0,
    threads: int = 1,
    time_limit_s: float | None = None,
    log: Path | None = None,
    robust: bool = False,
) -> Model:
    """Build a sparse model of images with known poses; neither these nor the intrinsics in the database change.

    Args:
        database: an existing COLMAP database with verified pairs.
        images: the folder that the names are relative to, for the colours of the points; None leaves them black.
        out: folder of the model, absent or empty; gets COLMAP's binary files.
        poses: world to camera, [R | t], float64 (3, 4), of images by their names; those that are not in the database
            are passed over, and images without a pose are not in the model.
        seed, threads, time_limit_s, log: as in :func:`kornia_bingan.colmap.reconstruct`.
        robust: allow observations less than COLMAP does, and move the points by a robust loss at last.

    Raises:
        UsageError: the file is no COLMAP database or has matched pairs that are not verified, ``out`` is not empty, or
            ``images`` lacks one.
        NoModelError: no pair is verified, or no point fits the poses.
        JobError: COLMAP crashed, or the time limit was reached.
    """
    database, out = Path(database), Path(out)
    check_empty(out)
    check_mappable(database, images)
    with atomic_folder(out) as temporary:
        points = run_in_child(
            f"{__name__}:triangulate_here",
            {
                "database": str(database),
                "out": str(temporary),
                "poses": {name: np.asarray(pose, np.float64).tolist() for name, pose in poses.items()},
                "seed": seed,
                "threads": threads,
                "robust": robust,
            },
            stage="triangulation",
            log=log,
            time_limit_s=time_limit_s,
        )
        if not points:
            raise NoModelError(
                "no match of two photos fits their poses; a pose is world to camera, x right, y down, z forward"
            )
        if images is not None:
            colour_points(temporary, images)
    return read_model(out)


def triangulate_here(
    report: Report,
    *,
    database: str,
    out: str,
    poses: dict[str, list[list[float]]],
    seed: int,
    threads: int,
    robust: bool,
) -> int:
    """Do the work of :func:`triangulate` in this process; gives the number of points."""
    with open_database(Path(database), existing=True) as db:
        cameras, images = db.read_all_cameras(), db.read_all_images()
    options = pipeline_options(cameras, seed=seed, threads=threads, robust=robust)
    model = pycolmap.Reconstruction()
    for camera in cameras:
        model.add_camera_with_trivial_rig(camera)
    for image in images:
        if image.name in poses:
            posed = pycolmap.Image(name=image.name, camera_id=image.camera_id, image_id=image.image_id)
            model.add_image_with_trivial_frame(posed, pycolmap.Rigid3d(np.array(poses[image.name])))
    if model.num_images() < 2:
        return 0
    with tempfile.TemporaryDirectory() as no_images:  # the folder must exist, and nothing is read from it
        pycolmap.triangulate_points(model, database, no_images, out, clear_points=True, options=options)
    if robust and model.num_points3D():
        settle(model, refine=False, threads=threads, move=False)
        model.write(out)
    return int(model.num_points3D())
