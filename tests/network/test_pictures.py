"""The network for pictures that a processor can train: its arithmetic, sizes, and training on pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kornia_bingan import BinGAN
from kornia_bingan.datasets.pictures import read_picture_set
from kornia_bingan.errors import UsageError
from kornia_bingan.network.pictures import PictureNetwork
from kornia_bingan.network.published import multiply_adds
from kornia_bingan.network.weights import load_weights, save_weights
from kornia_bingan.train.batches import open_source
from kornia_bingan.train.config import TrainConfig, preset_config
from kornia_bingan.train.loop import train
from kornia_bingan.train.state import TrainingState
from tests.datasets.test_pictures import tree  # noqa: F401
from tests.network.test_published import numpy_conv
from tests.train.test_loop import check_killed_run, log_of

STAGES = ((4, 1), (6, 2), (8, 0))
SMALL: dict[str, Any] = {
    "stages": STAGES,
    "steps": 8,
    "batch_size": 12,
    "bits": 24,
    "nested": (8, 16),
    "neighbours": 0,
    "validation_pairs": 10,
    "validate_every": 4,
    "log_every": 1,
    "checkpoint_every": 1,
    "threads": 1,
    "device": "cpu",
}


def small_network() -> PictureNetwork:
    """Give a network in evaluation mode whose normalisations have statistics, gains and shifts of their own."""
    torch.manual_seed(0)
    network = PictureNetwork(24, STAGES).double()
    for name, value in network.state_dict().items():
        if "normalisation" in name and value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5)
    return network.eval()


def test_forward_equals_a_numpy_transcription() -> None:
    network = small_network()
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    pictures = torch.rand(3, 3, 32, 32, dtype=torch.float64)

    def normalised(value: np.ndarray, name: str) -> np.ndarray:
        axes = (None, slice(None), *[None] * (value.ndim - 2))
        mean, variance = (state[f"{name}.running_{key}"][axes] for key in ("mean", "var"))
        value = (value - mean) / np.sqrt(variance + 1e-5)
        return value * state[f"{name}.weight"][axes] + state[f"{name}.bias"][axes] if f"{name}.bias" in state else value

    def layer(value: np.ndarray, name: str, stride: int, padding: int) -> np.ndarray:
        value = numpy_conv(value, state[f"{name}.convolution.weight"], stride, padding)
        return np.maximum(normalised(value, f"{name}.normalisation"), 0)

    y = 4 * pictures.numpy() - 2
    y = layer(y, "reductions.0", 2, 1)
    y = y + layer(y, "residuals.0.0", 1, 1)
    y = layer(y, "reductions.1", 2, 0)
    y = y + layer(y, "residuals.1.0", 1, 1)
    y = y + layer(y, "residuals.1.1", 1, 1)
    y = layer(y, "reductions.2", 2, 0)
    assert y.shape == (3, 8, 4, 4)
    high = y.mean((2, 3))
    hidden = np.maximum(normalised(high @ state["hidden_layer.weight"].T, "hidden_normalisation"), 0)
    taps = network(network.prepare(pictures))
    np.testing.assert_allclose(taps.high.detach().numpy(), high, atol=1e-9)
    low = normalised(high @ state["code_layer.weight"].T, "code_normalisation")
    np.testing.assert_allclose(taps.low.detach().numpy(), low, atol=1e-9)
    np.testing.assert_allclose(taps.matching.detach().numpy(), hidden @ state["projection_layer.weight"].T, atol=1e-9)
    torch.testing.assert_close(network.describe(network.prepare(pictures)), taps.low)


@pytest.mark.parametrize("rows", [0, 1, 2, 7])
@pytest.mark.parametrize("side", [24, 32])
def test_shapes(rows: int, side: int) -> None:
    network = PictureNetwork(64, STAGES).eval()
    taps = network(network.prepare(torch.rand(rows, 3, side, side)))
    assert [tuple(tap.shape) for tap in taps] == [(rows, 8), (rows, 64), (rows, 64), (rows, 2)]


def test_size_is_within_the_budget_and_the_checkpoint_can_be_kept() -> None:
    network = PictureNetwork()
    assert 10_000_000 <= multiply_adds(network) <= 40_000_000
    values = sum(value.numel() for value in network.state_dict().values())
    assert 3 * 4 * values < 7.9e6, "weights, momentum and average"


def test_three_stages_are_needed() -> None:
    with pytest.raises(ValueError, match="has 3 stages, got 2"):
        PictureNetwork(64, STAGES[:2])


def test_weights_are_read_as_they_were_written(tmp_path: Path) -> None:
    network = small_network().float()
    save_weights(tmp_path / "a.safetensors", network, {})
    again = load_weights(tmp_path / "a.safetensors")
    assert isinstance(again, PictureNetwork)
    assert again.stages == STAGES
    x = network.prepare(torch.rand(5, 3, 32, 32))
    torch.testing.assert_close(again.describe(x), network.describe(x), atol=0.02, rtol=0.02)
    with pytest.raises(UsageError, match="describes whole pictures, not patches"):
        BinGAN.from_pretrained(tmp_path / "a.safetensors")


def config_of(data: Path, out: Path, **changes: Any) -> TrainConfig:
    return preset_config("pictures", data, out, **{**SMALL, **changes})


def test_a_killed_run_ends_with_the_same_bytes(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    check_killed_run("pictures", tree, tmp_path, {**SMALL, "steps": 6, "validate_every": 6})
    assert set(log_of(tmp_path / "whole", "train")[0]) >= {"two_view", "projection", "bit_correlation"}
    assert set(log_of(tmp_path / "whole", "validation")[-1]) >= {"map", "map_8", "map_16", "stuck_bits"}


def test_the_number_of_steps_may_change_until_the_rate_falls(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    """So a run goes on for as many sessions as there are, and cools down in the last one."""
    whole = train(config_of(tree, tmp_path / "whole", steps=12))
    for _ in range(3):
        train(config_of(tree, tmp_path / "run", steps=8, time_limit=1e-6))
    again = train(config_of(tree, tmp_path / "run", steps=12))
    assert again["sha256"] == whole["sha256"]
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["identity"]["steps"] == about["config"]["steps"] == 12
    with pytest.raises(UsageError, match=r"other settings \(steps: 12, now 16\)"):
        train(config_of(tree, tmp_path / "run", steps=16))
    train(config_of(tree, tmp_path / "cosine", schedule="cosine", time_limit=1e-6))
    with pytest.raises(UsageError, match=r"other settings \(steps: 8, now 12\)"):
        train(config_of(tree, tmp_path / "cosine", schedule="cosine", steps=12))


def test_a_run_that_is_older_than_a_setting_goes_on(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "run"
    train(config_of(tree, out, time_limit=1e-6))
    about = json.loads((out / "run.json").read_text())
    del about["identity"]["lambda_gan"], about["identity"]["picture_jitter"]["blur"]
    (out / "run.json").write_text(json.dumps(about))
    assert train(config_of(tree, out, time_limit=1e-6))["steps"] == 2
    with pytest.raises(UsageError, match=r"other settings \(lambda_gan: 0.0, now 1.0\)"):
        train(config_of(tree, out, lambda_gan=1.0))


def test_the_rate_rises_stays_and_falls(tmp_path: Path) -> None:
    state = TrainingState(config_of(tmp_path, tmp_path, steps=400, learning_rate=1.0))
    rates = []
    for state.step in (0, 24, 49, 200, 300, 350, 399):
        rates.append(state.set_learning_rate())
    assert rates == pytest.approx([0.02, 0.5, 1, 1, 1, 0.5, 0.01])
    assert state.optimiser.param_groups[0]["lr"] == rates[-1]


def test_pictures_that_ask_in_validation_are_not_learnt_from(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    config = replace(config_of(tree, tmp_path, batch_size=6), queries_aside=True)
    whole = replace(config.picture_jitter, least_crop=1.0, mirror=0.0, colour=0.0, grey=0.0, side=32)
    source = open_source(replace(config, picture_jitter=whole))
    assert source.validation.queries == 10
    asked = {row.tobytes() for row in source.validation.patches[:10]}
    learnt = [row.numpy().tobytes() for step in range(5) for row in source.draw(step, 0).patches0]
    assert len(set(learnt)) == 30, "of 40 pictures"
    assert not asked & set(learnt)
    every = open_source(replace(config, picture_jitter=whole, queries_aside=False))
    assert asked < {row.numpy().tobytes() for step in range(6) for row in every.draw(step, 0).patches0} | asked
    assert len({row.numpy().tobytes() for step in range(6) for row in every.draw(step, 0).patches0}) == 36
    assert len(read_picture_set(tree).train) == 40


def test_a_checkpoint_of_another_network_or_half_of_one_is_a_sentence(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "run"
    train(config_of(tree, out, time_limit=1e-6))
    train(config_of(tree, tmp_path / "other", stages=((4, 1), (6, 1), (8, 1)), time_limit=1e-6))
    whole = (out / "checkpoint.pt").read_bytes()
    (out / "checkpoint.pt").write_bytes((tmp_path / "other" / "checkpoint.pt").read_bytes())
    with pytest.raises(UsageError, match=r"checkpoint\.pt is of another network or optimiser"):
        train(config_of(tree, out))
    for content in (whole[: len(whole) // 2], b"", b"none"):
        (out / "checkpoint.pt").write_bytes(content)
        for steps in (8, 12):
            with pytest.raises(UsageError, match=r"checkpoint\.pt is damaged, or no checkpoint"):
                train(config_of(tree, out, steps=steps))


def test_wrong_use_is_one_sentence(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(UsageError, match="has 30 pictures to learn from; a batch of 31 needs more"):
        open_source(config_of(tree, tmp_path, batch_size=31))
    train(config_of(tree, tmp_path / "run", steps=1))
    for change, named in (({"stages": ((4, 1), (6, 1), (8, 1))}, "stages"), ({"optimiser": "adam"}, "optimiser")):
        with pytest.raises(UsageError, match=f"holds a run with other settings .*{named}"):
            train(config_of(tree, tmp_path / "run", steps=1, **change))
