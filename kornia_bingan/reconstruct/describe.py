"""Photos become files of keypoints and codes, one by one or shared out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import Skipped, list_images, log_skipped, no_photos, reason_for, without_copies
from kornia_bingan.images.masks import find_masks, read_mask
from kornia_bingan.images.read import ImageError, Ranges, image_header, read_image, read_opacity, sample_ranges, shrink
from kornia_bingan.keypoints import detect
from kornia_bingan.network.inference import Precision
from kornia_bingan.network.weights import find_weights
from kornia_bingan.patches import SIDE_LIMIT
from kornia_bingan.reconstruct.features import Features, features_path
from kornia_bingan.reconstruct.features_h5 import check_h5, write_h5
from kornia_bingan.work.engine import Engine, check_engine, open_engine, run_units
from kornia_bingan.work.files import sha256_of
from kornia_bingan.work.identity import read_identity, write_identity
from kornia_bingan.work.options import FeatureOptions, KeypointOptions, WorkOptions, check_features
from kornia_bingan.work.run_folder import LOG, LOG_FILE, TimeLimit, checksums, log_to, open_run
from kornia_bingan.work.unit import Failed, Unit, local_file

if TYPE_CHECKING:
    from kornia_bingan.descriptor import BinGAN


def describe_photo(
    path: Path,
    model: BinGAN,
    options: KeypointOptions,
    *,
    mask: Path | None = None,
    max_size: int = 0,
    ranges: Ranges | None = None,
) -> Features:
    """Find and describe the keypoints of one photo; a photo without any gives 0 rows.

    Args:
        path: of the photo.
        model: describes.
        options: which keypoints are found.
        mask: a picture of the photo's size, black where nothing is to be found; see :mod:`kornia_bingan.images.masks`.
            Nothing is found where the photo is transparent, either.
        max_size: a photo with a longer side is reduced to this many pixels before; keypoints are given in pixels of the
            photo all the same. 0 reduces nothing.
        ranges: see :func:`kornia_bingan.images.read.sample_ranges`.

    Raises:
        ImageError: photo or mask cannot be read.
        UsageError: the mask has another size.
    """
    from kornia_bingan.descriptor import describe

    image = read_image(path, ranges)
    height, width = image.shape
    allowed = None if mask is None else read_mask(mask)
    if allowed is not None and allowed.shape != image.shape:
        raise UsageError(f"the mask {mask} is {allowed.shape[1]} x {allowed.shape[0]}, {path} is {width} x {height}")
    opaque = read_opacity(path)
    if opaque is not None:
        allowed = opaque if allowed is None else np.minimum(allowed, opaque)
    if max_size:
        image = shrink(image, max_size)
    if allowed is not None and allowed.shape != image.shape:
        # A reduced pixel is ignored if any of its pixels is.
        black = cv2.resize((allowed == 0).astype(np.float32), image.shape[::-1], interpolation=cv2.INTER_AREA)
        allowed = np.where(black > 0, 0, 255).astype(np.uint8)
    if max(image.shape) >= SIDE_LIMIT:
        sides = f"{image.shape[1]} x {image.shape[0]}"
        raise ImageError(f"{path} is {sides}; sides must be below {SIDE_LIMIT:,} pixels, give a max_size below")
    keypoints = detect(image, options.detector, options.max_keypoints, allowed)
    codes = describe(model, image, keypoints)
    if image.shape != (height, width):
        keypoints = keypoints.enlarged((width / image.shape[1], height / image.shape[0]))
    return Features((width, height), keypoints, codes)


@dataclass(frozen=True)
class FolderSummary:
    """What became of a folder: keypoints by photo, what was passed over, equal files, and how many have a mask."""

    keypoints: dict[str, int]
    skipped: tuple[Skipped, ...]
    unreadable: int
    copies: tuple[Skipped, ...]
    masked: int


def describe_folder(
    photos: Path,
    out: Path,
    features: FeatureOptions | None = None,
    work: WorkOptions | None = None,
    *,
    h5: bool = False,
) -> FolderSummary:
    """Write the features of all photos of a folder, each into its file below ``out``; equal photos get a file each.

    Args:
        photos: searched recursively.
        out: absent, empty, or a run with the same options, which is resumed. Photos that were added are described,
            those that have changed again; files of photos that are gone are kept.
        features: see :class:`kornia_bingan.work.options.FeatureOptions`.
        work: see :class:`kornia_bingan.work.options.WorkOptions`; the time is checked between two photos.
        h5: write ``features.h5`` of them all, too, see :func:`kornia_bingan.reconstruct.features_h5.write_h5`.

    Raises:
        UsageError: there are no photos, an option is impossible, or ``out`` holds something else.
        JobError: see :func:`describe_photos`, or ``h5`` without the package ``h5py``.
    """
    features, work = features or FeatureOptions(), work or WorkOptions()
    limit, masks = TimeLimit(work.time_limit), features.masks
    names, foreign = list_images(photos, masks)
    if not names:
        raise no_photos(photos, foreign)
    check_features(features)
    check_engine(work.workers, work.scheduler)
    if h5:
        check_h5()
    weights = find_weights(features.descriptor)
    found = {} if masks is None else find_masks(photos, names, masks)
    sums = checksums(photos, names)
    identity = {
        "command": "describe",
        "detector": features.detector,
        "max_keypoints": features.max_keypoints,
        "max_size": features.max_size,
        "masks": {name: sha256_of(path) for name, path in found.items()},
        "weights_sha256": sha256_of(weights),
        "photos": sums,
    }
    shared = [photos, out / "run.json", *([masks] if masks else [])]
    with (
        open_run(out, identity, other_photos=True),
        log_to(out / LOG_FILE),
        open_engine(weights, shared, work.workers, work.scheduler) as engine,
    ):
        _keep(out, identity)
        log_skipped(foreign)
        unread = describe_photos(photos, names, out, engine, features, limit=limit, masks=found)
        log_skipped(unread)
        without = {item.name for item in unread}
        if h5:
            described = [name for name in names if name not in without]
            _log_turned(photos, described)
            write_h5(out / "features.h5", out, described)
    counts = {n: len(Features.read(features_path(out, n)).keypoints) for n in names if n not in without}
    _, copies = without_copies(names, sums)
    return FolderSummary(counts, (*foreign, *unread), len(unread), tuple(copies), len(found))


def _keep(out: Path, identity: Mapping[str, Any]) -> None:
    """Remove files of photos that have changed, and add those of this run to the record of what has files."""
    known = read_identity(out)
    before, now = known["photos"], identity["photos"]
    for name in before.keys() & now.keys():
        if before[name] != now[name]:
            features_path(out, name).unlink(missing_ok=True)
    grown = {**identity, "photos": {**before, **now}, "masks": {**known["masks"], **identity["masks"]}}
    if grown != known:
        write_identity(out, grown)


def _log_turned(photos: Path, names: Sequence[str]) -> None:
    turned = sum(image_header(photos / name).orientation != 1 for name in names)
    if turned:
        LOG.warning(
            "%d of %d photos have an EXIF orientation. Keypoints are in pixels as a viewer shows them, while hloc and "
            "COLMAP read photos as they are stored: turn the photos themselves before (exiftran -a, jhead -autorot).",
            *(turned, len(names)),
        )


def describe_photos(
    photos: Path,
    names: Sequence[str],
    folder: Path,
    engine: Engine,
    options: FeatureOptions,
    *,
    limit: TimeLimit,
    masks: Mapping[str, Path] | None = None,
) -> list[Skipped]:
    """Write the features of each photo that has none yet, or a damaged file.

    Args:
        photos: folder of the photos.
        names: of the photos, relative to it.
        folder: of the files of features.
        engine: does the work; it has the weights.
        options: which keypoints are found, and on photos of which size.
        limit: of the time.
        masks: file of the mask of each photo that has one.

    Returns:
        The photos that cannot be read, or that no process survived, with the reason.

    Raises:
        JobError: the time limit was reached between two photos, or see :func:`kornia_bingan.work.engine.run_units`.
        UsageError: the weights are no weights, or an option is impossible.
    """

    ranges = sample_ranges(photos, names)

    def unit(name: str) -> Unit:
        mask = (masks or {}).get(name)
        places = (engine.path(photos / name), engine.path(features_path(folder, name)), mask and engine.path(mask))
        return Unit(name, (*places, engine.sha256, engine.precision, options, ranges))

    units = (unit(name) for name in names)
    skipped = []
    for name, found in run_units(
        engine, describe_unit, units, len(names), description="describe", done="described", word="photo", limit=limit
    ):
        reason = found.reason if isinstance(found, Failed) else found
        if reason:
            skipped.append(Skipped(name, reason))
    return skipped


def describe_unit(
    photo: str,
    target: str,
    mask: str | None,
    sha256: str,
    precision: Precision,
    options: FeatureOptions,
    ranges: Ranges,
) -> str:
    """Write the features of one photo, unless they are there and whole.

    Returns:
        Why the photo cannot be read; nothing if it can.
    """
    path, features = Path(photo), Path(target)
    if features.is_file() and _is_whole(features):
        return ""
    try:
        found = describe_photo(
            path,
            _model(sha256, precision),
            options,
            mask=None if mask is None else Path(mask),
            max_size=options.max_size,
            ranges=ranges,
        )
    except ImageError as error:
        return reason_for(error, path)
    found.write(features)
    return ""


def _is_whole(path: Path) -> bool:
    try:
        Features.read(path)
    except UsageError:
        return False
    return True


@lru_cache(maxsize=1)
def _model(sha256: str, precision: Precision) -> BinGAN:
    from kornia_bingan.descriptor import BinGAN

    return BinGAN.from_pretrained(local_file(sha256), precision=precision)
