"""The pictures of the README and of the first page: ``python -m eval front [--demo FOLDER]``.

``docs/images/matches.jpg``: two photos of the rendered scene of ``bingan demo``, matched by our codes (above) and by
ORB (below). Both describe the same 1,000 strongest DoG keypoints and accept mutual nearest neighbours at their own
ratio of ``thresholds.json``, ORB with the support region that suits it best. A match is correct within 2.5 px of where
the planes of the scene put its point. The counts go into ``eval/results/front.json``, of which ``python -m eval
tables`` makes the captions.

``docs/images/report.jpg``: the report of that demo in a headless Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.harness.command import Out, command_line
from eval.harness.features import cached_describe
from eval.harness.matching import mutual_matches
from eval.harness.options import PEER_SUPPORT, RESULTS, with_regions
from eval.harness.ours import load_ours
from eval.harness.peers import Peer, load_peers
from eval.harness.records import check_clean, write_json
from eval.quality.m95 import THRESHOLD_PX
from eval.quality.thresholds import read_thresholds, threshold_of
from eval.show.markdown import ROOT
from eval.show.pictures import draw
from kornia_bingan.cli import main as bingan
from kornia_bingan.datasets.poses import load_cameras
from kornia_bingan.datasets.rendered import Plane, room
from kornia_bingan.errors import JobError
from kornia_bingan.images.read import read_image
from kornia_bingan.keypoints import Keypoints, detect
from kornia_bingan.network.weights import find_weights
from kornia_bingan.work.files import atomic_path, sha256_of
from kornia_bingan.work.provenance import provenance

IMAGES = ROOT / "docs" / "images"
PAIR = ("view_000.jpg", "view_011.jpg")
SEED = 0
"""Of the demo's scene."""
NUM_KEYPOINTS = 1000
WIDTH, STRIP = 1000, 30
REPORT_SIZE = (1000, 760)


def true_places(planes: Sequence[Plane], cameras: Sequence[Any], xy: NDArray[Any]) -> NDArray[np.float64]:
    """Say where in the second view the points are that pixels of the first one show, float64 (N, 2); NaN for none.

    Args:
        planes: of the scene.
        cameras: of both views.
        xy: pixels of the first view (N, 2).
    """
    rays = np.column_stack([np.asarray(xy, np.float64).reshape(-1, 2), np.ones(len(xy))])
    nearness, found = np.zeros(len(rays)), np.full((len(rays), 2), np.nan)
    for plane in planes:
        hit = rays @ np.linalg.inv(plane.homography(cameras[0])).T  # the last column is one over the depth
        seen = hit[:, 2] > nearness
        texels = hit / np.where(seen, hit[:, 2], 1)[:, None]
        middle = (np.array(plane.texture.shape[::-1]) - 1) / 2
        seen &= (np.abs(texels[:, :2] - middle) < middle + 0.5).all(1)
        moved = texels[seen] @ plane.homography(cameras[1]).T
        found[seen] = moved[:, :2] / moved[:, 2:]
        nearness[seen] = hit[seen, 2]
    return found


def match_row(
    peer: Peer,
    ratio: float,
    images: Sequence[NDArray[np.uint8]],
    keypoints: Sequence[Keypoints],
    truth: NDArray[np.float64],
) -> tuple[NDArray[np.uint8], int, int]:
    """Match by one descriptor; give the picture, the number of matches and that of correct ones."""
    describe = cached_describe(peer, None)
    rows = [describe(image, points) for image, points in zip(images, keypoints, strict=True)]
    found = mutual_matches(rows[0], rows[1], peer.norm)
    kept = found.indices[found.ratio_two_way <= ratio]
    xy0, xy1 = keypoints[0].xy[kept[:, 0]], keypoints[1].xy[kept[:, 1]]
    correct = np.linalg.norm(truth[kept[:, 0]] - xy1, axis=1) < THRESHOLD_PX  # False for NaN
    picture = draw((images[0], images[1]), xy0, xy1, correct, WIDTH)
    return picture, len(kept), int(correct.sum())


def with_words(picture: NDArray[np.uint8], words: str) -> NDArray[np.uint8]:
    """Put a line of words below a picture."""
    strip = np.full((STRIP, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, words, (6, STRIP - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (30, 30, 30), 1, cv2.LINE_AA)
    return np.concatenate([picture, strip])


def write_jpeg(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture of less than 300 kB, which is what a page can carry.

    Raises:
        JobError: it is larger.
    """
    data = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, 80))[1].tobytes()
    if len(data) >= 300_000:
        raise JobError(f"{path.name} has {len(data):,} bytes; a picture of a page stays under 300,000")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def compared(name: str) -> list[tuple[Peer, float]]:
    """Give what the picture compares, our codes and ORB at its best support region, each with its ratio.

    Raises:
        UsageError: one of them has no ratio.
    """
    thresholds = read_thresholds()
    names = with_regions(["orb"], "both", PEER_SUPPORT) if PEER_SUPPORT.is_file() else ["orb"]
    peers = [load_ours(name)[0], load_peers(names[-1:], ROOT)[0][0]]
    return [(peer, threshold_of(thresholds, peer.name)) for peer in peers]


def match_picture(demo: Path, peers: Sequence[tuple[Peer, float]]) -> dict[str, Any]:
    """Draw the pair of the front page, our codes above; give the record of its counts."""
    cameras = load_cameras(demo / "scene" / "cameras.json")
    images = [read_image(demo / "scene" / "images" / view) for view in PAIR]
    keypoints = [detect(image, "dog", NUM_KEYPOINTS) for image in images]
    truth = true_places(room(SEED), [cameras[view] for view in PAIR], keypoints[0].xy)
    drawn, results = [], []
    for peer, ratio in peers:
        picture, matches, correct = match_row(peer, ratio, images, keypoints, truth)
        drawn.append(
            with_words(
                picture,
                f"{peer.name}, {peer.num_bytes} bytes: {correct:,} correct matches, {matches - correct:,} wrong",
            )
        )
        results.append({"descriptor": peer.name, "ratio": ratio, "matches": matches, "correct": correct})
    write_jpeg(IMAGES / "matches.jpg", np.concatenate(drawn))
    about = {"protocol": "front", "command": "python -m eval front", "pair": PAIR, "keypoints": NUM_KEYPOINTS}
    return {**about, "results": results}


def report_picture(page: Path, out: Path) -> None:
    """Take a picture of a page as a browser shows it.

    Raises:
        JobError: there is no Chromium, or it took none.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((found for name in names if (found := shutil.which(name))), None)
    if browser is None:
        raise JobError("no Chromium is installed, which takes the picture of the report; apt-get install chromium")
    flags = ["--headless=new", "--no-sandbox", "--hide-scrollbars", "--use-angle=swiftshader"]
    flags += ["--enable-unsafe-swiftshader", "--virtual-time-budget=15000"]
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        flags += [f"--user-data-dir={folder}/profile", f"--window-size={REPORT_SIZE[0]},{REPORT_SIZE[1]}"]
        command = [browser, *flags, f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run(command, check=False, capture_output=True, timeout=180)
        picture = cv2.imread(str(shot)) if shot.is_file() else None
    if picture is None:
        raise JobError(f"{browser} took no picture of {page}")
    write_jpeg(out, np.asarray(picture, np.uint8))


@command_line("front")
def main(demo: Path | None = None, ours: str = "bingan256", out: Out = RESULTS / "front.json") -> int:
    """Draw them.

    Args:
        demo: folder of bingan demo; one of these weights in bench/ if not given.
    """
    check_clean(out)
    peers, weights = compared(ours), find_weights(ours)
    demo = demo or ROOT / "bench" / f"demo-{sha256_of(weights)[:8]}"
    if status := bingan(["demo", "--out", str(demo), "--descriptor", ours]):
        return status
    write_json(out, {**match_picture(demo, peers), "provenance": provenance(weights)})
    report_picture(demo / "bingan" / "report.html", IMAGES / "report.jpg")
    print(f"{IMAGES / 'matches.jpg'} and report.jpg; python -m eval tables writes the captions", file=sys.stderr)
    return 0
