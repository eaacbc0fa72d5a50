"""Features and matches of photos become a database of verified pairs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from kornia_bingan.colmap.types import Verification
from kornia_bingan.images.exif import Position, read_exif
from kornia_bingan.reconstruct.cameras import cameras_of
from kornia_bingan.reconstruct.matches import exact_matches, read_matches
from kornia_bingan.reconstruct.run import Matched, Run
from kornia_bingan.reconstruct.update import matched_pairs
from kornia_bingan.work.files import atomic_path
from kornia_bingan.work.run_folder import LOG


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
            cameras = cameras_of(sizes, exif, run.options.cameras)
            if known is None:
                colmap.write_features(temporary, keypoints, cameras, positions)
                if run.options.cameras.rig is not None:
                    colmap.apply_rigs(temporary, run.options.cameras.rig)
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
