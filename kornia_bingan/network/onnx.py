"""A network becomes an ONNX file, for runtimes other than PyTorch; cutting the patches stays outside."""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.network.inference import FoldedNetwork
from kornia_bingan.network.published import OfPictures
from kornia_bingan.network.weights import find_weights, load_weights
from kornia_bingan.work.files import atomic_path

OPSET = 18


class _CodesAndDescriptors(nn.Module):
    """Give packed codes beside the values whose signs they are; ONNX has no operation that packs bits."""

    places: Tensor

    def __init__(self, network: FoldedNetwork | OfPictures) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("places", torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.int32))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        descriptors = self.network.describe(self.network.prepare(rows))
        octets = (descriptors >= 0).to(torch.int32).reshape(-1, self.network.bits // 8, 8)
        return (octets * self.places).sum(2, dtype=torch.int32).to(torch.uint8), descriptors


def export_onnx(weights: str | Path, out: Path) -> dict[str, int | str]:
    """Write a network as ONNX, that of patches folded, in float32, for any number of patches or pictures at a time.

    The file's input is float32 in [0, 1]: ``patches`` (N, 1, 32, 32), or ``pictures`` (N, 3, 32, 32), in RGB; its
    outputs are ``codes``, packed uint8 (N, bits / 8), and ``descriptors``, float32 (N, bits).

    Args:
        weights: a shipped name or a file.
        out: an ``.onnx`` file; appears whole or not at all.

    Returns:
        Name, bits, opset and bytes of the file.

    Raises:
        UsageError: there are no such weights, or the file has another ending.
        JobError: the packages ``onnx`` and ``onnxscript`` are not installed.
    """
    if out.suffix.lower() != ".onnx":
        raise UsageError(f"{out}: the file must end in .onnx")
    path = find_weights(weights)
    network = load_weights(path)
    if absent := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise JobError(f"{' and '.join(absent)} not installed; pip install 'kornia_bingan[onnx]' brings what is needed")
    exported = network if isinstance(network, OfPictures) else FoldedNetwork(network, "float32")
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
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as temporary:
        program.save(temporary)
    return {"name": path.stem, "bits": network.bits, "opset": OPSET, "bytes": out.stat().st_size}
