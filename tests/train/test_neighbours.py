"""Views of pictures that a half-trained network finds alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.network.weights import load_weights
from kornia_bingan.train.batches import drawer_of_pictures, open_source
from kornia_bingan.train.config import TrainConfig, check_config, preset_config
from kornia_bingan.train.loop import train
from kornia_bingan.train.neighbours import NEIGHBOURS_FILE, nearest_rows
from kornia_bingan.train.picture_jitter import NO_PICTURE_JITTER
from tests.datasets.test_pictures import tree  # noqa: F401
from tests.network.test_pictures import SMALL


def config_of(data: Path, out: Path, **changes: Any) -> TrainConfig:
    return preset_config("pictures", data, out, **{**SMALL, "neighbours": 3, **changes})


def test_nearest_rows_are_those_of_the_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    unit = features.numpy() / np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -2)
    expected = np.argsort(-similarity, axis=1)[:, :4]
    np.testing.assert_array_equal(nearest_rows(features, 4), expected)
    monkeypatch.setattr("kornia_bingan.train.neighbours._ROWS", 7)
    np.testing.assert_array_equal(nearest_rows(3 * features, 4), expected)
    assert not (nearest_rows(torch.ones(5, 2), 3) == torch.arange(5)[:, None]).any()


def test_the_second_view_is_of_a_neighbour() -> None:
    config = replace(preset_config("pictures", Path(), Path(), **SMALL), picture_jitter=NO_PICTURE_JITTER)
    pictures = torch.arange(30, dtype=torch.uint8)[:, None, None, None].expand(30, 32, 32, 3)
    near = (np.arange(30)[:, None] + np.array([1, 5])).astype(np.int32) % 30
    draw = drawer_of_pictures(config, pictures, near)
    steps = set()
    for step in range(4):
        batch = draw(step, 0)
        views = (batch.patches0, batch.patches1)
        rows, others = (np.round(255 * view[:, 0, 0, 0].numpy()).astype(int) for view in views)
        steps |= set(((others - rows) % 30).tolist())
        np.testing.assert_array_equal(draw(step, 0).patches1, batch.patches1)
        same = drawer_of_pictures(config, pictures)(step, 0)
        np.testing.assert_array_equal(same.patches0, batch.patches0)
        np.testing.assert_array_equal(same.patches1, same.patches0)
    assert steps == {1, 5}


def test_neighbours_come_when_the_rate_falls_and_a_resumed_run_has_the_same(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    whole = train(config_of(tree, tmp_path / "whole"))
    plain = train(config_of(tree, tmp_path / "plain", neighbours=0))
    near = np.load(tmp_path / "whole" / NEIGHBOURS_FILE)
    assert near.shape == (30, 3)
    assert whole["sha256"] != plain["sha256"]
    assert not (tmp_path / "plain" / NEIGHBOURS_FILE).exists()
    for _ in range(7):  # one step each
        train(config_of(tree, tmp_path / "run", time_limit=1e-6))
    np.testing.assert_array_equal(np.load(tmp_path / "run" / NEIGHBOURS_FILE), near)
    assert train(config_of(tree, tmp_path / "run"))["sha256"] == whole["sha256"]


def test_neighbours_may_be_asked_for_until_the_rate_falls(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    whole = train(config_of(tree, tmp_path / "whole", steps=12))
    train(config_of(tree, tmp_path / "run", neighbours=0, time_limit=1e-6))
    assert train(config_of(tree, tmp_path / "run", steps=12))["sha256"] == whole["sha256"]
    with pytest.raises(UsageError, match=r"other settings \(neighbours: 3, now 4\)"):
        train(config_of(tree, tmp_path / "run", steps=12, neighbours=4))


def test_from_weights_they_come_at_once(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    start = train(config_of(tree, tmp_path / "start", neighbours=0))["weights"]
    changes = {"start": start, "schedule": "cosine", "steps": 2}
    whole = train(config_of(tree, tmp_path / "whole", **changes))
    assert np.load(tmp_path / "whole" / NEIGHBOURS_FILE).shape == (30, 3)
    assert train(config_of(tree, tmp_path / "plain", **changes, neighbours=0))["sha256"] != whole["sha256"]
    train(config_of(tree, tmp_path / "run", **changes, time_limit=1e-6))
    assert train(config_of(tree, tmp_path / "run", **changes))["sha256"] == whole["sha256"]


def test_a_lost_file_is_a_sentence(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    for _ in range(7):
        train(config_of(tree, tmp_path / "run", time_limit=1e-6))
    path = tmp_path / "run" / NEIGHBOURS_FILE
    for content in (None, b"", b"none"):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(JobError, match=r"neighbours\.npy is missing or damaged"):
            train(config_of(tree, tmp_path / "run"))
    np.save(path, np.zeros((30, 2), np.int32))
    with pytest.raises(JobError, match=r"\(30, 2\) rows and neighbours, not \(30, 3\)"):
        train(config_of(tree, tmp_path / "run"))


def test_wrong_use_is_one_sentence(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(UsageError, match="neighbours is -1"):
        check_config(config_of(tree, tmp_path, neighbours=-1))
    with pytest.raises(UsageError, match="for the network PictureNetwork, not ImageDiscriminator"):
        check_config(config_of(tree, tmp_path, network="ImageDiscriminator"))
    with pytest.raises(UsageError, match="or the schedule trapezoid"):
        check_config(config_of(tree, tmp_path, schedule="cosine"))
    with pytest.raises(UsageError, match="neighbours is 30, but there are 30 pictures"):
        open_source(config_of(tree, tmp_path, neighbours=30))


def test_only_the_codes_of_given_features_are_learnt(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    start = load_weights(Path(train(config_of(tree, tmp_path / "start", neighbours=0))["weights"])).state_dict()
    changes = {**SMALL, "neighbours": 3, "start": str(tmp_path / "start" / "weights.safetensors")}
    out = train(preset_config("picture-codes", tree, tmp_path / "codes", **changes))["weights"]
    learnt = load_weights(Path(out)).state_dict()
    changed = {name for name, value in learnt.items() if not torch.equal(value, start[name])}
    assert {name.partition(".")[0] for name in changed} == {"code_layer", "code_normalisation"}
    assert "code_layer.weight" in changed
    for change in ({"start": ""}, {"lambda_gan": 1.0}):
        with pytest.raises(UsageError, match="only_codes needs weights of PictureNetwork"):
            check_config(preset_config("picture-codes", tree, tmp_path, **{**changes, **change}))
