"""A folder of photos becomes a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.folders import Skipped, list_images, log_skipped, no_photos, reason_for
from kornia_bingan.images.read import ImageError
from kornia_bingan.network.inference import Precision
from kornia_bingan.network.weights import find_weights
from kornia_bingan.search.index import MAX_KEYPOINTS, photo_codes
from kornia_bingan.search.vocabulary import BRANCHES, LEVELS, check_size, train_vocabulary, write_vocabulary
from kornia_bingan.work.engine import check_engine, open_engine, run_units
from kornia_bingan.work.options import DescribeOptions, Detector, FeatureOptions, WorkersOptions, check_features
from kornia_bingan.work.run_folder import LOG
from kornia_bingan.work.unit import Failed, Unit, local_file

if TYPE_CHECKING:
    from kornia_bingan.descriptor import BinGAN


@dataclass(frozen=True)
class VocabularySummary:
    """What a vocabulary was made of: photos and codes, words and nodes, skipped files."""

    photos: int
    codes: int
    words: int
    nodes: int
    skipped: tuple[Skipped, ...]


def make_vocabulary(
    photos: Path,
    out: Path,
    features: DescribeOptions | None = None,
    work: WorkersOptions | None = None,
    *,
    branches: int = BRANCHES,
    levels: int = LEVELS,
    seed: int = 0,
) -> VocabularySummary:
    """Describe the photos of a folder, reduced to at most 1,024 pixels, and divide their codes into words.

    Args:
        photos: searched recursively.
        out: text file of DBoW2, see :mod:`kornia_bingan.search.vocabulary`; appears whole or not at all.
        features: weights, detector and keypoints; by default the 1,000 strongest blobs of a photo.
        work: who describes.
        branches, levels, seed: see :func:`kornia_bingan.search.vocabulary.train_vocabulary`.

    Raises:
        UsageError: there are no photos, an option is impossible, or the codes have not 32 bytes.
        JobError: the photos give no codes, or see :func:`kornia_bingan.work.engine.open_engine`.
    """
    features = features or DescribeOptions(max_keypoints=MAX_KEYPOINTS)
    work = work or WorkersOptions()
    check_size(branches, levels)
    check_features(FeatureOptions(**vars(features)))
    check_engine(work.workers, work.scheduler)
    if out.is_dir():
        raise UsageError(f"{out} is a folder; give the name of a file, such as vocabulary.txt")
    names, foreign = list_images(photos)
    if not names:
        raise no_photos(photos, foreign)
    skipped, codes = list(foreign), []
    weights = find_weights(features.descriptor)
    with open_engine(weights, [photos], work.workers, work.scheduler) as engine:
        settings = (engine.sha256, engine.precision, features.detector, features.max_keypoints)
        units = (Unit(name, (engine.path(photos / name), *settings)) for name in names)
        for name, found in run_units(
            engine, codes_unit, units, len(names), description="describe", done="described", word="photo"
        ):
            if isinstance(found, Failed | str):
                skipped.append(Skipped(name, found.reason if isinstance(found, Failed) else found))
            else:
                codes.append(found)
    log_skipped(skipped)
    if sum(map(len, codes)) < 2:
        raise JobError(f"the {len(names)} photos of {photos} give no codes to make words of")
    vocabulary = train_vocabulary(codes, branches, levels, seed)
    write_vocabulary(vocabulary, out)
    count = sum(map(len, codes))
    if 2 * len(vocabulary.leaves) > count:
        LOG.warning(
            "%d codes make %d words, hardly two of each, so that photos of one place share few: give more photos, or "
            "fewer --levels",
            *(count, len(vocabulary.leaves)),
        )
    return VocabularySummary(len(codes), count, len(vocabulary.leaves), len(vocabulary.parents), tuple(skipped))


def codes_unit(
    photo: str, sha256: str, precision: Precision, detector: Detector, max_keypoints: int
) -> NDArray[np.uint8] | str:
    """Give the codes of a photo, or why it cannot be read."""
    path = Path(photo)
    try:
        return photo_codes(_model(sha256, precision), path, detector, max_keypoints)
    except (ImageError, OSError) as error:
        return reason_for(error, path)


@lru_cache(maxsize=1)
def _model(sha256: str, precision: Precision) -> BinGAN:
    from kornia_bingan.descriptor import BinGAN

    return BinGAN.from_pretrained(local_file(sha256), precision=precision)
