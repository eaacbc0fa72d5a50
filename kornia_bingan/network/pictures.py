"""Small pictures become codes: a residual network that learns from scratch on a processor.

What it computes in a second decided its form. Half of the picture's resolution is given up by the first layer, where
features cost most and say least; three quarters of what is left are 3x3 layers of 48 to 192 channels, which processors
do best; every layer is normalised over the batch, so that high rates learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kornia_bingan.network.taps import Taps

PROJECTION = 64


class _Normalised(nn.Module):
    """A convolution without bias, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.normalisation = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.normalisation(self.convolution(x)))


class PictureNetwork(nn.Module):
    """The network for whole pictures that a processor can train.

    Pictures (N, 3, S, S), S a multiple of 8 (see :meth:`prepare`), become :class:`Taps`: ``high`` are the last
    features averaged over the picture, ``low`` a linear layer of them, normalised over the batch without learned scale
    and shift, so that every bit is balanced by construction; ``matching`` is a projection of (N, 64) by two layers,
    whose contrast teaches the features and which no code needs.

    Args:
        bits: width of the code.
        stages: (channels, number of 3x3 layers, each added to what it reads) at a half, a quarter and an eighth of the
            picture's side; a 4x4 or 2x2 layer of stride 2 leads into each.
    """

    channels = 3
    uses_batch_statistics = True

    def __init__(self, bits: int = 64, stages: Sequence[Sequence[int]] = ((48, 1), (96, 2), (192, 1))) -> None:
        super().__init__()
        self.bits = bits
        self.stages = tuple((int(channels), int(layers)) for channels, layers in stages)
        if len(self.stages) != 3:
            raise ValueError(f"the network has 3 stages, got {len(self.stages)}")
        reductions, residuals = [], []
        previous, kernel = 3, 4
        for channels, layers in self.stages:
            reductions.append(_Normalised(previous, channels, kernel, 2, kernel // 2 - 1))
            residuals.append(nn.ModuleList(_Normalised(channels, channels, 3, 1, 1) for _ in range(layers)))
            previous, kernel = channels, 2
        self.reductions = nn.ModuleList(reductions)
        self.residuals = nn.ModuleList(residuals)
        self.code_layer = nn.Linear(previous, bits, bias=False)
        self.code_normalisation = nn.BatchNorm1d(bits, affine=False)
        self.hidden_layer = nn.Linear(previous, previous // 2, bias=False)
        self.hidden_normalisation = nn.BatchNorm1d(previous // 2)
        self.projection_layer = nn.Linear(previous // 2, PROJECTION, bias=False)
        self.logits_layer = nn.Linear(previous, 2)

    def arguments(self) -> dict[str, Any]:
        """Give the constructor's arguments, for the weights file."""
        return {"bits": self.bits, "stages": [list(stage) for stage in self.stages]}

    @staticmethod
    def prepare(pictures: Tensor) -> Tensor:
        """Turn RGB pictures (N, 3, S, S) in [0, 1] into the network's input: 4 x - 2, about mean 0 and deviation 1."""
        return 4 * pictures - 2

    def _features(self, x: Tensor) -> Tensor:
        for reduction, residuals in zip(self.reductions, self.residuals, strict=True):
            x = reduction(x)
            for residual in residuals:  # type: ignore[attr-defined]
                x = x + residual(x)
        return x.mean((2, 3))

    def _low(self, high: Tensor) -> Tensor:
        # Out of bfloat16 autocast before the normalisation: the sign of a value near 0 is the bit.
        low: Tensor = self.code_normalisation(self.code_layer(high).to(self.code_layer.weight.dtype))
        return low

    def forward(self, x: Tensor) -> Taps:
        """Turn prepared pictures (N, 3, S, S) into the taps of the losses."""
        high = self._features(x)
        matching = self.projection_layer(F.relu(self.hidden_normalisation(self.hidden_layer(high))))
        return Taps(high, self._low(high), matching, self.logits_layer(high))

    def describe(self, x: Tensor) -> Tensor:
        """Turn prepared pictures (N, 3, S, S) into descriptors (N, bits)."""
        return self._low(self._features(x))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Nothing to do: batch normalisation needs no data-based initialisation. Same call as the other networks."""
