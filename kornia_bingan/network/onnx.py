"""A network becomes an ONNX file, for runtimes other than PyTorch; cutting the patches stays outside, or comes with it.

Of several ways to compute something, those are taken that OpenCV reads from 4.6 on, whose importer knew sums over given
axes, ``Clip`` and comparisons badly or not at all.
"""

from __future__ import annotations

import json
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kornia_bingan import __version__
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.keypoints import BLOB_SUPPORT, BRISK_SUPPORT, FAST_SUPPORT, ORB_SUPPORT
from kornia_bingan.network.inference import FoldedNetwork
from kornia_bingan.network.onnx_patches import put_before
from kornia_bingan.network.published import OfPictures, PatchDiscriminator, PatchTrunk
from kornia_bingan.network.weights import find_weights, load_weights
from kornia_bingan.patches import PATCH_SIZE
from kornia_bingan.work.files import atomic_path, sha256_of

OPSET = 18

Input = Literal["patches", "image"]

SUPPORT = {"blobs": BLOB_SUPPORT, "ORB": ORB_SUPPORT, "FAST": FAST_SUPPORT, "BRISK": BRISK_SUPPORT}
"""Half the side of the support region over the size of a keypoint, by what found it."""

RECIPE = """\
Half the side of the region is h = support x size; the angle is in degrees, clockwise on the screen, -1 counts as 0.
Level 0 is the grey picture / 255; each next has half the width and height, rounded down, by area averaging, until the
short side is below 32. Level = round(log2(2 h / 32)), half to even, within those that exist; sx, sy: its size over that
of level 0. Row i and column j of the patch is, with u_k = (2 k + 1) / 32 - 1, the level at
x: (x + 0.5) sx - 0.5 + h sx (u_j cos angle - u_i sin angle),
y: (y + 0.5) sy - 0.5 + h sy (u_j sin angle + u_i cos angle), bilinear; outside, the border pixel repeats.
Pixel centres are at integers."""
"""docs/patch.md in short."""

FRAMES = """\
Half the side of the region is h = support x size; the angle is in degrees, clockwise on the screen, -1 counts as 0.
A row of lafs is ((h cos angle, -h sin angle, x), (h sin angle, h cos angle, y)). Pixel centres are at integers."""
"""The same, where the file cuts the patches."""


class _ByProducts(FoldedNetwork):
    """The same, with means as products of matrices."""

    mean: Tensor
    spread: Tensor

    def __init__(self, network: PatchTrunk | PatchDiscriminator) -> None:
        super().__init__(network, "float32")
        cells = PATCH_SIZE**2
        self.register_buffer("mean", torch.full((cells, 1), 1 / cells))
        self.register_buffer("spread", torch.ones(1, cells))

    def standardised(self, patches: Tensor) -> Tensor:
        rows = patches.flatten(1)
        rows = rows - rows @ self.mean @ self.spread
        deviation = ((rows * rows) @ self.mean).sqrt() + self.least_deviation
        return (rows / (deviation @ self.spread)).view_as(patches)


class _CodesAndDescriptors(nn.Module):
    """Give packed codes beside the values whose signs they are; ONNX has no operation that packs bits."""

    places: Tensor

    def __init__(self, network: FoldedNetwork | OfPictures) -> None:
        super().__init__()
        self.network = network
        octet = 2.0 ** torch.arange(7, -1, -1)[:, None]
        self.register_buffer("places", torch.kron(torch.eye(network.bits // 8), octet))  # (bits, bits / 8)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        descriptors = self.network.describe(self.network.prepare(rows))
        floor = descriptors.floor()
        ones = F.relu(floor + 1) - F.relu(floor)  # 1 where a value is 0 or more
        return (ones @ self.places).to(torch.uint8), descriptors


def export_onnx(weights: str | Path, out: Path, *, input: Input = "patches") -> dict[str, int | str]:
    """Write a network as ONNX, that of patches folded, in float32, for any number of patches or pictures at a time.

    The file's input is float32 in [0, 1]: ``patches`` (N, 1, 32, 32), or ``pictures`` (N, 3, 32, 32), in RGB. With
    ``input="image"`` it is a whole grey ``image`` (1, 1, H, W) in [0, 1], with sides below 32,767, and ``lafs``
    (N, 2, 3), frames in its pixels as :func:`kornia_bingan.keypoints.support_regions` gives, and the file cuts the
    patches as :mod:`kornia_bingan.patches` does; onnxruntime reads that, and OpenCV from 5.0 on.

    The outputs are ``codes``, packed uint8 (N, bits / 8), and ``descriptors``, float32 (N, bits). OpenCV 4 gives the
    bytes of ``codes`` as float32. The metadata, which onnxruntime reads and OpenCV does not, has ``name``, ``sha256``
    of the weights, ``bits`` and ``version`` of this package; that of a network of patches also ``support``, half the
    side of the region over OpenCV's ``size`` of a keypoint, in JSON by kind of detector, and ``patch``, how patches are
    cut, or ``lafs``, what frames are.

    Args:
        weights: a shipped name or a file.
        out: an ``.onnx`` file; appears whole or not at all.
        input: what a network of patches is given.

    Returns:
        Name, bits, opset and bytes of the file.

    Raises:
        UsageError: there are no such weights, the file has another ending, or a network of pictures is to cut patches,
            or the weights correct support regions.
        JobError: the packages ``onnx`` and ``onnxscript`` are not installed.
    """
    if out.suffix.lower() != ".onnx":
        raise UsageError(f"{out}: the file must end in .onnx")
    path = find_weights(weights)
    network = load_weights(path)
    if input == "image" and isinstance(network, OfPictures):
        raise UsageError(f"{weights} describes whole pictures, which have no patches; leave out --input image")
    if isinstance(network, PatchTrunk) and network.frames is not None:
        raise UsageError(
            f"{weights} corrects support regions in the picture before it describes them, which an ONNX file does not "
            "do; export weights without that, such as bingan256"
        )
    if absent := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise JobError(f"{' and '.join(absent)} not installed; pip install 'kornia_bingan[onnx]' brings what is needed")
    exported = network if isinstance(network, OfPictures) else _ByProducts(network)
    model = _CodesAndDescriptors(exported).eval()
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the exporter tells of torchvision, which nothing here needs
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                (torch.rand(4, exported.channels, 32, 32, dtype=torch.float32),),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=["patches" if exported.channels == 1 else "pictures"],
                output_names=["codes", "descriptors"],
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            )
    finally:
        logging.disable(previous)
    assert program is not None
    if input == "image":
        put_before(program.model)
    about = {"name": path.stem, "sha256": sha256_of(path), "bits": str(network.bits), "version": __version__}
    if exported.channels == 1:
        about |= {"support": json.dumps(SUPPORT), **({"patch": RECIPE} if input == "patches" else {"lafs": FRAMES})}
    program.model.metadata_props.update(about)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as temporary:
        program.save(temporary)
    return {"name": path.stem, "bits": network.bits, "opset": OPSET, "bytes": out.stat().st_size}
