"""The frame network learns from two views of a patch: their corrected regions must be the same piece of the surface.

Nothing is labelled. A view is the patch of a keypoint whose region was turned and stretched at random, and so it is
known how the regions of two views lie to each other. The patches of views show more than the region, since a corrected
one reaches beyond it.

Source: the hardest negative without a gradient after Mishkin et al., "Repeatability Is Not Enough", ECCV 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kornia_bingan import losses
from kornia_bingan.network.frames import FrameNetwork
from kornia_bingan.network.published import PatchTrunk
from kornia_bingan.patches import PATCH_SIZE
from kornia_bingan.train import processes
from kornia_bingan.train.jitter import Batch
from kornia_bingan.train.state import TrainingState


def frame_losses(state: TrainingState, batch: Batch) -> dict[str, Tensor]:
    """Compute the terms of the frame network's loss, by name, unweighted: ``frames`` and ``two_view``."""
    network = state.network
    assert isinstance(network, PatchTrunk)
    assert network.frames is not None
    assert batch.change0 is not None
    assert batch.change1 is not None
    regions, lows = [], []
    for patches, change in ((batch.patches0, batch.change0), (batch.patches1, batch.change1)):
        own = processes.share(patches.to(state.device))
        with state.autocast():
            correction = network.frames(middle(own)).float()
        # Outside of autocast: a position needs more than the 8 bits of bfloat16.
        patches_there = resampled(own, correction)
        with state.autocast():
            low = network.describe(network.prepare(patches_there))
        regions.append(processes.gather(processes.share(change.to(state.device)) @ correction))
        lows.append(processes.gather(low.float()))
    ignore = batch.ignore.to(state.device)
    return {"frames": losses.same_region(regions[0], regions[1]), "two_view": losses.margin(lows[0], lows[1], ignore)}


def corrected(frames: FrameNetwork | None, views: Tensor) -> Tensor:
    """Turn views (N, 1, S, S) into the patches of their corrected regions, (N, 1, 32, 32); of 32 cells they stay."""
    if views.shape[-1] == PATCH_SIZE:
        return views
    return middle(views) if frames is None else resampled(views, frames(middle(views)))


def middle(views: Tensor) -> Tensor:
    """Cut the patches of the regions themselves, (N, 1, 32, 32), out of views (N, 1, S, S)."""
    start = (views.shape[-1] - PATCH_SIZE) // 2
    return views[..., start : start + PATCH_SIZE, start : start + PATCH_SIZE]


def resampled(views: Tensor, corrections: Tensor) -> Tensor:
    """Sample the patches of corrected regions, (N, 1, 32, 32), from views (N, 1, S, S), with gradients to both."""
    unit = ((2 * torch.arange(PATCH_SIZE, device=views.device) + 1) / PATCH_SIZE - 1).to(views.dtype)
    straight = torch.stack(torch.meshgrid(unit, unit, indexing="xy"), 2).view(1, -1, 2)
    places = straight @ corrections.to(views.dtype).mT * (PATCH_SIZE / views.shape[-1])
    grid = places.view(len(views), PATCH_SIZE, PATCH_SIZE, 2)
    return F.grid_sample(views, grid, "bilinear", "border", align_corners=False)
