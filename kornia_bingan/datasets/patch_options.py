"""What decides a patch set, beside the photos; light, for the command line reads it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

from kornia_bingan.errors import UsageError
from kornia_bingan.work.options import KeypointOptions


@dataclass(frozen=True)
class Tolerances:
    """What counts as an observation of a point.

    Attributes:
        position_px: largest distance between a keypoint and its prediction, pixels.
        scale_octaves: largest difference of their sizes, octaves.
        angle_deg: largest difference of their angles.
        reference_px: largest distance between the reference keypoint and the projected point, pixels.
        beyond_track_deg: how much farther from the mean direction than all images of the track an image may look.
        beyond_track_octaves: how much nearer or farther away than all of them it may be, octaves.
        occlusion: a point is hidden if it is this share farther away than the points visible around it.
        occlusion_radius: how far "around" reaches, as a share of the longer side of the picture.
    """

    position_px: float = 5.0
    scale_octaves: float = 0.25
    angle_deg: float = 22.5
    reference_px: float = 2.0
    beyond_track_deg: float = 10.0
    beyond_track_octaves: float = 0.5
    occlusion: float = 0.05
    occlusion_radius: float = 0.02


@dataclass(frozen=True)
class PatchSetOptions(KeypointOptions):
    """What decides a patch set, beside the photos.

    Attributes:
        tolerances: what counts as an observation of a point; the defaults are those of the official sets.
        whole_regions: leave out keypoints whose support region reaches out of the picture.
        jitter_octaves: deviation of random changes of the support region's scale, for harder sets.
        jitter_deg: deviation of random changes of its angle, degrees.
        jitter_shift: deviation of random changes of its centre, in halves of its side.
        negative_px: two points make no non-matching pair if they come closer than this in any image.
        pair_counts: sizes A of the pair files m50_A_A_0.txt; those for which the set has too few pairs are left out.
        seed: seed of all random choices.
        threads: threads of the reconstruction; only 1 gives equal sets in every run.
    """

    max_keypoints: int = 8192
    tolerances: Tolerances = field(default_factory=Tolerances)
    whole_regions: bool = True
    jitter_octaves: float = 0.0
    jitter_deg: float = 0.0
    jitter_shift: float = 0.0
    negative_px: float = 10.0
    pair_counts: tuple[int, ...] = (1000, 2000, 5000, 10000, 20000, 50000, 100000)
    seed: int = 0
    threads: int = 1


def check_options(options: PatchSetOptions) -> None:
    """Refuse impossible options before any work is done.

    Raises:
        UsageError: one of them is impossible; the message names it.
    """
    counts = options.pair_counts
    if not counts or min(counts) < 2 or any(count % 2 for count in counts):
        raise UsageError(f"pair_counts are {counts}; give even numbers from 2 on, half of a file's pairs are matches")
    names = ("jitter_octaves", "jitter_deg", "jitter_shift", "negative_px", "seed")
    numbers = {**asdict(options.tolerances), **{name: getattr(options, name) for name in names}}
    for name, value in numbers.items():
        if not 0 <= value < math.inf:
            raise UsageError(f"{name} is {value}; give a number from 0 on")
    if options.threads < 1:
        raise UsageError(f"threads is {options.threads}; give 1 or more")
