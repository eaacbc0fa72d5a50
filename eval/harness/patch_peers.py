"""Peers on patches of 64 x 64: which square in the middle of a patch each sees, and the rows that it gives.

Everybody sees the whole patch: a keypoint in the middle is as large as the peer's support region asks for, the window
of fixed size of BRIEF and LATCH gets the patch resampled, networks get its 2 x 2 means. Where it is known how many
sigma of the keypoint a patch is wide, a peer whose best support region (``python -m eval peer_support``) is smaller
stands there a second time, as ``NAME@SIDE``, and sees the square of that side only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.harness.peers import Peer, load_peers
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import BLOB_SUPPORT, Keypoints

PATCH_PX = 64
MIDDLE = 31.5
ANY_SIDE = 20.0
"""For a window of fixed size, which then follows the keypoint: any side does, as the keypoint is made for it."""

Rows = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PatchPeer:
    """A peer and the side of the middle square of a patch that it sees, pixels in (0, 64]."""

    peer: Peer
    side_px: float


def patch_peers(
    names: Sequence[str], folder: Path, best: Mapping[str, float], patch_sigma: float | None
) -> tuple[list[PatchPeer], dict[str, str]]:
    """Build peers that see the whole patch, and those that see less because it suits them.

    Args:
        names: of ``eval.harness.peers.PEERS``.
        folder: weights and tables of others.
        best: sides in sigma of those peers whose best support region is not the usual one.
        patch_sigma: side of a patch in sigma of the keypoint; None where it is not known, and then all see the whole.

    Returns:
        The peers, and the reason for each that cannot run here.
    """
    usual, absent = load_peers(names, folder)
    built = []
    for peer in usual:
        whole = peer
        if peer.side_sigma is None:
            ((whole,), _) = load_peers([f"{peer.name}@{ANY_SIDE:g}"], folder)
        built.append(PatchPeer(replace(whole, name=peer.name), PATCH_PX))
        if patch_sigma is not None and best.get(peer.name, patch_sigma) < patch_sigma:
            ((smaller,), _) = load_peers([f"{peer.name}@{best[peer.name]:g}"], folder)
            built.append(PatchPeer(smaller, PATCH_PX * best[peer.name] / patch_sigma))
    return built, absent


def middle_keypoint(sigma: float) -> Keypoints:
    """Give an upright DoG keypoint of a size in the middle of a patch, in the octave and layer nearest to the size."""
    one = np.ones(1, np.float32)
    third = round(3 * np.log2(sigma / 1.6))
    octave = (third - 1) // 3
    field = (octave & 255) | ((third - 3 * octave) << 8)
    xy = np.array([[MIDDLE, MIDDLE]], np.float32)
    return Keypoints(xy, one * np.float32(2 * sigma), 0 * one, one, np.array([field], np.int32))


def describe_patches(peer: PatchPeer, patches: NDArray[np.uint8]) -> Rows:
    """Describe the middle square of each patch, uint8 (N, 64, 64) with N > 0, by the peer's own code."""
    side_sigma = peer.peer.side_sigma
    if side_sigma is None:
        raise UsageError(f"{peer.peer.name} has a window of fixed size; build it with patch_peers")
    middle = middle_keypoint(peer.side_px / side_sigma)
    return np.concatenate([peer.peer.describe(patch, middle) for patch in patches])


def patch_sigma_of(folder: Path) -> float | None:
    """Give the side of a set's patches in sigma of the keypoint: known of sets of ``bingan patches`` on DoG keypoints.

    Raises:
        UsageError: ``summary.json`` is there and damaged.
    """
    path = folder / "summary.json"
    if not path.is_file():
        return None
    try:
        detector = json.loads(path.read_text(encoding="utf-8"))["options"]["detector"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no summary of bingan patches ({error}); make the set again") from error
    return 4 * BLOB_SUPPORT if detector == "dog" else None
