"""Descriptors behind one signature: a grey image and its DoG keypoints become one row a keypoint.

``describe(image, keypoints)`` takes a uint8 image (H, W) and N keypoints of :func:`kornia_bingan.keypoints.detect`
(``dog``: size = 2 sigma, OpenCV's octave field), and gives uint8 packed codes (N, bytes) for the norm ``hamming`` or
float32 (N, D) for ``l2``, row i for keypoint i; N = 0 gives 0 rows. Each peer samples its own support region with its
own code, on the image itself; none gets our 32x32 patches unless it was made for patches.

A peer's support region is the one that people use, or, as ``NAME@SIDE``, a square of so many sigma of the keypoint;
``python -m eval peer_support`` finds the side that suits each best.

A peer whose library or weights are not at hand is absent, with the reason; nothing is downloaded. Of the
article's table four are not here: SURF, which OpenCV's wheels are built without, and LDAHash, D-BRIEF and RFD, which no
library has and whose learnt projections and fields are not at hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import cv2
import kornia.feature as KF
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from eval.harness import peer_rows
from eval.harness.cache import code_digest
from eval.harness.matching import Norm
from eval.harness.peer_rows import (
    BLID_SIDE_SIGMA,
    BRISK_SIDE_SIGMA,
    FIXED_WINDOW_MARGIN,
    FREAK_SIDE_SIGMA,
    ORB_SIDE_SIGMA,
    ORB_UPSCALING,
    PATCH_SIDE_SIGMA,
    SIFT_SIDE_SIGMA,
    aligned,
    fixed_window_rows,
    hash_sift_rows,
    network_rows,
    orb_rows,
    root_sift_rows,
    sift_rows,
    sized_rows,
)
from kornia_bingan import patches
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.patches import PATCH_SIZE
from kornia_bingan.work.files import sha256_of
from kornia_bingan.work.provenance import versions

Image = NDArray[np.uint8]
Describe = Callable[[Image, Keypoints], NDArray[Any]]

BOOST_NUMBERS = {64: 300, 256: 302}
"""OpenCV's numbers of BinBoost by bits; Python has no names for them."""


@dataclass(frozen=True, eq=False)
class Peer:
    """A descriptor that can run here.

    Attributes:
        name: as in tables.
        norm: distance of its rows.
        num_bytes: of one row as it would be stored: packed codes, or 4 bytes a value.
        describe: see the module.
        about: support region and parameters, in words.
        side_sigma: side of its support region in sigma of a DoG keypoint; None for a window of fixed size.
        sha256: of its weights or table; None if it has none.
        code: checksum of the sources that compute it.
        network: takes patches (B, 1, 32, 32) in [0, 1]; None if the descriptor is no network.
    """

    name: str
    norm: Norm
    num_bytes: int
    describe: Describe
    about: str
    side_sigma: float | None = None
    sha256: str | None = None
    code: str = ""
    network: nn.Module | None = None

    def identity(self) -> dict[str, Any]:
        """Everything that decides its rows besides image and keypoints, as JSON can hold it."""
        libraries = {name: versions()[name] for name in ("cv2", "kornia", "torch", "numpy")}
        return {
            "name": self.name,
            "norm": self.norm,
            "about": self.about,
            "side_sigma": self.side_sigma,
            "sha256": self.sha256,
            "code": self.code,
            "versions": libraries,
        }


class AbsentError(Exception):
    """A peer cannot run here; the text says why."""


def _sift(name: str, folder: Path, side: float | None) -> Peer:
    rows, side = {"sift": sift_rows, "rootsift": root_sift_rows}[name], side or SIFT_SIDE_SIGMA
    about = f"OpenCV SIFT at the keypoint's octave, {side:g} sigma window"
    return Peer(name, "l2", 512, partial(rows, side_sigma=side), about, side)


def _orb(name: str, folder: Path, side: float | None) -> Peer:
    side = side or ORB_SIDE_SIGMA
    about = f"OpenCV ORB, 31 px patch = {side:g} sigma, image enlarged {ORB_UPSCALING:g} x"
    return Peer(name, "hamming", 32, partial(orb_rows, side_sigma=side), about, side)


def _contrib() -> Any:
    if not hasattr(cv2, "xfeatures2d"):
        raise AbsentError("OpenCV has no xfeatures2d; install opencv-contrib-python-headless")
    return cv2.xfeatures2d


def _blid(name: str, folder: Path, side: float | None) -> Peer:
    contrib, num_bits = _contrib(), int(name[-3:])
    family = name[:-3].upper()
    size = getattr(contrib, f"{family}_SIZE_{num_bits}_BITS")
    side = side or BLID_SIDE_SIGMA
    extractor = getattr(contrib, f"{family}_create")(side / 2, size)
    rows = partial(aligned, extractor, 0, num_bits // 8)
    return Peer(name, "hamming", num_bits // 8, rows, f"OpenCV {family}, scale factor {side / 2:g}", side)


def _boost(name: str, folder: Path, side: float | None) -> Peer:
    num_bits, side = (64 if name == "boostdesc64" else 256), side or BLID_SIDE_SIGMA
    extractor = _contrib().BoostDesc_create(BOOST_NUMBERS[num_bits], True, side / 2)
    rows = partial(aligned, extractor, 0, num_bits // 8)
    about = f"OpenCV BINBOOST_{num_bits}, scale factor {side / 2:g}"
    return Peer(name, "hamming", num_bits // 8, rows, about, side)


def _grown(name: str, folder: Path, side: float | None) -> Peer:
    contrib = _contrib()
    if name == "brisk":
        extractor, usual = contrib.BRISK_create(), BRISK_SIDE_SIGMA
    else:
        extractor, usual = contrib.FREAK_create(), FREAK_SIDE_SIGMA
    side = side or usual
    rows = partial(sized_rows, extractor, 64, usual, side)
    return Peer(name, "hamming", 64, rows, f"OpenCV {name.upper()}, 512 bits, {side:g} sigma window", side)


def _fixed_window(name: str, folder: Path, side: float | None) -> Peer:
    if name == "brief":
        extractor = _contrib().BriefDescriptorExtractor_create(32, True)
    else:
        extractor = _contrib().LATCH_create(32, True)
    if side is not None:
        about = f"OpenCV, 256 bits, on squares of {side:g} sigma resampled to its window"
        return Peer(name, "hamming", 32, partial(fixed_window_rows, extractor, 32, side), about, side)
    rows = partial(aligned, extractor, FIXED_WINDOW_MARGIN, 32)
    return Peer(name, "hamming", 32, rows, "OpenCV, 256 bits, window of fixed size, turned by the keypoint's angle")


def _hash_sift(name: str, folder: Path, side: float | None) -> Peer:
    path = _at_hand(folder / f"{name}.npy")
    table = np.load(path, allow_pickle=False).astype(np.float32)
    side = side or SIFT_SIDE_SIGMA
    about = f"published projection on OpenCV SIFT vectors, an approximation of its own SIFT variant, {side:g} sigma"
    rows = partial(hash_sift_rows, table, side_sigma=side)
    return Peer(name, "hamming", len(table) // 8, rows, about, side, sha256_of(path))


def _tfeat(name: str, folder: Path, side: float | None) -> Peer:
    path = _at_hand(folder / "tfeat-liberty.params")
    net = KF.TFeat(pretrained=False)
    net.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return _network_peer(name, net.eval(), 128, side or PATCH_SIDE_SIGMA, path)


def _hard_tfeat(name: str, folder: Path, side: float | None) -> Peer:
    path = _at_hand(folder / "hardtfeat.pth")
    stored = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    # TFeat's layers without its leading normalisation, the last one written as an 8x8 convolution; unit length after.
    renamed = {}
    for kind in ("weight", "bias"):
        renamed[f"features.1.{kind}"] = stored[f"features.0.{kind}"]
        renamed[f"features.4.{kind}"] = stored[f"features.3.{kind}"]
        renamed[f"descr.0.{kind}"] = stored[f"classifier.1.{kind}"].flatten(1 if kind == "weight" else 0)
    net = KF.TFeat(pretrained=False)
    net.load_state_dict(renamed)
    return _network_peer(name, nn.Sequential(net, _UnitLength()).eval(), 128, side or PATCH_SIDE_SIGMA, path)


_NETWORKS: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "hardnet": (KF.HardNet, ("checkpoint_liberty_with_aug.pth", "HardNetPP.pth", "HardNet++.pth")),
    "sosnet": (KF.SOSNet, ("sosnet_32x32_liberty.pth",)),
    "hynet": (KF.HyNet, ("HyNet_LIB.pth",)),
}


def _kornia_network(name: str, folder: Path, side: float | None) -> Peer:
    build, files = _NETWORKS[name]
    folders = [folder, Path(torch.hub.get_dir()) / "checkpoints"]
    paths = [place / file for place in folders for file in files if (place / file).is_file()]
    if not paths:
        raise AbsentError(f"no weights: neither the folder of peers nor torch's cache has {' or '.join(files)}")
    net = build(pretrained=False)
    stored = torch.load(paths[0], weights_only=True, map_location="cpu")
    net.load_state_dict(stored.get("state_dict", stored))
    return _network_peer(name, net.eval(), 128, side or PATCH_SIDE_SIGMA, paths[0])


def _mkd(name: str, folder: Path, side: float | None) -> Peer:
    # Its whitening matrices would be downloaded; without them the published descriptor is better than this one.
    net = KF.MKDDescriptor(patch_size=PATCH_SIZE, kernel_type="concat", whitening=None)
    peer = _network_peer(name, net.eval(), 238, side or PATCH_SIDE_SIGMA, None)
    return replace(peer, about=f"{peer.about}, no whitening")


class _UnitLength(nn.Module):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(rows)


def _network_peer(name: str, net: nn.Module, width: int, side_sigma: float, path: Path | None) -> Peer:
    inner = net[0] if isinstance(net, nn.Sequential) else net
    about = f"Kornia {type(inner).__name__}, patch side {side_sigma:g} sigma"
    sha256 = None if path is None else sha256_of(path)
    rows = partial(network_rows, net, side_sigma)
    return Peer(name, "l2", 4 * width, rows, about, side_sigma, sha256, network=net)


def _at_hand(path: Path) -> Path:
    if not path.is_file():
        raise AbsentError(f"{path.name} is not in the folder of peers ({path.parent.name})")
    return path


PEERS: dict[str, Callable[[str, Path, float | None], Peer]] = {
    "sift": _sift,
    "rootsift": _sift,
    "orb": _orb,
    "brief": _fixed_window,
    "latch": _fixed_window,
    "beblid256": _blid,
    "beblid512": _blid,
    "teblid256": _blid,
    "teblid512": _blid,
    "brisk": _grown,
    "freak": _grown,
    "boostdesc": _boost,
    "boostdesc64": _boost,
    "hashsift256": _hash_sift,
    "hashsift512": _hash_sift,
    "tfeat-liberty": _tfeat,
    "hardtfeat": _hard_tfeat,
    "mkd-unwhitened": _mkd,
    "hardnet": _kornia_network,
    "sosnet": _kornia_network,
    "hynet": _kornia_network,
}


def split_name(name: str) -> tuple[str, float | None]:
    """Give the peer and the side of its support region in sigma, None for the usual one.

    Raises:
        UsageError: what follows the @ is no positive number.
    """
    base, at, side = name.partition("@")
    if not at:
        return base, None
    try:
        sigma = float(side)
    except ValueError:
        sigma = 0.0
    if not 0 < sigma < 1000:
        raise UsageError(f"'{name}' gives '{side}' as the side of a support region in sigma; give a positive number")
    return base, sigma


def load_peers(names: Sequence[str], folder: Path) -> tuple[list[Peer], dict[str, str]]:
    """Build peers by name.

    Args:
        names: of ``PEERS``, or ``NAME@SIDE`` for a support region of SIDE sigma instead of the usual one.
        folder: weights and tables of others.

    Returns:
        The peers that can run here, in the order of the names, and the reason for each that cannot.

    Raises:
        UsageError: an unknown name, a side that is no positive number, or a damaged weights file.
    """
    present, absent = [], {}
    code = code_digest(sys.modules[__name__], peer_rows, patches)
    for name in names:
        base, side = split_name(name)
        if base not in PEERS:
            raise UsageError(f"there is no peer '{base}'; choose from {', '.join(PEERS)}")
        try:
            peer = PEERS[base](base, folder, side)
        except AbsentError as error:
            absent[name] = str(error)
            continue
        except (OSError, ValueError, KeyError, RuntimeError, UnpicklingError) as error:
            raise UsageError(f"the weights of {name} in {folder} cannot be used: {error}") from error
        present.append(replace(peer, name=name, code=code))
    return present, absent
