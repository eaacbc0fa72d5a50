"""Part of ``python -m eval speed``: patches per second of networks, and how many bits each faster form flips."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import kornia.feature as KF
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from eval.harness.columns import numbers
from eval.harness.metrics import fpr95
from eval.harness.timing import machine_rates, take_turns
from kornia_bingan import PatchDiscriminator, PatchTrunk, bits
from kornia_bingan.descriptor import BATCH
from kornia_bingan.network.inference import FoldedLayer, FoldedNetwork
from kornia_bingan.network.onnx import export_onnx
from kornia_bingan.network.published import multiply_adds
from kornia_bingan.network.weights import find_weights, load_weights
from kornia_bingan.patches import cut_patches
from kornia_bingan.train.jitter import Jitter, jitter_lafs

NUM_PATCHES = 1024
FORMER_BATCH = 512
PEERS = {"hardnet": KF.HardNet, "sosnet": KF.SOSNet, "hynet": KF.HyNet, "tfeat": KF.TFeat}
REFERENCE = "as trained, float32"
"""The form whose codes are right by definition."""

Describe = Callable[[], Tensor]


COLUMNS = numbers(
    network="network",
    form="form",
    threads="threads",
    patches_per_second="patches / s",
    floor_patches_per_second="floor",
    times_published="x published",
    flipped_bits="flipped bits",
    fpr95="FPR@95 %",
)


def measure(names: list[str], views: tuple[NDArray[np.float32], NDArray[np.float32]]) -> list[dict[str, Any]]:
    """Time every form of our networks and the networks of others on the same patches, with torch's present threads.

    Args:
        names: shipped names or weights files of patch networks.
        views: two views of N keypoints, float32 (N, 1, 32, 32) in [0, 1]; only the first is timed.

    Returns:
        Rows ``network``, ``form``, ``multiply_adds``, ``patches_per_second``, ``floor_patches_per_second`` (the
        multiply-adds at the rate of matrix products of that precision), ``times_published``; of ours also
        ``flipped_bits`` (share, against the network as trained) and ``fpr95`` (percent; codes of the two views).
    """
    rates = machine_rates()
    first, second = (torch.from_numpy(view) for view in views)
    networks = {Path(name).stem: load_weights(find_weights(name)) for name in names}
    networks["published"] = PatchDiscriminator().eval()
    forms: dict[tuple[str, str], Callable[[Tensor], Tensor]] = {}
    macs = {name: multiply_adds(network) for name, network in networks.items()}
    for name, network in networks.items():
        assert isinstance(network, PatchDiscriminator | PatchTrunk)
        forms[name, REFERENCE] = _batched(partial(_as_trained, network), FORMER_BATCH)
        if name == "published":
            forms[name, "folded, float32"] = _batched(FoldedNetwork(network, "float32").describe, BATCH)
            continue
        plain = _batched(partial(_as_trained, network), BATCH)
        forms[name, f"{REFERENCE}, batches of {BATCH}"] = plain
        for precision in ("float32", "bfloat16"):
            forms[name, f"folded, {precision}, channels first"] = _batched(_channels_first(network, precision), BATCH)
            forms[name, f"folded, {precision}"] = _batched(FoldedNetwork(network, precision).describe, BATCH)
        forms[name, "onnxruntime, float32"], forms[name, "onnxruntime, int8"] = _with_onnxruntime(name, names, first)
    for name, build in PEERS.items():
        peer = build(pretrained=False).eval()
        macs[name] = _multiply_adds(peer)
        forms[name, "Kornia, random weights"] = _batched(peer, FORMER_BATCH)
    with torch.no_grad():
        seconds = take_turns({f"{n}|{f}": partial(describe, first) for (n, f), describe in forms.items()}, 3)
        found = {key: (describe(first), describe(second)) for key, describe in forms.items() if key[0] not in PEERS}
    published = seconds[f"published|{REFERENCE}"]
    rows = []
    for (name, form), _ in forms.items():
        rate = rates["bfloat16_multiply_adds" if "bfloat16" in form else "float32_multiply_adds"]
        row: dict[str, Any] = {
            "network": name,
            "form": form,
            "multiply_adds": macs[name],
            "patches_per_second": round(len(first) / seconds[f"{name}|{form}"], 1),
            "floor_patches_per_second": round(rate / macs[name], 1) if "int8" not in form else None,
            "times_published": round(published / seconds[f"{name}|{form}"], 2),
        }
        if name not in PEERS and name != "published":
            codes = [bits.pack(values.float()).numpy() for values in found[name, form]]
            right = bits.pack(found[name, REFERENCE][0]).numpy()
            row["flipped_bits"] = round(float(np.bitwise_count(codes[0] ^ right).mean()) / 8, 6)
            row["fpr95"] = round(_fpr95(*codes), 3)
        rows.append(row)
    return rows


def two_views(
    pyramid: list[NDArray[np.float32]], lafs: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cut each LAF as it is and as another picture of it might give it."""
    moved = jitter_lafs(lafs, Jitter(), np.random.default_rng(0))
    return cut_patches(pyramid, lafs), cut_patches(pyramid, moved)


def _fpr95(codes0: NDArray[np.uint8], codes1: NDArray[np.uint8]) -> float:
    """FPR@95 in percent of the pairs (i, i) against (i, i + 1) and (i, i + 7), by Hamming distance."""
    right = np.bitwise_count(codes0 ^ codes1).sum(1)
    wrong = [np.bitwise_count(codes0 ^ np.roll(codes1, shift, 0)).sum(1) for shift in (1, 7)]
    return float(fpr95(right, np.concatenate(wrong)))


def _as_trained(network: PatchTrunk | PatchDiscriminator, patches: Tensor) -> Tensor:
    return network.describe(network.prepare(patches))


def _batched(describe: Callable[[Tensor], Tensor], size: int) -> Callable[[Tensor], Tensor]:
    return lambda patches: torch.cat([describe(piece) for piece in torch.split(patches, size)])


def _channels_first(network: PatchTrunk | PatchDiscriminator, precision: Any) -> Callable[[Tensor], Tensor]:
    folded = FoldedNetwork(network, precision)
    for layer in folded.layers:
        assert isinstance(layer, FoldedLayer)
        layer.weight = layer.weight.contiguous()
    return folded.describe


def _multiply_adds(module: nn.Module) -> int:
    counts: list[int] = []

    def count(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        assert isinstance(layer.weight, Tensor)
        counts.append(layer.weight.numel() * output[0, 0].numel())

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        module(torch.rand(1, 1, 32, 32))
    for handle in handles:
        handle.remove()
    return sum(counts)


class _Patches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, patches: NDArray[np.float32]) -> None:
        self.pieces = iter(np.split(patches, range(64, len(patches), 64)))

    def get_next(self) -> dict[str, Any] | None:
        piece = next(self.pieces, None)
        return None if piece is None else {"patches": piece}


def _with_onnxruntime(name: str, names: list[str], patches: Tensor) -> list[Callable[[Tensor], Tensor]]:
    """Give the exported network, and one with convolutions in int8, calibrated on every other patch."""
    given = next(given for given in names if Path(given).stem == name)
    runs = []
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        exact, prepared, rounded = (Path(folder) / f"{kind}.onnx" for kind in ("exact", "prepared", "rounded"))
        export_onnx(given, exact)
        logging.disable(logging.WARNING)
        quant_pre_process(str(exact), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(rounded),
            _Patches(patches[::2].numpy()),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
        )
        logging.disable(logging.NOTSET)
        for path in (exact, rounded):
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            runs.append(_batched(partial(_run_session, session), BATCH))
    return runs


def _run_session(session: onnxruntime.InferenceSession, patches: Tensor) -> Tensor:
    return torch.from_numpy(session.run(["descriptors"], {"patches": patches.numpy()})[0])
