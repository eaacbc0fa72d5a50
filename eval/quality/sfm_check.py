"""Is SIFT through this harness what SIFT through plain pycolmap is?

    python -m eval sfm_check DATA/validate [--scenes herz_jesus] [--seeds 3]

Protocol. COLMAP extracts and matches SIFT with its default options. ``plain`` goes on with pycolmap alone: its
verification inside ``match_exhaustive`` and ``incremental_mapping``, default options. ``harness`` takes the same
keypoints and raw matches through the functions that every descriptor of ``sfm`` goes through: ``write_features``,
``write_matches`` (verification) and ``reconstruct``. Both are run with several random seeds; the spread between seeds
is the noise that their difference is to be judged by.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2  # noqa: F401 - before pycolmap, see half_pixel
import numpy as np
import pycolmap

from eval.harness.columns import Column, text_of
from eval.harness.command import Names, OptionalOut, Scenes, command_line
from eval.harness.data import scenes_of
from eval.harness.matchers import Images, Matched, Matcher, colmap_sift, read_raw_matches
from eval.harness.records import write_json
from eval.quality.sfm import against_truth, evaluate
from kornia_bingan.colmap import read_features, read_model
from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.images.read import read_image
from kornia_bingan.work.isolated import Report, run_in_child
from kornia_bingan.work.provenance import provenance

MEASURES = ("points", "observations", "mean_reprojection_error_px", "rotation_deg", "position_percent")


def _measure(name: str) -> Column:
    """Give the column of a measure: its mean over the seeds, from the least to the most."""
    header = f"{name.replace('_', ' ')} (least to most)"
    return Column(header, lambda r: r[name] and r[name][0], ",.3f", interval=lambda r: r[name] and r[name][1:])


COLUMNS = (
    Column("scene", "scene"),
    Column("pipeline", "pipeline"),
    Column("seeds", "seeds"),
    Column("registered", lambda r: r["registered"][0], lambda r: str(r["registered"]), views=("text", "page")),
    *map(_measure, MEASURES),
)


def map_plain(report: Report, *, database: str, images: str, out: str, seed: int) -> str:
    """Run pycolmap's mapper with its default options; give the name of the folder of the largest model."""
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = seed
    options.num_threads = options.mapper.num_threads = 1
    models = pycolmap.incremental_mapping(database, images, out, options)
    if not models:
        raise UsageError(f"{images}: plain pycolmap finds no model")
    return str(max(models, key=lambda index: models[index].num_reg_images()))


def plain(scene: Path, images: Images, seed: int) -> dict[str, Any]:
    """Reconstruct a scene by pycolmap alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = colmap_sift(images, folder, seed=seed)
        (folder / "models").mkdir()
        arguments = {"database": str(database), "images": str(folder / "images"), "out": str(folder / "models")}
        largest = run_in_child(f"{__name__}:map_plain", {**arguments, "seed": seed}, stage="mapping")
        model = read_model(folder / "models" / largest)
    truth = scene / "cameras.json"
    return {
        "registered": len(model.names),
        "points": len(model.xyz),
        "observations": model.observations,
        "mean_reprojection_error_px": round(model.mean_reprojection_error_px, 4),
        **against_truth(model, truth if truth.is_file() else None),
    }


def harness(scene: Path, images: Images, seed: int) -> dict[str, Any]:
    """Reconstruct a scene from COLMAP's keypoints and raw matches as every descriptor of ``sfm`` is."""

    def match(images: Images, _features: Any) -> Matched:
        with tempfile.TemporaryDirectory() as folder:
            database = colmap_sift(images, Path(folder), seed=seed)
            return Matched(read_features(database), read_raw_matches(database), 0)

    result, _ = evaluate(scene, Matcher("sift", {}, match), images, {}, seed)
    return {
        "registered": len(result.registered),
        "points": result.points,
        "observations": result.observations,
        "mean_reprojection_error_px": result.mean_reprojection_error_px,
        "rotation_deg": result.rotation_deg,
        "position_percent": result.position_percent,
        "pair_auc": result.pair_auc,
    }


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give mean, least and largest value of each measure by scene and pipeline."""
    built = []
    for scene in dict.fromkeys(row["scene"] for row in rows):
        for pipeline in ("plain", "harness"):
            chosen = [row for row in rows if (row["scene"], row["pipeline"]) == (scene, pipeline)]
            entry: dict[str, Any] = {"scene": scene, "pipeline": pipeline, "seeds": len(chosen)}
            entry["registered"] = [min(r["registered"] for r in chosen), max(r["registered"] for r in chosen)]
            for name in MEASURES:
                values = [row[name] for row in chosen if row[name] is not None]
                entry[name] = [float(np.mean(values)), min(values), max(values)] if values else None
            built.append(entry)
    return built


@command_line("sfm_check")
def main(data: Scenes, scenes: Names = (), seeds: int = 3, out: OptionalOut = None) -> int:
    """Reconstruct by both ways.

    Args:
        scenes: names, separated by commas; all scenes by default.
        seeds: how many reconstructions of each.
    """
    folders = scenes_of(data, scenes)
    if not folders or seeds < 1:
        raise UsageError(f"{data} has no folder with images/ in it, or --seeds is below 1")
    rows = []
    for scene in folders:
        images = {name: read_image(scene / "images" / name) for name in list_images(scene / "images")[0]}
        for seed in range(seeds):
            for pipeline, run in (("plain", plain), ("harness", harness)):
                rows.append({"scene": scene.name, "pipeline": pipeline, "seed": seed, **run(scene, images, seed)})
                print(f"{scene.name} {pipeline} {rows[-1]['points']:,} points", file=sys.stderr, flush=True)
    summary = summarise(rows)
    print(text_of(COLUMNS, summary))
    if out:
        command = f"python -m eval sfm_check DATA/{data.resolve().name} --seeds {seeds}"
        command += f" --scenes {','.join(scenes)}" if scenes else ""
        record = {"protocol": "sfm_check", "command": command, "results": rows, "summary": summary}
        write_json(out, {**record, "provenance": provenance(None)})
    return 0
