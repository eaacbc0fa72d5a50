"""A patch says how its support region is to be turned and stretched, so that two views of one surface agree.

The angle of a blob comes from its gradients and its shape is a circle. Seen from the side the surface is compressed,
and codes of circles do not match any more (a tilt of 2 costs four matches of five). The network looks at the patch
once and gives the correction of the region, a matrix of determinant 1: position and area stay the detector's.

Source: the idea of learning affine shape by what descriptors agree on is Mishkin et al., "Repeatability Is Not
Enough", ECCV 2018 (AffNet); network, matrix and loss are of this package.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kornia_bingan.network.layers import standardised

_LAYERS = ((12, 5, 2), (12, 3, 1), (24, 3, 2), (32, 3, 2), (48, 3, 1))
"""Channels, kernel and stride of the convolutions; 32 pixels become 4."""
LARGEST_STRETCH = 0.7
"""Natural logarithm of the largest factor on a side: a tilt of 4 at most."""


class FrameNetwork(nn.Module):
    """Patches (N, 1, 32, 32) in [0, 1] become corrections of their support regions, (N, 2, 2).

    A region with the LAF ``[A | t]`` becomes ``[A M | t]``. ``M`` is a rotation times a symmetric stretch; an untrained
    network gives the identity. 0.9 million multiply-adds a patch.
    """

    def __init__(self) -> None:
        super().__init__()
        convolutions: list[nn.Module] = []
        normalisations: list[nn.Module] = []
        previous = 1
        for channels, kernel, stride in _LAYERS:
            convolutions.append(nn.Conv2d(previous, channels, kernel, stride, kernel // 2, bias=False))
            normalisations.append(nn.BatchNorm2d(channels))
            previous = channels
        self.convolutions = nn.ModuleList(convolutions)
        self.normalisations = nn.ModuleList(normalisations)
        self.hidden = nn.Linear(previous * 4 * 4, previous)
        self.last = nn.Linear(previous, 3)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, patches: Tensor) -> Tensor:
        """Turn patches (N, 1, 32, 32) in [0, 1] into corrections (N, 2, 2)."""
        x = standardised(patches)
        for convolution, normalisation in zip(self.convolutions, self.normalisations):  # noqa: B905 (TorchScript knows no strict)
            x = F.relu(normalisation(convolution(x)))
        return corrections(self.last(F.relu(self.hidden(x.flatten(1)))).float())

    @torch.no_grad()
    def shrink(self, share: float) -> None:
        """Make every correction smaller, about this share of what it was: a noisy guess is best between it and none.

        The angle is exactly that share, and so is the logarithm of a small stretch.
        """
        self.last.weight.mul_(share)
        self.last.bias.mul_(share)


def corrections(values: Tensor, largest_stretch: float = LARGEST_STRETCH) -> Tensor:
    """Turn an angle in radians and two numbers of a stretch, (N, 3), into matrices of determinant 1, (N, 2, 2).

    The stretch is ``exp [[a, b], [b, -a]]``, whose eigenvalues are reciprocal; the length of (a, b) stays below
    ``largest_stretch``.
    """
    angle, stretch = values[:, 0], values[:, 1:]
    length = (stretch.square().sum(1) + 1e-8).sqrt()  # its root has a gradient at 0
    limited = largest_stretch * torch.tanh(length)
    a, b = limited / length * stretch[:, 0], limited / length * stretch[:, 1]
    even, odd = torch.cosh(limited), torch.sinh(limited) / limited
    symmetric = torch.stack([even + odd * a, odd * b, odd * b, even - odd * a], 1).view(-1, 2, 2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2) @ symmetric
