"""Folders become scenes, homography sequences and pairs with known pose; every error names the file.

Layouts:

- scene: ``NAME/images/*`` and, where there is ground truth, ``NAME/cameras.json``
  (:func:`kornia_bingan.datasets.poses.load_cameras`), or a COLMAP model of PINHOLE cameras, ``NAME/sparse/0``;
- sequence: ``NAME/1.jpg`` .. and ``NAME/H_1_2`` .., any picture format (HPatches: ``1.ppm``); Oxford's own names
  ``img1.ppm`` and ``H1to2p``; EVD's own folders ``1/NAME.png``, ``2/NAME.png``, ``h/NAME.txt``. A matrix maps the first
  picture to the k-th, in the pixels of the files;
- pairs: ``FOLDER/pairs.json`` with ``image0, image1, K0, K1, R_0to1, t_0to1`` an entry, pictures in ``FOLDER/images``.

Pixel centres are at integers throughout. Pictures are never resized, so errors are in the pixels of the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.colmap import read_model
from kornia_bingan.datasets.poses import PosedCamera, load_cameras
from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import EXTENSIONS, list_images
from kornia_bingan.images.read import read_image

Image = NDArray[np.uint8]
Matrix = NDArray[np.float64]

_MATRIX_NAME = re.compile(r"H_?1(?:_|to)(\d+)p?(?:\.txt)?")
_PICTURE_NAME = re.compile(r"(?:img)?(\d+)")


@dataclass(frozen=True, eq=False)
class Scene:
    """Photos of one place.

    Attributes:
        name: of the folder.
        names: of the photos, sorted.
        images: grey uint8 (H, W), one a name.
        cameras: one a name, or None without ground truth.
    """

    name: str
    names: tuple[str, ...]
    images: tuple[Image, ...]
    cameras: tuple[PosedCamera, ...] | None


@dataclass(frozen=True, eq=False)
class HomographySequence:
    """Pictures of a plane or from one point: the first is related to each other one by a homography.

    Attributes:
        name: of the folder.
        group: ``oxford``, ``hpatches-v``, ``hpatches-i``, ``evd`` or ``other``, by the name.
        images: grey uint8 (H, W); the first is the reference.
        homographies: float64 (3, 3), the k-th maps the first image to image k + 1 of ``images``.
        paths: files of the images, where they were read from files.
    """

    name: str
    group: str
    images: tuple[Image, ...]
    homographies: tuple[Matrix, ...]
    paths: tuple[Path, ...] = ()


@dataclass(frozen=True, eq=False)
class PosedPair:
    """Two pictures with known relative pose: ``x1 = R @ x0 + t`` in the frames of the cameras.

    Attributes:
        name: both pictures.
        photos: the two, each named once in the data.
        image0, image1: grey uint8 (H, W).
        K0, K1, R: float64 (3, 3).
        t: float64 (3,); only its direction is used.
    """

    name: str
    photos: tuple[str, str]
    image0: Image
    image1: Image
    K0: Matrix
    K1: Matrix
    R: Matrix
    t: Matrix


def find_scenes(folder: Path, only: Sequence[str] = (), *, with_cameras: bool = False) -> list[Path]:
    """Find the folders with ``images/`` in a folder (or the folder itself), sorted by name.

    Args:
        folder: where to look.
        only: names to keep; empty keeps all.
        with_cameras: only those with ``cameras.json`` or ``sparse/0``.

    Raises:
        UsageError: the folder does not exist.
    """
    found = [path for path in [_existing(folder), *_subfolders(folder)] if (path / "images").is_dir()]
    found = [path for path in found if not (path / "pairs.json").is_file()]
    if with_cameras:
        found = [path for path in found if (path / "cameras.json").is_file() or (path / "sparse" / "0").is_dir()]
    return [path for path in found if not only or path.name in only]


def scenes_of(data: Path, names: Sequence[str]) -> list[Path]:
    """Give the folders of scenes, in the order of their names if none are given."""
    return [data / name for name in names] or sorted(path.parent for path in data.glob("*/images"))


def find_sequences(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """Find the homography sequences in a folder, in its sub-folders (or the folder itself), sorted by name.

    A sequence in EVD's own layout is the path of its matrix, ``h/NAME.txt``.

    Raises:
        UsageError: the folder does not exist.
    """
    folders = [_existing(folder), *_subfolders(folder)]
    folders += [inner for path in folders[1:] for inner in _subfolders(path)]
    found = []
    for path in folders:
        if any(_MATRIX_NAME.fullmatch(item.name) for item in path.iterdir() if item.is_file()):
            found.append(path)
        elif all((path / part).is_dir() for part in ("1", "2", "h")):
            found += sorted((path / "h").glob("*.txt"))
    return [path for path in found if not only or path.stem in only]


def read_scene(folder: Path) -> Scene:
    """Read a scene whole.

    Raises:
        UsageError: fewer than 2 photos, a damaged one, or cameras.json misses a photo or has another size for it.
    """
    names, skipped = list_images(folder / "images")
    if len(names) < 2:
        raise UsageError(f"{folder / 'images'} has {len(names)} photos ({len(skipped)} other files); 2 are needed")
    images = tuple(read_image(folder / "images" / name) for name in names)
    truth, model = folder / "cameras.json", folder / "sparse" / "0"
    if truth.is_file():
        cameras = load_cameras(truth)
    elif model.is_dir():
        truth, cameras = model, cameras_of_model(model)
    else:
        return Scene(folder.name, tuple(names), images, None)
    for name, image in zip(names, images, strict=True):
        if name not in cameras:
            raise UsageError(f"{truth} has no camera for {name}; remove the photo or add its camera")
        size = (cameras[name].width, cameras[name].height)
        if size != image.shape[::-1]:
            raise UsageError(
                f"{truth} says {name} is {size[0]} x {size[1]}, the file is {image.shape[1]} x {image.shape[0]}; "
                "the camera must belong to the file"
            )
    return Scene(folder.name, tuple(names), images, tuple(cameras[name] for name in names))


def cameras_of_model(folder: Path) -> dict[str, PosedCamera]:
    """Read the cameras of a COLMAP model of photos without distortion, by the names of the photos.

    Raises:
        UsageError: the folder holds no readable model, or a camera with distortion.
    """
    model = read_model(folder)
    cameras = {}
    for name, R, t, camera in zip(model.names, model.rotations, model.translations, model.cameras, strict=True):
        if camera.model != "PINHOLE" or camera.params is None:
            raise UsageError(f"{folder}: the camera of {name} is {camera.model}; undistort it by bingan scene")
        fx, fy, cx, cy = camera.params
        cameras[name] = PosedCamera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), R, t, camera.width, camera.height)
    return cameras


def read_sequence(path: Path) -> HomographySequence:
    """Read a sequence whole; give a path of :func:`find_sequences`.

    Raises:
        UsageError: a picture or matrix is absent or damaged, or a matrix is singular.
    """
    if path.is_file():  # EVD's own layout
        pictures = [_one_picture(path.parents[1] / part, path.stem) for part in ("1", "2")]
        homographies = [_read_matrix(path)]
        images = tuple(read_image(p) for p in pictures)
        return HomographySequence(path.stem, "evd", images, tuple(homographies), tuple(pictures))
    matrices = {}
    pictures_by_number: dict[int, Path] = {}
    for item in sorted(_existing(path).iterdir()):
        if (match := _MATRIX_NAME.fullmatch(item.name)) and item.is_file():
            matrices[int(match[1])] = item
        elif item.suffix.lower() in EXTENSIONS and (match := _PICTURE_NAME.fullmatch(item.stem)):
            if int(match[1]) in pictures_by_number:
                raise UsageError(f"{item} and {pictures_by_number[int(match[1])].name} have one number; keep one")
            pictures_by_number[int(match[1])] = item
    matrices.pop(1, None)  # the identity, which some copies have
    for number in (1, *sorted(matrices)):
        if number not in pictures_by_number:
            raise UsageError(f"{path} has no picture {number} (such as {number}.jpg) for its homography")
    if missing := sorted(set(pictures_by_number) - {1} - set(matrices)):
        raise UsageError(f"{path} has a picture {missing[0]} and no homography H_1_{missing[0]}")
    numbers = sorted(matrices)
    paths = tuple(pictures_by_number[number] for number in (1, *numbers))
    images = tuple(read_image(picture) for picture in paths)
    read = tuple(_read_matrix(matrices[n]) for n in numbers)
    return HomographySequence(path.name, group_of(path.name), images, read, paths)


def read_pairs(folder: Path) -> list[PosedPair]:
    """Read ``folder/pairs.json`` and its pictures; an empty list of pairs gives an empty list.

    Raises:
        UsageError: the file is absent or malformed, an entry lacks a key, R is no rotation, t is 0, or a picture is
            absent, damaged or of another size than ``size0`` / ``size1`` say.
    """
    path = folder / "pairs.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["pairs"]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no JSON object with a list 'pairs'") from error
    return [_read_pair(path, index, entry) for index, entry in enumerate(entries)]


def pairs_of_scene(scene: Scene, max_gap: int) -> list[PosedPair]:
    """Turn a scene with cameras into pairs of photos up to ``max_gap`` places apart in the order of their names.

    Raises:
        UsageError: the scene has no cameras.
    """
    if scene.cameras is None:
        raise UsageError(f"{scene.name} has no cameras.json, so its relative poses are not known")
    pairs = []
    for i, j in near_pairs(len(scene.images), max_gap):
        a, b = scene.cameras[i], scene.cameras[j]
        R = b.R @ a.R.T
        names = (scene.names[i], scene.names[j])
        photos = (f"{scene.name}/{names[0]}", f"{scene.name}/{names[1]}")
        name = f"{scene.name} {names[0]} {names[1]}"
        pairs.append(PosedPair(name, photos, scene.images[i], scene.images[j], a.K, b.K, R, b.t - R @ a.t))
    return pairs


def near_pairs(num_images: int, max_gap: int) -> list[tuple[int, int]]:
    """List the index pairs i < j <= i + max_gap, sorted."""
    return [(i, j) for i in range(num_images) for j in range(i + 1, min(num_images, i + max_gap + 1))]


def group_of(name: str) -> str:
    """Tell a sequence's group from its name."""
    if "evd" in name.lower():
        return "evd"
    if "oxford" in name.lower():
        return "oxford"
    if match := re.match(r"(?:hpatches_)?([vi])_", name):
        return f"hpatches-{match[1]}"
    return "other"


def transform(homography: Matrix, xy: NDArray[Any]) -> Matrix:
    """Map points (N, 2) by a homography; a point at infinity or behind becomes NaN."""
    mapped = np.column_stack([np.asarray(xy, np.float64), np.ones(len(xy))]) @ homography.T
    # The sign of the denominator at the points that are in sight is that of the determinant.
    depth = mapped[:, 2:] * np.sign(np.linalg.det(homography))
    points: Matrix = np.where(depth > 1e-12, mapped[:, :2] / np.where(depth > 1e-12, mapped[:, 2:], 1), np.nan)
    return points


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give the folder that holds the data")
    return folder


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _one_picture(folder: Path, stem: str) -> Path:
    found = [p for p in sorted(folder.glob(f"{stem}.*")) if p.suffix.lower() in EXTENSIONS]
    if len(found) != 1:
        raise UsageError(f"{folder} has {len(found)} pictures named {stem}; one is needed")
    return found[0]


def _read_matrix(path: Path) -> Matrix:
    try:
        matrix = np.array(path.read_text(encoding="utf-8").split(), np.float64)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as 9 numbers: {error}") from error
    if matrix.size != 9 or not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix.reshape(3, 3)) < 3:
        raise UsageError(f"{path} must hold the 9 finite numbers of an invertible matrix, it has {matrix.size}")
    return matrix.reshape(3, 3)


def _read_pair(path: Path, index: int, entry: Any) -> PosedPair:
    try:
        names = [str(entry[key]) for key in ("image0", "image1")]
        K0, K1, R, t = (np.array(entry[key], np.float64) for key in ("K0", "K1", "R_0to1", "t_0to1"))
        sizes = [tuple(entry[key]) if key in entry else None for key in ("size0", "size1")]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: pair {index} needs image0, image1, K0, K1, R_0to1 and t_0to1 ({error})") from error
    if (K0.shape, K1.shape, R.shape, t.shape) != ((3, 3), (3, 3), (3, 3), (3,)):
        raise UsageError(f"{path}: pair {index} has K0, K1, R_0to1, t_0to1 of wrong shapes")
    if not np.allclose(R @ R.T, np.eye(3), atol=1e-3) or np.linalg.det(R) < 0:
        raise UsageError(f"{path}: R_0to1 of pair {index} is not a rotation matrix")
    if not np.isfinite(t).all() or not t.any():
        raise UsageError(f"{path}: t_0to1 of pair {index} must be finite and not 0")
    images = [read_image(path.parent / "images" / name) for name in names]
    for name, image, size in zip(names, images, sizes, strict=True):
        if size is not None and size != image.shape[::-1]:
            raise UsageError(f"{path}: pair {index} says {name} is {size}, the file is {image.shape[::-1]}")
    return PosedPair(" ".join(names), (names[0], names[1]), images[0], images[1], K0, K1, R, t)
