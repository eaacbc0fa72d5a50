from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval import cifar10, hashing, picture_grid
from kornia_bingan.errors import UsageError
from kornia_bingan.picture_network import PictureNetwork
from kornia_bingan.recipe import preset_config
from kornia_bingan.train import train
from kornia_bingan.weights import save_weights
from tests.test_pictures import SMALL, tree  # noqa: F401 - a fixture


def two_classes(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    centre = np.random.default_rng(0).standard_normal((2, 40))
    return (centre[labels] + 0.3 * rng.standard_normal((count, 40))).astype(np.float32), labels


@pytest.mark.parametrize("method", [*hashing.METHODS.values(), hashing.medians])
@pytest.mark.parametrize("bits", [8, 16])
def test_codes_of_two_classes_find_their_class(method, bits: int) -> None:
    rows, labels = two_classes(1, 400)
    encode = method(rows, bits)
    queries, query_labels = two_classes(2, 60)
    codes = encode(queries)
    assert codes.shape == (60, bits // 8)
    assert codes.dtype == np.uint8
    scores = cifar10.evaluate(codes, encode(rows), query_labels, labels)
    assert scores["exact"] > 80
    assert scores["interval"][0] <= scores["exact"] <= scores["interval"][1]
    np.testing.assert_array_equal(encode(queries), codes)
    share = np.unpackbits(encode(rows), axis=1).mean(0)
    assert 0.2 < share.mean() < 0.8


def test_the_order_of_the_database_changes_no_exact_figure() -> None:
    rng = np.random.default_rng(0)
    database, queries = rng.integers(0, 256, (3000, 2), np.uint8), rng.integers(0, 256, (40, 2), np.uint8)
    labels, query_labels = rng.integers(0, 10, 3000), rng.integers(0, 10, 40)
    order = rng.permutation(3000)
    a = cifar10.evaluate(queries, database, query_labels, labels)
    b = cifar10.evaluate(queries, database[order], query_labels, labels[order])
    for key in ("exact", "full", "interval", "precision", "recall"):
        assert a[key] == b[key], key
    assert a["deepbit"] != b["deepbit"], "the order of equal distances decides here"
    assert a["full"] == pytest.approx(10, abs=1.5)
    assert a["precision"]["1000"] == pytest.approx(0.1, abs=0.02)
    assert a["recall"]["1000"] == pytest.approx(1 / 3, abs=0.05)


def test_the_published_figure_counts_10_000_ranks() -> None:
    """Right ones at ranks 1, 10,000 and 10,001: the last does not count, the second does, one step a distance."""
    database = np.array([0] + [1] * 9998 + [3, 3], np.uint8)[:, None]
    labels = np.array([1] + [0] * 9998 + [1, 1])
    scores = cifar10.evaluate(np.zeros((1, 1), np.uint8), database, np.array([1]), labels)
    assert scores["published"] == pytest.approx(100 * (1 + 2 / 10_000) / 2, abs=1e-3)
    assert scores["deepbit"] == 100, "1,000 ranks"


def test_command(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    changes = {**SMALL, "steps": 2, "bits": 32, "nested": (16,)}
    run = train(preset_config("cifar10-two-view", tree, tmp_path / "run", **changes))
    out = tmp_path / "cifar10.json"
    drawn = ["--pictures", str(tmp_path / "drawn")]
    assert cifar10.main([str(tree), "--ours", run["weights"], "--bits", "16", "--out", str(out), *drawn]) == 0
    record = json.loads(out.read_text())
    rows = {(row["descriptor"], row["bits"]): row for row in record["results"]}
    assert {
        ("lsh of pixels", 16),
        ("spectral of hog", 16),
        ("untrained, itq", 16),
        ("run, first 16 of 32 bits", 16),
        ("run, first 16 of 32 bits, itq", 16),
        ("run", 32),
        ("run, itq", 32),
    } <= set(rows)
    assert all(0 <= row["exact"] <= 100 for row in record["results"])
    assert rows["pca-itq of pixels", 16]["exact"] > 70, "two colours"
    assert record["pictures"] == "a folder a class"
    assert str(tmp_path) not in out.read_text()
    assert "precision, 16 bits" in out.with_suffix(".svg").read_text()
    about = json.loads((tmp_path / "drawn" / "cifar10.json").read_text())
    assert [row["file"] for row in about["results"]] == ["cifar10-run-16.png", "cifar10-run-32.png"]
    assert cv2.imread(str(tmp_path / "drawn" / "cifar10-run-16.png")) is not None
    assert "deepbit" in capsys.readouterr().out
    with pytest.raises(UsageError, match="multiples of 8"):
        cifar10.main([str(tree), "--bits", "12"])
    with pytest.raises(UsageError, match="describes patches"):
        cifar10.main([str(tree), "--ours", "bingan256"])


def test_command_takes_the_network_that_a_processor_can_train(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    save_weights(tmp_path / "small.safetensors", PictureNetwork(32, ((4, 1), (6, 1), (8, 1))).eval(), {})
    out = tmp_path / "cifar10.json"
    given = ["--ours", str(tmp_path / "small.safetensors"), "--bits", "16", "--no-peers", "--out", str(out)]
    assert cifar10.main([str(tree), *given, "--pictures", str(tmp_path / "drawn")]) == 0
    rows = json.loads(out.read_text())["results"]
    assert [(row["descriptor"], row["bits"]) for row in rows] == [
        ("small, first 16 of 32 bits", 16),
        ("small", 32),
    ]
    assert all(0 <= row["exact"] <= 100 for row in rows)


def test_grids_show_the_nearest_and_frame_the_wrong() -> None:
    database = np.array([[0], [255], [1], [0]], np.uint8)
    found = picture_grid.nearest(np.array([[0], [254]], np.uint8), database, 3)
    np.testing.assert_array_equal(found, [[0, 3, 2], [1, 0, 3]])
    blue = np.zeros((4, 4, 3), np.uint8)
    blue[..., 2] = 255
    drawn = picture_grid.grid(blue[None], np.stack([blue, blue])[None], np.array([[False, True]]), side=8)
    framed = (drawn == picture_grid.RED).all(2)
    shown = (drawn == (0, 0, 255)).all(2)
    assert shown.sum() == 3 * 64
    columns = np.flatnonzero(framed.any(0))
    assert np.flatnonzero(shown.any(0))[-1] < columns[-1]
    assert framed.sum() == 14 * 14 - 64
