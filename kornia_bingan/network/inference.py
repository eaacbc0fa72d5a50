"""A trained patch network becomes one for inference alone: fewer operations, the same codes.

What is folded, exactly but for rounding: batch and weight normalisation into the filters, the three equal channels of
the published input into one, the scaling of the input into the standardisation. Filters lie channels last. In bfloat16,
filters and features are rounded and sums are not: about two bits in a thousand of a code change (``python -m eval
speed`` states the share).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kornia_bingan.bits import is_recording
from kornia_bingan.errors import UsageError
from kornia_bingan.network.layers import LEAK
from kornia_bingan.network.published import PatchDiscriminator, PatchTrunk
from kornia_bingan.work.machine import has_bfloat16

Precision = Literal["auto", "float32", "bfloat16"]


class FoldedNetwork(nn.Module):
    """Patches become the descriptors of a trained network; nothing of it can be trained.

    Args:
        network: in evaluation mode.
        precision: of filters and features; auto is bfloat16 where the processor computes in it, else float32.

    Raises:
        UsageError: the precision is another, or the network is in training mode.
    """

    channels = 1

    def __init__(self, network: PatchTrunk | PatchDiscriminator, precision: Precision = "auto") -> None:
        super().__init__()
        if precision not in get_args(Precision):
            raise UsageError(f"the precision is '{precision}'; choose one of {', '.join(get_args(Precision))}")
        if network.training:
            raise UsageError("the network is in training mode, where codes are random; call its eval() first")
        device = next(network.parameters()).device
        in_bfloat16 = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
        dtype = torch.bfloat16 if in_bfloat16 else torch.float32
        self.bits = network.bits
        self.frames = network.frames
        is_trunk = isinstance(network, PatchTrunk)
        self.leak = 0.0 if is_trunk else LEAK
        self.standardise = is_trunk or network.standardise
        self.least_deviation = 0.01 * 128 / 255  # 0.01 of the network's input, (255 x - 127.5) / 128
        layers = _folded_trunk(network) if isinstance(network, PatchTrunk) else _folded_discriminator(network)
        weight, bias, stride, padding = layers[0]
        # Quarters of the patch as four channels: the same sums, of one channel they are twice as slow.
        self.quartered = stride == 2 and weight.shape[2] == 5 and padding == 2
        if self.quartered:
            layers[0] = (F.pixel_unshuffle(F.pad(weight, (0, 1, 0, 1)), 2), bias, 1, 0)
        self.in_bfloat16 = in_bfloat16
        # The code of a trunk is what its last layer gives, of the published network after the leaky ReLU.
        slopes = [*[self.leak] * (len(layers) - 1), self.leak or 1.0]
        self.layers = nn.ModuleList(
            FoldedLayer(weight.to(dtype), bias.to(dtype), stride, padding, slope)
            for (weight, bias, stride, padding), slope in zip(layers, slopes, strict=True)
        )
        self.eval()

    @staticmethod
    def prepare(patches: Tensor) -> Tensor:
        """Leave patches (N, 1, 32, 32) in [0, 1] as they are; the first layer knows the scaling."""
        return patches

    def standardised(self, patches: Tensor) -> Tensor:
        """Give patches (N, 1, 32, 32) in [0, 1] mean 0 and deviation 1; of uniform ones noise is not blown up."""
        rows = patches.flatten(1)
        rows = rows - rows.mean(1, keepdim=True)
        deviation: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True) / rows.shape[1] ** 0.5
        return (rows * (1 / (deviation + self.least_deviation))).view_as(patches)

    def describe(self, patches: Tensor) -> Tensor:
        """Turn patches (N, 1, 32, 32) in [0, 1] into descriptors (N, bits), float32."""
        x = patches.float()
        x = self.standardised(x) if self.standardise else (255 * x - 127.5) / 128
        x = x.to(torch.bfloat16 if self.in_bfloat16 else torch.float32)
        if self.quartered:
            # F.pixel_unshuffle, which leaves 0 patches as they are
            quarters = F.pad(x, (2, 2, 2, 2)).reshape(x.shape[0], 18, 2, 18, 2).permute(0, 2, 4, 1, 3)
            x = quarters.flatten(1, 2).contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            x = layer(x)
        return x.float().mean((2, 3)) if self.leak else x.flatten(1).float()


class FoldedLayer(nn.Module):
    """A convolution and what follows it, in the dtype of its input.

    Args:
        weight: filters (channels out, channels in, height, width).
        bias: shape (channels out,).
        stride, padding: of the convolution.
        slope: of negative values: 0 is ReLU, 1 leaves them.
    """

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, padding: int, slope: float) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", weight.detach().contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias.detach())
        self.stride, self.padding, self.slope = stride, padding, slope

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (N, channels in, H, W), and let negative values leak."""
        # Kornia casts the floats of a descriptor to the dtype of the picture; of bfloat16 in float32, nothing is lost.
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            fusable = x.device.type == "cpu" and self.slope != 1 and not x.requires_grad
            if fusable and not is_recording() and _can_fuse(x.dtype):
                kind, values = ("leaky_relu", [self.slope]) if self.slope else ("relu", [])
                arguments = ([self.padding] * 2, [self.stride] * 2, [1, 1], 1, kind, values, "")
                fused: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *arguments)
                return fused
        x = F.conv2d(x, weight, bias, self.stride, self.padding)
        if self.slope == 1:
            return x
        return F.leaky_relu(x, self.slope, inplace=True) if self.slope > 0 else F.relu(x, inplace=True)


@lru_cache(maxsize=2)
def _can_fuse(dtype: torch.dtype) -> bool:
    """Say whether torch convolves and applies a ReLU in one pass: a quarter faster, but no public operation."""
    weight = torch.ones(1, 1, 3, 3, dtype=dtype, device="cpu")
    x = -weight
    try:
        y = torch.ops.mkldnn._convolution_pointwise(x, weight, None, [1, 1], [1, 1], [1, 1], 1, "relu", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((y == 0).all())


_Layer = tuple[Tensor, Tensor, int, int]
"""Filters, bias, stride, padding."""


def _folded_trunk(network: PatchTrunk) -> list[_Layer]:
    layers: list[_Layer] = []
    modules = [*zip(network.convolutions, network.normalisations, strict=True)]
    for convolution, normalisation in [*modules, (network.code_layer, network.code_normalisation)]:
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(normalisation, nn.BatchNorm2d | nn.BatchNorm1d)
        mean, variance = normalisation.running_mean, normalisation.running_var
        assert mean is not None
        assert variance is not None
        gain = torch.rsqrt(variance + normalisation.eps)
        if normalisation.affine:
            gain = gain * normalisation.weight
        bias = -mean * gain + (normalisation.bias if normalisation.affine else 0)
        stride, padding = convolution.stride[0], convolution.padding[0]
        layers.append((convolution.weight * gain[:, None, None, None], bias, int(stride), int(padding)))
    return layers


def _folded_discriminator(network: PatchDiscriminator) -> list[_Layer]:
    layers = [
        (layer.effective_weight(), layer.bias, layer.stride, layer.padding)
        for layer in [*network.layers, network.code_layer]
    ]
    weight, *others = layers[0]
    return [(weight.sum(1, keepdim=True), *others), *layers[1:]]
