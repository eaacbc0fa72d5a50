"""Layers of the networks: weight-normalised ones, a batch normalisation with a shift only, and what goes between them.

Source: Salimans and Kingma, "Weight normalization", NIPS 2016, with its data-based initialisation; the layer tables of
the published code of BinGAN.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAK = 0.2


def leaky_relu(x: Tensor, slope: float = LEAK) -> Tensor:  # TorchScript sees no constants of modules
    """Apply the published activation."""
    return F.leaky_relu(x, slope)


def standardised(x: Tensor) -> Tensor:
    """Give every patch mean 0 and deviation 1."""
    deviation, mean = torch.std_mean(x, (1, 2, 3), keepdim=True, correction=0)
    # 0.01 (a little over one grey level): a uniform patch has no deviation, and its noise must not be blown up.
    return (x - mean) / (deviation + 0.01)


class WeightNorm(nn.Module):
    """One weight-normalised layer: ``W[c] = g[c] V[c] / sqrt(1e-6 + sum V[c]^2)``, then the bias.

    ``g`` is trained only where ``train_scale`` is set; elsewhere the data-based initialisation fixes it.
    """

    def __init__(self, shape: tuple[int, ...], out_axis: int, *, initial_std: float, train_scale: bool) -> None:
        super().__init__()
        self.out_axis = out_axis
        self.initial_std = initial_std
        self.weight = nn.Parameter(torch.empty(shape).normal_(0, 0.05))
        self.bias = nn.Parameter(torch.zeros(shape[out_axis]))
        scale = torch.ones(shape[out_axis])
        if train_scale:
            self.scale = nn.Parameter(scale)
        else:
            self.register_buffer("scale", scale)

    def effective_weight(self) -> Tensor:
        """Give the weight that is applied."""
        axes = list(range(self.weight.ndim))  # TorchScript knows no condition in a comprehension
        axes.remove(self.out_axis)
        shape = [1] * self.weight.ndim
        shape[self.out_axis] = -1
        norm = torch.sqrt(1e-6 + self.weight.square().sum(axes, keepdim=True))
        return self.scale.view(shape) * self.weight / norm

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply a weight to a batch."""
        raise AssertionError("a layer says how it applies its weight")

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        return self.apply_weight(x, self.effective_weight(), self.bias)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set scale and bias so that this batch leaves the layer with mean 0 and the initial deviation."""
        y = self.apply_weight(x, self.effective_weight(), None)
        axes = [axis for axis in range(y.ndim) if axis != 1]
        mean = y.mean(axes)
        # A channel that is constant on the batch has no deviation to scale by.
        gain = self.initial_std / y.std(axes, correction=0).clamp_min(1e-12)
        self.scale.mul_(gain)
        self.bias.copy_(-mean * gain)


class Conv(WeightNorm):
    """A convolution whose scale is fixed by its initialisation."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, padding: int) -> None:
        shape = (channels_out, channels_in, kernel, kernel)
        super().__init__(shape, 0, initial_std=1.0, train_scale=False)
        self.stride, self.padding = stride, padding

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply a weight to a batch."""
        return F.conv2d(x, weight, bias, self.stride, self.padding)


class ConvTransposed(WeightNorm):
    """The last layer of the generator: 5x5, twice the side."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__((channels_in, channels_out, 5, 5), 1, initial_std=0.1, train_scale=True)

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply a weight to a batch."""
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=2, output_padding=1)


class Dense(WeightNorm):
    """A matrix with a learned scale."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__((features_out, features_in), 0, initial_std=0.1, train_scale=True)

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply a weight to a batch."""
        return F.linear(x, weight, bias)


def initialise_layers(network: nn.Module, run: Callable[[], object]) -> None:
    """Run a network, with each of its weight-normalised layers initialised by what reaches it."""
    layers = [layer for layer in network.modules() if isinstance(layer, WeightNorm)]
    handles = [layer.register_forward_pre_hook(lambda layer, inputs: layer.initialise(*inputs)) for layer in layers]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()


class BatchNormShift(nn.Module):
    """Batch normalisation with a learned shift and no learned scale; always by the statistics of the batch.

    The published generator never uses running averages, also when sampling.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise by the batch and shift."""
        return F.batch_norm(x, None, None, None, self.shift, training=True, eps=1e-6)
