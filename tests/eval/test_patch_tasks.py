"""The three tasks of HPatches on rows whose scores are known, and on both layouts of data."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.harness.data import HomographySequence
from eval.quality import patch_tasks
from kornia_bingan.errors import UsageError
from tests.helpers.photos import texture

LEVELS = ("easy", "hard", "tough")


def test_perfect_rows_score_one_and_random_rows_little() -> None:
    rng = np.random.default_rng(0)
    sequences = []
    for _ in range(3):
        codes = rng.integers(0, 256, (40, 32), dtype=np.uint8)
        sequences.append({"ref": codes, **{f"{level}{k}": codes for level in LEVELS for k in range(2)}})
    scores = patch_tasks.evaluate(sequences)
    assert {scores[task] for task in ("verification", "matching", "retrieval")} == {1.0}
    assert scores["matching_interval"] == [1.0, 1.0]
    for rows in sequences:
        rows["tough0"] = rng.integers(0, 256, (40, 32), dtype=np.uint8)
        rows["tough1"] = rng.integers(0, 256, (40, 32), dtype=np.uint8)
    scores = patch_tasks.evaluate(sequences)
    assert scores["matching_easy"] == scores["matching_hard"] == 1
    assert scores["matching_tough"] < 0.1
    assert scores["verification_tough"] == pytest.approx(1 / 6, abs=0.06), "one match in six pairs, no order"
    assert scores["retrieval_tough"] < 0.1


def test_matching_by_hand() -> None:
    # nearest: 0 -> 0 at distance 1, 1 -> 0 at 2 (wrong), 2 -> 2 at 3; ranks: right, wrong, right
    rows = {"ref": np.array([[0.0], [3.0], [10.0]]), "easy0": np.array([[1.0], [5.5], [13.0]])}
    assert patch_tasks.matching(rows, "easy") == pytest.approx((1 / 1 + 2 / 3) / 3)


def test_retrieval_by_hand() -> None:
    # one query of place 0 at distances 1 and 3, distractors (ref and view of the other sequence) at 2 and 4
    rows = {"ref": np.array([[0.0]]), "easy0": np.array([[1.0]]), "easy1": np.array([[3.0]])}
    other = {"ref": np.array([[2.0]]), "easy0": np.array([[4.0]])}
    assert patch_tasks.retrieval(rows, "easy", [other], np.random.default_rng(0)) == pytest.approx((1 + 2 / 3) / 2)


def test_distances_of_all_pairs() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((3, 5)), rng.standard_normal((4, 5))
    expected = np.array([[np.linalg.norm(x - y) for y in b] for x in a])
    np.testing.assert_allclose(patch_tasks.all_distances(a, b), expected)
    codes = rng.integers(0, 256, (4, 2), dtype=np.uint8)
    expected = np.array([[np.bitwise_count(p ^ q).sum() for q in codes] for p in codes])
    np.testing.assert_array_equal(patch_tasks.all_distances(codes, codes), expected)


def test_patches_of_a_sequence_show_the_same_places() -> None:
    image = texture(300, 400, 2)
    H = np.array([[0.9, 0.1, 10], [-0.1, 0.95, 45], [1e-4, 0, 1.0]])
    warped = cv2.warpPerspective(image, H, (400, 340))
    sequence = HomographySequence("made", "other", (image, warped), (H,))
    made = patch_tasks.make_patches(sequence, 30, np.random.default_rng(0))
    assert made.reference.shape == made.views["easy"][0].shape == (len(made.reference), 65, 65)
    assert 10 <= len(made.reference) <= 30

    def alike(level: str) -> float:
        a, b = (x.reshape(len(x), -1).astype(float) for x in (made.reference, made.views[level][0]))
        a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
        return float(np.median((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))

    assert alike("easy") > alike("tough") > 0.1
    assert alike("easy") > 0.6


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Two sequences of 12 patches in the official layout; the levels differ by noise."""
    for number in range(2):
        folder = tmp_path / "release" / f"v_{number}"
        folder.mkdir(parents=True)
        column = texture(12 * 65, 65, number)
        cv2.imwrite(str(folder / "ref.png"), column)
        for strength, letter in enumerate("eht", 1):
            for k in (1, 2):
                noise = np.random.default_rng(k).normal(0, 4 * strength, column.shape)
                cv2.imwrite(str(folder / f"{letter}{k}.png"), np.clip(column + noise, 0, 255))
    return tmp_path / "release"


@pytest.mark.usefixtures("_few_initial_patches")
def test_the_official_layout(release: Path, tmp_path: Path) -> None:
    out = tmp_path / "tasks.json"
    assert patch_tasks.main([str(release), "--out", str(out), "--no-cache", "--regions", "usual"]) == 0
    record = json.loads(out.read_text())
    assert record["sequences"] == {"v_0": 12, "v_1": 12}
    assert not record["made"]
    rows = {row["descriptor"]: row for row in record["results"]}
    assert {"bingan256", "bingan256/float", "rootsift"} <= rows.keys()
    assert rows["bingan256"]["matching_easy"] > 0.8
    assert str(tmp_path) not in out.read_text()


def test_damaged_releases_are_named(release: Path, tmp_path: Path) -> None:
    path = release / "v_0" / "e2.png"
    cv2.imwrite(str(path), texture(65 * 11, 65))
    with pytest.raises(UsageError, match=r"e2\.png has 11 patches, ref\.png 12"):
        patch_tasks.load(release, 10)
    cv2.imwrite(str(path), texture(65, 60))
    with pytest.raises(UsageError, match=r"e2\.png is 60 x 65; it must be a column"):
        patch_tasks.load(release, 10)
    path.write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"e2\.png is unreadable"):
        patch_tasks.load(release, 10)
    for path in (release / "v_0").glob("e*.png"):
        path.unlink()
    with pytest.raises(UsageError, match=r"v_0 has no e1\.png"):
        patch_tasks.load(release, 10)
    with pytest.raises(UsageError, match=r"v_1 has no homography|neither"):
        patch_tasks.load(tmp_path / "release" / "v_1", 10)
