"""Verified pairs of photos become models, and every photo that is in none gets a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kornia_bingan.colmap.types import GEOREFERENCE, Georeference, Model, NoModelError, Verification
from kornia_bingan.images.folders import Skipped
from kornia_bingan.reconstruct.pairs import Pair
from kornia_bingan.reconstruct.run import Run
from kornia_bingan.reconstruct.summary import ModelPhotos, PairStatistics, count_photos
from kornia_bingan.work.files import printable
from kornia_bingan.work.run_folder import LOG, no_progress

LARGEST = "model"
OTHERS = "models"


def map_photos(run: Run, num_images: int, statistics: PairStatistics) -> Model:
    """Write ``model/``, ``points.ply`` and, where there are more models, ``models/``, unless they are there.

    Returns:
        The largest model.
    """
    from kornia_bingan import colmap

    out, options = run.out, run.options
    folder = out / LARGEST
    if not folder.exists():
        shutil.rmtree(out / OTHERS, ignore_errors=True)  # of an attempt that was killed between the two
        if statistics.matched == 0:
            raise NoModelError(f"no two photos have a match: {statistics.sentence()}{run.kept()}")
        try:
            if options.cameras.poses is None:
                _map(run, folder, num_images)
            else:
                _triangulate(run, folder, options.cameras.poses)
        except NoModelError as error:
            raise NoModelError(f"{error}: {statistics.sentence()}{run.kept()}") from error
    if not (out / "points.ply").exists():
        colmap.write_points(folder, out / "points.ply")
    return colmap.read_model(folder)


def _map(run: Run, folder: Path, num_images: int) -> None:
    from kornia_bingan import colmap

    out, options = run.out, run.options
    start = None if run.base is None or options.mapper != "incremental" else run.base / LARGEST
    if start is not None and not start.exists():
        start = None
    if start is not None:
        LOG.info("map: goes on from %s", printable(str(start)))
    with tqdm(total=num_images, desc="map", unit="photo", disable=no_progress()) as bar:
        colmap.reconstruct(
            out / "database.db",
            run.photos,
            folder,
            mapper=options.mapper,
            refine=not options.cameras.known,
            seed=options.seed,
            time_limit_s=run.limit.left_s(),
            log=run.home / "log" / "map.txt",
            progress=lambda registered: bar.update(registered - bar.n),
            others=out / OTHERS,
            start=start,
            robust=options.robust,
            place=options.gps,
        )


def _triangulate(run: Run, folder: Path, known: Path) -> None:
    from kornia_bingan import colmap

    model = colmap.read_poses(known)
    poses = np.concatenate([model.rotations, model.translations[:, :, None]], 2)
    colmap.triangulate(
        run.out / "database.db",
        run.photos,
        folder,
        dict(zip(model.names, poses, strict=True)),
        seed=run.options.seed,
        time_limit_s=run.limit.left_s(),
        log=run.home / "log" / "map.txt",
        robust=run.options.robust,
    )


def place_of(model: Path) -> Georeference | None:
    """Read where a model is on the earth; None where no photo of it says its position."""
    path = model / GEOREFERENCE
    return Georeference(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def photos_of_models(out: Path, largest: Model) -> list[ModelPhotos]:
    """Say which photos each model in a folder has; the largest comes first."""
    from kornia_bingan.colmap import read_model

    found = [ModelPhotos(LARGEST, len(largest.xyz), list(largest.names))]
    count = len(list((out / OTHERS).iterdir())) if (out / OTHERS).exists() else 0
    for folder in (f"{OTHERS}/{number}" for number in range(1, count + 1)):
        model = read_model(out / folder)
        found.append(ModelPhotos(folder, len(model.xyz), list(model.names)))
    return found


def in_no_model(
    names: Iterable[str], models: Sequence[ModelPhotos], pairs: Sequence[Pair], verification: Verification
) -> list[Skipped]:
    """Say of each photo that is in no model how far it came: compared, matched, verified.

    Args:
        names: of all photos that took part.
        models: with their photos.
        pairs: that were compared.
        verification: of the pairs that have matches.
    """
    inliers: dict[str, dict[str, int]] = {}
    for (a, b), number in verification.inliers.items():
        inliers.setdefault(a, {})[b] = inliers.setdefault(b, {})[a] = number
    compared = {name for pair in pairs for name in pair}
    registered = {name for model in models for name in model.photos}
    return [Skipped(name, _reason(name in compared, inliers.get(name, {}))) for name in names if name not in registered]


def _reason(compared: bool, inliers: dict[str, int]) -> str:
    if not compared:
        return "compared with no other photo"
    if not inliers:
        return "no matches with any photo"
    best = max(inliers, key=lambda name: inliers[name])
    if not inliers[best]:
        return f"matches with {count_photos(len(inliers))}, but no verified pair"
    verified = sum(number > 0 for number in inliers.values())
    return f"verified with {count_photos(verified)} ({inliers[best]:,} inliers with {best} at most), but not registered"


def log_models(models: Sequence[ModelPhotos], unregistered: Sequence[Skipped]) -> None:
    """Name the photos of each model, and those in none, in the log."""
    for model in models:
        LOG.info("%s", printable(model.sentence()))
    for item in unregistered:
        LOG.info("in no model: %s: %s", printable(item.name), printable(item.reason))
