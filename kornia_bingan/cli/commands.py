"""The command ``bingan``: arguments in, exit status out; the work is done elsewhere.

Exit status 0: done; 1: the job could not be done; 2: wrong use. Results go to stdout (``--json``: one object), progress
and messages to stderr. Heavy libraries are loaded inside the commands, so that ``bingan --help`` is fast.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

import kornia_bingan
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.work.files import printable
from kornia_bingan.work.run_folder import QUIET

Photos = Annotated[Path, tyro.conf.Positional]
Source = Annotated[str, tyro.conf.Positional]
"""A folder, or an fsspec URL."""
Index = Annotated[str, tyro.conf.Positional]


def _print(value: dict[str, Any], table: str, as_json: bool) -> None:
    print(json.dumps(value) if as_json else table)


def _status(unreadable: int, strict: bool) -> int:
    """Give the exit status of a command that went on without the photos that it could not read."""
    if unreadable and strict:
        print(f"bingan: {unreadable} photos cannot be read, and --strict was given", file=sys.stderr)
        return 1
    return 0


def reconstruct(
    photos: Source,
    out: Photos,
    descriptor: str = "bingan256",
    detector: Literal["dog", "orb"] = "dog",
    max_keypoints: int = 4096,
    ratio: float | None = None,
    pairs: str = "exhaustive",
    camera: Literal["single", "per-folder", "per-size", "per-image"] = "per-size",
    camera_model: str = "SIMPLE_RADIAL",
    focal_px: float | None = None,
    intrinsics: tuple[str, ...] | None = None,
    cameras: Path | None = None,
    mapper: Literal["incremental", "global"] = "incremental",
    gps: bool = True,
    masks: Path | None = None,
    max_size: int = 0,
    seed: int = 0,
    time_limit: float = 0.0,
    strict: bool = False,
    workers: int = 0,
    scheduler: str | None = None,
    json: bool = False,
) -> int:
    """Make a COLMAP model of a folder of photos: OUT/model/, OUT/points.ply, OUT/report.html, OUT/summary.json.

    Args:
        photos: folder of photos, searched recursively, or a URL such as s3://BUCKET/PHOTOS, fetched to OUT.photos/.
        out: folder for the results; the same command goes on in it after a kill.
        descriptor: shipped name or weights file.
        detector: dog for blobs at all scales, orb for fast corners.
        max_keypoints: strongest keypoints of a photo.
        ratio: largest Hamming ratio of a match; the package's default if not given.
        pairs: exhaustive, sequential:K (each photo with the K after it), retrieval:K (with the K most similar), gps:K
            (with the K nearest), several of these with commas between, or a text file with two names a line.
        camera: one for all photos, for each folder, for each size and focal length, or for each photo.
        camera_model: COLMAP's name of the camera model.
        focal_px: focal length in pixels, as a start; what the photos say of their lens if not given.
        intrinsics: fx,fy,cx,cy[,k1,k2,p1,p2], kept fixed; the centre of the first pixel is (0, 0).
        cameras: COLMAP's cameras.txt with one camera for each size of photos, kept fixed.
        mapper: incremental, or global (GLOMAP), which is faster for hundreds of photos.
        gps: write the positions that photos say into the database.
        masks: folder of masks, black means ignore; that of a.jpg is a.jpg.png or a.png.
        max_size: pixels of the long side that larger photos are reduced to before description; 0 reduces nothing.
        seed: of everything random.
        time_limit: seconds; the same command goes on later. 0 is no limit.
        strict: exit status 1 at the end if a photo could not be read.
        workers: processes on this machine that share the work; 0 works in this one.
        scheduler: address of a running Dask scheduler, such as tcp://10.0.0.1:8786, whose workers share the work.
        json: print summary.json on stdout instead of a table.
    """
    from kornia_bingan.images.fetch import local_photos
    from kornia_bingan.reconstruct.options import DEFAULT_RATIO, ReconstructOptions
    from kornia_bingan.reconstruct.pipeline import reconstruct_photos

    _prepare()
    options = ReconstructOptions(
        descriptor=descriptor,
        detector=detector,
        max_keypoints=max_keypoints,
        ratio=DEFAULT_RATIO if ratio is None else ratio,
        pairs=pairs,
        camera=camera,
        camera_model=camera_model,
        focal_px=focal_px,
        intrinsics=None if intrinsics is None else _numbers("intrinsics", intrinsics),
        cameras=cameras,
        mapper=mapper,
        gps=gps,
        seed=seed,
        time_limit=time_limit,
        masks=masks,
        max_size=max_size,
        workers=workers,
        scheduler=scheduler,
    )
    folder = local_photos(photos, out)
    summary = reconstruct_photos(folder, out, options)
    _write_page(out, folder)
    _print(summary.to_json(), summary.table(), json)
    return _status(summary.unreadable, strict)


def describe(
    photos: Source,
    out: Photos,
    descriptor: str = "bingan256",
    detector: Literal["dog", "orb"] = "dog",
    max_keypoints: int = 4096,
    masks: Path | None = None,
    max_size: int = 0,
    time_limit: float = 0.0,
    strict: bool = False,
    workers: int = 0,
    scheduler: str | None = None,
    json: bool = False,
) -> int:
    """Write keypoints and codes of each photo: OUT/PHOTO.npz with xy, size, angle_deg, response, octave, codes.

    Args:
        photos: folder of photos, searched recursively, or a URL such as s3://BUCKET/PHOTOS, fetched to OUT.photos/.
        out: folder for the results; files that are there already are kept.
        descriptor: shipped name or weights file.
        detector: dog for blobs at all scales, orb for fast corners.
        max_keypoints: strongest keypoints of a photo.
        masks: folder of masks, black means ignore; that of a.jpg is a.jpg.png or a.png.
        max_size: pixels of the long side that larger photos are reduced to before description; 0 reduces nothing.
        time_limit: seconds; the same command goes on later. 0 is no limit.
        strict: exit status 1 at the end if a photo could not be read.
        workers: processes on this machine that share the work; 0 works in this one.
        scheduler: address of a running Dask scheduler, such as tcp://10.0.0.1:8786, whose workers share the work.
        json: print one JSON object on stdout instead of a table.
    """
    from kornia_bingan.images.fetch import local_photos
    from kornia_bingan.reconstruct.describe import describe_folder
    from kornia_bingan.report.text import skipped_lines, text_table
    from kornia_bingan.work.run_folder import TimeLimit

    _prepare()
    done = describe_folder(
        local_photos(photos, out),
        out,
        descriptor,
        detector=detector,
        max_keypoints=max_keypoints,
        limit=TimeLimit(time_limit),
        masks=masks,
        max_size=max_size,
        workers=workers,
        scheduler=scheduler,
    )
    values = dataclasses.asdict(done)
    table = text_table(["photo", "keypoints"], [[name, f"{count:,}"] for name, count in done.keypoints.items()])
    words = f"\n\n{len(done.keypoints):,} photos described"
    words += f"\n{done.masked} of {len(done.keypoints) + done.unreadable} photos have a mask" if done.masked else ""
    words += "".join(f"\n{printable(item.name)} is {printable(item.reason)}" for item in done.copies)
    _print(values, table + words + skipped_lines(values["skipped"]), json)
    if not done.keypoints:
        raise JobError(f"none of the {done.unreadable} photos in {photos} can be read")
    return _status(done.unreadable, strict)


def match(
    image0: Photos,
    image1: Photos,
    out: Path | None = None,
    descriptor: str = "bingan256",
    detector: Literal["dog", "orb"] = "dog",
    max_keypoints: int = 4096,
    ratio: float | None = None,
    threshold_px: float = 1.5,
    json: bool = False,
) -> int:
    """Match two photos and draw the matches; inliers of a robust fundamental matrix are in colour.

    Args:
        image0: first photo.
        image1: second photo.
        out: picture to write, such as matches.png.
        descriptor: shipped name or weights file.
        detector: dog for blobs at all scales, orb for fast corners.
        max_keypoints: strongest keypoints of a photo.
        ratio: largest Hamming ratio of a match; the package's default if not given.
        threshold_px: largest distance of an inlier to its epipolar line, pixels.
        json: print one JSON object on stdout instead of a table.
    """
    import numpy as np

    from kornia_bingan import matching
    from kornia_bingan.descriptor import BinGAN
    from kornia_bingan.geometry import fundamental_inliers
    from kornia_bingan.images.read import read_color, sample_ranges, write_image
    from kornia_bingan.reconstruct.describe import describe_photo
    from kornia_bingan.reconstruct.options import DEFAULT_RATIO
    from kornia_bingan.report.pictures import draw_matches
    from kornia_bingan.report.text import text_table

    _prepare()
    if out is not None and out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UsageError(f"{out}: the picture must be .png, .jpg or .webp")
    limit = DEFAULT_RATIO if ratio is None else ratio
    if not 0 <= limit <= 1:
        raise UsageError(f"the ratio is {limit}; give one between 0 and 1")
    model = BinGAN.from_pretrained(descriptor, precision="auto")
    ranges = sample_ranges(Path(), (str(image0), str(image1)))
    first, second = (describe_photo(p, model, detector, max_keypoints, ranges=ranges) for p in (image0, image1))
    _, indices = matching.match(first.codes, second.codes, "smnn", limit)
    xy0, xy1 = first.keypoints.xy[indices[:, 0]], second.keypoints.xy[indices[:, 1]]
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
    _print(counts, text_table(["", "count"], [[name, f"{count:,}"] for name, count in counts.items()]), json)
    return 0


def patches(
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional],
    model: Path | None = None,
    detector: Literal["dog", "orb"] = "dog",
    max_keypoints: int = 8192,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Turn folders of photos into a patch set in Brown's layout: bingan patches PHOTOS [PHOTOS ...] OUT.

    Args:
        paths: folders of photos, and last the folder of the set.
        model: COLMAP model of the photos (one folder of photos only); COLMAP's own SIFT makes one if not given.
        detector: dog for blobs at all scales, orb for fast corners.
        max_keypoints: strongest keypoints of a photo.
        seed: of the pairs.
        json: print one JSON object on stdout instead of a table.
    """
    from kornia_bingan.datasets.patch_sets import PatchSetOptions, make_patch_set
    from kornia_bingan.report.text import text_table

    if len(paths) < 2:
        raise UsageError("give at least one folder of photos and the folder of the set")
    _prepare()
    *photos, out = paths
    options = PatchSetOptions(detector=detector, max_keypoints=max_keypoints, seed=seed)
    summary = dataclasses.asdict(make_patch_set(photos, None if model is None else [model], out, options=options))
    rows = [[name, str(value)] for name, value in summary.items() if isinstance(value, int | float)]
    _print(summary, text_table(["", "value"], rows), json)
    return 0


def demo(out: Path = Path("demo"), descriptor: str = "bingan256", json: bool = False) -> int:
    """Render a scene, reconstruct it with our codes and with SIFT through COLMAP, and print both errors.

    Args:
        out: folder for the results; a finished demo prints its table again.
        descriptor: shipped name or weights file.
        json: print one JSON object on stdout instead of a table.
    """
    from kornia_bingan.cli.demo import demo_table, run_demo

    _prepare()
    result = run_demo(out, descriptor=descriptor)
    _write_page(out / "bingan", out / "scene" / "images")
    _print(result, demo_table(result), json)
    return 0


def _write_page(out: Path, photos: Path) -> None:
    """Write OUT/report.html unless it is there, or say how to get it."""
    from kornia_bingan.reconstruct.page import write_page
    from kornia_bingan.report.html import INSTALL, page_available

    if (out / "report.html").exists():
        return
    if page_available():
        print(f"report: {write_page(out, photos)}", file=sys.stderr)
    else:
        print(f"{out / 'report.html'} was not written, since Jinja2 or Plotly is missing: {INSTALL}", file=sys.stderr)


def index(
    folder: Source,
    index: Index,
    descriptor: str = "bingan256",
    workers: int = 0,
    scheduler: str | None = None,
    json: bool = False,
) -> int:
    """Index a folder of photos, to be searched by bingan search; the same command brings the index up to date.

    Args:
        folder: folder of photos, searched recursively, or a URL such as s3://BUCKET/PHOTOS, fetched to INDEX.photos/.
        index: folder of the index, or lancedb://PATH-or-URL to scale out (lancedb://s3://bucket/index); the same
            command goes on in it after a kill.
        descriptor: shipped name or weights file.
        workers: processes on this machine that share the work; 0 works in this one.
        scheduler: address of a running Dask scheduler, such as tcp://10.0.0.1:8786, whose workers share the work.
        json: print one JSON object on stdout instead of a table.
    """
    from kornia_bingan.images.fetch import local_photos
    from kornia_bingan.report.text import skipped_lines, text_table
    from kornia_bingan.search.index import LANCEDB, update_index

    _prepare()
    place = index.removeprefix(LANCEDB)
    if "://" in place and "://" in folder:
        raise UsageError(
            f"photos of a URL are fetched beside the index, but {index} is no folder; give a folder of photos"
        )
    photos = local_photos(folder, Path(place))
    summary = update_index(photos, index, descriptor, workers=workers, scheduler=scheduler)
    values = dataclasses.asdict(summary)
    skipped = [{"name": item.name, "reason": item.reason} for item in summary.skipped]
    rows = [[name, f"{value:,}"] for name, value in values.items() if name != "skipped"]
    rows.append(["skipped", f"{len(skipped):,}"])
    _print({**values, "skipped": skipped}, text_table(["", "count"], rows) + skipped_lines(skipped), json)
    return 0


def search(
    index: Index,
    picture: Photos,
    top: int = 20,
    out: Path | None = None,
    descriptor: str | None = None,
    json: bool = False,
) -> int:
    """Find the photos of an index that are most similar to a picture.

    Args:
        index: what bingan index was given.
        picture: any picture.
        top: how many photos.
        out: HTML page with their thumbnails.
        descriptor: weights file, if the index was made with weights that are not shipped.
        json: print one JSON object on stdout instead of a table.
    """
    from kornia_bingan.report.text import text_table
    from kornia_bingan.search.index import search_index

    _prepare()
    found = search_index(index, picture, top, descriptor)
    if out is not None:
        from kornia_bingan.search.page import write_search_page

        write_search_page(out, picture, index, found)
    rows = [[one.name, str(one.distance)] for one in found]
    values = {"found": [dataclasses.asdict(one) for one in found]}
    _print(values, text_table(["photo", "distance (bits)"], rows), json)
    return 0


def scene(
    out: Photos,
    scene: Photos,
    target: Annotated[Literal["3dgs", "nerfstudio", "openmvs", "meshlab"], tyro.conf.arg(name="for")],
    photos: Path | None = None,
    normals: bool = False,
    json: bool = False,
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
        json: print one JSON object on stdout instead of a table.
    """
    from kornia_bingan.reconstruct.scene_export import export_scene
    from kornia_bingan.report.text import text_table

    _prepare()
    done = export_scene(out, scene, target, photos=photos, normals=normals)
    rows = [
        ["pictures", f"{len(done.pictures):,}"],
        ["cameras", f"{done.cameras:,}"],
        ["points", f"{done.points:,}"],
        ["photos that are not in the model", f"{done.left_out:,}"],
    ]
    _print(dataclasses.asdict(done), text_table(["", "count"], rows), json)
    return 0


def export(out: Photos, descriptor: str = "bingan256", json: bool = False) -> int:
    """Write a network of patches as ONNX: patches (N, 1, 32, 32) in [0, 1] to packed codes and descriptors.

    Args:
        out: .onnx file.
        descriptor: shipped name or weights file.
        json: print one JSON object on stdout instead of a table.
    """
    from kornia_bingan.network.onnx import export_onnx
    from kornia_bingan.report.text import text_table

    values = export_onnx(descriptor, out)
    _print(values, text_table(["", "value"], [[name, str(value)] for name, value in values.items()]), json)
    return 0


def doctor(json: bool = False) -> int:
    """Say whether this installation works, and what to do about what does not; exit status 1 if something is broken.

    Args:
        json: print one JSON object on stdout instead of a table.
    """
    from kornia_bingan.cli.doctor import examine
    from kornia_bingan.report.text import text_table

    checks = examine()
    rows = [[check.name, check.state, check.found, check.advice] for check in checks]
    table = text_table(["", "state", "found", "to do"], rows)
    _print({"checks": [dataclasses.asdict(check) for check in checks]}, table, json)
    return int(any(check.state == "bad" for check in checks))


def _numbers(name: str, words: Sequence[str]) -> tuple[float, ...]:
    """Read numbers with commas or blanks between them."""
    try:
        return tuple(float(word) for word in ",".join(words).split(",") if word)
    except ValueError as error:
        raise UsageError(f"{name} are numbers, got '{' '.join(words)}'") from error


def _prepare() -> None:
    """Settings of a process that works alone: memory of freed tensors is kept for the next ones."""
    from kornia_bingan.work.memory import keep_freed_memory

    keep_freed_memory()


def _train(arguments: list[str]) -> int:
    """Parse ``bingan train`` in two steps, so that --help and the defaults are those of the preset."""
    from kornia_bingan.train.config import PRESETS, TrainConfig, preset_config
    from kornia_bingan.train.loop import train

    # "from" is no name for a field in Python. Going on from weights needs other settings than a start from nothing.
    arguments = [re.sub(r"^--from(?=$|=)", "--start", word) for word in arguments]
    preset = "adapt" if any(re.match(r"--start($|=)", word) for word in arguments) else "photos"
    for index, word in enumerate(arguments):
        if word == "--preset" and index + 1 < len(arguments):
            preset = arguments[index + 1]
        elif word.startswith("--preset="):
            preset = word.removeprefix("--preset=")
    required: Any = tyro.MISSING
    if preset not in PRESETS:
        raise UsageError(f"the preset is '{preset}'; choose one of {', '.join(PRESETS)}")
    as_json = "--json" in arguments
    config = tyro.cli(
        TrainConfig,
        prog="bingan train",
        description="Train on photos or on patch sets, without labels. The defaults are those of --preset.",
        default=preset_config(preset, required, required),
        args=[word for word in arguments if word != "--json"],
    )
    result = train(config)
    from kornia_bingan.report.text import skipped_lines, text_table

    rows = [[name, "", str(value)] for name, value in result.items() if not isinstance(value, dict | list)]
    before = result["before"]
    for name, value in result["validation"].items():
        rows.append([name, f"{before[name]:.4g}" if name in before else "", f"{value:.4g}"])
    _print(result, text_table(["", "before", "after"], rows) + skipped_lines(result["skipped"]), as_json)
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "reconstruct": reconstruct,
    "match": match,
    "describe": describe,
    "patches": patches,
    "index": index,
    "search": search,
    "scene": scene,
    "export": export,
    "doctor": doctor,
    "demo": demo,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show must not end the command
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(arguments)
    except SystemExit as error:  # of the argument parser: 0 after --help, 2 for wrong arguments
        return error.code if isinstance(error.code, int) else 2
    except (UsageError, JobError) as error:
        print(f"bingan: {printable(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("bingan: interrupted; the same command goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left at exit
        return 0
    except (ImportError, OSError) as error:
        print(f"bingan: {_in_words(error)}", file=sys.stderr)
        return 1


def _in_words(error: ImportError | OSError) -> str:
    """Say what of the machine failed: a library, a full disk, a folder that may not be written."""
    if isinstance(error, ImportError):
        if (error.name or "").startswith("kornia_bingan"):
            raise error
        return f"a library is missing or broken ({error}); pip install --force-reinstall 'kornia_bingan[opencv]'"
    place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return printable(place + (error.strerror or str(error)))


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["--version"]:
        print(f"bingan {kornia_bingan.__version__}")
        return 0
    if "" in arguments:  # a variable of the shell that was not set; as a path it would be the current folder
        raise UsageError(f"argument {1 + arguments.index('')} is empty; give a path, '.' for the current folder")
    if "--quiet" in arguments:
        arguments = [word for word in arguments if word != "--quiet"]
        os.environ[QUIET] = "1"
    if arguments[:1] == ["train"]:
        return _train(arguments[1:])
    words = ", ".join([*COMMANDS, "train"])
    description = f"Learned 256-bit local descriptors. bingan COMMAND --help explains each of: {words}. "
    description += "With --quiet, none of them shows progress."
    status = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="bingan", description=description, args=arguments)
    sys.stdout.flush()
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
