from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kornia_bingan.network.layers import Conv
from kornia_bingan.network.published import Generator, ImageDiscriminator, PatchDiscriminator, PatchTrunk, multiply_adds

NETWORKS = [PatchDiscriminator, PatchTrunk]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_networks_have_the_published_sizes() -> None:
    network = PatchDiscriminator()
    assert count(network) == 788_420
    assert sum(value.numel() for value in network.state_dict().values()) == 789_604
    assert multiply_adds(network) == multiply_adds(network) == 190_808_064
    assert not any(layer._forward_hooks for layer in network.modules()), "nothing goes on counting"
    assert count(Generator()) == 4_933_382
    for bits, trained, stored, products in (
        (16, 1_408_004, 1_409_444, 272_059_392),
        (32, 1_411_140, 1_412_580, 272_062_464),
        (64, 1_417_412, 1_418_852, 272_068_608),
    ):
        pictures = ImageDiscriminator(bits)
        assert count(pictures) == trained
        assert sum(value.numel() for value in pictures.state_dict().values()) == stored
        assert multiply_adds(pictures) == products


def test_trunk_is_within_its_budget() -> None:
    assert multiply_adds(PatchTrunk()) <= 40_000_000


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_shapes_of_taps(kind: type[PatchDiscriminator] | type[PatchTrunk], rows: int, device: torch.device) -> None:
    network = kind().to(device).eval()
    x = network.prepare(torch.rand(rows, 1, 32, 32, device=device))
    assert x.shape == (rows, network.channels, 32, 32)
    taps = network(x)
    assert taps.low.shape == (rows, 256)
    assert taps.high.shape == (rows, 4608 if kind is PatchDiscriminator else 8192)
    assert taps.matching.shape == (rows, 128)
    assert taps.logits.shape == (rows, 2)
    torch.testing.assert_close(network.describe(x), taps.low)


def numpy_conv(x: np.ndarray, weight: np.ndarray, stride: int, padding: int) -> np.ndarray:
    x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, weight, optimize=True)


def numpy_layer(module: torch.nn.Module, name: str, x: np.ndarray, stride: int = 1, padding: int = 1) -> np.ndarray:
    """A weight-normalised layer before its activation: a convolution, or a product of matrices for (N, C)."""
    weight, scale, bias = (module.state_dict()[f"{name}.{key}"].numpy() for key in ("weight", "scale", "bias"))
    weight = weight / np.sqrt(
        1e-6 + (weight.reshape(len(weight), -1) ** 2).sum(1).reshape(-1, *[1] * (weight.ndim - 1))
    )
    if x.ndim == 2:
        return x @ (weight * scale[:, None]).T + bias
    return numpy_conv(x, weight * scale[:, None, None, None], stride, padding) + bias[:, None, None]


def leaky(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.2 * x)


STRIDES = (1, 1, 2, 1, 1, 2)


def test_published_forward_equals_a_numpy_transcription() -> None:
    network = PatchDiscriminator().eval().double()
    x = torch.rand(3, 1, 32, 32, dtype=torch.float64)
    network.initialise(network.prepare(x))
    y = np.repeat((255 * x.numpy() - 127.5) / 128, 3, 1)
    for index, stride in enumerate(STRIDES):
        y = leaky(numpy_layer(network, f"layers.{index}", y, stride))
    high = leaky(numpy_layer(network, "layers.6", y, 1, 0))
    low = leaky(numpy_layer(network, "code_layer", high, 1, 0))
    matching = leaky(numpy_layer(network, "matching_layer", low, 1, 0)).mean((2, 3))
    taps = [tap.detach().numpy() for tap in network(network.prepare(x))]
    wanted = (high.reshape(3, -1), low.mean((2, 3)), matching, numpy_layer(network, "logits_layer", matching))
    for tap, value in zip(taps, wanted, strict=True):
        np.testing.assert_allclose(tap, value, atol=1e-9)


def test_published_network_for_pictures_equals_a_numpy_transcription() -> None:
    network = ImageDiscriminator(16).eval().double()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    network.initialise(network.prepare(x))
    y = (255 * x.numpy() - 127.5) / 128
    for index, stride in enumerate(STRIDES):
        y = leaky(numpy_layer(network, f"layers.{index}", y, stride))
    for index in (6, 7, 8):
        y = leaky(numpy_layer(network, f"layers.{index}", y, 1, 0))
    assert y.shape == (2, 192, 6, 6)
    high = y.mean((2, 3))
    code = numpy_layer(network, "code_layer", high)
    assert (code < 0).any(), "no activation behind the code"
    taps = [tap.detach().numpy() for tap in network(network.prepare(x))]
    for tap, value in zip(taps, (high, code, code, numpy_layer(network, "logits_layer", code)), strict=True):
        np.testing.assert_allclose(tap, value, atol=1e-9)


def test_normalised_code_of_pictures_equals_a_numpy_transcription() -> None:
    """In training, by the batch and its biased variance; then by the running statistics. The tap is the code itself."""
    torch.manual_seed(1)
    network = ImageDiscriminator(8, normalise=True).train()
    network.dropout = False
    x = network.prepare(torch.rand(3, 3, 32, 32))
    network.initialise(x)
    taps = network(x)
    code = taps.matching.detach().double().numpy()
    wanted = (code - code.mean(0)) / np.sqrt(code.var(0) + 1e-5)
    np.testing.assert_allclose(taps.low.detach().numpy(), wanted, atol=1e-3)
    mean, variance = 0.1 * code.mean(0), 0.9 + 0.1 * code.var(0, ddof=1)
    wanted = (code - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(network.eval().describe(x).detach().numpy(), wanted, atol=1e-4)


def numpy_up(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Transposed convolution 5x5 with stride 2: zeros between the pixels, then the turned kernel; (N, C, 2H, 2W)."""
    spread = np.zeros((*x.shape[:2], 2 * x.shape[2] - 1, 2 * x.shape[3] - 1))
    spread[:, :, ::2, ::2] = x
    spread = np.pad(spread, [(0, 0), (0, 0), (2, 3), (2, 3)])
    return numpy_conv(spread, weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3), 1, 0)


def test_generator_equals_a_numpy_transcription() -> None:
    torch.manual_seed(2)
    generator = Generator().double()
    with torch.no_grad():
        generator.dense.weight *= 0.01  # variances near 2e-6: the epsilon of the normalisation is seen
        for norm in (generator.norm0, generator.norm1, generator.norm2):
            norm.shift.uniform_(-0.5, 0.5)
        generator.last.scale.uniform_(0.5, 2)
        generator.last.bias.uniform_(-0.5, 0.5)
    noise = torch.rand(3, 100, dtype=torch.float64)
    state = {key: value.numpy() for key, value in generator.state_dict().items()}

    def normalised(x: np.ndarray, name: str) -> np.ndarray:
        axes = (0, 2, 3)[: x.ndim - 1]
        shift = state[f"{name}.shift"].reshape(-1, *[1] * (x.ndim - 2))
        return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-6) + shift

    y = np.maximum(normalised(noise.numpy() @ state["dense.weight"].T, "norm0"), 0).reshape(3, 512, 4, 4)
    y = np.maximum(normalised(numpy_up(y, state["up1.weight"]), "norm1"), 0)
    y = np.maximum(normalised(numpy_up(y, state["up2.weight"]), "norm2"), 0)
    weight = state["last.weight"]
    weight = weight / np.sqrt(1e-6 + (weight**2).sum((0, 2, 3), keepdims=True))
    y = numpy_up(y, weight * state["last.scale"][:, None, None]) + state["last.bias"][:, None, None]
    np.testing.assert_allclose(generator(noise).detach().numpy(), np.tanh(y), atol=1e-9)


def test_generator_starts_with_the_published_deviations() -> None:
    torch.manual_seed(3)
    generator = Generator()
    for layer in (generator.dense, generator.up1, generator.up2, generator.last):
        assert float(layer.weight.detach().std()) == pytest.approx(0.05, rel=0.05)
        assert float(layer.weight.detach().mean()) == pytest.approx(0, abs=0.002)
    noise = generator.sample_noise(8)
    generator.initialise(noise)
    before_tanh = torch.atanh(generator(noise).detach().double())
    np.testing.assert_allclose(before_tanh.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(before_tanh.std((0, 2, 3), correction=0), 0.1, atol=1e-4)


@pytest.mark.parametrize("kind", [PatchDiscriminator, ImageDiscriminator])
def test_discriminators_start_with_the_published_deviation(kind: type[torch.nn.Module]) -> None:
    torch.manual_seed(4)
    for name, value in kind().named_parameters():
        if name.endswith("weight") and value.numel() > 1000:
            assert float(value.detach().std()) == pytest.approx(0.05, rel=0.06), name
        if name.endswith("bias"):
            assert not value.any()
        if name.endswith("scale"):
            assert bool((value == 1).all())


@pytest.mark.parametrize("kind", [PatchDiscriminator, ImageDiscriminator])
def test_data_based_initialisation_standardises_every_layer(
    kind: type[PatchDiscriminator] | type[ImageDiscriminator],
) -> None:
    torch.manual_seed(0)
    network = kind().eval()
    x = network.prepare(torch.rand(16, 1 if kind is PatchDiscriminator else 3, 32, 32))
    network.initialise(x)
    seen: dict[str, torch.Tensor] = {}
    for name, module in network.named_children():
        layers = module if isinstance(module, torch.nn.ModuleList) else [module]
        for index, layer in enumerate(layers):
            if not isinstance(layer, torch.nn.Identity):
                layer.register_forward_hook(lambda _m, _i, out, key=f"{name}{index}": seen.__setitem__(key, out))
    network(x)
    assert len(seen) == (10 if kind is PatchDiscriminator else 11)
    dense = ("logits_layer0",) if kind is PatchDiscriminator else ("logits_layer0", "code_layer0")
    for name, out in seen.items():
        axes = [axis for axis in range(out.ndim) if axis != 1]
        wanted = 0.1 if name in dense else 1.0
        torch.testing.assert_close(out.mean(axes), torch.zeros(out.shape[1]), atol=1e-3, rtol=0)
        torch.testing.assert_close(out.std(axes, correction=0), torch.full((out.shape[1],), wanted), atol=1e-3, rtol=0)


def test_scale_is_trained_in_the_last_layers_only() -> None:
    trained = {name for name, _ in PatchDiscriminator().named_parameters() if name.endswith("scale")}
    assert trained == {"logits_layer.scale"}
    trained = {name for name, _ in ImageDiscriminator().named_parameters() if name.endswith("scale")}
    assert trained == {"code_layer.scale", "logits_layer.scale"}
    assert {name for name, _ in Generator().named_parameters() if name.endswith("scale")} == {"last.scale"}


def test_a_layer_is_initialised_where_gradients_are_computed_too() -> None:
    layer = Conv(1, 4, 3, 1, 1)
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    layer.initialise(x)
    y = layer(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-5)
    assert not layer.scale.requires_grad
    assert layer.bias.is_leaf


def test_initialisation_survives_a_constant_channel() -> None:
    network = PatchDiscriminator().eval()
    network.initialise(network.prepare(torch.full((4, 1, 32, 32), 0.5)))
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


def test_generator_makes_patches_in_range() -> None:
    generator = Generator()
    noise = generator.sample_noise(25)
    assert float(noise.min()) >= 0
    assert float(noise.max()) < 1
    generator.initialise(noise)
    patches = generator(noise)
    assert patches.shape == (25, 3, 32, 32)
    assert float(patches.detach().abs().max()) < 1
    assert generator(noise[:2]).shape == (2, 3, 32, 32)
    with pytest.raises(ValueError, match="at least 2"):
        generator(noise[:1])


def test_trunk_ignores_brightness_and_contrast_and_survives_uniform_patches() -> None:
    network = PatchTrunk().eval()
    x = torch.rand(5, 1, 32, 32) * 0.5
    with torch.no_grad():
        a, b = network.describe(network.prepare(x)), network.describe(network.prepare(x * 1.5 + 0.1))
        uniform = network.describe(network.prepare(torch.full((2, 1, 32, 32), 0.3)))
    assert float((a - b).abs().max()) < 0.05 * float(a.abs().max())
    assert bool(torch.isfinite(uniform).all())


@pytest.mark.parametrize("learns", [False, True])
def test_trunk_equals_a_numpy_transcription(learns: bool) -> None:
    torch.manual_seed(5)
    network = PatchTrunk(16, ((8, 2), (8, 1), (12, 2))).double()
    for name, value in network.named_buffers():
        if name.endswith(("mean", "var")):
            value.uniform_(0.1, 1)
    state = {key: value.numpy() for key, value in network.eval().state_dict().items()}
    x = 0.02 * torch.rand(3, 1, 32, 32, dtype=torch.float64)
    prepared = network.prepare(x)
    y = (255 * x.numpy() - 127.5) / 128
    np.testing.assert_allclose(prepared, y)
    y = (y - y.mean((1, 2, 3), keepdims=True)) / (y.std((1, 2, 3), keepdims=True) + 0.01)
    for index, (kernel, stride) in enumerate(((5, 2), (3, 1), (3, 2))):
        weight = state[f"convolutions.{index}.weight"]
        assert weight.shape[2:] == (kernel, kernel)
        mean, var, scale, shift = (
            state[f"normalisations.{index}.{key}"][:, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        before = (numpy_conv(y, weight, stride, kernel // 2) - mean) / np.sqrt(var + 1e-5) * scale + shift
        y = np.maximum(before, 0)
    low = numpy_conv(y, state["code_layer.weight"], 1, 0)[:, :, 0, 0]
    low = (low - state["code_normalisation.running_mean"]) / np.sqrt(state["code_normalisation.running_var"] + 1e-5)
    matching = y.mean((2, 3))
    logits = matching @ state["logits_layer.weight"].T + state["logits_layer.bias"]
    network.training = learns  # of the trunk alone: its normalisations keep their running statistics
    taps = [tap.detach().numpy() for tap in network(prepared)]
    for tap, value in zip(taps, (before.reshape(3, -1), low, matching, logits), strict=True):
        np.testing.assert_allclose(tap, value, atol=1e-9)


def test_trunk_refuses_strides_that_do_not_reach_eight_pixels() -> None:
    with pytest.raises(ValueError, match="multiply to 4"):
        PatchTrunk(layers=((8, 1), (8, 2)))


@pytest.mark.parametrize("kind", [PatchDiscriminator, ImageDiscriminator])
def test_dropout_acts_in_training_only(kind: type[PatchDiscriminator] | type[ImageDiscriminator]) -> None:
    network = kind()
    x = network.prepare(torch.rand(2, 1 if kind is PatchDiscriminator else 3, 32, 32))
    assert not torch.equal(network.train().describe(x), network.describe(x))
    assert torch.equal(network.eval().describe(x), network.describe(x))


@pytest.mark.parametrize("kind", [PatchDiscriminator, ImageDiscriminator])
def test_dropout_has_the_published_rates_and_places(
    kind: type[PatchDiscriminator] | type[ImageDiscriminator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.2 of the input, 0.5 behind each layer that halves; none when it is switched off or when codes are made."""
    asked: list[tuple[float, tuple[int, ...], bool]] = []

    def spy(x: torch.Tensor, p: float, training: bool, *_: Any) -> torch.Tensor:
        asked.append((p, tuple(x.shape[1:]), training))
        return x

    monkeypatch.setattr(F, "dropout", spy)
    network = kind()
    x = network.prepare(torch.rand(2, 1 if kind is PatchDiscriminator else 3, 32, 32))
    wide = 128 if kind is PatchDiscriminator else 192
    places = [(0.2, (3, 32, 32)), (0.5, (96, 16, 16)), (0.5, (wide, 8, 8))]
    for training, dropout in ((True, True), (True, False), (False, True)):
        network.train(training)
        network.dropout = dropout
        for run in (network.forward, network.describe, network.initialise):
            asked.clear()
            run(x)
            assert asked == [(rate, shape, training and dropout) for rate, shape in places]
