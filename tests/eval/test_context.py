"""Models of context are fitted and judged on scenes that are left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eval.harness import problems
from eval.training import context
from kornia_bingan.datasets.rendered import render_scene
from kornia_bingan.errors import UsageError
from kornia_bingan.matching.context import compare, perceptron
from tests.matching.test_context import MODEL, keypoints


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split of two scenes of two views each."""
    folder = tmp_path_factory.mktemp("context") / "made"
    for seed in (0, 1):
        render_scene(folder / f"room{seed}", 2, seed=seed)
    return folder


@pytest.mark.parametrize(("named", "bits"), [(("--ours", "bingan256-lite"), 256), (("--peers", "rootsift@16"), 4096)])
def test_each_scene_is_judged_by_a_model_of_the_others(
    named: tuple[str, str], bits: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problems, "MAX_KEYPOINTS", 300)
    out = tmp_path / "context.json"
    words = [str(data), *named, "--out", str(out), "--cache", str(data.parent / "cache"), "--test", str(data)]
    assert context.main(words) == 0
    record = json.loads(out.read_text())
    assert [row["scene"] for row in record["results"]] == ["room0", "room1"]
    assert [len(each) for each in record["context"]["rounds"]] == [5, 14]
    assert [np.shape(each) for each in record["context"]["layers"]] == [(17, 24), (25, 24), (25, 1)]
    assert record["fitted_on"] == ["room0", "room1"]
    assert record["context"]["bits"] == bits
    for row in (*record["results"], *record["tested"]):
        assert row["m95_context"] > 30
        assert row["m95_context"] >= 0.7 * row["m95_ratio"]
        assert row["correct"] / row["matches"] > 0.5
    assert str(data) not in out.read_text()


def test_further_scenes_are_fitted_on_but_not_judged(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problems, "MAX_KEYPOINTS", 300)
    fitted = []
    monkeypatch.setattr(context, "fit", lambda scenes, bits: fitted.append(scenes) or MODEL)
    out = tmp_path / "context.json"
    words = [str(data), "--ours", "bingan256-lite", "--out", str(out), "--cache", str(data.parent / "cache")]
    assert context.main([*words, "--more", str(data / "room1")]) == 0
    record = json.loads(out.read_text())
    assert record["fitted_on"] == ["room0", "room1", "room1"]
    assert [row["scene"] for row in record["results"]] == ["room0", "room1"]
    assert [len(scenes) for scenes in fitted] == [2, 2, 3]
    assert str(data) not in out.read_text()


def test_a_perceptron_learns_what_no_logistic_model_can() -> None:
    """Right where two numbers have one sign; the mean and the deviation of the numbers do not matter."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20_000, 3))
    correct = values[:, 0] * values[:, 1] > 0
    layers = context.fit_perceptron(values * [100, 0.01, 1] + [1000, 0, -3], correct, np.ones(20_000))
    asked = np.array([[1.0, 1, 0], [-1, -1, 0], [1, -1, 0], [-1, 1, 0]]) * [100, 0.01, 1] + [1000, 0, -3]
    assert (perceptron(asked, layers) > 0.5).tolist() == [True, True, False, False]
    weights = np.where(values[:, 2] > 0, 1.0, 0.0)
    turned = context.fit_perceptron(values, correct ^ (values[:, 2] < 0), weights)
    assert perceptron(np.array([[1.0, 1, 0.5]]), turned)[0] > 0.5
    assert perceptron(np.array([[1.0, 1, -0.5]]), turned)[0] > 0.5, "what has no weight is not learnt"
    with pytest.raises(UsageError, match="right and wrong matches"):
        context.fit_perceptron(values, np.ones(20_000, bool), np.ones(20_000))


def test_one_scene_has_no_others(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 scenes with cameras; one is left out in turn"):
        context.main([str(data), "--only", "room0", "--out", str(tmp_path / "no.json"), "--no-cache"])


def test_real_values_are_compared_as_codes_are() -> None:
    """Signs of codes at unit length: squared distances are Hamming distances but for a factor."""
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 256, (40, 32), dtype=np.uint8) for _ in range(2)]
    codes[1][:30] = codes[0][:30] ^ (rng.random((30, 32)) < 0.1)
    points = keypoints(rng.uniform(0, 100, (40, 2)))
    signs = [(np.unpackbits(each, axis=1) * 2.0 - 1) / 16 for each in codes]
    expected, found = compare(*codes, points, points), context.compare_floats(*signs, points, points)
    np.testing.assert_array_equal(found.seeds[:30], expected.seeds[:30])
    np.testing.assert_array_equal(found.around[0][:, :3].shape, expected.around[0][:, :3].shape)
    np.testing.assert_allclose(
        found.distances(found.seeds) ** 2 * 64, expected.distances(found.seeds), rtol=1e-4, atol=1e-4
    )
