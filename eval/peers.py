"""Descriptors behind one signature: a grey image and its DoG keypoints become one row a keypoint.

``describe(image, keypoints)`` takes a uint8 image (H, W) and N keypoints of :func:`kornia_bingan.keypoints.detect`
(``dog``: size = 2 sigma, OpenCV's octave field), and gives uint8 packed codes (N, bytes) for the norm ``hamming`` or
float32 (N, D) for ``l2``, row i for keypoint i; N = 0 gives 0 rows. Each peer samples its own support region with its
own code, on the image itself; none gets our 32x32 patches unless it was made for patches.

A peer whose library or weights are not at hand is absent, with the reason; nothing is downloaded.
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

from eval.cache import code_digest
from eval.matching import Norm
from kornia_bingan import BinGAN, bits, descriptor, keypoints, network, patches
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.files import sha256_of
from kornia_bingan.keypoints import Keypoints, to_opencv
from kornia_bingan.patches import PATCH_SIZE, build_pyramid, cut_patches
from kornia_bingan.provenance import versions
from kornia_bingan.weights import find_weights

Image = NDArray[np.uint8]
Describe = Callable[[Image, Keypoints], NDArray[Any]]

BLID_SCALE = 6.75
"""Sampling window of BEBLID, TEBLID and BoostDesc over the keypoint's size, as OpenCV documents it for SIFT."""

BINBOOST_256 = 302
"""OpenCV's number of the 256-bit BinBoost; Python has no name for it."""

FIXED_WINDOW_MARGIN = 40
"""BRIEF and LATCH drop keypoints within 28 px of the border; the image is extended so that none is lost."""

PATCH_SIDE_SIGMA = 12.0
"""Side of the support region of patch networks, in sigma of the DoG keypoint: what they were trained on."""

ORB_SIDE_SIZE = 6.0
ORB_UPSCALING = 2.0
"""ORB's 31 px patch over the keypoint's size, and the enlargement that lets small keypoints have it."""


@dataclass(frozen=True, eq=False)
class Peer:
    """A descriptor that can run here.

    Attributes:
        name: as in tables.
        norm: distance of its rows.
        num_bytes: of one row as it would be stored: packed codes, or 4 bytes a value.
        describe: see the module.
        about: support region and parameters, in words.
        sha256: of its weights or table; None if it has none.
        code: checksum of the sources that compute it.
        network: takes patches (B, 1, 32, 32) in [0, 1]; None if the descriptor is no network.
    """

    name: str
    norm: Norm
    num_bytes: int
    describe: Describe
    about: str
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
            "sha256": self.sha256,
            "code": self.code,
            "versions": libraries,
        }


class AbsentError(Exception):
    """A peer cannot run here; the text says why."""


def _aligned(extractor: Any, margin: int, width: int, image: Image, points: Keypoints) -> NDArray[Any]:
    """Compute an OpenCV descriptor and put its rows in the order of the keypoints."""
    if not len(points):
        return np.zeros((0, width), np.uint8)
    found = to_opencv(points)
    for index, keypoint in enumerate(found):
        keypoint.class_id = index
        keypoint.pt = (keypoint.pt[0] + margin, keypoint.pt[1] + margin)
    if margin:
        image = np.asarray(cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT_101), np.uint8)
    kept, rows = extractor.compute(image, found)
    order = np.array([keypoint.class_id for keypoint in kept], np.int64)
    if rows is None or not np.array_equal(np.sort(order), np.arange(len(points))):
        raise JobError(f"{extractor.getDefaultName()} described {len(order)} of {len(points)} keypoints")
    aligned: NDArray[Any] = np.empty_like(rows)
    aligned[order] = rows
    return aligned


def sift_rows(image: Image, points: Keypoints) -> NDArray[np.float32]:
    """Compute SIFT descriptors on the image itself, at each keypoint's octave, values 0 .. 255 as float32 (N, 128).

    Raises:
        UsageError: a keypoint's octave field does not fit its size, so that OpenCV would sample at a wrong scale.
    """
    octave = (points.octave & 255).astype(np.int8).astype(np.float64)  # OpenCV packs it as a signed byte
    layer = (points.octave >> 8) & 255
    nominal = 2 * 1.6 * 2.0 ** (octave + layer / 3)  # a third of an octave a layer; the rest is subpixel
    wrong = np.abs(np.log2(points.size / nominal)) > 0.5
    if wrong.any():
        index = int(np.argmax(wrong))
        raise UsageError(f"keypoint {index} has size {points.size[index]:g} and octave {points.octave[index]}: no DoG")
    # Without precise upscaling the descriptor is sampled a quarter of a pixel beside the keypoint, and still finds 2 %
    # more matches on the validation scenes: the peer gets its better setting.
    rows = _aligned(cv2.SIFT.create(), 0, 128, image, points)
    return rows.astype(np.float32)


def root_sift_rows(image: Image, points: Keypoints) -> NDArray[np.float32]:
    """Take the square root of SIFT vectors of sum 1 (Arandjelovic and Zisserman, CVPR 2012)."""
    rows = sift_rows(image, points)
    return np.asarray(np.sqrt(rows / np.maximum(rows.sum(1, keepdims=True), 1e-9)), np.float32)


def orb_rows(image: Image, points: Keypoints) -> NDArray[np.uint8]:
    """Compute ORB's bits for any keypoints.

    ``ORB.compute`` ignores the size of a keypoint and reads its octave: a level of its pyramid in which its patch is
    31 px. So the octave is chosen that makes the patch nearest to ``ORB_SIDE_SIZE`` times the size, in an image
    enlarged by ``ORB_UPSCALING``, since small keypoints would need a level below the first.
    """
    height, width = image.shape
    size = (round(width * ORB_UPSCALING), round(height * ORB_UPSCALING))
    factor = np.array(size) / np.array([width, height])
    large = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    side = ORB_SIDE_SIZE * ORB_UPSCALING * points.size / 31
    # A level must be larger than the patch.
    top = int(np.log(max(min(size) / 64, 1)) / np.log(1.2))
    octave = np.clip(np.round(np.log(np.maximum(side, 1e-6)) / np.log(1.2)), 0, top)
    moved = Keypoints(
        ((points.xy + 0.5) * factor - 0.5).astype(np.float32),
        points.size,
        np.where(points.angle_deg == -1, 0, points.angle_deg).astype(np.float32),
        points.response,
        octave.astype(np.int32),
    )
    # Without an edge threshold no keypoint is dropped; ORB extends its levels by reflection.
    return np.asarray(_aligned(cv2.ORB.create(nlevels=top + 1, edgeThreshold=0), 0, 32, large, moved), np.uint8)


def hash_sift_rows(table: NDArray[np.float32], image: Image, points: Keypoints) -> NDArray[np.uint8]:
    """Project SIFT vectors by a table (bits, 129) and keep the signs (Suarez et al., RA-L 2021)."""
    rows = sift_rows(image, points)
    return np.packbits(np.column_stack([np.ones(len(rows), np.float32), rows]) @ table.T > 0, axis=1)


def cut_square_patches(image: Image, points: Keypoints, side_sigma: float) -> NDArray[np.float32]:
    """Cut oriented squares of ``side_sigma`` times sigma around DoG keypoints, float32 (N, 1, 32, 32) in [0, 1]."""
    angle = np.deg2rad(np.where(points.angle_deg == -1, 0.0, points.angle_deg))
    half = side_sigma / 4 * points.size  # size = 2 sigma
    cos, sin = half * np.cos(angle), half * np.sin(angle)
    x, y = points.xy.T
    lafs = np.stack([np.stack([cos, -sin, x], 1), np.stack([sin, cos, y], 1)], 1)
    return cut_patches(build_pyramid(image), lafs.astype(np.float32), PATCH_SIZE)


@torch.no_grad()
def network_rows(net: nn.Module, side_sigma: float, image: Image, points: Keypoints) -> NDArray[np.float32]:
    """Describe square patches by a network that takes (B, 1, 32, 32) in [0, 1]."""
    cut = torch.from_numpy(cut_square_patches(image, points, side_sigma))
    if not len(cut):
        cut = torch.zeros(1, 1, PATCH_SIZE, PATCH_SIZE)
    rows = torch.cat([net(piece) for piece in torch.split(cut, 512)]).float().numpy()
    return np.asarray(rows[: len(points)], np.float32)


def _sift(name: str, folder: Path) -> Peer:
    rows = {"sift": sift_rows, "rootsift": root_sift_rows}[name]
    return Peer(name, "l2", 512, rows, "OpenCV SIFT at the keypoint's octave, 12 sigma window")


def _orb(name: str, folder: Path) -> Peer:
    about = f"OpenCV ORB, 31 px patch = {ORB_SIDE_SIZE:g} x size, image enlarged {ORB_UPSCALING:g} x"
    return Peer(name, "hamming", 32, orb_rows, about)


def _contrib() -> Any:
    if not hasattr(cv2, "xfeatures2d"):
        raise AbsentError("OpenCV has no xfeatures2d; install opencv-contrib-python-headless")
    return cv2.xfeatures2d


def _blid(name: str, folder: Path) -> Peer:
    contrib, num_bits = _contrib(), int(name[-3:])
    family = name[:-3].upper()
    size = getattr(contrib, f"{family}_SIZE_{num_bits}_BITS")
    extractor = getattr(contrib, f"{family}_create")(BLID_SCALE, size)
    rows = partial(_aligned, extractor, 0, num_bits // 8)
    return Peer(name, "hamming", num_bits // 8, rows, f"OpenCV {family}, scale factor {BLID_SCALE:g}")


def _boost(name: str, folder: Path) -> Peer:
    extractor = _contrib().BoostDesc_create(BINBOOST_256, True, BLID_SCALE)
    rows = partial(_aligned, extractor, 0, 32)
    return Peer(name, "hamming", 32, rows, f"OpenCV BINBOOST_256, scale factor {BLID_SCALE:g}")


def _fixed_window(name: str, folder: Path) -> Peer:
    if name == "brief":
        extractor = _contrib().BriefDescriptorExtractor_create(32, True)
    else:
        extractor = _contrib().LATCH_create(32, True)
    rows = partial(_aligned, extractor, FIXED_WINDOW_MARGIN, 32)
    return Peer(name, "hamming", 32, rows, "OpenCV, 256 bits, window of fixed size, turned by the keypoint's angle")


def _hash_sift(name: str, folder: Path) -> Peer:
    path = _at_hand(folder / f"{name}.npy")
    table = np.load(path, allow_pickle=False).astype(np.float32)
    about = "published projection on OpenCV SIFT vectors, an approximation of its own SIFT variant"
    return Peer(name, "hamming", len(table) // 8, partial(hash_sift_rows, table), about, sha256_of(path))


def _tfeat(name: str, folder: Path) -> Peer:
    path = _at_hand(folder / "tfeat-liberty.params")
    net = KF.TFeat(pretrained=False)
    net.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return _network_peer(name, net.eval(), 128, PATCH_SIDE_SIGMA, path)


def _hard_tfeat(name: str, folder: Path) -> Peer:
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
    return _network_peer(name, nn.Sequential(net, _UnitLength()).eval(), 128, PATCH_SIDE_SIGMA, path)


_NETWORKS: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "hardnet": (KF.HardNet, ("checkpoint_liberty_with_aug.pth", "HardNetPP.pth", "HardNet++.pth")),
    "sosnet": (KF.SOSNet, ("sosnet_32x32_liberty.pth",)),
    "hynet": (KF.HyNet, ("HyNet_LIB.pth",)),
}


def _kornia_network(name: str, folder: Path) -> Peer:
    build, files = _NETWORKS[name]
    folders = [folder, Path(torch.hub.get_dir()) / "checkpoints"]
    paths = [place / file for place in folders for file in files if (place / file).is_file()]
    if not paths:
        raise AbsentError(f"no weights: neither the folder of peers nor torch's cache has {' or '.join(files)}")
    net = build(pretrained=False)
    stored = torch.load(paths[0], weights_only=True, map_location="cpu")
    net.load_state_dict(stored.get("state_dict", stored))
    return _network_peer(name, net.eval(), 128, PATCH_SIDE_SIGMA, paths[0])


def _mkd(name: str, folder: Path) -> Peer:
    # Its whitening matrices would be downloaded; without them the published descriptor is better than this one.
    net = KF.MKDDescriptor(patch_size=PATCH_SIZE, kernel_type="concat", whitening=None)
    peer = _network_peer(name, net.eval(), 238, PATCH_SIDE_SIGMA, None)
    return replace(peer, about=f"{peer.about}, no whitening")


class _UnitLength(nn.Module):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(rows)


def _network_peer(name: str, net: nn.Module, width: int, side_sigma: float, path: Path | None) -> Peer:
    inner = net[0] if isinstance(net, nn.Sequential) else net
    about = f"Kornia {type(inner).__name__}, patch side {side_sigma:g} sigma"
    sha256 = None if path is None else sha256_of(path)
    return Peer(name, "l2", 4 * width, partial(network_rows, net, side_sigma), about, sha256, network=net)


def _at_hand(path: Path) -> Path:
    if not path.is_file():
        raise AbsentError(f"{path.name} is not in the folder of peers ({path.parent.name})")
    return path


PEERS: dict[str, Callable[[str, Path], Peer]] = {
    "sift": _sift,
    "rootsift": _sift,
    "orb": _orb,
    "brief": _fixed_window,
    "latch": _fixed_window,
    "beblid256": _blid,
    "beblid512": _blid,
    "teblid256": _blid,
    "teblid512": _blid,
    "boostdesc": _boost,
    "hashsift256": _hash_sift,
    "hashsift512": _hash_sift,
    "tfeat-liberty": _tfeat,
    "hardtfeat": _hard_tfeat,
    "mkd-unwhitened": _mkd,
    "hardnet": _kornia_network,
    "sosnet": _kornia_network,
    "hynet": _kornia_network,
}


def load_peers(names: Sequence[str], folder: Path) -> tuple[list[Peer], dict[str, str]]:
    """Build peers by name.

    Args:
        names: of ``PEERS``.
        folder: weights and tables of others.

    Returns:
        The peers that can run here, in the order of the names, and the reason for each that cannot.

    Raises:
        UsageError: an unknown name, or a damaged weights file.
    """
    present, absent = [], {}
    code = code_digest(sys.modules[__name__], patches)
    for name in names:
        if name not in PEERS:
            raise UsageError(f"there is no peer '{name}'; choose from {', '.join(PEERS)}")
        try:
            peer = PEERS[name](name, folder)
        except AbsentError as error:
            absent[name] = str(error)
            continue
        except (OSError, ValueError, KeyError, RuntimeError, UnpicklingError) as error:
            raise UsageError(f"the weights of {name} in {folder} cannot be used: {error}") from error
        present.append(replace(peer, code=code))
    return present, absent


def ours(name_or_path: str) -> list[Peer]:
    """Build our descriptor twice: its codes, and as ``NAME/float`` its real values scaled to length 1.

    A path is named after its file, or after its folder if the file is called ``weights``.

    Raises:
        UsageError: there are no such weights.
    """
    path = find_weights(name_or_path)
    name = name_or_path
    if name_or_path == str(path):
        name = path.resolve().parent.name if path.stem == "weights" else path.stem
    code = code_digest(sys.modules[__name__], keypoints, patches, network, descriptor, bits)
    model, real = BinGAN.from_pretrained(path), BinGAN.from_pretrained(path, output="descriptor")
    about = f"support region {4 * keypoints.BLOB_SUPPORT:g} sigma"
    digest = sha256_of(path)
    return [
        Peer(name, "hamming", model.bits // 8, partial(descriptor.describe, model), about, digest, code),
        Peer(f"{name}/float", "l2", 4 * real.bits, partial(real_rows, real), f"{about}, real values", digest, code),
    ]


@torch.no_grad()
def real_rows(model: BinGAN, image: Image, points: Keypoints) -> NDArray[np.float32]:
    """Describe keypoints by the real values whose signs are the code, scaled to length 1, float32 (N, bits)."""
    cut = torch.from_numpy(cut_patches(build_pyramid(image), keypoints.support_regions(points)))
    return np.asarray(nn.functional.normalize(model(cut)).numpy(), np.float32)
