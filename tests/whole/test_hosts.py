"""Programs that make ORB by OpenCV's call take ours in its place, by the lines of docs/hosts.md.

Each stand-in calls as its source does: OpenSfM at 238744c, vismatch 1.4.0, deep-image-matching at 74d7bd5.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import cv2
import kornia.feature as KF
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eval.quality.hosts import known_pair
from eval.show.tables import ROOT
from kornia_bingan.opencv import BinGANExtractor

Matches = tuple[NDArray[Any], NDArray[Any]]


def lines_of(section: str) -> str:
    """The first program below a heading of the page."""
    text = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8").split(f"\n## {section}\n")[1]
    found = re.search(r"```\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the lines may name; what they do to cv2 is undone."""
    monkeypatch.setattr(cv2, "ORB_create", cv2.ORB_create)
    return {"cv2": cv2, "BinGANExtractor": BinGANExtractor}


def test_nobody_writes_more_than_five_lines() -> None:
    text = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    programs = [program for language, program in blocks if not language]
    assert len(programs) >= 8
    assert max(len(program.splitlines()) for program in programs) <= 5


def share_right(xy0: NDArray[Any], xy1: NDArray[Any]) -> float:
    there = cv2.perspectiveTransform(xy0.astype(np.float64)[:, None], known_pair()[2])[:, 0]
    return float((np.linalg.norm(there - xy1, axis=1) < 3).mean())


def by_ratio(codes0: NDArray[Any], codes1: NDArray[Any], ratio: float) -> list[Any]:
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(codes0, codes1, k=2)
    return [first for first, second in pairs if first.distance < ratio * second.distance]


def test_opensfm(names: dict[str, Any]) -> None:
    exec(lines_of("OpenSfM and OpenDroneMap"), names)
    found = []
    for image in known_pair()[:2]:
        detector = cv2.ORB_create(nfeatures=600)
        points = detector.detect(image)
        points, codes = detector.compute(image, points)
        assert codes is not None
        found.append((np.array([(p.pt[0], p.pt[1], p.size, p.angle) for p in points]), codes))
    (points0, codes0), (points1, codes1) = found
    assert points0.shape == (600, 4)
    assert codes0.dtype == np.uint8  # makes OpenSfM compare bits
    matches = by_ratio(codes0, codes1, 0.8)
    assert len(matches) > 200
    xy0, xy1 = points0[[m.queryIdx for m in matches], :2], points1[[m.trainIdx for m in matches], :2]
    assert share_right(xy0, xy1) > 0.95


def test_vismatch(names: dict[str, Any]) -> None:
    made = SimpleNamespace(det_descr=None)
    asked: list[Any] = []

    def get_matcher(name: str, **options: Any) -> SimpleNamespace:
        asked.append((name, options))
        return made

    exec(lines_of("vismatch"), {"vismatch": SimpleNamespace(get_matcher=get_matcher), **names})
    assert asked == [("orb-nn", {"lowe_thresh": 0.8})]
    found = [made.det_descr.detectAndCompute(image, None) for image in known_pair()[:2]]
    (points0, codes0), (points1, codes1) = found
    matches = by_ratio(codes0, codes1, 0.8)
    xy0, xy1 = (
        np.array([points[i].pt for i in rows])
        for points, rows in (
            (points0, [m.queryIdx for m in matches]),
            (points1, [m.trainIdx for m in matches]),
        )
    )
    assert len(matches) > 200
    assert share_right(xy0, xy1) > 0.95


def test_deep_image_matching(names: dict[str, Any]) -> None:
    exec(lines_of("deep-image-matching"), names)
    found = []
    for image in (*known_pair()[:2], np.full((90, 90), 128, np.uint8)):
        extractor = cv2.ORB_create(nfeatures=600, scaleFactor=1.2, nlevels=1, edgeThreshold=1, fastThreshold=0)
        points = extractor.detect(image, None)
        points, signs = extractor.compute(image, points)
        if points:
            assert signs is not None
            found.append((cv2.KeyPoint_convert(points), signs.astype(float).T))
    assert len(found) == 2
    (xy0, signs0), (xy1, signs1) = found
    assert signs0.shape == (256, 600)
    tensors = [torch.tensor(signs.T, dtype=torch.float) for signs in (signs0, signs1)]
    _, indices = KF.DescriptorMatcher("smnn", 0.894)(*tensors)
    assert len(indices) > 200
    assert share_right(xy0[indices[:, 0]], xy1[indices[:, 1]]) > 0.95
