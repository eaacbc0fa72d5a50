"""A reconstruction becomes a folder that other programs open: pictures that fit the model, cameras and points.

A model of ``bingan reconstruct`` is in pixels of the photos as a viewer shows them, and its cameras have distortion.
What trains or meshes on it wants neither EXIF orientation nor distortion, nor HEIC or 16 bits:

    SCENE/images/          every registered photo, turned and undistorted, 8-bit colour, JPEG or PNG, in one folder
    SCENE/sparse/0/        COLMAP's binary files with PINHOLE cameras
    SCENE/points.ply       the points with colours, and normals if asked for
    SCENE/transforms.json  for nerfstudio
    SCENE/sparse/*.txt     for OpenMVS: COLMAP's text files where InterfaceCOLMAP looks for them
    SCENE/scene.mlp        for MeshLab
    SCENE/run.json         which photo became which picture
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kornia_bingan.colmap.model import open_model
from kornia_bingan.colmap.pinhole import Pinhole, Undistortion, pinhole_for, undistort_model
from kornia_bingan.colmap.types import by
from kornia_bingan.errors import UsageError
from kornia_bingan.images.read import Ranges, image_header, read_color, sample_ranges
from kornia_bingan.reconstruct.scene_files import Shot, point_normals, write_meshlab, write_ply, write_transforms
from kornia_bingan.reconstruct.summary import Summary
from kornia_bingan.work.files import atomic_folder, check_empty, sha256_of, write_json
from kornia_bingan.work.provenance import provenance
from kornia_bingan.work.run_folder import no_progress

Target = Literal["3dgs", "nerfstudio", "openmvs", "meshlab"]

JPEG_QUALITY = 95
_LOSSY = ("JPEG", "HEIF")
_LONGEST_NAME = 200  # bytes; file systems take 255


@dataclass(frozen=True)
class SceneSummary:
    """What an export wrote.

    Attributes:
        target: the program it is for.
        pictures: name of each picture in ``images/`` and of its photo.
        cameras: different cameras.
        points: points of the model.
        left_out: photos of the reconstruction that are not in the model and so have no picture.
    """

    target: str
    pictures: dict[str, str]
    cameras: int
    points: int
    left_out: int


def export_scene(
    out: Path, scene: Path, target: Target, *, photos: Path | None = None, normals: bool = False
) -> SceneSummary:
    """Write the model of a reconstruction and pictures that fit it, for another program.

    Args:
        out: folder of a finished ``bingan reconstruct``.
        scene: folder to write, absent or empty; it appears whole or not at all.
        target: the program, see the module's docstring.
        photos: where the photos are, if they have moved since.
        normals: fit a plane to the neighbours of each point and write its normal into ``points.ply``.

    Raises:
        UsageError: ``out`` is no finished reconstruction, ``scene`` is not empty, the target is unknown, or a photo is
            absent, unreadable, or not the one that was reconstructed; the message names the photo.
        JobError: a camera fits no pinhole camera.
    """
    if target not in get_args(Target):
        raise UsageError(f"the scene is for '{target}'; choose one of {', '.join(get_args(Target))}")
    check_empty(scene)
    summary, sums = _read_run(out)
    model = open_model(out / "model")
    folder = _photos_folder(out, summary, photos)
    images = sorted((model.images[key] for key in model.reg_image_ids()), key=lambda image: image.name)
    kinds = {image.name: _check_photo(out, folder, image.name, sums) for image in images}
    pictures = picture_names(kinds)
    with atomic_folder(scene) as temporary:
        (temporary / "images").mkdir()
        ranges = sample_ranges(folder, [image.name for image in images])
        pinholes = {}
        with tqdm(total=len(images), desc="undistort", unit="photo", disable=no_progress()) as bar:
            for camera_id in sorted({image.camera_id for image in images}):
                camera = model.cameras[camera_id]
                pinholes[camera_id] = pinhole_for(camera)
                undistort = Undistortion(camera, pinholes[camera_id])
                for image in images:
                    if image.camera_id == camera_id:
                        pixels = _read_photo(folder / image.name, camera, ranges)
                        _write_picture(temporary / "images" / pictures[image.name], undistort(pixels))
                        bar.update()
        undistort_model(model, pinholes, pictures)
        _write_files(temporary, model, images, target, normals)
        of_photo = {pictures[name]: name for name in sorted(pictures)}
        identity = {"command": "scene", "for": target, "normals": normals}
        # a folder with a run.json is no folder of photos, also inside of one
        write_json(temporary / "run.json", {"identity": identity, "provenance": provenance(), "pictures": of_photo})
    return SceneSummary(target, of_photo, len(pinholes), len(model.points3D), summary.images - len(images))


def picture_names(kinds: Mapping[str, str]) -> dict[str, str]:
    """Name the picture of each photo: in one folder, without blanks, with one dot, and different up to that dot.

    Of a name, Inria's Gaussian splatting takes what follows the last "/" and stands before the first dot, and OpenMVS
    what stands before a blank.

    Args:
        kinds: container of each photo, by its name with "/" between the parts.
    """
    taken: set[str] = set()
    names = {}
    for name, kind in kinds.items():
        stem = re.sub(r"[^\w-]", "_", name.rpartition(".")[0] or name)
        stem = stem.encode()[:_LONGEST_NAME].decode(errors="ignore")
        number, unique = 1, stem
        while unique.casefold() in taken:
            number += 1
            unique = f"{stem}-{number}"
        taken.add(unique.casefold())
        names[name] = unique + (".jpg" if kind in _LOSSY else ".png")
    return names


def _read_run(out: Path) -> tuple[Summary, dict[str, str]]:
    """Read the summary of a finished reconstruction, and the checksums of its photos."""
    if not (out / "summary.json").is_file() or not (out / "model").is_dir():
        raise UsageError(f"{out} holds no finished reconstruction; run bingan reconstruct PHOTOS {out} to its end")
    try:
        sums: dict[str, str] = dict(json.loads((out / "run.json").read_text(encoding="utf-8"))["identity"]["photos"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{out / 'run.json'} was not written by bingan reconstruct; give the folder of a run"
        ) from error
    return Summary.read(out / "summary.json"), sums


def _photos_folder(out: Path, summary: Summary, photos: Path | None) -> Path:
    if photos is None and not summary.photos:
        raise UsageError(f"{out} does not say where its photos are; give their folder with --photos")
    folder = Path(summary.photos) if photos is None else photos
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; say with --photos where the photos of {out} are")
    return folder


def _check_photo(out: Path, folder: Path, name: str, sums: Mapping[str, str]) -> str:
    """Make sure that a photo is the one that was reconstructed; gives the kind of its container."""
    path = folder / name
    if not path.is_file():
        raise UsageError(f"{name} is not in {folder}; say with --photos where the photos of {out} are")
    if sums.get(name) != sha256_of(path):
        raise UsageError(f"{path} is not the photo that was reconstructed; say with --photos where that one is")
    return image_header(path).kind


def _read_photo(path: Path, camera: Any, ranges: Ranges) -> NDArray[np.uint8]:
    pixels = read_color(path, ranges)
    size = pixels.shape[1], pixels.shape[0]
    if size != (camera.width, camera.height):
        raise UsageError(
            f"{path} is {by(size)}, its camera in the model {by((camera.width, camera.height))}; reconstruct it again"
        )
    return pixels


def _write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write JPEG of high quality with full colour, or PNG, by the extension; not by cv2.imwrite, see images."""
    lossless: list[int] = []
    full = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    full += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, data = cv2.imencode(path.suffix, rgb[:, :, ::-1], full if path.suffix == ".jpg" else lossless)
    path.write_bytes(data.tobytes())


def _write_files(folder: Path, model: Any, images: Sequence[Any], target: Target, normals: bool) -> None:
    """Write the model and what is made of it; it is one of pinhole cameras already."""
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    model.write_binary(str(sparse))
    shots = []
    keys = np.array(sorted(model.points3D), np.uint64)
    xyz = np.array([model.points3D[int(key)].xyz for key in keys], np.float64).reshape(-1, 3)
    rgb = np.array([model.points3D[int(key)].color for key in keys], np.uint8).reshape(-1, 3)
    towards = np.zeros_like(xyz)
    for image in images:
        pose = image.cam_from_world().matrix()
        camera = model.cameras[image.camera_id]
        pinhole = Pinhole(camera.width, camera.height, float(camera.params[0]))
        shots.append(Shot(image.name, pinhole, pose[:, :3].copy(), pose[:, 3].copy()))
        seen = [point.point3D_id for point in image.get_observation_points2D()]
        rows = np.searchsorted(keys, np.unique(np.array(seen, np.uint64)))
        to_camera = shots[-1].center - xyz[rows]
        towards[rows] += to_camera / np.maximum(np.linalg.norm(to_camera, axis=1, keepdims=True), 1e-300)
    write_ply(folder / "points.ply", xyz, rgb, point_normals(xyz, towards) if normals else None)
    if target == "nerfstudio":
        write_transforms(folder / "transforms.json", shots, "points.ply")
    elif target == "openmvs":
        model.write_text(str(folder / "sparse"))
    elif target == "meshlab":
        write_meshlab(folder / "scene.mlp", shots, "points.ply")
