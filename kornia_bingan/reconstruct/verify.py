"""Features and matches of photos become a database of verified pairs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from kornia_bingan.colmap.types import Camera, Verification, by, cameras_for, fixed_camera
from kornia_bingan.errors import UsageError
from kornia_bingan.images.exif import Exif, Position, read_exif
from kornia_bingan.reconstruct.matches import exact_matches, read_matches
from kornia_bingan.reconstruct.options import CameraOptions
from kornia_bingan.reconstruct.run import Matched, Run
from kornia_bingan.reconstruct.update import matched_pairs
from kornia_bingan.work.files import atomic_path
from kornia_bingan.work.run_folder import LOG

Cameras = dict[str, Camera]


def verify_pairs(run: Run, matched: Matched) -> Verification:
    """Write ``database.db`` with the verified pairs of the photos, unless it is there.

    Where results go on, it is their database with the new photos and the new pairs.
    """
    from kornia_bingan import colmap

    out, features = run.out, matched.features
    database, unverified = out / "database.db", out / "unverified.db"
    if database.exists():
        return colmap.read_verification(database)
    if not unverified.exists():
        known = None if run.base is None else run.base / "database.db"
        placed = {} if known is None else colmap.read_features(known)
        there = set() if known is None else matched_pairs(known)
        block = read_matches(run.home / "matches", [pair for pair in matched.pairs if frozenset(pair) not in there])
        exact, matches = exact_matches({name: found.keypoints for name, found in features.items()}, block, placed)
        if run.options.matches.align:
            total, kept = (sum(len(rows) for rows in each) for each in (block.matches, matches.values()))
            LOG.info("%d of %d matches agree once they are aligned", kept, total)
        keypoints = {name: points for name, points in exact.items() if name not in placed}
        sizes = {name: found.size for name, found in features.items()}
        exif = {name: read_exif(run.photos / name) for name in features}
        gps = run.options.gps
        positions = _priors({name: found.position for name, found in exif.items() if found.position and gps})
        with atomic_path(unverified) as temporary:
            cameras = _cameras(sizes, exif, run.options.cameras)
            if known is None:
                colmap.write_features(temporary, keypoints, cameras, positions)
            else:
                shutil.copyfile(known, temporary)
                colmap.add_features(temporary, keypoints, cameras, positions)
            colmap.write_matches(temporary, matches, verification=False)
    log = run.home / "log" / "verify.txt"
    state = colmap.verify(unverified, seed=run.options.seed, time_limit_s=run.limit.left_s(), log=log)
    unverified.replace(database)
    return state


def _priors(positions: Mapping[str, Position]) -> dict[str, tuple[float, float, float]]:
    """Give positions to the database: without heights all at 0; with some, those that have none are left out."""
    heights = {name: position[2] for name, position in positions.items()}
    if all(height is None for height in heights.values()):
        return {name: (latitude, longitude, 0.0) for name, (latitude, longitude, _) in positions.items()}
    if without := sum(height is None for height in heights.values()):
        LOG.warning("%d photos say no altitude, as others do: the database has no positions of them", without)
    return {name: (lat, lon, height) for name, (lat, lon, height) in positions.items() if height is not None}


def _cameras(sizes: Mapping[str, tuple[int, int]], exif: Mapping[str, Exif], options: CameraOptions) -> Cameras:
    if options.cameras is not None:
        from kornia_bingan.colmap import read_cameras

        known: dict[tuple[int, int], Camera] = {}
        for camera in read_cameras(options.cameras):
            size = (camera.width, camera.height)
            if size in known:
                raise UsageError(f"{options.cameras} has two cameras of {by(size)}; give one for each size of photos")
            known[size] = camera
        for name, size in sizes.items():
            if size not in known:
                raise UsageError(f"{name} is {by(size)}, but {options.cameras} has no camera of that size")
        return {name: known[size] for name, size in sizes.items()}
    if options.intrinsics is None:
        said = {name: found.focal_px(sizes[name]) for name, found in exif.items()}
        focals = {name: focal for name, focal in said.items() if focal is not None}
        return cameras_for(sizes, options.camera, options.camera_model, options.focal_px or focals)
    (first, size), *others = sizes.items()
    for name, other in others:
        if other != size:
            raise UsageError(
                f"intrinsics are those of one size, but {first} is {by(size)} and {name} is {by(other)}; "
                "give a cameras.txt with one camera for each size"
            )
    return dict.fromkeys(sizes, fixed_camera(size, options.intrinsics))
