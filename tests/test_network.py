from __future__ import annotations

import numpy as np
import pytest
import torch

from kornia_bingan.network import Generator, PatchDiscriminator, PatchTrunk, multiply_adds

NETWORKS = [PatchDiscriminator, PatchTrunk]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_networks_have_the_published_sizes() -> None:
    network = PatchDiscriminator()
    assert count(network) == 788_420
    assert sum(value.numel() for value in network.state_dict().values()) == 789_604
    assert multiply_adds(network) == 190_808_064
    assert count(Generator()) == 4_933_382


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


def test_published_forward_equals_a_numpy_transcription() -> None:
    network = PatchDiscriminator().eval().double()
    x = torch.rand(3, 1, 32, 32, dtype=torch.float64)
    network.initialise(network.prepare(x))
    y = np.repeat((255 * x.numpy() - 127.5) / 128, 3, 1)

    def layer(name: str, value: np.ndarray, stride: int = 1, padding: int = 1) -> np.ndarray:
        state = {k: v.numpy() for k, v in network.state_dict().items()}
        weight, scale, bias = (state[f"{name}.{key}"] for key in ("weight", "scale", "bias"))
        norm = np.sqrt(1e-6 + (weight**2).sum((1, 2, 3)))
        out = numpy_conv(value, weight / norm[:, None, None, None] * scale[:, None, None, None], stride, padding)
        out = out + bias[:, None, None]
        return np.maximum(out, 0.2 * out)

    for index, stride in enumerate([1, 1, 2, 1, 1, 2]):
        y = layer(f"layers.{index}", y, stride)
    high = layer("layers.6", y, 1, 0)
    low = layer("code_layer", high, 1, 0)
    taps = network(network.prepare(x))
    np.testing.assert_allclose(taps.high.detach().numpy(), high.reshape(3, -1), atol=1e-9)
    np.testing.assert_allclose(taps.low.detach().numpy(), low.mean((2, 3)), atol=1e-9)
    np.testing.assert_allclose(
        taps.matching.detach().numpy(), layer("matching_layer", low, 1, 0).mean((2, 3)), atol=1e-9
    )


def test_data_based_initialisation_standardises_every_layer() -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator().eval()
    x = network.prepare(torch.rand(64, 1, 32, 32))
    network.initialise(x)
    seen: dict[str, torch.Tensor] = {}
    for name, module in network.named_children():
        layers = module if isinstance(module, torch.nn.ModuleList) else [module]
        for index, layer in enumerate(layers):
            layer.register_forward_hook(lambda _m, _i, out, key=f"{name}{index}": seen.__setitem__(key, out))
    network(x)
    assert len(seen) == 10
    for name, out in seen.items():
        axes = [axis for axis in range(out.ndim) if axis != 1]
        wanted = 0.1 if name.startswith("logits") else 1.0
        torch.testing.assert_close(out.mean(axes), torch.zeros(out.shape[1]), atol=1e-3, rtol=0)
        torch.testing.assert_close(out.std(axes, correction=0), torch.full((out.shape[1],), wanted), atol=1e-3, rtol=0)


def test_scale_is_trained_in_the_last_layers_only() -> None:
    trained = {name for name, _ in PatchDiscriminator().named_parameters() if name.endswith("scale")}
    assert trained == {"logits_layer.scale"}
    assert {name for name, _ in Generator().named_parameters() if name.endswith("scale")} == {"last.scale"}


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


def test_trunk_refuses_strides_that_do_not_reach_eight_pixels() -> None:
    with pytest.raises(ValueError, match="multiply to 4"):
        PatchTrunk(layers=((8, 1), (8, 2)))


def test_dropout_acts_in_training_only() -> None:
    network = PatchDiscriminator()
    x = network.prepare(torch.rand(2, 1, 32, 32))
    assert not torch.equal(network.train().describe(x), network.describe(x))
    assert torch.equal(network.eval().describe(x), network.describe(x))
