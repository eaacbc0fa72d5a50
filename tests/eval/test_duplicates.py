from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import eval.__main__ as evaluation
from eval.quality.duplicates import CHANGES, changed, score

RNG = np.random.default_rng(0)


def test_changes_are_functions_of_way_and_place() -> None:
    pictures = RNG.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    for way in CHANGES:
        first = changed(pictures, way)
        assert first.shape == pictures.shape
        assert first.dtype == np.uint8
        np.testing.assert_array_equal(first, changed(pictures, way))
        np.testing.assert_array_equal(first[:2], changed(pictures[:2], way))
        assert not np.array_equal(first, pictures)
    np.testing.assert_array_equal(changed(changed(pictures, "mirrored"), "mirrored"), pictures)


def test_recall_and_precision_by_hand() -> None:
    originals = np.array([[0b00000000], [0b11111111], [0b00001111], [0b00000011]], np.uint8)
    # at most 1 bit from its original; the second copy is one of another picture
    copies = {"near": np.array([[0b00000001], [0b11111111]], np.uint8), "other": originals[[0, 2]]}
    found = score(copies, originals)
    # within 0: three originals are found, and the code of one copy is that of another picture
    assert found["distance"] == 0
    assert found["precision"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["recalls"] == {"near": 0.5, "other": 0.5}
    assert found["recall"] == 0.5
    # the copy with bit 0 is as near to the fourth picture as to its own
    assert found["first"] == pytest.approx((0.5 + 1 + 1 + 0) / 4)


def test_the_largest_distance_with_enough_precision_is_taken() -> None:
    originals = RNG.integers(0, 256, (40, 8), dtype=np.uint8)
    copies = originals.copy()
    copies[:, 0] ^= 0b111
    found = score({"three bits": copies}, originals)
    assert found["recall"] == found["first"] == 1
    assert found["precision"] >= 0.95
    assert found["distance"] >= 3


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        for label in ("a", "b"):
            folder = tmp_path / "pictures" / split / label
            folder.mkdir(parents=True)
            for number in range(4):
                noise = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(noise, (32, 32)))
    out = tmp_path / "record.json"
    words = [str(tmp_path / "pictures"), "--ours", "bingan256-lite,bingan64-pictures", "--num-pictures", "8"]
    assert evaluation.main(["duplicates", *words, "--copies", "4", "--out", str(out)]) == 0
    rows = {row["code"]: row for row in json.loads(out.read_text())["results"]}
    assert {"bingan256-lite", "bingan64-pictures", "phash, 64 bits", "dhash, 256 bits"} <= set(rows)
    assert rows["bingan256-lite"]["recalls"]["grey"] == 1
    assert rows["phash, 256 bits"]["bits"] == 256
    assert "nearest is the original" in capsys.readouterr().out
    assert evaluation.main(["duplicates", *words, "--copies", "9", "--out", str(out)]) == 2
    assert "9 copies of 8 pictures" in capsys.readouterr().err
