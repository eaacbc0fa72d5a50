"""The commands of ``bingan`` but ``train``: options in, exit status out; the work is done elsewhere.

Results go to stdout (``--json``: one object), progress and messages to stderr. Options that several commands share are
declared in :mod:`kornia_bingan.work.options`, those of reconstructions in :mod:`kornia_bingan.reconstruct.options`.
Heavy libraries are loaded inside the commands, so that ``bingan --help`` is fast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kornia_bingan.cli.arguments import (
    Image0,
    Image1,
    Json,
    NewPhotos,
    OnnxFile,
    Out,
    Panoramas,
    Photos,
    Scene,
    Strict,
    Video,
)
from kornia_bingan.cli.results import exit_status, print_result, write_report
from kornia_bingan.cli.search import duplicates, index, search, vocabulary
from kornia_bingan.datasets.patch_options import PatchSetOptions
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.reconstruct.options import MatchOptions, ReconstructOptions, check_matching
from kornia_bingan.work.files import printable
from kornia_bingan.work.memory import keep_freed_memory
from kornia_bingan.work.options import (
    DescribeOptions,
    FeatureOptions,
    KeypointOptions,
    WeightsOptions,
    WorkOptions,
)

MANY_KEYPOINTS = KeypointOptions(max_keypoints=PatchSetOptions.max_keypoints)


def reconstruct(
    photos: Photos,
    out: Out,
    options: Annotated[ReconstructOptions, tyro.conf.arg(name="")],
    strict: Strict = False,
    json: Json = False,
) -> int:
    """Make a COLMAP model of a folder of photos: OUT/model/, OUT/points.ply, OUT/report.html, OUT/summary.json.

    Photos of several places give several models: OUT/model/ is the largest, OUT/models/1, ... are the others.

    Args:
        photos: folder of photos, searched recursively, or a URL such as s3://BUCKET/PHOTOS, fetched to OUT.photos/.
        out: folder for the results; run the command again to resume after a kill, or when photos were added or removed.
    """
    from kornia_bingan.images.fetch import local_photos
    from kornia_bingan.reconstruct.pipeline import reconstruct_photos

    keep_freed_memory()
    folder = local_photos(photos, out)
    summary = reconstruct_photos(folder, out, options)
    write_report(out, folder)
    print_result(summary.to_json(), summary.table(), json)
    return exit_status(summary.unreadable, strict)


def describe(
    photos: Photos,
    out: Out,
    features: FeatureOptions,
    work: WorkOptions,
    format: Literal["npz", "h5"] = "npz",
    strict: Strict = False,
    json: Json = False,
) -> int:
    """Write keypoints and codes of each photo: OUT/PHOTO.npz with xy, size, angle_deg, response, octave, codes.

    Args:
        photos: folder of photos, searched recursively, or a URL such as s3://BUCKET/PHOTOS, fetched to OUT.photos/.
        out: folder for the results; files that are there already are kept, also of photos that are gone since.
        format: h5 also writes OUT/features.h5, all photos in one file as hloc reads it.
    """
    from kornia_bingan.images.fetch import local_photos
    from kornia_bingan.reconstruct.describe import describe_folder
    from kornia_bingan.report.text import skipped_lines, text_table

    keep_freed_memory()
    done = describe_folder(local_photos(photos, out), out, features, work, h5=format == "h5")
    values = dataclasses.asdict(done)
    table = text_table(["photo", "keypoints"], [[name, f"{count:,}"] for name, count in done.keypoints.items()])
    words = f"\n\n{len(done.keypoints):,} photos described"
    words += f"\n{done.masked} of {len(done.keypoints) + done.unreadable} photos have a mask" if done.masked else ""
    words += "".join(f"\n{printable(item.name)} is {printable(item.reason)}" for item in done.copies)
    print_result(values, table + words + skipped_lines(values["skipped"]), json)
    if not done.keypoints:
        raise JobError(f"none of the {done.unreadable} photos in {photos} can be read")
    return exit_status(done.unreadable, strict)


def match(
    image0: Image0,
    image1: Image1,
    features: DescribeOptions,
    matches: MatchOptions,
    out: Path | None = None,
    threshold_px: float = 1.5,
    json: Json = False,
) -> int:
    """Match two photos and draw the matches; inliers of a robust fundamental matrix are in colour.

    Args:
        image0: first photo.
        image1: second photo.
        out: picture to write, such as matches.png.
        threshold_px: largest distance of an inlier to its epipolar line, pixels.
    """
    import numpy as np

    from kornia_bingan.descriptor import BinGAN
    from kornia_bingan.images.read import read_color, read_image, sample_ranges, write_image
    from kornia_bingan.matching.geometry import fundamental_inliers
    from kornia_bingan.patches import build_pyramid
    from kornia_bingan.reconstruct.describe import describe_photo
    from kornia_bingan.reconstruct.matches import exact_matches, match_features
    from kornia_bingan.reconstruct.options import context_for
    from kornia_bingan.report.pictures import draw_matches
    from kornia_bingan.report.text import text_table

    keep_freed_memory()
    if out is not None and out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UsageError(f"{out}: the picture must be .png, .jpg or .webp")
    check_matching(matches, features.descriptor)
    model = BinGAN.from_pretrained(features.descriptor, precision="auto")
    ranges = sample_ranges(Path(), (str(image0), str(image1)))
    first, second = (describe_photo(path, model, features, ranges=ranges) for path in (image0, image1))
    photos = {"0": first, "1": second}
    files = {"0": image0, "1": image1}
    block = match_features(
        [("0", "1")],
        photos.__getitem__,
        matches.ratio,
        context_for(matches, features.descriptor),
        (lambda name: build_pyramid(read_image(files[name], ranges))) if matches.align else None,
    )
    keypoints, found = exact_matches({name: each.keypoints for name, each in photos.items()}, block)
    indices = found["0", "1"]
    xy0, xy1 = keypoints["0"].xy[indices[:, 0]], keypoints["1"].xy[indices[:, 1]]
    _, inliers = fundamental_inliers(xy0, xy1, threshold_px)
    counts = {
        "keypoints0": len(first.keypoints),
        "keypoints1": len(second.keypoints),
        "matches": len(indices),
        "inliers": int(np.count_nonzero(inliers)),
    }
    if out is not None:
        picture = draw_matches(read_color(image0, ranges), read_color(image1, ranges), xy0, xy1, inliers)
        write_image(out, picture[:, :, ::-1])
    print_result(counts, text_table(["", "count"], [[name, f"{count:,}"] for name, count in counts.items()]), json)
    return 0


def patches(
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS [PHOTOS ...] OUT")],
    model: Path | None = None,
    keypoints: KeypointOptions = MANY_KEYPOINTS,
    seed: int = PatchSetOptions.seed,
    json: Json = False,
) -> int:
    """Turn folders of photos into a patch set in Brown's layout: bingan patches PHOTOS [PHOTOS ...] OUT.

    Args:
        paths: folders of photos, and last the folder of the set.
        model: COLMAP model of the photos (one folder of photos only); COLMAP's own SIFT makes one if not given.
        seed: seed of the choice of pairs.
    """
    from kornia_bingan.datasets.patch_sets import make_patch_set
    from kornia_bingan.report.text import text_table

    if len(paths) < 2:
        raise UsageError("give at least one folder of photos and the folder of the set")
    keep_freed_memory()
    *photos, out = paths
    options = PatchSetOptions(**vars(keypoints), seed=seed)
    summary = dataclasses.asdict(make_patch_set(photos, None if model is None else [model], out, options=options))
    rows = [[name, str(value)] for name, value in summary.items() if isinstance(value, int | float)]
    print_result(summary, text_table(["", "value"], rows), json)
    return 0


def demo(weights: WeightsOptions, out: Path = Path("demo"), json: Json = False) -> int:
    """Render a scene, reconstruct it with our codes and with SIFT through COLMAP, and print both errors.

    Args:
        out: folder for the results; a finished demo prints its table again.
    """
    from kornia_bingan.cli.demo import demo_table, run_demo

    keep_freed_memory()
    result = run_demo(out, descriptor=weights.descriptor)
    write_report(out / "bingan", out / "scene" / "images")
    print_result(result, demo_table(result), json)
    return 0


def scene(
    out: Out,
    scene: Scene,
    target: Annotated[Literal["3dgs", "nerfstudio", "openmvs", "meshlab"], tyro.conf.arg(name="for")],
    photos: Path | None = None,
    normals: bool = False,
    json: Json = False,
) -> int:
    """Write pictures that fit a model, turned and undistorted, with cameras and points for another program.

    SCENE gets images/ (JPEG and PNG), sparse/0/ (COLMAP's files, PINHOLE cameras), points.ply, and transforms.json for
    nerfstudio, COLMAP's text files in sparse/ for OpenMVS, scene.mlp for MeshLab.

    Args:
        out: folder of bingan reconstruct.
        scene: folder to write, absent or empty.
        target: the program.
        photos: folder of the photos, if they have moved since.
        normals: write normals into points.ply, of a plane through the neighbours of each point, towards the cameras
            that see it; good on walls and ground, rough on leaves and wires.
    """
    from kornia_bingan.reconstruct.scene_export import export_scene
    from kornia_bingan.report.text import text_table

    keep_freed_memory()
    done = export_scene(out, scene, target, photos=photos, normals=normals)
    rows = [
        ["pictures", f"{len(done.pictures):,}"],
        ["cameras", f"{done.cameras:,}"],
        ["points", f"{done.points:,}"],
        ["photos that are not in the model", f"{done.left_out:,}"],
    ]
    print_result(dataclasses.asdict(done), text_table(["", "count"], rows), json)
    return 0


def frames(video: Video, photos: NewPhotos, overlap: float = 0.9, json: Json = False) -> int:
    """Write sharp frames of a video as photos to reconstruct: as many as the way of the camera needs.

    Args:
        video: file that OpenCV's FFmpeg reads, such as MP4 or MOV.
        photos: folder to write, absent or empty.
        overlap: part of a photo that the next one shows, too.
    """
    from kornia_bingan.images.video import extract_frames
    from kornia_bingan.report.text import text_table

    done = extract_frames(video, photos, overlap=overlap)
    rows = [["frames", f"{done.frames:,}"], ["seconds", f"{done.seconds:,.1f}"], ["photos", f"{len(done.photos):,}"]]
    print_result(dataclasses.asdict(done), text_table(["", "count"], rows), json)
    return 0


def panoramas(panoramas: Panoramas, photos: NewPhotos, views: int = 6, json: Json = False) -> int:
    """Cut panoramas of all directions to photos: then bingan reconstruct PHOTOS OUT --rig PHOTOS/rig.json.

    Args:
        panoramas: folder of equirectangular pictures, twice as wide as high, all of one size.
        photos: folder to write, absent or empty; gets a folder for each direction, and rig.json.
        views: photos of each panorama, around the horizon.
    """
    from kornia_bingan.images.panoramas import cut_panoramas
    from kornia_bingan.report.text import text_table

    done = cut_panoramas(panoramas, photos, views=views)
    rows = [
        ["panoramas", f"{done.panoramas:,}"],
        ["photos", f"{done.panoramas * done.views:,}"],
        ["size of a photo (px)", f"{done.size_px} x {done.size_px}"],
        ["focal length (px)", f"{done.focal_px:.1f}"],
        *[["passed over", printable(name)] for name in done.skipped],
    ]
    print_result(dataclasses.asdict(done), text_table(["", "value"], rows), json)
    return 0


def export(
    out: OnnxFile, weights: WeightsOptions, input: Literal["patches", "image"] = "patches", json: Json = False
) -> int:
    """Write a network of patches as ONNX: patches (N, 1, 32, 32) in [0, 1] to packed codes and descriptors.

    Args:
        out: .onnx file.
        input: image: the file takes a grey image (1, 1, H, W) in [0, 1] and LAFs (N, 2, 3), and cuts the patches.
    """
    from kornia_bingan.network.onnx import export_onnx
    from kornia_bingan.report.text import text_table

    values = export_onnx(weights.descriptor, out, input=input)
    print_result(values, text_table(["", "value"], [[name, str(value)] for name, value in values.items()]), json)
    return 0


def doctor(json: Json = False) -> int:
    """Say whether this installation works, and what to do about what does not; exit status 1 if something is broken."""
    from kornia_bingan.cli.doctor import examine
    from kornia_bingan.report.text import text_table

    checks = examine()
    rows = [[check.name, check.state, check.found, check.advice] for check in checks]
    table = text_table(["", "state", "found", "to do"], rows)
    print_result({"checks": [dataclasses.asdict(check) for check in checks]}, table, json)
    return int(any(check.state == "bad" for check in checks))


COMMANDS: dict[str, Callable[..., int]] = {
    "reconstruct": reconstruct,
    "match": match,
    "describe": describe,
    "patches": patches,
    "index": index,
    "search": search,
    "duplicates": duplicates,
    "vocabulary": vocabulary,
    "frames": frames,
    "panoramas": panoramas,
    "scene": scene,
    "export": export,
    "doctor": doctor,
    "demo": demo,
}
