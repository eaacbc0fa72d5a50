"""What the options, the photos and their folders say of cameras becomes a camera of each photo."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from kornia_bingan.colmap.types import Camera, by, cameras_for, fixed_camera
from kornia_bingan.errors import UsageError
from kornia_bingan.images.exif import Exif
from kornia_bingan.images.folders import Skipped
from kornia_bingan.images.read import ImageError, image_header
from kornia_bingan.reconstruct.options import CameraOptions, number_in
from kornia_bingan.reconstruct.pairs import Pair

Size = tuple[int, int]


def check_names(names: Iterable[str], options: CameraOptions) -> None:
    """Refuse patterns that do not give each photo one camera, before any work is done.

    Raises:
        UsageError: a pattern matches no photo, a photo none of them, or two of different cameras.
    """
    names = list(names)
    for words in options.camera_of:
        pattern = words.rpartition("=")[0]
        if not any(matches(name, pattern) for name in names):
            raise UsageError(f"camera-of '{words}': no photo matches '{pattern}'")
    if options.camera_of:
        for name in names:
            _number(name, options.camera_of)


def with_poses(names: Sequence[str], options: CameraOptions) -> tuple[list[str], list[Skipped]]:
    """Leave out photos without a pose, where poses are known.

    Raises:
        UsageError: there is a pose of a photo that is not there, or none of those that are.
    """
    if options.poses is None:
        return list(names), []
    from kornia_bingan.colmap import read_poses

    posed = read_poses(options.poses).names
    known = set(posed)
    kept = [name for name in names if name in known]
    if not kept:
        raise UsageError(f"none of {len(names)} photos has a pose in {options.poses}; its first is of {posed[0]}")
    if unknown := sorted(known - set(names)):
        more = f" and of {len(unknown) - 1} others" if len(unknown) > 1 else ""
        raise UsageError(f"{options.poses} has a pose of {unknown[0]}{more}, but there is no such photo")
    return kept, [Skipped(name, f"has no pose in {options.poses}") for name in names if name not in known]


def poses_checksum(options: CameraOptions) -> str | None:
    """Give a SHA-256 of the known poses and their cameras; None if there are none."""
    if options.poses is None:
        return None
    from kornia_bingan.colmap import read_poses

    model = read_poses(options.poses)
    cameras = [(camera.width, camera.height, camera.model, camera.params) for camera in model.cameras]
    values = [model.names, model.rotations.tolist(), model.translations.tolist(), cameras]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def check_sizes(photos: Path, names: Iterable[str], options: CameraOptions) -> None:
    """Refuse calibrated cameras of other sizes than the photos, before any work is done.

    Raises:
        UsageError: as :func:`cameras_of`; photos that cannot be read are refused later.
    """
    if not options.known:
        return
    sizes = {}
    for name in names:
        with suppress(ImageError):
            header = image_header(photos / name)
            turned = header.orientation > 4
            sizes[name] = (header.height, header.width) if turned else (header.width, header.height)
    cameras_of(sizes, {}, options)


def matches(name: str, pattern: str) -> bool:
    """Say whether a photo matches a pattern, ``*`` for anything, or is in a folder that does."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern.rstrip('/')}/*")


def cameras_of(sizes: Mapping[str, Size], exif: Mapping[str, Exif], options: CameraOptions) -> dict[str, Camera]:
    """Give each photo a camera; photos that share one get the same object.

    Args:
        sizes: width and height of each photo.
        exif: of each photo.
        options: what is known.

    Raises:
        UsageError: what is known is of other sizes than the photos, or does not say which photo has which camera.
    """
    if options.cameras is not None:
        return _calibrated(sizes, options)
    if options.poses is not None:
        return _posed(sizes, options.poses)
    if options.rig is not None:
        return _of_rigs(sizes, options.rig)
    if options.intrinsics is not None:
        return _all_alike(sizes, options.intrinsics)
    said = {name: found.focal_px(sizes[name]) for name, found in exif.items()}
    focals = {name: focal for name, focal in said.items() if focal is not None}
    return cameras_for(sizes, options.camera, options.camera_model, options.focal_px or focals)


def _calibrated(sizes: Mapping[str, Size], options: CameraOptions) -> dict[str, Camera]:
    from kornia_bingan.colmap import read_cameras

    assert options.cameras is not None
    known = read_cameras(options.cameras)
    if options.camera_of:
        cameras = {name: known[_number(name, options.camera_of)] for name in sizes}
        for name, camera in cameras.items():
            if sizes[name] != (camera.width, camera.height):
                number = next(number for number, each in known.items() if each is camera)
                raise UsageError(
                    f"{name} is {by(sizes[name])}, but its camera {number} in {options.cameras} is "
                    f"{by((camera.width, camera.height))}"
                )
        return cameras
    of_size: dict[Size, Camera] = {}
    for camera in known.values():
        size = (camera.width, camera.height)
        if size in of_size:
            raise UsageError(
                f"{options.cameras} has two cameras of {by(size)}; say with camera-of which photo has which"
            )
        of_size[size] = camera
    for name, size in sizes.items():
        if size not in of_size:
            raise UsageError(f"{name} is {by(size)}, but {options.cameras} has no camera of that size")
    return {name: of_size[size] for name, size in sizes.items()}


def _posed(sizes: Mapping[str, Size], poses: Path) -> dict[str, Camera]:
    from kornia_bingan.colmap import read_poses

    model = read_poses(poses)
    cameras = dict(zip(model.names, model.cameras, strict=True))
    for name, size in sizes.items():
        camera = cameras[name]
        if size != (camera.width, camera.height):
            there = by((camera.width, camera.height))
            raise UsageError(f"{name} is {by(size)}, but its camera in {poses} is {there}")
    return {name: cameras[name] for name in sizes}


def _of_rigs(sizes: Mapping[str, Size], path: Path) -> dict[str, Camera]:
    from kornia_bingan.colmap import read_rigs

    rigs = read_rigs(path)
    cameras: dict[str, Camera] = {}
    sized: dict[str, tuple[str, Camera]] = {}
    for name, size in sizes.items():
        found = next((each for each in rigs if name.startswith(each.prefix)), None)
        if found is None:
            raise UsageError(f"{name} has no camera in {path}: it begins with none of its prefixes")
        first, camera = sized.setdefault(found.prefix, (name, replace(found.camera, width=size[0], height=size[1])))
        if size != (camera.width, camera.height):
            there = by((camera.width, camera.height))
            raise UsageError(f"{name} is {by(size)}, but {first} of the same camera in {path} is {there}")
        cameras[name] = camera
    return cameras


def without_base(pairs: Sequence[Pair], options: CameraOptions) -> list[Pair]:
    """Leave out pairs of photos of one moment by cameras of a rig that are in one place: nothing has moved."""
    if options.rig is None:
        return list(pairs)
    from kornia_bingan.colmap import read_rigs

    rigs = read_rigs(options.rig)

    def moment(name: str) -> tuple[str, int, tuple[float, ...]]:
        found = next(each for each in rigs if name.startswith(each.prefix))
        return name.removeprefix(found.prefix), found.rig, tuple(round(value, 9) + 0.0 for value in found.center)

    of = {name: moment(name) for pair in pairs for name in pair}
    return [pair for pair in pairs if of[pair[0]] != of[pair[1]]]


def _number(name: str, camera_of: Iterable[str]) -> int:
    found = {number_in(words): words for words in camera_of if matches(name, words.rpartition("=")[0])}
    if len(found) == 1:
        return next(iter(found))
    if found:
        first, second, *_ = found.values()
        raise UsageError(f"{name} has two cameras, by camera-of '{first}' and '{second}'")
    raise UsageError(f"{name} has no camera: it matches none of camera-of {', '.join(camera_of)}")


def _all_alike(sizes: Mapping[str, Size], intrinsics: tuple[float, ...]) -> dict[str, Camera]:
    (first, size), *others = sizes.items()
    for name, other in others:
        if other != size:
            raise UsageError(
                f"intrinsics are those of one size, but {first} is {by(size)} and {name} is {by(other)}; "
                "give a cameras.txt with one camera for each size"
            )
    return dict.fromkeys(sizes, fixed_camera(size, intrinsics))
