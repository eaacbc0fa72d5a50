"""Keypoints and matches to and from a COLMAP database; two-view geometry of its pairs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import cv2  # noqa: F401 - before pycolmap, see half_pixel
import numpy as np
import pycolmap
from numpy.typing import NDArray

from kornia_bingan.colmap.half_pixel import camera_to_colmap, keypoint_rows, keypoints_from_colmap
from kornia_bingan.colmap.types import Camera, Verification
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.work.files import atomic_path
from kornia_bingan.work.isolated import Report, run_in_child

MIN_INLIERS = 15
MAX_ERROR_PX = 4.0
"""COLMAP's own thresholds of a verified pair."""


def write_features(
    database: Path,
    features: Mapping[str, Keypoints | NDArray[Any]],
    cameras: Camera | Mapping[str, Camera],
    positions: Mapping[str, tuple[float, float, float]] | None = None,
) -> None:
    """Write a new COLMAP database with images, cameras and keypoints.

    Args:
        database: a file that does not exist yet; it appears whole or not at all.
        features: keypoints of each image, by its name relative to the photos' folder ("/" between the parts). Arrays
            are taken too: x, y, or x, y, scale, orientation (COLMAP's, see above), or x, y and an affine shape
            a11 a12 a21 a22, shape (N, 2 | 4 | 6), x and y in this package's frame.
        cameras: one camera for all images, or one for each name; the same object is one camera in the database.
        positions: latitude, longitude (degrees, WGS84) and height (metres) of the images that know theirs; written as
            pose priors, which COLMAP's usual mapper does not look at.

    Raises:
        UsageError: the file exists or cannot be written, there is no image, a camera is missing or impossible, or
            keypoints have a wrong shape or a value that is not finite; the message names the image.
    """
    database = Path(database)
    if database.exists():
        raise UsageError(f"{database} exists; delete it or give another name")
    if not features:
        raise UsageError("there is no image to write; give keypoints of at least one")
    rows = {name: keypoint_rows(name, keypoints) for name, keypoints in sorted(features.items())}
    chosen = {name: cameras if isinstance(cameras, Camera) else _camera_of(name, cameras) for name in rows}
    converted = {camera: camera_to_colmap(camera) for camera in chosen.values()}
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{database.parent} cannot be made: {error.strerror}") from error
    with atomic_path(database) as temporary, open_database(temporary) as db, pycolmap.DatabaseTransaction(db):
        ids = {camera: db.write_camera(value) for camera, value in converted.items()}
        _write_images(db, rows, {name: ids[chosen[name]] for name in rows}, positions or {})


def add_features(
    database: Path,
    features: Mapping[str, Keypoints | NDArray[Any]],
    cameras: Mapping[str, Camera],
    positions: Mapping[str, tuple[float, float, float]] | None = None,
) -> None:
    """Add images with their keypoints to a database of :func:`write_features`; what is there stays as it is.

    Args:
        database: an existing COLMAP database; it gets all of the images or none.
        features: as in :func:`write_features`, of the new images.
        cameras: of each new image and, to be shared, of those in the database: a new image with the same object as one
            of them gets the camera that this one has there.
        positions: as in :func:`write_features`, of the new images.

    Raises:
        UsageError: the file is no COLMAP database or has one of the images, a camera is missing or impossible, or
            keypoints have a wrong shape or a value that is not finite; the message names the image.
    """
    rows = {name: keypoint_rows(name, keypoints) for name, keypoints in sorted(features.items())}
    with open_database(database, existing=True) as db:
        known = {image.name: image.camera_id for image in db.read_all_images()}
        if there := sorted(known.keys() & rows.keys()):
            raise UsageError(f"{there[0]} is already in {database}")
        ids = {cameras[name]: camera_id for name, camera_id in known.items() if name in cameras}
        chosen = {name: _camera_of(name, cameras) for name in rows}
        converted = {camera: camera_to_colmap(camera) for camera in chosen.values() if camera not in ids}
        with pycolmap.DatabaseTransaction(db):
            ids |= {camera: db.write_camera(value) for camera, value in converted.items()}
            _write_images(db, rows, {name: ids[chosen[name]] for name in rows}, positions or {})


def _write_images(
    db: Any,
    rows: Mapping[str, NDArray[np.float32]],
    cameras: Mapping[str, int],
    positions: Mapping[str, tuple[float, float, float]],
) -> None:
    for name, values in rows.items():
        image_id = db.write_image(pycolmap.Image(name=name, camera_id=cameras[name]))
        db.write_keypoints(image_id, values)
        if name in positions:
            prior = pycolmap.PosePrior(
                corr_data_id=db.read_image(image_id).data_id,
                position=np.array(positions[name], np.float64),
                coordinate_system=pycolmap.PosePriorCoordinateSystem.WGS84,
            )
            db.write_pose_prior(prior)


def write_matches(
    database: Path,
    matches: Mapping[tuple[str, str], NDArray[Any]],
    *,
    verification: bool = True,
    seed: int = 0,
    log: Path | None = None,
) -> Verification:
    """Add matched pairs to a database of :func:`write_features` and verify them.

    Args:
        database: an existing COLMAP database.
        matches: for each pair of names, rows of keypoints in the first and in the second image, any integer type,
            shape (M, 2). A pair with M = 0 is not written.
        verification: False leaves the pairs raw; the mapper does not see them until :func:`verify` was called.
        seed: as in :func:`verify`.
        log: as in :func:`verify`.

    Returns:
        The state of all pairs in the database.

    Raises:
        UsageError: a name is unknown, a pair is given or stored twice or is an image with itself, or its matches have
            a wrong dtype or shape, a row twice, or an index that has no keypoint. Nothing is written then, and the
            message names the pair.
        JobError: verification crashed.
    """
    with open_database(database, existing=True) as db:
        ids = {image.name: image.image_id for image in db.read_all_images()}
        counts = {name: db.num_keypoints_for_image(image_id) for name, image_id in ids.items()}
        checked: dict[tuple[str, str], NDArray[np.uint32]] = {}
        for (name0, name1), indices in matches.items():
            pair = f"pair {name0} - {name1}"
            for name in (name0, name1):
                if name not in ids:
                    raise UsageError(f"{pair}: {name} is no image of {database}")
            if name0 == name1:
                raise UsageError(f"{pair}: an image cannot be matched with itself")
            if (name1, name0) in checked:
                raise UsageError(f"{pair} is given twice, once in each order")
            if db.exists_matches(ids[name0], ids[name1]):
                raise UsageError(f"{pair} is already in {database}")
            checked[name0, name1] = _checked_matches(pair, indices, (name0, name1), counts)
        with pycolmap.DatabaseTransaction(db):
            for (name0, name1), values in checked.items():
                if len(values):
                    db.write_matches(ids[name0], ids[name1], values)
    return verify(database, seed=seed, log=log) if verification else read_verification(database)


def verify(
    database: Path,
    *,
    max_error_px: float = MAX_ERROR_PX,
    min_inliers: int = MIN_INLIERS,
    seed: int = 0,
    threads: int | None = None,
    time_limit_s: float | None = None,
    log: Path | None = None,
) -> Verification:
    """Find the two-view geometry of every matched pair that has none yet.

    The result depends on the seed, not on the number of threads. Killed on its way, the next call resumes where it was.

    Args:
        database: an existing COLMAP database.
        max_error_px: largest distance of an inlier to its epipolar line.
        min_inliers: a pair with fewer is rejected.
        seed: of RANSAC.
        threads: None takes all cores.
        time_limit_s: stop after so many seconds.
        log: a text file for the end of COLMAP's log.

    Raises:
        UsageError: the file is no COLMAP database.
        JobError: COLMAP crashed or reached the time limit.
    """
    state = read_verification(database)
    if state.verified + state.rejected < state.pairs:
        arguments = {
            "database": str(database),
            "max_error_px": max_error_px,
            "min_inliers": min_inliers,
            "seed": seed,
            "threads": threads or -1,
        }
        run_in_child(f"{__name__}:verify_here", arguments, stage="verification", log=log, time_limit_s=time_limit_s)
        state = read_verification(database)
    return state


def verify_here(
    report: Report, *, database: str, max_error_px: float, min_inliers: int, seed: int, threads: int
) -> None:
    """Do the work of :func:`verify` in this process, which a damaged database may abort."""
    options = pycolmap.TwoViewGeometryOptions()
    options.min_num_inliers = min_inliers
    options.ransac.max_error = max_error_px
    options.ransac.random_seed = seed
    verifier = pycolmap.GeometricVerifierOptions()
    verifier.num_threads = threads
    pycolmap.geometric_verification(database, verifier_options=verifier, two_view_geometry_options=options)


def read_features(database: Path) -> dict[str, Keypoints]:
    """Read the keypoints of every image of a database, by name, in this package's frame.

    ``size`` is twice COLMAP's scale; an affine shape gives the scale and orientation that COLMAP derives from it, and
    keypoints without either get size 2 and angle 0. Response and octave are not stored: they are 0.

    Raises:
        UsageError: the file is no COLMAP database.
    """
    with open_database(database, existing=True) as db:
        images = sorted(db.read_all_images(), key=lambda image: image.name)
        return {image.name: keypoints_from_colmap(db.read_keypoints(image.image_id)) for image in images}


def read_images(database: Path) -> list[str]:
    """Read the names of the images of a database, sorted.

    Raises:
        UsageError: the file is no COLMAP database.
    """
    with open_database(database, existing=True) as db:
        return sorted(image.name for image in db.read_all_images())


def read_verification(database: Path) -> Verification:
    """Read how many pairs of a database are matched, verified and rejected, and with how many inliers.

    Raises:
        UsageError: the file is no COLMAP database.
    """
    with open_database(database, existing=True) as db:
        names = {image.image_id: image.name for image in db.read_all_images()}
        found = dict(zip(*db.read_two_view_geometry_num_inliers(), strict=True))
        inliers, rejected, total = {}, 0, 0
        for pair_id, num_matches in zip(*db.read_num_matches(), strict=True):
            if num_matches == 0:
                continue
            id0, id1 = pycolmap.pair_id_to_image_pair(pair_id)
            inliers[names[id0], names[id1]] = int(found.get(pair_id, 0))
            rejected += found.get(pair_id, 0) == 0 and db.exists_two_view_geometry(id0, id1)
            total += num_matches
    verified = sum(number > 0 for number in inliers.values())
    return Verification(len(inliers), verified, int(rejected), int(total), dict(sorted(inliers.items())))


@contextmanager
def open_database(database: Path, existing: bool = False) -> Iterator[Any]:
    """Open a database and close it, which pycolmap needs before anybody else may."""
    if existing and not Path(database).is_file():
        raise UsageError(f"{database}: no such database; write_features makes one")
    sidecars = [Path(f"{database}{ending}") for ending in ("-wal", "-shm")]
    absent = [path for path in sidecars if not path.exists()]  # SQLite leaves them beside a damaged database
    try:
        db = pycolmap.Database.open(str(database))
    except RuntimeError as error:
        refusal = _refusal(database)
        for path in absent:
            path.unlink(missing_ok=True)
        if refusal:
            raise UsageError(
                f"{database} cannot be opened ({refusal}): another program works on it, or its file system has no "
                "locks; wait, or take a folder on a local disk"
            ) from error
        raise UsageError(
            f"{database} cannot be opened as a COLMAP database; delete it to have it made again"
        ) from error
    try:
        yield db
    except RuntimeError as error:
        if isinstance(error, JobError):
            raise
        db.close()
        for path in absent:
            path.unlink(missing_ok=True)
        raise UsageError(f"{database} is a damaged COLMAP database: {error}") from error
    finally:
        db.close()


def _refusal(database: Path) -> str:
    """Say why SQLite cannot even look whether a file is a database; "" if it can. (pycolmap only logs it.)"""
    try:
        with closing(sqlite3.connect(database, timeout=0)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:  # locks, reading; of damaged files, another DatabaseError
        return str(error)
    except sqlite3.DatabaseError:
        pass
    return ""


def _camera_of(name: str, cameras: Mapping[str, Camera]) -> Camera:
    if name not in cameras:
        raise UsageError(f"{name} has keypoints but no camera")
    return cameras[name]


def _checked_matches(
    pair: str, indices: NDArray[Any], names: tuple[str, str], counts: Mapping[str, int]
) -> NDArray[np.uint32]:
    """Refuse what makes the library crash, read absent memory or count a match twice."""
    indices = np.asarray(indices)
    if indices.ndim != 2 or indices.shape[1] != 2 or indices.dtype.kind not in "iu":
        raise UsageError(f"{pair}: matches are integers (M, 2), got {indices.dtype} {indices.shape}")
    for column, name in enumerate(names):
        bad = (indices[:, column] < 0) | (indices[:, column] >= counts[name])
        if bad.any():
            row = int(np.argmax(bad))
            raise UsageError(
                f"{pair}: match {row} names keypoint {indices[row, column]} of {name}, which has {counts[name]}"
            )
    if len(np.unique(indices[:, 0].astype(np.uint64) << 32 | indices[:, 1].astype(np.uint64))) < len(indices):
        raise UsageError(f"{pair}: a match is given twice")
    return np.ascontiguousarray(indices, np.uint32)
