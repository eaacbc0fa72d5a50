"""What Kornia itself did otherwise before 0.9; pyproject.toml says from which version on it is tried."""

from __future__ import annotations

import kornia
import kornia.feature as KF
import kornia.geometry as KG
import torch

BEFORE_0_9 = tuple(map(int, kornia.__version__.split(".")[:2])) < (0, 9)

NO_WIDTH = 128 if BEFORE_0_9 else None
"""Columns of Kornia's ``LAFDescriptor`` without keypoints, where it does not ask the model for its width."""


def is_filled(lafs: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
    """As kornia.feature.laf_is_filled; before 0.9, empty slots of Kornia's detectors had a LAF, and no response."""
    filled = lafs.ne(0).any(-1).any(-1)
    return filled & (responses != 0) if BEFORE_0_9 else filled


def scale_space(num: int) -> KF.ScaleSpaceDetector:
    """Kornia's detector of blobs; its default before 0.9 has no maxima, but averages around every pixel."""
    return KF.ScaleSpaceDetector(num, **({"nms_module": KG.ConvQuadInterp3d(10)} if BEFORE_0_9 else {}))
