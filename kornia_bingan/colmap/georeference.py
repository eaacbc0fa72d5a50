"""A model gets its place on the earth: metres to the east, north and up, from what its photos say of theirs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import cv2  # noqa: F401 - before pycolmap, see half_pixel
import numpy as np
import pycolmap
from numpy.typing import NDArray

from kornia_bingan.colmap.database import open_database
from kornia_bingan.colmap.model import open_model
from kornia_bingan.colmap.types import GEOREFERENCE, Georeference
from kornia_bingan.work.files import write_json

MOST_M, LEAST_PHOTOS = 15.0, 3
"""A position that misses the camera by more is wrong; receivers in phones are right within some metres."""

SPREAD = 3.0
"""The positions must spread by so many times their errors, in two directions at least, or they say nothing of the scale
or of how the model lies."""


def georeference(folder: Path, database: Path, seed: int = 0) -> Georeference:
    """Move a model to where its photos say they were taken, and write ``georeference.json`` beside it.

    No photo that says its position: no file.

    Args:
        folder: of the model, whose files are changed.
        database: with the positions, latitude, longitude and altitude, of its photos.
        seed: of the robust fit.

    Returns:
        Where it is; where that cannot be said, why, and then the model stays as it is.
    """
    model = open_model(folder)
    positions = _positions(database, {image.name for image in model.images.values() if image.has_pose})
    if not positions:
        return Georeference(reason="no photo of the model says its position")
    found = _align(model, positions, seed)
    if not found.reason:
        model.write(str(folder))
    write_json(folder / GEOREFERENCE, asdict(found))
    return found


def _positions(database: Path, names: set[str]) -> dict[str, NDArray[np.float64]]:
    with open_database(database, existing=True) as db:
        by_data = {image.data_id: image.name for image in db.read_all_images() if image.name in names}
        priors = db.read_all_pose_priors()
    wgs84 = pycolmap.PosePriorCoordinateSystem.WGS84
    return {
        by_data[prior.corr_data_id]: prior.position
        for prior in priors
        if prior.corr_data_id in by_data and prior.coordinate_system == wgs84 and np.isfinite(prior.position).all()
    }


def _align(model: pycolmap.Reconstruction, positions: dict[str, NDArray[np.float64]], seed: int) -> Georeference:
    count = len(positions)
    if count < LEAST_PHOTOS:
        return Georeference(positions=count, reason=f"{count} photos of the model say their position, 3 are needed")
    names, places = sorted(positions), np.array([positions[name] for name in sorted(positions)])
    if (distinct := len(np.unique(places, axis=0))) < LEAST_PHOTOS:  # the views of a panorama are in one place
        return Georeference(positions=count, reason=f"the photos say {distinct} different positions, 3 are needed")
    origin = np.median(places, 0)
    there = pycolmap.GPSTransform().ellipsoid_to_enu(places, *origin)
    options = pycolmap.RANSACOptions(max_error=MOST_M, random_seed=seed)
    move = pycolmap.align_reconstruction_to_locations(model, names, there, LEAST_PHOTOS, options)
    if move is None:
        return Georeference(positions=count, reason="the positions do not agree with the model")
    cameras = {image.name: image.projection_center() for image in model.images.values() if image.has_pose}
    errors = np.linalg.norm(np.array([move * cameras[name] for name in names]) - there, axis=1)
    agree = errors <= MOST_M
    usual = float(np.median(errors[agree])) if agree.any() else 0.0
    # what is left in the second direction of an ellipse through the positions
    spread = np.linalg.svd(there[agree] - there[agree].mean(0), compute_uv=False) / np.sqrt(max(agree.sum(), 1))
    if 2 * agree.sum() <= count or agree.sum() < LEAST_PHOTOS:
        return Georeference(positions=count, reason=f"{int(agree.sum())} of {count} positions agree with the model")
    if spread[1] < SPREAD * usual:
        wide = f"{spread[0]:.1f} and {spread[1]:.1f} m"
        return Georeference(positions=count, reason=f"the positions spread by {wide} and miss by {usual:.1f} m")
    model.transform(move)
    latitude, longitude, altitude = (float(value) for value in origin)
    return Georeference(latitude, longitude, altitude, int(agree.sum()), count, round(usual, 3))
