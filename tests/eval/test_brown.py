from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eval.harness.metrics import fpr95
from eval.quality import brown
from kornia_bingan.datasets.brown import write_patch_set
from kornia_bingan.errors import UsageError
from tests.helpers.photos import texture

USUAL = ("--regions", "usual")


@pytest.fixture(scope="module")
def patch_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 points with two patches each: the second is moved by some pixels, brighter and noisy."""
    folder = tmp_path_factory.mktemp("sets") / "rendered"
    picture = texture(700, 700, 4)
    places = [(y, x) for y in range(0, 320, 64) for x in range(0, 384, 64)]
    first, moved = (np.stack([picture[y + d : y + d + 64, x : x + 64] for y, x in places]) for d in (0, 5))
    second = np.clip(moved + np.random.default_rng(0).normal(10, 8, first.shape), 0, 255).astype(np.uint8)
    patches = np.stack([first, second], 1).reshape(60, 64, 64)
    index0 = np.repeat(np.arange(0, 60, 2), 2)
    index1 = np.stack([np.arange(1, 60, 2), (np.arange(1, 60, 2) + 14) % 60], 1).ravel()
    write_patch_set(folder, patches, np.repeat(np.arange(30), 2), pairs={60: (index0, index1)})
    return folder


def test_scores_are_those_of_the_metrics() -> None:
    rng = np.random.default_rng(0)
    distance = np.concatenate([rng.integers(0, 60, 200), rng.integers(30, 128, 300)]).astype(np.float64)
    is_match = np.arange(500) < 200
    scores = brown.evaluate(distance, is_match)
    assert scores["fpr95"] == pytest.approx(fpr95(distance[:200], distance[200:]), abs=1e-3)
    assert scores["interval"][0] <= scores["fpr95"] <= scores["interval"][1]
    assert scores["recall"] >= 0.95
    assert scores["roc"][0] == [0.0, 0.0]
    assert scores["roc"][-1][1] == 1.0
    order = rng.permutation(500)
    assert brown.evaluate(distance[order], is_match[order])["fpr95"] == scores["fpr95"]


@pytest.mark.parametrize("count", [19, 20, 21, 41])
def test_recall_is_that_of_the_first_rank_with_95_percent(count: int) -> None:
    rank = next(k for k in range(count + 1) if 20 * k >= 19 * count)
    distance = np.concatenate([np.arange(count), np.arange(count)]).astype(np.float64)
    scores = brown.evaluate(distance, np.arange(2 * count) < count)
    assert scores["recall"] == pytest.approx(rank / count, abs=1e-5)
    assert scores["fpr95"] == pytest.approx(100 * rank / count, abs=1e-3)


def test_perfect_and_useless_distances() -> None:
    is_match = np.arange(40) < 20
    assert brown.evaluate(np.where(is_match, 1.0, 2.0), is_match)["fpr95"] == 0
    assert brown.evaluate(np.where(is_match, 2.0, 1.0), is_match)["fpr95"] == 100
    assert brown.evaluate(np.ones(40), is_match)["fpr95"] == 100


def test_distances_by_norm() -> None:
    packed = np.array([[0b00000000], [0b00000111]], np.uint8)
    assert brown.distances(packed, np.array([0, 0]), np.array([1, 0])).tolist() == [3, 0]
    real = np.array([[0.0, 0.0], [3.0, 4.0]], np.float32)
    assert brown.distances(real, np.array([0]), np.array([1])).tolist() == [5]


def test_a_set_is_scored_for_all_descriptors(
    patch_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, ours = tmp_path / "brown.json", "bingan256-lite"
    words = [str(patch_set), "--ours", ours, *USUAL]
    assert brown.main([*words, "--pairs", "60", "--out", str(out), "--peer-data", str(tmp_path)]) == 0
    record = json.loads(out.read_text())
    score = {row["descriptor"]: row["fpr95"] for row in record["results"]}
    assert {"sift", "pixels", "untrained", ours, f"{ours}/float", f"{ours}/median"} <= set(score)
    assert score["pixels"] < 5
    assert score[ours] < 5
    assert score["untrained"] > score[f"{ours}/float"]
    assert "hardtfeat" in record["absent"]
    assert record["trained_on"] == {ours: "photos"}
    assert out.with_suffix(".svg").read_text().startswith("<svg")
    assert "FPR@95 %, 60 pairs" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no such pair file"):
        brown.main([*words, "--pairs", "100"])


def test_the_first_half_is_that_of_the_list() -> None:
    matches, others = np.array([1.0, 1, 9, 9]), np.array([2.0, 2, 2, 8])
    scores = brown.evaluate(np.concatenate([matches, others]), np.arange(8) < 4)
    assert scores["fpr95_published"] == 100
    assert scores["fpr95_first_half"] == 0
    order = np.array([2, 3, 0, 1, 4, 5, 6, 7])  # the list decides which pairs are the first
    swapped = brown.evaluate(np.concatenate([matches, others])[order], (np.arange(8) < 4)[order])
    assert swapped["fpr95_first_half"] == 100


def test_arrays_of_the_published_code_are_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = texture(330, 340, 5)
    places = [(y, x) for y in range(0, 288, 32) for x in range(0, 256, 32)][:40]
    first, moved = (np.stack([picture[y + d : y + d + 32, x : x + 32] for y, x in places]) for d in (0, 1))
    for name, second in (("matches", moved), ("others", np.roll(first, 7, 0))):
        pairs = np.stack([first, second], 1).reshape(80, 1, 32, 32)
        values = np.repeat((pairs.astype(np.float32) - 127.5) / 128, 3, 1)
        np.save(tmp_path / f"{name}.npy", values)
    given = ["--arrays", str(tmp_path / "matches.npy"), str(tmp_path / "others.npy"), "--no-cache", *USUAL]
    given += ["--black", str(-127.5 / 128), "--white", str(127.5 / 128), "--out", str(tmp_path / "brown.json")]
    assert brown.main(["--ours", "bingan256-lite", *given]) == 0
    record = json.loads((tmp_path / "brown.json").read_text())
    assert record["pairs"] == 80
    score = {row["descriptor"]: row["fpr95"] for row in record["results"]}
    assert set(score) == {"pixels", "untrained", *(f"bingan256-lite{way}" for way in ("", "/median", "/float"))}
    assert score["bingan256-lite"] < 10
    assert "FPR@95 %, 80 pairs" in capsys.readouterr().out
    with pytest.raises(UsageError, match="either sets in Brown's layout or --arrays"):
        brown.main([])


def test_intervals_draw_the_images_whose_points_make_the_pairs() -> None:
    """Two images of 50 pairs each: in one everything is right, in the other every non-match is accepted."""
    is_match = np.tile([True, False], 50)
    image = np.repeat([3, 8], 50)
    distance = np.where(is_match, 1.0, np.where(image == 3, 2.0, 0.5))
    drawn = brown.draw_pairs(is_match, np.stack([image, image], 1))
    assert set(np.unique(drawn)) == {0, 1, 2}
    assert all(len(set(row[image == n])) == 1 for row in drawn[:20] for n in (3, 8)), "pairs of an image come together"
    assert brown.evaluate(distance, is_match, drawn)["interval"] == [0, 100]
    low, high = brown.evaluate(distance, is_match)["interval"]
    assert 20 < low < 50 < high < 80, "one by one they seem independent"
    across = brown.draw_pairs(is_match, np.stack([image, image[::-1]], 1))
    assert set(np.unique(across)) <= {0, 1}, "the product of the draws of both images"
