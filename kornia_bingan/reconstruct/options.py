"""What decides a reconstruction, beside the photos.

The command line reads these classes, their defaults and their ``Attributes:``, so no heavy library is loaded here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from kornia_bingan.colmap.types import Mapper, Sharing, fixed_camera
from kornia_bingan.errors import UsageError
from kornia_bingan.work.options import FeatureOptions, WorkOptions, check_features

if TYPE_CHECKING:
    from kornia_bingan.matching.context import ContextModel

Matcher = Literal["auto", "ratio", "context"]
"""What decides on matches: a ratio test, or a probability that sees their neighbours too; ``auto`` takes context where
the weights have a model of it, as the shipped ones of local patches have, and the ratio test for others."""

DEFAULT_RATIO = 0.8
"""Largest Hamming ratio of a match, see :func:`kornia_bingan.match`."""

DEFAULT_PROBABILITY, MIN_MATCHES = 0.65, 50
"""Least probability of a match, and the number of matches of two photos below which less probable ones count, see
:func:`kornia_bingan.matching.match_in_context`."""

MAX_KEYPOINTS = 8192
"""Of a photo that is reconstructed, as in COLMAP."""


@dataclass(frozen=True)
class MatchOptions:
    """Which keypoints of two photos are matches.

    Attributes:
        matcher: ratio test of mutual nearest neighbours; or context: the neighbours of a match decide, too; auto takes
            context where the weights have a model of it.
        ratio: largest Hamming ratio of a match, between 0 and 1.
        probability: least probability of a match in context, between 0 and 1.
        min_matches: where fewer matches of two photos are as probable, so many of the most probable ones, down to 0.2.
        align: move matched keypoints by fractions of a pixel to where their patches agree; matches whose patches cannot
            be aligned are left out.
    """

    matcher: Matcher = "auto"
    ratio: float = DEFAULT_RATIO
    probability: float = DEFAULT_PROBABILITY
    min_matches: int = MIN_MATCHES
    align: bool = True


@dataclass(frozen=True)
class CameraOptions:
    """What is known of the cameras.

    Attributes:
        camera: one for all photos, for each folder, for each size and focal length, or for each photo.
        camera_model: COLMAP's name of the camera model.
        focal_px: focal length in pixels, as a start; what the photos say of their lens if not given, and 1.2 times the
            longer side where they say nothing.
        intrinsics: fx,fy,cx,cy[,k1,k2,p1,p2], kept fixed; the centre of the first pixel is (0, 0).
        cameras: COLMAP's cameras.txt, kept fixed: one camera for each size of photos, or as camera-of says.
        camera_of: which photos have which camera of cameras.txt, as FOLDER=NUMBER or 'PATTERN=NUMBER': left=1 right=2.
        poses: folder of a COLMAP model, or a transforms.json, whose poses and cameras are kept: no mapping, only
            points, of the photos in it.
        rig: COLMAP's rig_config.json: calibrated cameras that move together, kept fixed.
    """

    camera: Sharing = "per-size"
    camera_model: str = "SIMPLE_RADIAL"
    focal_px: float | None = None
    intrinsics: tuple[float, ...] | None = None
    cameras: Path | None = None
    camera_of: tuple[str, ...] = ()
    poses: Path | None = None
    rig: Path | None = None

    @property
    def known(self) -> bool:
        """Whether the cameras are calibrated, and so kept as they are."""
        return any(value is not None for value in (self.intrinsics, self.cameras, self.poses, self.rig))


@dataclass(frozen=True)
class ReconstructOptions:
    """What decides a reconstruction, beside the photos.

    Attributes:
        features: how photos become keypoints and codes.
        cameras: what is known of the cameras.
        matches: which keypoints of two photos are matches.
        work: who does the work, and for how long.
        pairs: exhaustive, sequential:K (each photo with the K after it, 10 if K is not given), retrieval:K (with the K
            most similar), gps:K (with the K nearest), several of these with commas between, or a text file with two
            names per line.
        mapper: incremental, or global (GLOMAP), which is faster for hundreds of photos.
        robust: allow observations in small photos less than COLMAP does, and adjust finished models once more, with
            little weight for what misses by more than most; no-robust gives COLMAP's own model.
        gps: use the positions that photos say: they are in the database, and the model is in metres to the east, north
            and up of where they say, if they agree with it.
        seed: seed of all random choices.
    """

    features: FeatureOptions = field(default_factory=partial(FeatureOptions, max_keypoints=MAX_KEYPOINTS))
    cameras: CameraOptions = field(default_factory=CameraOptions)
    matches: MatchOptions = field(default_factory=MatchOptions)
    work: WorkOptions = field(default_factory=WorkOptions)
    pairs: str = "exhaustive"
    mapper: Mapper = "incremental"
    robust: bool = True
    gps: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Context:
    """What decides on matches in context, see :func:`kornia_bingan.matching.match_in_context`.

    Attributes:
        model: of the weights.
        probability: least probability of a match.
        min_matches: of two photos, below which less probable ones count.
    """

    model: ContextModel
    probability: float
    min_matches: int = 0


def check_matching(options: MatchOptions, descriptor: str) -> None:
    """Refuse an impossible way of matching.

    Raises:
        UsageError: it is unknown, a threshold is not between 0 and 1, or there is no model of context for the weights.
    """
    if options.matcher not in get_args(Matcher):
        raise UsageError(f"the matcher is '{options.matcher}'; choose {' or '.join(get_args(Matcher))}")
    for name, value in (("ratio", options.ratio), ("probability", options.probability)):
        if not 0 <= value <= 1:
            raise UsageError(f"the {name} is {value}; give one between 0 and 1")
    if options.min_matches < 0:
        raise UsageError(f"the least number of matches is {options.min_matches}; give 0 or more")
    if options.matcher == "context":
        from kornia_bingan.network.weights import context_of

        context_of(descriptor)


def context_for(options: MatchOptions, weights: str | Path) -> Context | None:
    """Give what decides on matches in context, or None where the ratio test decides.

    Raises:
        UsageError: context is asked for, and there is no model of it for the weights.
    """
    from kornia_bingan.matching.context import ContextModel
    from kornia_bingan.network.weights import context_of, has_context

    if options.matcher == "ratio" or (options.matcher == "auto" and not has_context(weights)):
        return None
    return Context(ContextModel.of(context_of(weights)), options.probability, options.min_matches)


def words_for(options: MatchOptions, context: Context | None) -> str:
    """Say how photos are matched, for summaries."""
    if context is None:
        matcher = f"ratio below {options.ratio:g}"
    else:
        matcher = f"context, probability {context.probability:g} or more"
        matcher += f" or the {context.min_matches} likeliest" * (context.min_matches > 0)
    return f"{matcher}, {'aligned' if options.align else 'not aligned'}"


def check_options(options: ReconstructOptions) -> None:
    """Refuse impossible options before any work is done.

    Raises:
        UsageError: one of them is impossible; the message names it.
    """
    from kornia_bingan.work.engine import check_engine

    check_engine(options.work.workers, options.work.scheduler)
    check_features(options.features)
    if options.mapper not in get_args(Mapper):
        raise UsageError(f"the mapper is '{options.mapper}'; choose {' or '.join(get_args(Mapper))}")
    if options.seed < 0:
        raise UsageError(f"the seed is {options.seed}; give 0 or more")
    check_matching(options.matches, options.features.descriptor)
    _check_cameras(options.cameras)
    if options.cameras.poses is not None and options.mapper != "incremental":
        raise UsageError(f"poses leave nothing to do for the {options.mapper} mapper; give one of them")


def _check_cameras(options: CameraOptions) -> None:
    from kornia_bingan.colmap import CAMERA_MODELS, read_cameras, read_rigs

    if options.camera not in get_args(Sharing):
        raise UsageError(f"the camera is '{options.camera}'; choose {', '.join(get_args(Sharing))}")
    if options.camera_model not in CAMERA_MODELS:
        raise UsageError(f"the camera model is '{options.camera_model}'; choose one of {', '.join(CAMERA_MODELS)}")
    lengths = [options.focal_px or 1.0] if options.intrinsics is None else [*options.intrinsics[:2]]
    if not all(0 < length < float("inf") for length in lengths):
        raise UsageError(f"the focal length is {lengths[0]:g}; give pixels, more than 0")
    fixed = [name for name in ("intrinsics", "cameras", "poses", "rig") if getattr(options, name) is not None]
    if fixed and (options.focal_px, options.camera_model) != (None, "SIMPLE_RADIAL"):
        raise UsageError(f"{fixed[0]} say all about the cameras; give no focal length and no model")
    if len(fixed) > 1:
        raise UsageError(f"{fixed[0]} and {fixed[1]} say the same thing; give one of them")
    if options.intrinsics is not None:
        fixed_camera((1, 1), options.intrinsics)
    if options.rig is not None:
        read_rigs(options.rig)
    if options.cameras is None and options.camera_of:
        raise UsageError("camera-of says which camera of cameras.txt a photo has; give cameras, too")
    if options.cameras is not None:
        known = read_cameras(options.cameras)
        for words in options.camera_of:
            if number_in(words) not in known:
                there = ", ".join(map(str, known))
                raise UsageError(f"{options.cameras} has no camera {number_in(words)} for '{words}'; it has {there}")


def number_in(words: str) -> int:
    """Read the number of the camera in ``FOLDER=NUMBER``.

    Raises:
        UsageError: it is something else.
    """
    pattern, _, number = words.rpartition("=")
    if not (pattern and number.isdecimal()):
        raise UsageError(f"camera-of '{words}' is no FOLDER=NUMBER or 'PATTERN=NUMBER', such as left=1")
    return int(number)
