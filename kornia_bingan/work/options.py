"""Options that several commands share, each declared and described once.

The command line reads these classes, their defaults and their ``Attributes:``, so no library is loaded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from kornia_bingan.errors import UsageError

Detector = Literal["dog", "orb"]

LEAST_SIZE = 64
"""Smallest size that photos may be reduced to, pixels."""


@dataclass(frozen=True)
class WeightsOptions:
    """Which weights describe.

    Attributes:
        descriptor: shipped name or weights file.
    """

    descriptor: str = "bingan256"


@dataclass(frozen=True)
class KeypointOptions:
    """Which keypoints of a photo are described.

    Attributes:
        detector: dog for blobs at all scales, orb for fast corners.
        max_keypoints: strongest keypoints of a photo.
    """

    detector: Detector = "dog"
    max_keypoints: int = 4096


@dataclass(frozen=True)
class DescribeOptions(KeypointOptions, WeightsOptions):
    """How a photo becomes keypoints and codes."""


@dataclass(frozen=True)
class FeatureOptions(DescribeOptions):
    """How the photos of a folder become keypoints and codes.

    Attributes:
        masks: folder of masks, black means ignore; that of a.jpg is a.jpg.png or a.png.
        max_size: pixels of the long side that larger photos are reduced to before description; 0 reduces nothing.
    """

    masks: Path | None = None
    max_size: int = 0


@dataclass(frozen=True)
class WorkersOptions:
    """Who does the work; nothing of it changes a result.

    Attributes:
        workers: processes on this machine that share the work; 0 works in this one.
        scheduler: address of a running Dask scheduler, such as tcp://10.0.0.1:8786, whose workers share the work.
    """

    workers: int = 0
    scheduler: str | None = None


@dataclass(frozen=True)
class WorkOptions(WorkersOptions):
    """Who does the work, and for how long.

    Attributes:
        time_limit: seconds until it stops; run it again to resume. 0 is no limit.
    """

    time_limit: float = 0.0


def check_features(options: FeatureOptions) -> None:
    """Refuse impossible options before any work is done.

    Raises:
        UsageError: one of them is impossible; the message names it.
    """
    if options.detector not in get_args(Detector):
        raise UsageError(f"the detector is '{options.detector}'; choose {' or '.join(get_args(Detector))}")
    if options.max_keypoints < 1:
        raise UsageError(f"max_keypoints is {options.max_keypoints}; give 1 or more")
    if options.max_size < 0 or 0 < options.max_size < LEAST_SIZE:
        raise UsageError(f"max_size is {options.max_size}; give {LEAST_SIZE} pixels or more, or 0 to reduce nothing")
