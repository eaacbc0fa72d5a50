from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.cost import retrieval_pairs
from eval.quality import overlap
from kornia_bingan.errors import UsageError
from kornia_bingan.network.published import ImageDiscriminator
from kornia_bingan.network.weights import save_weights
from kornia_bingan.work.options import FeatureOptions
from tests.helpers.photos import texture
from tests.helpers.scenes import copy_scene


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with one scene, and a folder of other photos."""
    copy_scene(tmp_path / "scenes" / "room", 3, half=True)
    (tmp_path / "others").mkdir()
    for seed in range(6):
        cv2.imwrite(str(tmp_path / "others" / f"{seed}.png"), texture(200, 260, seed))
    return tmp_path / "scenes", tmp_path / "others"


def test_recall_by_hand() -> None:
    database = np.array([[0b0000], [0b0001], [0b0011], [0b1111], [0b0000]], np.uint8)
    shares = overlap.recall_at(database[:2], database, [{1, 3}, {0, 2, 4}], [0, 1])
    # From row 0: 4, 1, 2, 3. From row 1: 0, 2, 4, 3.
    np.testing.assert_allclose(shares[1], [0, 1])
    np.testing.assert_allclose(shares[5], [1, 1])


def test_views_of_a_scene_are_found_among_others(folders: tuple[Path, Path], tmp_path: Path) -> None:
    network = ImageDiscriminator(32).eval()
    save_weights(tmp_path / "picture.safetensors", network, {})
    out = tmp_path / "overlap.json"
    words = [str(folders[0]), str(folders[1]), "--ours", f"bingan256-lite,{tmp_path / 'picture.safetensors'}"]
    assert overlap.main([*words, "--out", str(out), "--cache", str(tmp_path / "cache")]) == 0
    record = json.loads(out.read_text())
    assert (record["queries"], record["photos"], record["overlaps_a_query"]) == (3, 9, 2)
    rows = {row["code"]: row for row in record["results"]}
    assert (rows["bingan256-lite, 1 cells"]["bits"], rows["bingan256-lite, 2 cells"]["bits"]) == (256, 512)
    assert rows["picture"]["bits"] == 32
    assert rows["bingan256-lite, 2 cells"]["recall@5"] == 1
    assert str(tmp_path) not in out.read_text()
    with pytest.raises(UsageError, match="has no scene"):
        overlap.main([str(folders[1]), str(folders[1])])


def test_fewer_pairs_register_the_same_photos(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = partial(FeatureOptions, descriptor="bingan256-lite")
    monkeypatch.setattr(retrieval_pairs, "FeatureOptions", small)
    monkeypatch.setattr(retrieval_pairs, "MAX_KEYPOINTS", 500)
    out = tmp_path / "pairs.json"
    words = [str(folders[0] / "room"), "--distractors", str(folders[1]), "--count", "3", "--mixed", "6"]
    assert retrieval_pairs.main([*words, "--out", str(out)]) == 0
    every, similar = json.loads(out.read_text())["results"]
    assert (every["photos"], every["pairs"]) == (9, 36)
    assert similar["pairs"] < 30
    assert every["registered"] == similar["registered"] == 3
    assert similar["points"] > 0.9 * every["points"]
    with pytest.raises(UsageError, match="6, 7 wanted"):
        retrieval_pairs.main([*words[:3], "--mixed", "7"])
