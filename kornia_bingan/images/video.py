"""A video becomes photos: sharp frames that overlap as photos for a reconstruction should.

Corners are followed from the last frame that was kept (Lucas and Kanade's optical flow). As soon as they have moved by
the part of the picture that the next photo need not show, a frame is due; of the frames around that moment the sharpest
one is kept, so a hand that shook for a moment is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.read import shrink, write_image
from kornia_bingan.work.files import atomic_folder, check_empty

Image = NDArray[np.uint8]
Points = NDArray[np.float32]

OVERLAP = 0.9
"""Part of a photo that the next one shows, too."""

EARLY, LATE = 0.75, 1.25
"""A frame is chosen from this part of the way to the next photo on, and must be by that one."""

LOST = 0.4
"""A photo is due as well when fewer of its corners than this part can still be followed."""

_LONGEST, _CORNERS, _LEAST = 960, 400, 20
_BACK_PX = 1.0  # a corner that is followed there and back returns to its place, or was lost


@dataclass(frozen=True)
class VideoSummary:
    """What became of a video.

    Attributes:
        frames: that were read.
        seconds: how long they play.
        photos: names of the files, in order; each ends with the number of its frame, counted from 0.
    """

    frames: int
    seconds: float
    photos: list[str]


def extract_frames(video: Path, photos: Path, *, overlap: float = OVERLAP) -> VideoSummary:
    """Write sharp frames of a video as photos.

    Args:
        video: any file that OpenCV's FFmpeg reads; turned as a player shows it.
        photos: folder, absent or empty, which appears whole or not at all; gets ``VIDEO_000000.jpg`` and so on.
        overlap: part of a photo that the next one shows, too, in (0, 1).

    Raises:
        UsageError: the file is absent or no video, the folder is not empty, or the overlap is impossible.
        JobError: no frame shows anything that can be followed.
    """
    video, photos = Path(video), Path(photos)
    if not 0 < overlap < 1:
        raise UsageError(f"the overlap is {overlap}; give a part of the picture between 0 and 1, such as {OVERLAP}")
    if not video.is_file():
        raise UsageError(f"{video} is no file; give a video")
    check_empty(photos)
    capture = cv2.VideoCapture(str(video))
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
        chooser, names = _Chooser(1 - overlap), []
        with atomic_folder(photos) as temporary:
            for number, frame in _chosen(capture, chooser):
                names.append(f"{video.stem}_{number:06d}.jpg")
                write_image(temporary / names[-1], frame)
            if chooser.count == 0:
                raise UsageError(f"{video} is no video that can be read, or has no frame in it")
            if not names:
                raise JobError(f"{video}: none of its {chooser.count} frames shows anything that can be followed")
    finally:
        capture.release()
    return VideoSummary(chooser.count, round(chooser.count / rate, 3) if rate > 0 else 0.0, names)


def _chosen(capture: cv2.VideoCapture, chooser: _Chooser) -> Iterator[tuple[int, Image]]:
    while True:
        there, frame = capture.read()
        if not there:
            break
        yield from chooser.look(np.asarray(frame, np.uint8))
    yield from chooser.end()


@dataclass(frozen=True)
class _Frame:
    number: int
    pixels: Image
    grey: Image
    sharpness: float


class _Chooser:
    """Sees one frame after the other, and gives those that are kept with their numbers.

    Args:
        step: part of the longer side by which corners move from one photo to the next.
    """

    def __init__(self, step: float) -> None:
        self.step, self.count = step, 0
        self.best: _Frame | None = None  # of those that may become the next photo
        self.before: Image | None = None  # the frame before this one
        self.start = self.now = np.zeros((0, 2), np.float32)  # corners of the last photo, there and here
        self.corners = 0  # how many it had

    def look(self, pixels: Image) -> Iterator[tuple[int, Image]]:
        grey = shrink(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8), _LONGEST)
        frame = _Frame(self.count, pixels, grey, float(cv2.Laplacian(grey, cv2.CV_32F).var()))
        self.count += 1
        if self.before is not None and self.corners:
            there, followed = _follow(self.before, grey, self.now)
            self.start, self.now = self.start[followed], there[followed]
        self.before = grey
        way = self._way()
        if way >= EARLY and (self.best is None or frame.sharpness > self.best.sharpness):
            self.best = frame
        if way >= LATE:
            yield from self._keep(grey)

    def end(self) -> Iterator[tuple[int, Image]]:
        if self.best is not None:
            yield from self._keep(self.best.grey)

    def _way(self) -> float:
        """How far it is to the next photo: 1 when one is due."""
        if self.corners == 0:  # before the first photo; whatever can be followed may become it
            return EARLY if self.best is None or self.count < 2 else LATE
        if len(self.now) < max(_LEAST, LOST * self.corners):
            return LATE
        moved = np.median(np.linalg.norm(self.now - self.start, axis=1))
        assert self.before is not None
        return float(moved / max(self.before.shape) / self.step)

    def _keep(self, grey: Image) -> Iterator[tuple[int, Image]]:
        """Give the best frame, and follow its corners from now on."""
        assert self.best is not None
        kept, self.best = self.best, None
        found = cv2.goodFeaturesToTrack(kept.grey, _CORNERS, 0.01, max(kept.grey.shape) / 100)
        self.start = np.zeros((0, 2), np.float32) if found is None else found.reshape(-1, 2).astype(np.float32)
        self.corners = len(self.start)
        if self.corners < _LEAST:
            self.corners = 0
            return
        there, followed = _follow(kept.grey, grey, self.start)
        self.start, self.now = self.start[followed], there[followed]
        yield kept.number, kept.pixels


def _follow(grey0: Image, grey1: Image, points: Points) -> tuple[Points, NDArray[np.bool_]]:
    """Give where points (N, 2) of one frame are in the next, and which could be followed."""
    if not len(points) or grey0.shape != grey1.shape:
        return points, np.zeros(len(points), bool)
    there, seen, _ = cv2.calcOpticalFlowPyrLK(grey0, grey1, points, None)  # type: ignore[call-overload]
    back, found, _ = cv2.calcOpticalFlowPyrLK(grey1, grey0, there, None)  # type: ignore[call-overload]
    close = np.linalg.norm(back - points, axis=1) < _BACK_PX
    return there, (seen.ravel() == 1) & (found.ravel() == 1) & close
