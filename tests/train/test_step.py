"""One step of training by hand: its total, its passes, its batches, and what presets set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kornia_bingan import losses
from kornia_bingan.datasets.pictures import PictureSet, Splits
from kornia_bingan.network.published import Generator, PatchDiscriminator, Taps
from kornia_bingan.train import loop as training
from kornia_bingan.train.batches import Source, ValidationPairs, draw_ahead, picture_source
from kornia_bingan.train.config import PRESETS, TrainConfig, describe_config, preset_config
from kornia_bingan.train.folder import resume
from kornia_bingan.train.jitter import NO_JITTER, Batch, Jitter
from kornia_bingan.train.picture_jitter import NO_PICTURE_JITTER
from kornia_bingan.train.state import TrainingState
from tests.test_losses import slow_gan, slow_regularisers

UNUSUAL: dict[str, Any] = {
    "lambda_gan": 0.7,
    "lambda_dmr": 3.0,
    "lambda_bre": 11.0,
    "gamma": 0.4,
    "beta": 0.25,
    "batch_size": 4,
    "bits": 24,
    "device": "cpu",
    "precision": "float32",
}


def batch(seed: int, count: int = 4) -> Batch:
    rng = np.random.default_rng(seed)
    first, second = (torch.from_numpy(rng.random((count, 1, 32, 32), dtype=np.float32)) for _ in range(2))
    return Batch(first, second, torch.eye(count, dtype=torch.bool))


class Seen:
    """What one step computes: the taps of every pass of the network, and the losses of both steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        self.state = TrainingState(preset_config("brown", Path("photos"), Path("run"), **{**UNUSUAL, **changes}))
        self.passes: list[Taps] = []
        self.prepared: list[torch.Tensor] = []
        self.totals: list[float] = []
        self.state.network.register_forward_hook(lambda _m, _i, taps: self.passes.append(taps))
        prepare = self.state.prepare
        monkeypatch.setattr(self.state, "prepare", lambda patches: [self.prepared.append(patches), prepare(patches)][1])
        monkeypatch.setattr(training, "_step", lambda _o, _m, loss: self.totals.append(float(loss.detach())))
        self.record = training.train_step(self.state, batch(1), batch(2))

    def rows(self, number: int) -> list[np.ndarray]:
        """The taps of a pass, float64."""
        return [tap.detach().double().numpy() for tap in self.passes[number]]


def test_the_total_of_a_step_by_hand_at_unusual_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch)
    high, low, _, logits = seen.rows(0)
    assert len(low) == 16, "real, generated, and real ones again for low and for high"
    gan = slow_gan(logits[:4], logits[4:8])
    dmr, balance, correlation = slow_regularisers(high[12:], low[8:12], 0.4, 0.25, False)
    wanted = {"gan": gan, "dmr": dmr, "bre": balance + correlation}
    for name, value in wanted.items():
        assert seen.record[name] == pytest.approx(value, rel=1e-4), name
    assert seen.totals[0] == pytest.approx(0.7 * gan + 3 * dmr + 11 * (balance + correlation), rel=1e-4)
    assert 3 * dmr != pytest.approx(11 * dmr, rel=0.1), "the weights tell the terms apart"
    _, _, matching, _ = seen.rows(1)
    assert seen.totals[1] == pytest.approx(np.mean((matching[:4].mean(0) - matching[4:].mean(0)) ** 2), rel=1e-4)
    assert seen.record["generator"] == pytest.approx(seen.totals[1])
    assert len(seen.passes) == len(seen.totals) == 2


def test_low_and_high_features_come_from_dropout_passes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.Tensor] = []
    original = losses.distance_matching

    def spy(high: torch.Tensor, low: torch.Tensor, gamma: float) -> torch.Tensor:
        given.extend((high, low))
        return original(high, low, gamma)

    monkeypatch.setattr(losses, "distance_matching", spy)
    seen = Seen(monkeypatch)
    (high, low, _, _), (used_high, used_low) = seen.passes[0], given
    assert torch.equal(used_low, low[8:12])
    assert torch.equal(used_high, high[12:])
    # the same four patches in three passes, each with a mask of its own
    assert not any(torch.equal(low[a : a + 4], low[b : b + 4]) for a, b in ((0, 8), (0, 12), (8, 12)))
    given.clear()
    shared = Seen(monkeypatch, shared_pass=True)
    assert len(shared.passes[0].low) == 8
    assert torch.equal(given[0], shared.passes[0].high[:4])
    assert torch.equal(given[1], shared.passes[0].low[:4])


def test_the_generator_learns_from_a_batch_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.Tensor] = []
    original = losses.feature_matching

    def spy(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        given.extend((real, fake))
        return original(real, fake)

    monkeypatch.setattr(losses, "feature_matching", spy)
    seen = Seen(monkeypatch, dropout=False)
    assert [patches.numpy().tobytes() for patches in seen.prepared] == [
        batch(n).patches0.numpy().tobytes() for n in (1, 2)
    ]
    network = seen.state.network
    real = network(network.prepare(batch(2).patches0)).matching
    torch.testing.assert_close(given[0], real.detach())
    assert given[1].grad_fn is not None


def test_only_the_generator_takes_the_second_step(monkeypatch: pytest.MonkeyPatch) -> None:
    config = preset_config("brown", Path("photos"), Path("run"), **UNUSUAL)
    state = TrainingState(config)
    assert state.generator is not None
    stepped: list[set[str]] = []

    def step(_optimiser: object, module: torch.nn.Module, loss: torch.Tensor) -> None:
        for each in (state.network, state.generator):
            each.zero_grad(set_to_none=True)
        loss.backward()
        own = {name for name, value in module.named_parameters() if value.grad is not None}
        other = state.generator if module is state.network else state.network
        assert all(value.grad is None for value in other.parameters())
        stepped.append(own)

    monkeypatch.setattr(training, "_step", step)
    training.train_step(state, batch(1), batch(2))
    assert stepped[0] == {name for name, _ in state.network.named_parameters()}
    assert stepped[1] == {name for name, _ in state.generator.named_parameters()}
    assert all(value.requires_grad for value in state.network.parameters())


def draws(streams: list[tuple[int, int]]) -> Source:
    def draw(step: int, stream: int) -> Batch:
        streams.append((step, stream))
        return batch(100 * stream + step)

    empty = np.zeros(0, np.int64)
    pairs = ValidationPairs(np.zeros((1, 1, 32, 32), np.float32), empty, empty, np.zeros(0, bool))
    return Source(draw, pairs, {})


def test_the_generators_batches_are_another_stream() -> None:
    config = preset_config("brown", Path("photos"), Path("run"), **UNUSUAL, steps=5)
    streams: list[tuple[int, int]] = []
    pairs = list(draw_ahead(config, draws(streams), 2))
    assert sorted(streams) == [(step, stream) for step in (2, 3, 4) for stream in (0, 1)]
    for step, (own, other) in enumerate(pairs, 2):
        assert np.array_equal(own.patches0, batch(step).patches0)
        assert np.array_equal(other.patches0, batch(100 + step).patches0)
    streams.clear()
    without = replace(config, lambda_gan=0.0)
    assert [len(drawn) for drawn in draw_ahead(without, draws(streams), 0)] == [1] * 5
    assert sorted(streams) == [(step, 0) for step in range(5)]


def test_initialisation_takes_500_real_patches_with_dropout_and_a_batch_of_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, tuple[torch.Tensor, bool]] = {}

    def spy(self: torch.nn.Module, x: torch.Tensor) -> None:
        given[type(self).__name__] = (x, self.training)

    for kind in (PatchDiscriminator, Generator):
        monkeypatch.setattr(kind, "initialise", spy)
    config = preset_config("brown", Path("photos"), Path("run"), **{**UNUSUAL, "batch_size": 60, "bits": 8})
    streams: list[tuple[int, int]] = []
    state = TrainingState(replace(config, moving_average=0.5))
    state.network.eval()
    with torch.no_grad():
        state.network.code_layer.bias += 1
    source = replace(draws([]), draw=lambda step, stream: [streams.append((step, stream)), batch(step, 60)][1])
    training._initialise(state, source)
    x, is_training = given["PatchDiscriminator"]
    assert is_training, "dropout acts"
    assert streams == [(step, 2) for step in range(9)]
    patches = np.concatenate([batch(step, 60).patches0 for step in range(9)])[:500]
    assert torch.equal(x, state.network.prepare(torch.from_numpy(patches)))
    noise, _ = given["Generator"]
    assert noise.shape == (60, 100)
    assert state.average is not None
    assert float(state.average.code_layer.bias.detach().mean()) == 1, "the average starts from the initialised network"


def test_a_run_starts_with_the_initialisation_and_no_other_step_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ReachedError(Exception):
        pass

    def reached(_state: TrainingState, _source: Source) -> None:
        raise ReachedError

    monkeypatch.setattr(training, "_initialise", reached)
    config = preset_config("photos", tmp_path, tmp_path, **{"layers": ((2, 2), (2, 2)), "bits": 8, "device": "cpu"})
    state = TrainingState(replace(config, steps=1))
    with pytest.raises(ReachedError):
        training._learn(config, draws([]), state, 0.0)
    state.step = 1
    (tmp_path / "log.jsonl").unlink(missing_ok=True)
    for name in ("save_weights", "draw_log", "draw_patches", "sha256_of", "validate"):
        monkeypatch.setattr(training, name, lambda *_: {})
    assert training._learn(replace(config, steps=1), draws([]), state, 0.0)["steps"] == 1


def test_a_resumed_run_keeps_the_lines_of_the_log_up_to_its_checkpoint(tmp_path: Path) -> None:
    changes = {"layers": ((2, 2), (2, 2)), "bits": 8, "device": "cpu"}
    config = preset_config("photos", tmp_path, tmp_path, **changes)
    lines = [json.dumps({"step": step, "kind": "train"}) for step in range(1, 7)]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(lines) + '\n{"step": 7, "ki')
    state = TrainingState(config)
    resume(config, state)
    assert (log.read_text(), state.step) == ("", 0), "without a checkpoint all steps are taken again"
    log.write_text("\n".join(lines) + '\n{"step": 7, "ki')
    state.step, state.seconds = 4, 2.5
    state.save(tmp_path / "checkpoint.pt")
    again = TrainingState(config)
    resume(config, again)
    assert (again.step, again.seconds) == (4, 2.5)
    assert log.read_text() == "".join(f"{line}\n" for line in lines[:4])


def test_an_epoch_shows_every_picture_once() -> None:
    pictures = np.broadcast_to(np.arange(43, dtype=np.uint8)[:, None, None, None], (43, 32, 32, 3))
    each = PictureSet(pictures, np.arange(43) % 2, ("a", "b"))
    config = preset_config("cifar10", Path("data"), Path("run"), batch_size=10, validation_pairs=5)
    assert config.picture_jitter == NO_PICTURE_JITTER
    source = picture_source(config, Splits(each, each, "made"))

    def shown(stream: int, steps: range) -> list[int]:
        parts = [source.draw(step, stream).patches0[:, 0, 0, 0] for step in steps]
        return [round(255 * float(value)) for value in np.concatenate(parts)]

    epochs = [shown(stream, steps) for stream in (0, 1) for steps in (range(4), range(4, 8))]
    for epoch in epochs:
        assert len(set(epoch)) == 40
    assert len({tuple(epoch) for epoch in epochs}) == 4, "each epoch and each stream has an order of its own"
    assert epochs[0] == shown(0, range(4))


PHOTOS = {
    "steps": 3400,
    "photos_per_batch": 4,
    "temperature": 0.03,
    "jitter": Jitter(log2_scale=0.22, rotation_deg=12.0, shift=0.06, log2_stretch=0.3),
}
# Table of the published code's settings
PUBLISHED = {
    "batch_size": 25,
    "learning_rate": 3e-4,
    "schedule": "constant",
    "weight_decay": 0.0,
    "lambda_gan": 1.0,
    "lambda_dmr": 0.05,
    "lambda_bre": 0.01,
    "lambda_two_view": 0.0,
    "lambda_bit_correlation": 0.0,
    "shared_pass": False,
}
PINNED: dict[str, dict[str, Any]] = {
    "photos": PHOTOS,
    "adapt": {
        **PHOTOS,
        "start": "bingan256",
        "steps": 2000,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "moving_average": 0.99,
        "validate_every": 100,
    },
    "brown": {
        **PUBLISHED,
        "network": "PatchDiscriminator",
        "steps": 1_600_000,
        "photos_per_batch": 25,
        "jitter": NO_JITTER,
    },
    "brown-two-view": {
        "network": "PatchDiscriminator",
        "standardise": True,
        "dropout": False,
        "batch_size": 128,
        "photos_per_batch": 8,
        "learning_rate": 1e-3,
        "lambda_gan": 0.1,
        "lambda_dmr": 0.05,
        "lambda_bre": 0.01,
    },
    "cifar10": {
        **PUBLISHED,
        "network": "ImageDiscriminator",
        "bits": 32,
        "lambda_bre": 0.001,
        "picture_jitter": NO_PICTURE_JITTER,
        "steps": 800_000,
    },
    "cifar10-two-view": {
        "network": "ImageDiscriminator",
        "bits": 64,
        "nested": (16, 32),
        "normalise": True,
        "dropout": False,
        "batch_size": 256,
        "learning_rate": 5e-4,
        "temperature": 0.2,
        "steps": 2000,
    },
}
"""What each preset changes; shipped weights and published results were made with these."""

DEFAULTS: dict[str, Any] = {
    "network": "PatchTrunk",
    "layers": [[32, 2], [64, 1], [64, 1], [128, 2], [128, 1]],
    "bits": 256,
    "nested": [],
    "normalise": False,
    "batch_size": 1024,
    "max_keypoints": 1500,
    "tracks_share": 0.25,
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "weight_decay": 1e-4,
    "lambda_gan": 0.0,
    "lambda_dmr": 0.0,
    "lambda_bre": 0.0,
    "lambda_two_view": 1.0,
    "lambda_descriptor": 0.0,
    "lambda_second_order": 0.0,
    "lambda_quantisation": 0.0,
    "lambda_bit_correlation": 0.1,
    "gamma": 0.001,
    "beta": 2.0,
    "code_noise": 0.0,
    "shared_pass": True,
    "dropout": True,
    "standardise": False,
    "centre_high": False,
    "moving_average": 0.0,
    "precision": "auto",
    "seed": 1,
}


@pytest.mark.parametrize("preset", list(PINNED))
def test_presets_have_the_values_that_results_were_made_with(preset: str) -> None:
    assert set(PINNED) <= set(PRESETS)
    config = preset_config(preset, Path("data"), Path("run"))
    wanted = TrainConfig(Path("data"), Path("run"), preset=preset, **PINNED[preset])
    assert describe_config(config) == describe_config(wanted)


def test_defaults_have_the_values_that_results_were_made_with() -> None:
    values = describe_config(TrainConfig(Path("data"), Path("run")))
    assert {name: values[name] for name in DEFAULTS} == DEFAULTS
