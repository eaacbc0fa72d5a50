"""Our networks behind the signature of peers: the code, and the real values before its sign."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from eval.harness.cache import code_digest
from eval.harness.peers import Image, Peer
from kornia_bingan import BinGAN, bits, descriptor, keypoints, patches
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.network import frames
from kornia_bingan.network import published as network
from kornia_bingan.network.weights import find_weights, list_models
from kornia_bingan.patches import build_pyramid, cut_patches
from kornia_bingan.work.files import sha256_of


def name_of_weights(path: Path) -> str:
    """Name a weights file in tables: as it is shipped, if these are the bytes of a shipped file.

    Others are named after their file, or after their folder if the file is called ``weights``.
    """
    digest = sha256_of(path)
    shipped = [model.name for model in list_models() if model.sha256 == digest]
    return shipped[0] if shipped else path.resolve().parent.name if path.stem == "weights" else path.stem


def load_ours(name_or_path: str) -> list[Peer]:
    """Build our descriptor twice: its codes, and as ``NAME/float`` its real values scaled to length 1.

    A path is named by :func:`name_of_weights`.

    Raises:
        UsageError: there are no such weights.
    """
    path = find_weights(name_or_path)
    name = name_of_weights(path)
    code = code_digest(sys.modules[__name__], keypoints, patches, network, frames, descriptor, bits)
    model, real = BinGAN.from_pretrained(path), BinGAN.from_pretrained(path, output="descriptor")
    side = 4 * keypoints.BLOB_SUPPORT
    about = f"support region {side:g} sigma"
    digest = sha256_of(path)
    return [
        Peer(name, "hamming", model.bits // 8, partial(descriptor.describe, model), about, side, digest, code),
        Peer(
            f"{name}/float", "l2", 4 * real.bits, partial(real_rows, real), f"{about}, real values", side, digest, code
        ),
    ]


@torch.no_grad()
def real_rows(model: BinGAN, image: Image, points: Keypoints) -> NDArray[np.float32]:
    """Describe keypoints by the real values whose signs are the code, scaled to length 1, float32 (N, bits)."""
    pyramid = build_pyramid(image)
    cut = torch.from_numpy(cut_patches(pyramid, model.regions(pyramid, keypoints.support_regions(points))))
    return np.asarray(nn.functional.normalize(model(cut)).numpy(), np.float32)
