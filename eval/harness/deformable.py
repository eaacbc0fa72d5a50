"""What ALIKED's code takes from torchvision, by torch alone: its compiled operations need a wheel of the same build."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor, nn


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    padding: tuple[int, int] = (0, 0),
    mask: Tensor | None = None,
) -> Tensor:
    """Convolve where offsets say, as ``torchvision.ops.deform_conv2d`` with stride and dilation 1.

    Args:
        input: shape (B, C, H, W); what lies outside is 0.
        offset: pixels, shape (B, 2 K, H', W'), for each of the K taps its y and its x.
        weight: shape (O, C, kh, kw) with kh kw = K.
        bias: shape (O,).
        padding: of height and width.
        mask: factor of each tap, shape (B, K, H', W').

    Returns:
        shape (B, O, H', W').
    """
    height, width = input.shape[2:]
    rows, columns = offset.shape[2:]
    x = torch.arange(columns, dtype=input.dtype, device=input.device) - padding[1]
    y = torch.arange(rows, dtype=input.dtype, device=input.device)[:, None] - padding[0]
    total = input.new_zeros(len(input), len(weight), rows, columns)
    for tap in range(weight.shape[2] * weight.shape[3]):
        i, j = divmod(tap, weight.shape[3])
        at_y, at_x = y + i + offset[:, 2 * tap], x + j + offset[:, 2 * tap + 1]
        grid = torch.stack([(2 * at_x + 1) / width - 1, (2 * at_y + 1) / height - 1], -1)
        sampled = nn.functional.grid_sample(input, grid, align_corners=False)
        if mask is not None:
            sampled = sampled * mask[:, tap, None]
        total += torch.einsum("bchw,oc->bohw", sampled, weight[:, :, i, j])
    return total if bias is None else total + bias[:, None, None]


@contextmanager
def in_place_of_torchvision() -> Iterator[None]:
    """Let ``import torchvision`` find what ALIKED's code needs of it; afterwards all is as it was."""
    top, ops, models, resnet = (ModuleType(f"torchvision{n}") for n in ("", ".ops", ".models", ".models.resnet"))
    top.ops, top.models, models.resnet = ops, models, resnet  # type: ignore[attr-defined]
    ops.deform_conv2d = deform_conv2d  # type: ignore[attr-defined]
    resnet.conv1x1 = lambda width, out: nn.Conv2d(width, out, 1, bias=False)  # type: ignore[attr-defined]
    resnet.conv3x3 = lambda width, out: nn.Conv2d(width, out, 3, padding=1, bias=False)  # type: ignore[attr-defined]
    before = {name: sys.modules[name] for name in list(sys.modules) if name.partition(".")[0] == "torchvision"}
    for name in before:
        del sys.modules[name]
    sys.modules |= {module.__name__: module for module in (top, ops, models, resnet)}
    try:
        yield
    finally:
        for module in (top, ops, models, resnet):
            del sys.modules[module.__name__]
        sys.modules |= before
