"""Keypoints and matches to and from a COLMAP database; two-view geometry of its pairs.

The frame changes here and nowhere else, see :mod:`kornia_bingan.colmap`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2  # noqa: F401 - must be loaded before pycolmap: after it, OpenCV aborts the process when it writes a PNG
import numpy as np
import pycolmap
from numpy.typing import NDArray

from kornia_bingan.colmap.types import Camera, Verification, by
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.work.files import atomic_path
from kornia_bingan.work.isolated import Report, run_in_child

HALF_PIXEL = 0.5
DEFAULT_FOCAL = 1.2
"""Focal length over the longer side where it is not known: COLMAP's own guess."""

MIN_INLIERS = 15
MAX_ERROR_PX = 4.0
"""COLMAP's own thresholds of a verified pair."""

CAMERA_MODELS = tuple(name for name in pycolmap.CameraModelId.__members__ if name not in ("INVALID", "EQUIRECTANGULAR"))


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
    rows = {name: _keypoint_rows(name, keypoints) for name, keypoints in sorted(features.items())}
    chosen = {name: cameras if isinstance(cameras, Camera) else _camera_of(name, cameras) for name in rows}
    converted = {camera: _camera_to_colmap(camera) for camera in chosen.values()}
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{database.parent} cannot be made: {error.strerror}") from error
    with atomic_path(database) as temporary, open_database(temporary) as db, pycolmap.DatabaseTransaction(db):
        ids = {camera: db.write_camera(value) for camera, value in converted.items()}
        for name, values in rows.items():
            image_id = db.write_image(pycolmap.Image(name=name, camera_id=ids[chosen[name]]))
            db.write_keypoints(image_id, values)
            if positions and name in positions:
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
        seed, log: as in :func:`verify`.

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

    The result depends on the seed, not on the number of threads. Killed on its way, the call goes on where it was.

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
        return {image.name: _to_keypoints(db.read_keypoints(image.image_id)) for image in images}


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
        for path in absent:
            path.unlink(missing_ok=True)
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


def _camera_of(name: str, cameras: Mapping[str, Camera]) -> Camera:
    if name not in cameras:
        raise UsageError(f"{name} has keypoints but no camera")
    return cameras[name]


def _camera_to_colmap(camera: Camera) -> Any:
    size = by((camera.width, camera.height))
    if camera.model not in CAMERA_MODELS:
        raise UsageError(f"the camera model is '{camera.model}'; choose one of {', '.join(CAMERA_MODELS)}")
    if min(camera.width, camera.height) < 1:
        raise UsageError(f"a camera of {size} pixels is impossible")
    focal = DEFAULT_FOCAL * max(camera.width, camera.height) if camera.focal_px is None else camera.focal_px
    made = pycolmap.Camera.create_from_model_name(1, camera.model, focal, camera.width, camera.height)
    made.has_prior_focal_length = camera.focal_px is not None or camera.params is not None
    if camera.params is not None:
        if len(camera.params) != len(made.params):
            raise UsageError(
                f"{camera.model} has the parameters {made.params_info}, but {len(camera.params)} were given"
            )
        params = np.array(camera.params, np.float64)
        params[list(made.principal_point_idxs())] += HALF_PIXEL
        made.params = params
    focals = np.array(made.params)[list(made.focal_length_idxs())]
    if not (np.isfinite(made.params).all() and (focals > 0).all()):
        raise UsageError(f"the {camera.model} camera of {size} has impossible parameters {made.params.tolist()}")
    return made


def read_cameras(path: Path) -> list[Camera]:
    """Read COLMAP's ``cameras.txt``: a line ``ID MODEL WIDTH HEIGHT PARAMETERS`` a camera, ``#`` for comments.

    Raises:
        UsageError: the file cannot be read, has no camera, or a line is none; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a list of cameras: {error}") from error
    cameras = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            made = pycolmap.Camera.create_from_model_name(1, words[1], 1.0, int(words[2]), int(words[3]))
            params = [float(word) for word in words[4:]]
            if len(params) != len(made.params):
                raise UsageError(f"{path}, line {number}: {words[1]} has the parameters {made.params_info}")
            made.params = params
            cameras.append(camera_from_colmap(made))
            _camera_to_colmap(cameras[-1])
        except (IndexError, ValueError, RuntimeError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"{path}, line {number} is no camera, ID MODEL WIDTH HEIGHT PARAMETERS: {line}") from error
    if not cameras:
        raise UsageError(f"{path} has no camera; a line is ID MODEL WIDTH HEIGHT PARAMETERS")
    return cameras


def camera_from_colmap(camera: Any) -> Camera:
    """Turn pycolmap's camera into one of this package's frame."""
    params = np.array(camera.params)
    params[list(camera.principal_point_idxs())] -= HALF_PIXEL
    return Camera(camera.width, camera.height, camera.model.name, tuple(params.tolist()))


def pixels_from_colmap(xy: NDArray[Any]) -> NDArray[Any]:
    """Move positions, shape (N, 2), from COLMAP's frame to this package's."""
    moved: NDArray[Any] = xy - xy.dtype.type(HALF_PIXEL)
    return moved


def _keypoint_rows(name: str, keypoints: Keypoints | NDArray[Any]) -> NDArray[np.float32]:
    """Turn keypoints into COLMAP's rows, in its frame."""
    if isinstance(keypoints, Keypoints):
        angle = np.deg2rad(np.where(keypoints.angle_deg == -1, 0, keypoints.angle_deg))
        given = np.column_stack([keypoints.xy, keypoints.size / 2, angle])
    else:
        given = np.asarray(keypoints)
        if given.ndim != 2 or given.shape[1] not in (2, 4, 6) or given.dtype.kind not in "fiu":
            raise UsageError(f"{name}: keypoints are numbers (N, 2), (N, 4) or (N, 6), got {given.dtype} {given.shape}")
    with np.errstate(over="ignore"):  # what does not fit is infinite and refused below
        rows = np.array(given, np.float32, order="C")
    rows[:, :2] += np.float32(HALF_PIXEL)
    bad = ~np.isfinite(rows).all(1)
    if rows.shape[1] == 4:
        bad |= rows[:, 2] <= 0
    if bad.any():
        index = int(np.argmax(bad))
        raise UsageError(f"{name}: keypoint {index} is not finite or has no size: {given[index].tolist()}")
    return rows


def _to_keypoints(rows: NDArray[np.float32]) -> Keypoints:
    count, columns = rows.shape
    scale, angle = np.ones(count, np.float32), np.zeros(count, np.float32)
    if columns == 4:
        scale, angle = rows[:, 2], rows[:, 3]
    elif columns == 6:
        a11, a12, a21, a22 = rows[:, 2:].T
        scale, angle = (np.hypot(a11, a21) + np.hypot(a12, a22)) / 2, np.arctan2(a21, a11)
    nothing = np.zeros(count, np.float32)
    degrees = np.mod(np.rad2deg(angle), 360).astype(np.float32)
    return Keypoints(pixels_from_colmap(rows[:, :2]), 2 * scale, degrees, nothing, nothing.astype(np.int32))


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
