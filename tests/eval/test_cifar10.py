from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from eval.quality import cifar10, hashing
from eval.show import picture_grid
from kornia_bingan.datasets.pictures import PictureSet, Splits
from kornia_bingan.errors import UsageError
from kornia_bingan.network.pictures import PictureNetwork
from kornia_bingan.network.weights import save_weights
from kornia_bingan.work.files import sha256_of
from tests.datasets.test_pictures import tree  # noqa: F401 - a fixture


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
    depths = ["1", "10", "50", "100", "200", "500", "1000", "2000", "5000", "10000"]
    assert list(scores["precision"]) == list(scores["recall"]) == list(scores["precision_interval"]) == depths


def test_figures_are_percent_of_three_decimals_by_hand() -> None:
    """Twelve distances from 0 to all 16 bits; right ones at ranks 3, 11 and 12."""
    ones = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16]
    database = np.packbits(np.arange(16) < np.array(ones)[:, None], axis=1)
    labels = np.isin(np.arange(12), (2, 10, 11)).astype(int)
    scores = cifar10.evaluate(np.zeros((1, 2), np.uint8), database, np.array([1]), labels)
    expected = round(100 * (1 / 3 + 2 / 11 + 3 / 12) / 3, 3)
    assert [scores[key] for key in ("deepbit", "published", "exact", "full")] == [expected] * 4
    assert scores["interval"] == [expected] * 2
    assert (scores["precision"], scores["recall"]) == ({"1": 0, "10": 0.1}, {"1": 0, "10": 0.3333})


def test_the_published_figure_is_of_1_000_queries() -> None:
    """Those first in NumPy's permutation by 6; a query of the other label finds its picture second."""
    order = np.random.RandomState(6).permutation(1100)
    database, labels = np.array([[0], [255]], np.uint8), np.array([0, 1])
    for rank, expected in ((999, 99.95), (1000, 100)):
        query_labels = (np.arange(1100) == order[rank]).astype(int)
        scores = cifar10.evaluate(np.zeros((1100, 1), np.uint8), database, query_labels, labels)
        assert scores["published"] == expected


def test_pixels_and_gradients_of_a_picture() -> None:
    pictures = np.zeros((2, 32, 32, 3), np.uint8)
    pictures[1, 5, 6] = 255, 51, 0
    rows = cifar10.pixels(pictures)
    assert (rows.shape, rows.dtype) == ((2, 3072), np.float32)
    assert rows[1, 3 * (5 * 32 + 6) :][:4].tolist() == pytest.approx([1, 0.2, 0, 0])
    gradients = cifar10.hog(pictures)
    assert (gradients.shape, gradients.dtype) == ((2, 324), np.float32), "3 x 3 blocks of 2 x 2 cells of 9 bins"
    assert gradients[1].any()
    assert not gradients[0].any()


class Columns:
    """A network of 32 bits: red of the first row of pixels, whose bit is set from 128 on."""

    bits = 32

    def prepare(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures

    def describe(self, pictures: torch.Tensor) -> torch.Tensor:
        return (255 * pictures[:, 0, 0]).round() - 128


def splits_of(train: np.ndarray, test: np.ndarray) -> Splits:
    return Splits(*(PictureSet(part, np.zeros(len(part), np.int64), ()) for part in (train, test)), "made")


def test_our_codes_are_the_signs_of_the_networks_values() -> None:
    """More pictures than are described at once; a value of 0 is a bit that is set."""
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (count, 32, 32, 3), np.uint8) for count in (cifar10.BATCH + 3, 4))
    network: Any = Columns()
    rows = cifar10.network_features(network, train)
    np.testing.assert_array_equal(rows, train[:, 0, :, 0] - 128.0)
    found = list(cifar10.of_networks(splits_of(train, test), [16, 64], {"n": network}, ()))
    assert [(name, width) for name, width, _, _ in found] == [("n, first 16 of 32 bits", 16), ("n", 32)]
    for _, width, queries, database in found:
        np.testing.assert_array_equal(database, np.packbits(train[:, 0, :width, 0] >= 128, axis=1))
        np.testing.assert_array_equal(queries, np.packbits(test[:, 0, :width, 0] >= 128, axis=1))


def test_the_untrained_network_has_64_bits_by_medians_and_by_itq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "METHODS", {})
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (count, 32, 32, 3), np.uint8) for count in (66, 2))
    found = list(cifar10.peers(splits_of(train, test), [64]))
    assert [(name, width) for name, width, _, _ in found] == [("untrained, medians", 64), ("untrained, itq", 64)]
    for name, _, queries, database in found:
        assert (queries.shape, database.shape) == ((2, 8), (66, 8))
        share = np.unpackbits(database, axis=1).mean(0)
        assert (share > 0).all(), f"{name}: no bit is always clear"
    # in bfloat16 values are equal to the median more often
    rows = cifar10.network_features(cifar10.untrained_network(train, 64), train)
    bits = np.unpackbits(found[0][3], axis=1)
    np.testing.assert_array_equal(bits, rows >= np.median(rows, axis=0))
    assert ((rows > np.median(rows, axis=0)).sum(0) <= 33).all()
    assert (bits.sum(0) >= 33).all()


def test_command(
    tree: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    every = cifar10.pixels
    monkeypatch.setattr(cifar10, "pixels", lambda pictures: every(pictures)[:, ::9])  # spectral hashing of all is slow
    weights, out = tmp_path / "run" / "weights.safetensors", tmp_path / "cifar10.json"
    weights.parent.mkdir()
    save_weights(weights, PictureNetwork(32, ((4, 1), (6, 1), (8, 1))).eval(), {})
    drawn = ["--pictures", str(tmp_path / "drawn")]
    assert cifar10.main([str(tree), "--ours", str(weights), "--bits", "16", "--out", str(out), *drawn]) == 0
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
    assert record["provenance"]["weights_sha256"] == sha256_of(weights)
    assert record["pictures"] == "one folder per class"
    assert str(tmp_path) not in out.read_text()
    assert "precision, 16 bits" in out.with_suffix(".svg").read_text()
    about = json.loads((tmp_path / "drawn" / "cifar10.json").read_text())
    assert [row["file"] for row in about["results"]] == ["cifar10-run-16.png", "cifar10-run-32.png"]
    assert cv2.imread(str(tmp_path / "drawn" / "cifar10-run-16.png")) is not None
    assert "deepbit" in capsys.readouterr().out
    with pytest.raises(UsageError, match="multiples of 8"):
        cifar10.main([str(tree), "--bits", "12"])
    with pytest.raises(UsageError, match="describes patches"):
        cifar10.main([str(tree), "--ours", "bingan256", "--out", str(out)])


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
