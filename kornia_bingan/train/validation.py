"""Codes are measured on data that a training run keeps aside: pairs of patches, or pictures and their classes."""

from __future__ import annotations

import torch
from torch import Tensor

from kornia_bingan import losses
from kornia_bingan.network.published import PatchTrunk
from kornia_bingan.train.batches import ValidationPairs, ValidationPictures
from kornia_bingan.train.frames import corrected
from kornia_bingan.train.metrics import fpr95
from kornia_bingan.train.retrieval_metrics import expected_average_precision, histogram
from kornia_bingan.train.state import TrainingState

_BATCH = 500


@torch.no_grad()
def validate(state: TrainingState, data: ValidationPairs | ValidationPictures) -> dict[str, float]:
    """Measure the codes of the network, or of its moving average, on data that is kept aside."""
    network = state.result().eval()
    parts = torch.split(torch.from_numpy(data.patches), _BATCH)

    def describe(part: Tensor) -> Tensor:
        if isinstance(network, PatchTrunk):
            part = corrected(network.frames, part)
        return network.describe(network.prepare(part)).float().cpu()

    low = torch.cat([describe(part.to(state.device)) for part in parts])
    measured = validate_pairs(low, data) if isinstance(data, ValidationPairs) else _validate_widths(state, low, data)
    ones = (low >= 0).float().mean(0)
    measured.update(ones_mean=float(ones.mean()), ones_min=float(ones.min()), ones_max=float(ones.max()))
    measured["stuck_bits"] = int(((ones < 0.01) | (ones > 0.99)).sum())
    return measured


def _validate_widths(state: TrainingState, low: Tensor, data: ValidationPictures) -> dict[str, float]:
    """Measure the whole code and, as ``map_16`` and so on, its nested ones."""
    result = validate_pictures(low, data)
    for width in state.config.nested:
        result[f"map_{width}"] = validate_pictures(low[:, :width], data)["map"]
    return result


def validate_pictures(low: Tensor, data: ValidationPictures) -> dict[str, float]:
    """Measure retrieval in percent: mAP of the first 1,000 ranks, expected over all orders of equal distances.

    ``map_median`` thresholds every bit at its median over the database instead of 0.
    """
    result: dict[str, float] = {}
    first = data.labels[data.queries :] == data.labels[: data.queries, None]
    for name, centred in (("map", low), ("map_median", low - low[data.queries :].median(0).values)):
        codes = losses.hard_sign(centred)
        distance = ((low.shape[1] - codes[: data.queries] @ codes[data.queries :].T) / 2).round().long().numpy()
        counts = histogram(distance, first, low.shape[1])
        result[name] = 100 * float(expected_average_precision(counts, 1000).mean())
    return result


@torch.no_grad()
def validate_pairs(low: Tensor, pairs: ValidationPairs) -> dict[str, float]:
    """Measure FPR@95 of codes and descriptors, and the balance of the bits.

    ``ones`` is the share of patches on which a bit is 1 (mean, least and largest over the bits); a bit is stuck when it
    is equal on more than 99 % of the patches. ``fpr95_median`` thresholds every bit at its median instead of 0.
    ``nearest`` is the share of keypoints, percent, whose code is nearest to that of the other view, of all keypoints.
    """
    index0, index1 = torch.from_numpy(pairs.index0), torch.from_numpy(pairs.index1)
    result: dict[str, float] = {}
    centred = low - low.median(0).values
    kinds = {"fpr95": losses.hard_sign(low), "fpr95_median": losses.hard_sign(centred), "fpr95_descriptor": low}
    for name, rows in kinds.items():
        distance = (rows[index0] - rows[index1]).norm(dim=1).numpy()
        result[name] = fpr95(distance[pairs.is_match], distance[~pairs.is_match])
    if pairs.views:
        codes = losses.hard_sign(low)
        products = codes[: pairs.views] @ codes[pairs.views : 2 * pairs.views].T
        right = products.argmax(1) == torch.arange(pairs.views)
        result["nearest"] = 100 * float(right.float().mean())
    return result
