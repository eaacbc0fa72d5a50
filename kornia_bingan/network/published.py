"""Patches become descriptors: the published networks and the smaller trunk for real use.

Source: Zieba et al., "BinGAN", NIPS 2018, and the layer tables of the published code; weight normalisation and its
data-based initialisation after Salimans and Kingma, NIPS 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kornia_bingan.network.frames import FrameNetwork
from kornia_bingan.network.layers import (
    BatchNormShift,
    Conv,
    ConvTransposed,
    Dense,
    initialise_layers,
    leaky_relu,
    standardised,
)
from kornia_bingan.network.pictures import PictureNetwork
from kornia_bingan.network.taps import Taps

BITS = 256


class PatchDiscriminator(nn.Module):
    """The published discriminator for patches; its penultimate features are the descriptor.

    Patches (N, 3, 32, 32) in [-1, 1] (see :meth:`prepare`) become :class:`Taps`: ``high`` is the last 3x3 layer
    flattened (4,608), ``low`` the 1x1 layer of ``bits`` channels after the leaky ReLU, averaged over 6x6. Dropout acts
    in training mode. Call :meth:`initialise` on a batch of real patches before training.

    Args:
        bits: width of the descriptor.
        standardise: give every patch mean 0 and deviation 1 first; not published.

    Source: Zieba et al., NIPS 2018; taps and layers as in the published code.
    """

    channels = 3
    uses_batch_statistics = False
    frames: FrameNetwork | None = None

    def __init__(self, bits: int = BITS, *, standardise: bool = False) -> None:
        super().__init__()
        self.bits = bits
        self.standardise = standardise
        self.dropout = True
        self.layers = nn.ModuleList(
            [
                Conv(3, 96, 3, 1, 1),
                Conv(96, 96, 3, 1, 1),
                Conv(96, 96, 3, 2, 1),
                Conv(96, 128, 3, 1, 1),
                Conv(128, 128, 3, 1, 1),
                Conv(128, 128, 3, 2, 1),
                Conv(128, 128, 3, 1, 0),
            ]
        )
        self.code_layer = Conv(128, bits, 1, 1, 0)
        self.matching_layer = Conv(bits, 128, 1, 1, 0)
        self.logits_layer = Dense(128, 2)

    def arguments(self) -> dict[str, Any]:
        """Give the constructor's arguments, for the weights file."""
        return {"bits": self.bits, "standardise": self.standardise}

    @staticmethod
    def prepare(patches: Tensor) -> Tensor:
        """Turn grey patches (N, 1, 32, 32) in [0, 1] into the input (N, 3, 32, 32): (255 x - 127.5) / 128."""
        return ((255 * patches - 127.5) / 128).expand(-1, 3, -1, -1)

    def _features(self, x: Tensor) -> Tensor:
        if self.standardise:
            x = standardised(x)
        x = F.dropout(x, 0.2, self.training and self.dropout)
        for index, layer in enumerate(self.layers):
            x = leaky_relu(layer(x))
            if index in (2, 5):
                x = F.dropout(x, 0.5, self.training and self.dropout)
        return x

    def forward(self, x: Tensor) -> Taps:
        """Turn prepared patches (N, 3, 32, 32) into the taps of the losses."""
        high = self._features(x)
        code = leaky_relu(self.code_layer(high))
        matching = leaky_relu(self.matching_layer(code)).mean((2, 3))
        return Taps(high.flatten(1), code.mean((2, 3)), matching, self.logits_layer(matching))

    def describe(self, x: Tensor) -> Tensor:
        """Turn prepared patches (N, 3, 32, 32) into descriptors (N, bits), without the layers behind them."""
        return leaky_relu(self.code_layer(self._features(x))).mean((2, 3))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set scales and biases from a batch of prepared real patches, layer by layer (dropout as the mode says)."""
        initialise_layers(self, lambda: self(x))


class ImageDiscriminator(nn.Module):
    """The published discriminator for whole pictures; its code layer is the descriptor.

    Pictures (N, 3, 32, 32) in [-1, 1] (see :meth:`prepare`) become :class:`Taps`: ``high`` is the last 1x1 layer
    averaged over 6x6 (192), ``low`` the linear code layer, which is ``matching`` too. Dropout acts in training mode.
    Call :meth:`initialise` on a batch of real pictures before training.

    Args:
        bits: width of the code: 16, 32 or 64 in the article.
        normalise: normalise each bit's value over the batch, without learned scale and shift, before its sign; not
            published.

    Source: Zieba et al., NIPS 2018, CIFAR-10; taps and layers as in the published code.
    """

    channels = 3

    def __init__(self, bits: int = 32, *, normalise: bool = False) -> None:
        super().__init__()
        self.bits = bits
        self.normalise = normalise
        self.uses_batch_statistics = normalise
        self.dropout = True
        self.layers = nn.ModuleList(
            [
                Conv(3, 96, 3, 1, 1),
                Conv(96, 96, 3, 1, 1),
                Conv(96, 96, 3, 2, 1),
                Conv(96, 192, 3, 1, 1),
                Conv(192, 192, 3, 1, 1),
                Conv(192, 192, 3, 2, 1),
                Conv(192, 192, 3, 1, 0),
                Conv(192, 192, 1, 1, 0),
                Conv(192, 192, 1, 1, 0),
            ]
        )
        self.code_layer = Dense(192, bits)
        self.code_normalisation = nn.BatchNorm1d(bits, affine=False) if normalise else nn.Identity()
        self.logits_layer = Dense(bits, 2)

    def arguments(self) -> dict[str, Any]:
        """Give the constructor's arguments, for the weights file."""
        return {"bits": self.bits, "normalise": self.normalise}

    @staticmethod
    def prepare(pictures: Tensor) -> Tensor:
        """Turn RGB pictures (N, 3, 32, 32) in [0, 1] into the network's input: (255 x - 127.5) / 128."""
        return (255 * pictures - 127.5) / 128

    def _features(self, x: Tensor) -> Tensor:
        x = F.dropout(x, 0.2, self.training and self.dropout)
        for index, layer in enumerate(self.layers):
            x = leaky_relu(layer(x))
            if index in (2, 5):
                x = F.dropout(x, 0.5, self.training and self.dropout)
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Taps:
        """Turn prepared pictures (N, 3, 32, 32) into the taps of the losses."""
        high = self._features(x)
        code = self.code_layer(high)
        low = self.code_normalisation(code.float())
        return Taps(high, low, code, self.logits_layer(code))

    def describe(self, x: Tensor) -> Tensor:
        """Turn prepared pictures (N, 3, 32, 32) into descriptors (N, bits)."""
        code = self.code_layer(self._features(x))
        low: Tensor = self.code_normalisation(code.to(self.code_layer.weight.dtype))
        return low

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set scales and biases from a batch of prepared real pictures, layer by layer (dropout as the mode says)."""
        initialise_layers(self, lambda: self.logits_layer(self.code_layer(self._features(x))))


class PatchTrunk(nn.Module):
    """The network for real use: patches standardised one by one, few wide layers, an 8x8 layer instead of averaging.

    Patches (N, 1, 32, 32) of any brightness and contrast become :class:`Taps`: ``high`` is the last 3x3 layer before
    its ReLU, flattened, so that its signs are balanced; ``low`` is an affine-free batch normalisation of the 8x8
    layer, so that every bit is balanced by construction.

    Args:
        bits: width of the descriptor.
        layers: (channels, stride) of the convolutions; the first is 5x5, the others 3x3. Their strides must reduce
            32 to 8 pixels.
        frames: have a network that corrects the support regions before they are described, see
            :class:`kornia_bingan.network.frames.FrameNetwork`.
    """

    channels = 1
    uses_batch_statistics = True

    def __init__(
        self,
        bits: int = BITS,
        layers: Sequence[Sequence[int]] = ((32, 2), (64, 1), (64, 1), (128, 2), (128, 1)),
        *,
        frames: bool = False,
    ) -> None:
        super().__init__()
        self.bits = bits
        self.sizes = tuple((int(channels), int(stride)) for channels, stride in layers)
        convolutions: list[nn.Module] = []
        normalisations: list[nn.Module] = []
        previous, reduction = 1, 1
        for index, (channels, stride) in enumerate(self.sizes):
            kernel = 5 if index == 0 else 3
            convolutions.append(nn.Conv2d(previous, channels, kernel, stride, kernel // 2, bias=False))
            normalisations.append(nn.BatchNorm2d(channels))
            previous, reduction = channels, reduction * stride
        if reduction != 4:
            raise ValueError(f"the strides of the layers must multiply to 4, got {reduction}")
        self.convolutions = nn.ModuleList(convolutions)
        self.normalisations = nn.ModuleList(normalisations)
        self.code_layer = nn.Conv2d(previous, bits, 8, bias=False)
        self.code_normalisation = nn.BatchNorm1d(bits, affine=False)
        self.logits_layer = nn.Linear(previous, 2)
        self.frames: FrameNetwork | None = FrameNetwork() if frames else None

    def arguments(self) -> dict[str, Any]:
        """Give the constructor's arguments, for the weights file."""
        layers = {"bits": self.bits, "layers": [list(size) for size in self.sizes]}
        return {**layers, "frames": True} if self.frames is not None else layers

    @staticmethod
    def prepare(patches: Tensor) -> Tensor:
        """Turn grey patches (N, 1, 32, 32) in [0, 1] into the network's input: (255 x - 127.5) / 128."""
        return (255 * patches - 127.5) / 128

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = standardised(x)
        before = x
        for convolution, normalisation in zip(self.convolutions, self.normalisations):  # noqa: B905 (TorchScript knows no strict)
            before = normalisation(convolution(x))
            x = F.relu(before)
        return before, x

    def _low(self, x: Tensor) -> Tensor:
        # Out of bfloat16 autocast before the normalisation: the sign of a value near 0 is the bit.
        if self.training:
            # The same as one product of matrices, whose gradient takes a third of the time on a processor.
            x = F.linear(x.flatten(1), self.code_layer.weight.flatten(1)).to(self.code_layer.weight.dtype)
        else:
            x = self.code_layer(x).flatten(1).to(self.code_layer.weight.dtype)
        low: Tensor = self.code_normalisation(x)
        return low

    def forward(self, x: Tensor) -> Taps:
        """Turn prepared patches (N, 1, 32, 32) into the taps of the losses."""
        before, x = self._features(x)
        matching = x.mean((2, 3))
        return Taps(before.flatten(1), self._low(x), matching, self.logits_layer(matching))

    def describe(self, x: Tensor) -> Tensor:
        """Turn prepared patches (N, 1, 32, 32) into descriptors (N, bits)."""
        return self._low(self._features(x)[1])

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Nothing to do: batch normalisation needs no data-based initialisation. Same call as the published network."""


class Generator(nn.Module):
    """The published generator: noise (N, 100), uniform in [0, 1), becomes patches (N, channels, 32, 32) in (-1, 1).

    N must be at least 2, since every layer is normalised by the statistics of its batch; the paper's batch is 25.

    Source: Zieba et al., NIPS 2018; layers as in the published code (shared with improved-gan's CIFAR-10 model).
    """

    noise_size = 100

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.dense = nn.Linear(self.noise_size, 8192, bias=False)
        self.up1 = nn.ConvTranspose2d(512, 256, 5, 2, 2, output_padding=1, bias=False)
        self.up2 = nn.ConvTranspose2d(256, 128, 5, 2, 2, output_padding=1, bias=False)
        self.norm0, self.norm1, self.norm2 = BatchNormShift(8192), BatchNormShift(256), BatchNormShift(128)
        self.last = ConvTransposed(128, channels)
        for layer in (self.dense, self.up1, self.up2):
            nn.init.normal_(layer.weight, 0, 0.05)

    def _hidden(self, noise: Tensor) -> Tensor:
        if len(noise) < 2:
            raise ValueError("the generator normalises by the statistics of its batch: give at least 2 rows of noise")
        x = F.relu(self.norm0(self.dense(noise))).view(-1, 512, 4, 4)
        x = F.relu(self.norm1(self.up1(x)))
        return F.relu(self.norm2(self.up2(x)))

    def forward(self, noise: Tensor) -> Tensor:
        """Turn noise (N, 100) into patches (N, channels, 32, 32)."""
        return torch.tanh(self.last(self._hidden(noise)))

    def sample_noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw noise, uniform in [0, 1), shape (count, 100)."""
        return torch.rand(count, self.noise_size, generator=generator, device=self.dense.weight.device)

    @torch.no_grad()
    def initialise(self, noise: Tensor) -> None:
        """Set scale and bias of the last layer from a batch of noise."""
        self.last.initialise(self._hidden(noise))


OfPictures = ImageDiscriminator | PictureNetwork
"""Networks that describe whole pictures, in colour."""

Network = PatchDiscriminator | PatchTrunk | ImageDiscriminator | PictureNetwork

NETWORKS: dict[str, type[PatchDiscriminator] | type[PatchTrunk] | type[ImageDiscriminator] | type[PictureNetwork]] = {
    "PatchDiscriminator": PatchDiscriminator,
    "PatchTrunk": PatchTrunk,
    "ImageDiscriminator": ImageDiscriminator,
    "PictureNetwork": PictureNetwork,
}


@torch.no_grad()
def multiply_adds(network: Network) -> int:
    """Count the multiply-adds of describing one patch or picture, convolutions and matrix products only.

    Those of correcting its support region count too."""
    counts: list[int] = []

    def count(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = _module.weight
        assert isinstance(weight, Tensor)
        counts.append(weight.numel() * output[0, 0].numel())

    layers = [layer for layer in network.modules() if isinstance(layer, Conv | Dense | nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    was_training = network.training
    network.eval()
    weight = next(network.parameters())
    patch = torch.zeros(1, network.channels, 32, 32, device=weight.device, dtype=weight.dtype)
    network.describe(patch)
    if isinstance(network, PatchTrunk) and network.frames is not None:
        network.frames(patch)
    network.train(was_training)
    for handle in handles:
        handle.remove()
    return sum(counts)
