from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.__main__ import main
from eval.training.six_cells import PUBLISHED, score, tables
from kornia_bingan.datasets.brown import read_patch_set, write_patch_set
from kornia_bingan.losses import hard_sign
from kornia_bingan.network.weights import load_weights
from tests.helpers.photos import texture

SETS = ("liberty", "notredame", "yosemite")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sets of 20 points, two patches each, with a list of 40 pairs."""
    folder = tmp_path_factory.mktemp("sets")
    for seed, name in enumerate(SETS):
        picture = texture(320, 400, seed)
        first = np.stack([picture[y : y + 64, x : x + 64] for y in range(0, 256, 64) for x in range(0, 320, 64)])
        patches = np.stack([first, np.roll(first, 2, 2)], 1).reshape(40, 64, 64)
        matches = np.stack([np.arange(0, 40, 2), np.arange(1, 40, 2)], 1)
        others = np.stack([matches[:, 0], np.roll(matches[:, 1], 2)], 1)
        pairs = np.stack([matches, others], 1).reshape(-1, 2)
        write_patch_set(folder / name, patches, np.repeat(np.arange(20), 2), pairs={40: (pairs[:, 0], pairs[:, 1])})
    return folder


@pytest.mark.usefixtures("_few_initial_patches")
def test_each_set_is_learnt_from_and_the_others_are_tested(sets: Path, tmp_path: Path) -> None:
    words = ["six_cells", str(sets), str(tmp_path / "runs"), "--steps", "1", "--batch-size", "4", "--train-pairs", "40"]
    out = tmp_path / "cells.json"
    assert main([*words, "--pairs", "40", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert [(row["learnt"], row["tested"]) for row in record["results"]] == [
        (learnt, tested) for learnt in SETS for tested in SETS if learnt != tested
    ]
    assert len(set(record["weights"].values())) == 3
    config = json.loads((tmp_path / "runs" / "yosemite" / "run.json").read_text())["config"]
    assert (config["train"], config["validate"], config["train_pairs"]) == ("yosemite", "liberty", 40)
    # by hand, from the real values and without packing
    network = load_weights(tmp_path / "runs" / "liberty" / "weights.safetensors").eval()
    patch_set = read_patch_set(sets / "yosemite")
    index0, index1, is_match = patch_set.pairs(40)
    low = network.describe(network.prepare(torch.from_numpy(patch_set.patches32(np.arange(40))))).detach()
    codes = hard_sign(low).numpy()
    distance = (codes[index0] != codes[index1]).sum(1)
    matches, others = np.sort(distance[is_match]), distance[~is_match]
    cell = next(row for row in record["results"] if (row["learnt"], row["tested"]) == ("liberty", "yosemite"))
    assert cell["fpr95"] == pytest.approx(100 * np.mean(others <= matches[18]))
    assert cell["published"] == pytest.approx(100 * np.mean(others <= matches[19]))
    half = np.sort(distance[is_match][:10])
    assert cell["first_half"] == pytest.approx(100 * np.mean(others[:10] <= half[9]))
    assert score(tmp_path / "runs" / "liberty" / "weights.safetensors", sets / "yosemite", 40) == {
        key: cell[key] for key in ("fpr95", "published", "first_half")
    }


def test_gains_are_over_dbd_mq() -> None:
    columns = list(PUBLISHED["BinGAN"][0])
    same = {column: dict.fromkeys(("fpr95", "published", "first_half"), 30.0) for column in columns}
    text = tables(same)
    mean = sum(PUBLISHED["DBD-MQ"][0].values()) / 6
    assert f"{mean - 30:.2f}" in next(line for line in text.splitlines() if line.startswith("ours, fpr95"))
    assert sum(PUBLISHED["BinGAN"][0].values()) / 6 == pytest.approx(30.83, abs=0.01)
    assert sum(PUBLISHED["DeepBit"][0].values()) / 6 == pytest.approx(40.67, abs=0.01)
    assert "recalled, not read" in next(line for line in text.splitlines() if line.startswith("BinGAN"))


def test_wrong_use_is_one_sentence(sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["six_cells", str(sets), str(tmp_path / "r"), "--sets", "liberty", "liberty"]) == 2
    assert "two or more different sets" in capsys.readouterr().err
    assert main(["six_cells", str(sets), str(tmp_path / "r"), "--sets", "liberty", "paris"]) == 2
    assert "paris" in capsys.readouterr().err
