from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eval.quality import revisited
from kornia_bingan.datasets.brown import write_patch_set
from kornia_bingan.errors import UsageError
from tests.helpers.photos import texture

USUAL = ("--regions", "usual")


def slow(rows: np.ndarray, points: np.ndarray) -> float:
    """The protocol in loops, scored by scikit-learn."""
    from sklearn.metrics import average_precision_score

    correct, score = [], []
    for a in range(len(points)):
        others = [float(np.linalg.norm(rows[a] - rows[n])) for n in range(len(points)) if points[n] != points[a]]
        for p in range(len(points)):
            if p != a and points[p] == points[a]:
                near, far = float(np.linalg.norm(rows[a] - rows[p])), min(others)
                correct.append(near <= far)
                score.append(1 - min(near, far) / max(near, far))
    return float(average_precision_score(correct, score))


def test_against_loops_and_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    points = np.repeat(np.arange(12), 3)
    rows = rng.standard_normal((12, 4))[points] + 0.6 * rng.standard_normal((36, 4))
    found = revisited.ratio_average_precision(rows, points)
    assert found == pytest.approx(slow(rows, points), rel=1e-9)
    assert 0.2 < slow(rows, points) < 1


def test_the_packages_rule_takes_the_first_patch_in_small_images() -> None:
    from sklearn.metrics import average_precision_score

    points = np.array([0, 0, 1, 1])
    rows = np.array([[0.0], [5.0], [5.5], [30.0]])
    exact = revisited.ratio_average_precision(rows, points)
    # negatives 2, 2, 1, 1 at 5.5, 0.5, 0.5, 25: correct are the first (5 <= 5.5) and the last (24.5 <= 25)
    ratios, correct = [5 / 5.5, 0.5 / 5, 0.5 / 24.5, 24.5 / 25], [True, False, False, True]
    assert exact == pytest.approx(average_precision_score(correct, 1 - np.array(ratios)))
    # negative 0 for all: at 0, 5, 5.5, 30 from the anchors; positives at 5, 5, 24.5, 24.5
    ratios, correct = [0, 1, 5.5 / 24.5, 24.5 / 30], [False, True, False, True]
    package = revisited.ratio_average_precision(rows, points, package=True)
    assert package == pytest.approx(average_precision_score(correct, 1 - np.array(ratios)))
    assert revisited.ratio_average_precision(rows, np.arange(4)) is None
    assert revisited.ratio_average_precision(rows, np.zeros(4, int)) is None


def test_command(tmp_path: Path) -> None:
    picture = texture(800, 800, 1)
    first = np.stack([picture[y : y + 64, x : x + 64] for y in range(0, 320, 64) for x in range(0, 256, 64)])
    second = np.clip(first.astype(np.int16) + 20, 0, 255).astype(np.uint8)
    patches, points = np.stack([first, second], 1).reshape(40, 64, 64), np.repeat(np.arange(20), 2)
    write_patch_set(tmp_path / "set", patches, points, reference=points // 10)
    out = tmp_path / "r.json"
    assert revisited.main([str(tmp_path / "set"), "--out", str(out), "--no-cache", *USUAL]) == 0
    rows = {row["descriptor"]: row for row in json.loads(out.read_text())["results"]}
    assert rows["bingan256"]["map"] == 100
    assert rows["bingan256"]["images"] == 2
    assert str(tmp_path) not in out.read_text()
    write_patch_set(tmp_path / "plain", patches, points)
    with pytest.raises(UsageError, match=r"plain has no interest\.txt"):
        revisited.main([str(tmp_path / "plain"), "--no-cache", *USUAL])
