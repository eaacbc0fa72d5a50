"""Brown's sets revisited: how well the ratio of first to second distance tells right matches from wrong ones.

    python -m eval revisited SET [SET ...] [--ours NAME_OR_PATH ...] [--out eval/results/revisited.json]

Protocol (Pultar, Mishkin, Matas, "Leveraging Outdoor Webcams for Local Descriptor Learning", CVWW 2019; package
``brown-phototour-revisited``). Within the patches of one reference image, every ordered pair of two patches of one
point is an anchor and its positive; the negative is the patch of another point that is nearest to the anchor. A triplet
is correct if the positive is not farther than the negative; triplets are ranked by the ratio of the smaller to the
larger of both distances; average precision of that ranking, mean over reference images. ``map`` is this.
``map_package`` is what the package computes: it looks for the negative only in sets of more than 1,000 patches, and
there only for whole blocks of 128 anchors; elsewhere it takes the first patch of the image.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.harness.bootstrap import bootstrap_interval
from eval.harness.columns import Column, text_of
from eval.harness.command import Paths, command_line
from eval.harness.metrics import average_precision
from eval.harness.options import PEER_DATA, PatchOptions, load_models
from eval.harness.patch_peers import patch_peers, patch_sigma_of
from eval.harness.records import check_clean, write_json
from eval.quality.brown import PEERS, describe_all
from eval.quality.patch_tasks import all_distances
from kornia_bingan.datasets.brown import read_patch_set
from kornia_bingan.errors import UsageError
from kornia_bingan.network.weights import find_weights
from kornia_bingan.work.provenance import provenance

PACKAGE_LEAST = 1000
PACKAGE_BLOCK = 128
SEED = 0

Rows = NDArray[Any]

COLUMNS = (
    Column("set", "set"),
    Column("descriptor", "descriptor"),
    Column("mAP % (interval)", "map", ".2f", best="most", interval="interval"),
    Column("by the package's rule", "map_package", ".2f", best="most"),
)


def ratio_average_precision(rows: Rows, points: NDArray[np.int64], *, package: bool = False) -> float | None:
    """Score the patches of one reference image.

    Args:
        rows: descriptors, packed codes (N, bytes) or real values (N, D).
        points: 3D point of each, shape (N,).
        package: choose negatives as the package does.

    Returns:
        None where no point has two patches, no patch is of another point, or no triplet is correct.
    """
    count = len(points)
    between = all_distances(rows, rows)
    same = points[:, None] == points
    negative = np.where(same, np.inf, between).argmin(1)
    if package:
        negative[0 if count <= PACKAGE_LEAST else count // PACKAGE_BLOCK * PACKAGE_BLOCK :] = 0
    anchor, positive = np.nonzero(same & ~np.eye(count, dtype=bool))
    if not len(anchor) or same.all():
        return None
    near, far = between[anchor, positive], between[anchor, negative[anchor]]
    correct = near <= far
    larger = np.maximum(near, far)
    ratio = np.where(larger > 0, np.minimum(near, far) / np.where(larger > 0, larger, 1), 1.0)
    return average_precision(ratio, correct) if correct.any() else None


def evaluate(rows: Rows, points: NDArray[np.int64], reference: NDArray[np.int64]) -> dict[str, Any]:
    """Score all reference images of a set: mean average precision in percent, and its interval over them."""
    values: dict[str, list[float]] = {"map": [], "map_package": []}
    for image in np.unique(reference):
        inside = reference == image
        for name, found in values.items():
            ap = ratio_average_precision(rows[inside], points[inside], package=name == "map_package")
            if ap is not None:
                found.append(100 * ap)
    if not values["map"]:
        raise UsageError("no reference image has two patches of one point and a patch of another")
    maps = np.array(values["map"])
    low, high = bootstrap_interval(lambda c: float(c @ maps / c.sum()), [len(maps)], 500, SEED)
    means = {name: round(float(np.mean(found)), 3) if found else None for name, found in values.items()}
    return {**means, "interval": [round(low, 3), round(high, 3)], "images": len(maps)}


@command_line("revisited")
def main(sets: Paths, shared: PatchOptions, peer_data: Path = PEER_DATA) -> int:
    """Describe every set.

    Args:
        peer_data: folder of the weights and tables of others.
    """
    check_clean(shared.out)
    cache, best = shared.begin(), shared.best_sides()
    absent: dict[str, str] = {}
    models = load_models(shared.ours)
    results = []
    for folder in sets:
        patch_set = read_patch_set(folder)
        if patch_set.reference is None:
            raise UsageError(f"{folder} has no interest.txt, which names the reference image of each patch")
        every = np.arange(len(patch_set))
        peers, absent = patch_peers(PEERS, peer_data, best, patch_sigma_of(folder))
        side_px = {seeing.peer.name: round(seeing.side_px, 2) for seeing in peers}
        described = describe_all(patch_set.patches[every], patch_set.patches32(every), peers, models, cache)
        for name, (norm, call) in described.items():
            scores = evaluate(call(), patch_set.point_ids, patch_set.reference)
            about = {"set": folder.name, "descriptor": name, "norm": norm, "side_px": side_px.get(name, 64)}
            results.append({**about, **scores})
            print(f"{folder.name} {name} {scores['map']:.2f}", file=sys.stderr, flush=True)
    print(text_of(COLUMNS, results))
    for name, reason in absent.items():
        print(f"absent: {name}: {reason}")
    if shared.out:
        names = " ".join(folder.name for folder in sets)
        command = f"python -m eval revisited {names} --ours {' '.join(models)}{shared.words()}"
        weights = find_weights(shared.ours[0]) if shared.ours else None
        record = {"protocol": "revisited", "command": command, "results": results, "absent": absent}
        write_json(shared.out, {**record, "provenance": provenance(weights, SEED)})
    return 0
