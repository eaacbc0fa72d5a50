"""Verified pairs of photos become models."""

from __future__ import annotations

from tqdm import tqdm

from kornia_bingan.colmap.types import Model, NoModelError
from kornia_bingan.reconstruct.run import Run
from kornia_bingan.reconstruct.summary import PairStatistics
from kornia_bingan.work.run_folder import no_progress


def map_photos(run: Run, num_images: int, statistics: PairStatistics) -> Model:
    """Write ``model/`` and ``points.ply``, unless they are there."""
    from kornia_bingan import colmap

    out, options = run.out, run.options
    folder = out / "model"
    if not folder.exists():
        if statistics.matched == 0:
            raise NoModelError(f"no two photos have a match: {statistics.sentence()}")
        with tqdm(total=num_images, desc="map", unit="photo", disable=no_progress()) as bar:
            try:
                colmap.reconstruct(
                    out / "database.db",
                    run.photos,
                    folder,
                    mapper=options.mapper,
                    refine=options.cameras.intrinsics is None and options.cameras.cameras is None,
                    seed=options.seed,
                    time_limit_s=run.limit.left_s(),
                    log=out / "log" / "map.txt",
                    progress=lambda registered: bar.update(registered - bar.n),
                )
            except NoModelError as error:
                raise NoModelError(f"{error}: {statistics.sentence()}") from error
    if not (out / "points.ply").exists():
        colmap.write_points(folder, out / "points.ply")
    return colmap.read_model(folder)
