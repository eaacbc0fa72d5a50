"""A video of a camera that moves over a texture: where it was at each frame is known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_bingan.cli import main
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.video import EARLY, LATE, extract_frames
from tests.helpers.photos import texture

WIDTH, HEIGHT = 320, 240
BLURRED = set(range(8, 40, 9))


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.repeat(frame[:, :, None], 3, 2) if frame.ndim == 2 else frame)
    writer.release()
    return path


def path_of(frame: int) -> int:
    """Pixels that the camera has gone at a frame: 6 a frame, with a rest in the middle."""
    return 6 * min(frame, 20) + 6 * max(frame - 30, 0)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 frames, some of them out of focus."""
    wall = texture(HEIGHT, WIDTH + path_of(50) + 20, 3)
    frames = [wall[:, path_of(k) : path_of(k) + WIDTH] for k in range(50)]
    frames = [cv2.GaussianBlur(f, (0, 0), 3) if k in BLURRED else f for k, f in enumerate(frames)]
    return write_video(tmp_path_factory.mktemp("video") / "walk along a wall.avi", frames)


@pytest.mark.parametrize("overlap", [0.9, 0.8])
def test_photos_overlap_as_asked_and_are_sharp(overlap: float, video: Path, tmp_path: Path) -> None:
    done = extract_frames(video, tmp_path / "photos", overlap=overlap)
    assert (done.frames, done.seconds) == (50, 2.0)
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == done.photos
    numbers = [int(Path(name).stem.removeprefix("walk along a wall_")) for name in done.photos]
    step = (1 - overlap) * WIDTH
    gone = np.diff([path_of(number) for number in numbers])
    assert len(gone) >= path_of(50) / (LATE * step) - 2
    # a frame is 6 pixels from the next one
    assert (gone > EARLY * step - 7).all()
    assert (gone < LATE * step + 7).all()
    assert not BLURRED & set(numbers)
    first = cv2.imread(str(tmp_path / "photos" / done.photos[0]))
    assert first.shape == (HEIGHT, WIDTH, 3)


def test_the_command(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frames", str(video), str(tmp_path / "photos"), "--overlap", "0.8", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["frames"] == 50
    assert said["photos"] == sorted(path.name for path in (tmp_path / "photos").iterdir())
    assert main(["frames", str(video), str(tmp_path / "photos")]) == 2
    assert "photos" in capsys.readouterr().err


def test_a_camera_that_rests_gives_one_photo_and_black_frames_none(tmp_path: Path) -> None:
    wall, black = texture(HEIGHT, WIDTH, 3), np.zeros((HEIGHT, WIDTH), np.uint8)
    rest = write_video(tmp_path / "rest.avi", [black, black, *[wall] * 6])
    assert extract_frames(rest, tmp_path / "one").photos in (["rest_000002.jpg"], ["rest_000003.jpg"])
    dark = write_video(tmp_path / "dark.avi", [black] * 3)
    with pytest.raises(JobError, match=r"dark.avi: none of its 3 frames shows anything"):
        extract_frames(dark, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_after_a_cut_the_next_place_begins(tmp_path: Path) -> None:
    here, there = texture(HEIGHT, WIDTH, 3), texture(HEIGHT, WIDTH, 4)
    done = extract_frames(write_video(tmp_path / "cut.avi", [here] * 3 + [there] * 3), tmp_path / "photos")
    assert len(done.photos) == 2
    assert int(Path(done.photos[1]).stem[-6:]) >= 3


def test_wrong_use_is_one_sentence(video: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").touch()
    for path, out, overlap, words in (
        (tmp_path / "absent.mp4", "new", 0.9, "absent.mp4 is no file"),
        (tmp_path / "text.mp4", "new", 0.9, "text.mp4 is no video that can be read"),
        (video, "full", 0.9, "full"),
        (video, "new", 1.0, "the overlap is 1.0; give a part"),
    ):
        with pytest.raises(UsageError, match=words):
            extract_frames(path, tmp_path / out, overlap=overlap)
    assert not (tmp_path / "new").exists()
