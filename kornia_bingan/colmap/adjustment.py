"""A finished model settles: what most observations say decides, and those that say something else are left out."""

from __future__ import annotations

from typing import Any

import cv2  # noqa: F401 - before pycolmap, see half_pixel
import numpy as np
import pycolmap

LOSS, MOST, LEAST_PX, ROUNDS = 2.0, 5.0, 0.5, 2
"""An observation counts less and less beyond twice the usual reprojection error, and not at all beyond five times, but
half a pixel is always allowed. Of errors that are normally distributed in both directions, one in ten million is as
large."""

LIMIT_PX, LIMIT_SIDE = 4.0, 512
"""While it maps, COLMAP leaves out what misses by more than 4 pixels in photos of any size. Here it is one part in 512
of the longer side, where that is less."""

_TOLERANCE, _ITERATIONS = 1e-5, 30
_LEAST_ANGLE_DEG = 1.5  # between the rays of a point, as in COLMAP's mapper


def limit_px(longest_side: int) -> float:
    """Say by how many pixels an observation may miss its point in photos of this size."""
    return min(LIMIT_PX, longest_side / LIMIT_SIDE)


def settle(model: Any, *, refine: bool, threads: int, move: bool = True) -> None:
    """Adjust a model once more, by a robust loss, and leave out the observations that miss by far more than most.

    Args:
        model: ``pycolmap.Reconstruction``, which is changed.
        refine: False keeps the intrinsics as they are.
        threads: of the solver.
        move: False keeps the poses as they are.
    """
    for _ in range(ROUNDS):
        options = pycolmap.BundleAdjustmentOptions()
        options.print_summary = False
        options.refine_focal_length = options.refine_extra_params = refine
        options.refine_rig_from_world, options.refine_sensor_from_rig = move, False
        options.ceres.loss_function_type = pycolmap.LossFunctionType.SOFT_L1
        options.ceres.loss_function_scale = max(LOSS * usual_error_px(model), LEAST_PX / MOST)
        solver = options.ceres.solver_options
        solver.num_threads, solver.function_tolerance, solver.max_num_iterations = threads, _TOLERANCE, _ITERATIONS
        pycolmap.bundle_adjustment(model, options)
        limit = max(MOST * usual_error_px(model), LEAST_PX)
        pycolmap.ObservationManager(model).filter_all_points3D(limit, _LEAST_ANGLE_DEG)
    model.update_point_3d_errors()


def usual_error_px(model: Any) -> float:
    """Give the median over the points of their mean reprojection errors, pixels; 0 without points."""
    model.update_point_3d_errors()
    errors = [point.error for point in model.points3D.values()]
    return float(np.median(errors)) if errors else 0.0
