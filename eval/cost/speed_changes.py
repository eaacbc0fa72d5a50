"""Part of ``python -m eval speed``: what each change was predicted to bring and what it brought."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from eval.cost import speed_networks
from eval.harness.columns import numbers
from eval.harness.timing import take_turns
from kornia_bingan import bits, patches
from kornia_bingan.descriptor import BATCH
from kornia_bingan.network import inference
from kornia_bingan.network.inference import FoldedLayer, FoldedNetwork
from kornia_bingan.network.published import PatchDiscriminator, PatchTrunk
from kornia_bingan.network.weights import find_weights, load_weights
from kornia_bingan.patches import PATCH_SIZE, cut_patches

MATCHED = 8_000
"""Codes per side of the row about matching."""

LARGEST_PIECE = 1020 * PATCH_SIZE**2
"""Cells that OpenCV samples at once at most: it takes fewer than 32,767 rows."""

Row = dict[str, Any]


COLUMNS = numbers(network="network", change="change", predicted="predicted x", measured="measured x")


def of_networks(rows: list[Row]) -> list[Row]:
    """Compare the rows of :func:`eval.cost.speed_networks.measure` that differ by one change, at the first threads."""
    of = {(r["network"], r["form"]): r["patches_per_second"] for r in rows if r["threads"] == rows[0]["threads"]}
    reference = speed_networks.REFERENCE
    batches = f"{reference}, batches of {BATCH}"
    steps = [
        (f"batches of {BATCH} instead of {speed_networks.FORMER_BATCH}: features in cache", 1.2,
         batches, reference),
        ("normalisation folded into the filters", 1.1, "folded, float32, channels first", batches),
        ("channels last", 1.4, "folded, float32", "folded, float32, channels first"),
        ("bfloat16", 1.9, "folded, bfloat16", "folded, float32"),
        ("onnxruntime instead of torch, float32", 1.3, "onnxruntime, float32", "folded, float32"),
        ("int8 by onnxruntime", 3.0, "onnxruntime, int8", "onnxruntime, float32"),
    ]  # fmt: skip
    networks = dict.fromkeys(name for name, form in of if form == batches)
    return [
        _row(name, change, predicted, of[name, new] / of[name, old])
        for name in networks
        for change, predicted, new, old in steps
    ]


def of_layers(names: list[str], views: NDArray[Any]) -> list[Row]:
    """Time the folded networks with and without what was done to single layers.

    Args:
        names: shipped names or weights files of patch networks.
        views: patches, float32 (N, 1, 32, 32) in [0, 1].
    """
    batches = torch.split(torch.from_numpy(views), BATCH)
    rows = []
    for name in names:
        network = load_weights(find_weights(name))
        assert isinstance(network, PatchDiscriminator | PatchTrunk)
        now = FoldedNetwork(network, "auto")
        changes: list[tuple[str, float, Callable[[], object]]] = [
            ("ReLU inside the convolution", 1.25, lambda m=now: _in_two_steps(m, batches))  # type: ignore[misc]
        ]
        if now.quartered:
            whole = _with_whole_first_layer(FoldedNetwork(network, "auto"))
            text = "first layer on quarters of the patch as four channels"
            changes.append((text, 1.3, lambda m=whole: _describe(m, batches)))  # type: ignore[misc]
        seconds = take_turns({"now": lambda m=now: _describe(m, batches), **{text: f for text, _, f in changes}})  # type: ignore[misc]
        rows += [_row(Path(name).stem, text, p, seconds[text] / seconds["now"]) for text, p, _ in changes]
    return rows


def of_arrays(pyramid: list[NDArray[Any]], lafs: NDArray[Any]) -> list[Row]:
    """Time cutting in pieces against the largest pieces and against a loop over keypoints, and packing against sums.

    Args:
        pyramid: of a picture.
        lafs: support regions in it, float32 (N, 2, 3).
    """

    def in_one_piece() -> None:
        with patch.object(patches, "_CELLS", LARGEST_PIECE):
            cut_patches(pyramid, lafs)

    def in_a_loop() -> None:
        for index in range(len(lafs)):
            cut_patches(pyramid, lafs[index : index + 1])

    signs = torch.randn(len(lafs), 256, generator=torch.Generator().manual_seed(0)) >= 0
    cut = take_turns({"now": lambda: cut_patches(pyramid, lafs), "piece": in_one_piece, "loop": in_a_loop})
    packed = take_turns({"now": lambda: bits.pack(signs), "sums": lambda: packed_by_sums(signs)})
    return [
        _row("", "cutting: one pass per level instead of one per keypoint", 10, cut["loop"] / cut["now"]),
        _row("", "cutting: maps in pieces that stay in cache", 1.5, cut["piece"] / cut["now"]),
        _row("", "packing: numpy's packbits instead of sums over eight columns", 8, packed["sums"] / packed["now"]),
    ]


def of_matching(rows: list[Row]) -> list[Row]:
    """Compare our matching with two whole searches, from the rows of :func:`eval.cost.speed_matching.measure`."""
    text = "matching: backwards only from codes that passed the ratio test"
    both = [r for r in rows if (r["matcher"], r["codes"]) == ("faiss, both directions", MATCHED)]
    return [_row("", text, 1.5, row["times_slower"]) for row in both[:1]]


def packed_by_sums(signs: Tensor) -> Tensor:
    """Pack signs, bool (N, B), as graphs do that have no packbits: uint8 (N, B / 8)."""
    octets = signs.reshape(len(signs), -1, 8)
    weights = 2 ** torch.arange(7, -1, -1, dtype=torch.uint8)
    return torch.sum(octets * weights, 2, dtype=torch.uint8)


def _row(network: str, change: str, predicted: float, measured: float) -> Row:
    return {"network": network, "change": change, "predicted": predicted, "measured": round(measured, 2)}


@torch.no_grad()
def _describe(network: FoldedNetwork, batches: tuple[Tensor, ...]) -> list[Tensor]:
    return [network.describe(batch) for batch in batches]


def _in_two_steps(network: FoldedNetwork, batches: tuple[Tensor, ...]) -> None:
    with patch.object(inference, "_can_fuse", lambda dtype: False):
        _describe(network, batches)


def _with_whole_first_layer(network: FoldedNetwork) -> FoldedNetwork:
    first = network.layers[0]
    assert isinstance(first, FoldedLayer)
    whole = F.pixel_shuffle(first.weight, 2)[:, :, :5, :5]
    network.layers[0] = FoldedLayer(whole, first.bias, 2, 2, first.slope)
    network.quartered = False
    return network
