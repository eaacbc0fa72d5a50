"""Near duplicates of small pictures: do codes find changed copies, and nothing else?

    python -m eval duplicates PICTURES [--ours bingan256,bingan64-pictures] [--split test] [--out FILE.json]

Protocol. PICTURES is what ``bingan train --preset pictures`` takes. ``--num-pictures`` of a split, drawn at random, are
the database; each of the first ``--copies`` of them is changed in each way of ``CHANGES`` and asks for its original. At
a largest distance of t bits, ``recall`` is the share of copies whose original is within t, ``precision`` the share of
originals among all that is within t of a copy. Each code is shown at the largest t whose precision, over all changes,
is at least 95 %: one t for all, since who looks for near duplicates does not know how they were changed. ``first``
needs no t: the share of copies whose original is the nearest picture, equal distances shared. Pictures of CIFAR-10 that
are near duplicates of each other count as wrong, for all codes alike. Intervals draw originals.

Weights of patches describe a picture as one patch, as ``bingan index --code patch`` does. Peers: the perceptual hashes
of the package ImageHash, of 64 bits, which is their default, and of 256. Nothing is tuned here; ``MOST_BITS`` of
``bingan duplicates`` was chosen on ``--split train``; ``within_default`` has recall and precision there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from eval.harness.bootstrap import bootstrap_interval
from eval.harness.columns import Column, Row, text_of
from eval.harness.command import Data, Out, SomeNames, command_line
from eval.harness.options import RESULTS, use_threads
from eval.harness.ours import name_of_weights
from eval.harness.records import check_clean, write_json
from eval.quality.cifar10 import BATCH, network_features
from kornia_bingan import BinGAN
from kornia_bingan.bits import hamming_distances
from kornia_bingan.datasets.pictures import read_picture_set
from kornia_bingan.errors import UsageError
from kornia_bingan.network.published import OfPictures
from kornia_bingan.network.weights import find_weights, load_weights
from kornia_bingan.search.duplicates import MOST_BITS
from kornia_bingan.work.provenance import provenance

Pictures = NDArray[np.uint8]
Codes = NDArray[np.uint8]

LEAST_PRECISION = 0.95
SEED = 0
HASHES = ("phash", "dhash", "whash", "average_hash")
"""Functions of ImageHash."""
SIDES = (8, 16)
"""Cells a side: 64 and 256 bits."""


def _jpeg(picture: Pictures, _: np.random.Generator) -> Pictures:
    data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)


def _smaller(picture: Pictures, _: np.random.Generator) -> Pictures:
    small = cv2.resize(picture, None, fx=0.625, fy=0.625, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def _lit(picture: Pictures, rng: np.random.Generator) -> Pictures:
    lit = picture * rng.uniform(0.7, 1.3) + rng.uniform(-20, 20)
    return np.clip(np.round(lit), 0, 255).astype(np.uint8)


def _tinted(picture: Pictures, rng: np.random.Generator) -> Pictures:
    return np.clip(np.round(picture * rng.uniform(0.8, 1.2, 3)), 0, 255).astype(np.uint8)


def _grey(picture: Pictures, _: np.random.Generator) -> Pictures:
    return np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, None], 3, 2)


def _cropped(picture: Pictures, rng: np.random.Generator) -> Pictures:
    side = picture.shape[0]
    kept = round(0.85 * side)
    top, left = rng.integers(0, side - kept + 1, 2)
    part = picture[top : top + kept, left : left + kept]
    return np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def _turned(picture: Pictures, rng: np.random.Generator) -> Pictures:
    side = picture.shape[0]
    angle = rng.uniform(5, 10) * rng.choice([-1, 1])
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), angle, 1.0)
    return np.asarray(cv2.warpAffine(picture, turn, (side, side), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _mirrored(picture: Pictures, _: np.random.Generator) -> Pictures:
    return np.ascontiguousarray(picture[:, ::-1])


def _labelled(picture: Pictures, rng: np.random.Generator) -> Pictures:
    labelled = picture.copy()
    side = picture.shape[0]
    height, width = side // 5, side // 2
    left = rng.integers(0, side - width + 1)
    labelled[side - height :, left : left + width] = rng.integers(0, 256, 3)
    return labelled


CHANGES: dict[str, Callable[[Pictures, np.random.Generator], Pictures]] = {
    "JPEG of quality 30": _jpeg,
    "made smaller": _smaller,
    "lit": _lit,
    "tinted": _tinted,
    "grey": _grey,
    "cropped": _cropped,
    "turned": _turned,
    "labelled": _labelled,
    "mirrored": _mirrored,
}
"""Ways of changing a picture, RGB uint8 (S, S, 3)."""


def _recall_of(way: str, row: Row) -> float:
    return float(row["recalls"][way])


COLUMNS = (
    Column("code", "code"),
    Column("largest distance", "distance"),
    Column("precision", "precision", ".3f"),
    Column("recall", "recall", ".3f", "most", "interval"),
    *(Column(way, partial(_recall_of, way), ".2f", "most") for way in CHANGES),
    Column("nearest is the original", "first", ".3f", "most"),
)


def hashed(pictures: Pictures, name: str, side: int) -> Codes:
    """Hash pictures (N, S, S, 3) by a function of ImageHash: packed, uint8 (N, side^2 / 8).

    Raises:
        UsageError: the package is not installed.
    """
    try:
        import imagehash
    except ImportError as error:
        raise UsageError("perceptual hashes need the package ImageHash: pip install -e '.[dev]'") from error
    function = getattr(imagehash, name)
    return np.stack([np.packbits(function(Image.fromarray(picture), side).hash) for picture in pictures])


def of_network(pictures: Pictures, network: OfPictures) -> Codes:
    """Describe pictures (N, S, S, 3) by a network of pictures: packed, uint8 (N, bits / 8)."""
    return np.packbits(network_features(network, pictures) >= 0, axis=1)


def as_patches(pictures: Pictures, model: BinGAN) -> Codes:
    """Describe pictures (N, S, S, 3) as patches: packed, uint8 (N, bits / 8)."""
    grey = torch.from_numpy(np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]))
    with torch.no_grad():
        return np.concatenate([model(part[:, None].float() / 255).numpy() for part in torch.split(grey, BATCH)])


def changed(pictures: Pictures, way: str) -> Pictures:
    """Change pictures (N, S, S, 3) in one of the ways; what is random is a function of the way and the place."""
    number = list(CHANGES).index(way)
    return np.stack(
        [CHANGES[way](picture, np.random.default_rng([number, row])) for row, picture in enumerate(pictures)]
    )


def score(copies: dict[str, Codes], originals: Codes) -> dict[str, Any]:
    """Score codes of changed copies, by way, against those of the originals, of which the first ones were changed."""
    bits = 8 * originals.shape[1]
    own, within, nearest = {}, np.zeros(bits + 1), []
    for way, codes in copies.items():
        distances = hamming_distances(codes, originals)
        rows = np.arange(len(codes))
        own[way] = distances[rows, rows]
        within += np.bincount(distances.ravel(), minlength=bits + 1)
        least = distances.min(1)
        share = 1 / (distances == least[:, None]).sum(1)
        nearest.append(np.where(own[way] == least, share, 0.0))
    each = np.stack(list(own.values()))
    right = np.cumsum(np.bincount(each.ravel(), minlength=bits + 1))
    found = np.cumsum(within)
    precision = np.divide(right, found, out=np.ones(bits + 1), where=found > 0)
    good = np.flatnonzero(precision >= LEAST_PRECISION)
    distance = int(good[-1]) if len(good) else 0
    hits = (each <= distance).mean(0)
    usual = MOST_BITS if bits == 256 else 0
    interval = bootstrap_interval(lambda counts: float(counts @ hits / counts.sum()), [len(hits)], 500, SEED)
    return {
        "bits": bits,
        "distance": distance,
        "precision": round(float(precision[distance]), 4),
        "recall": round(float(hits.mean()), 4),
        "interval": [round(value, 4) for value in interval],
        "recalls": {way: round(float((values <= distance).mean()), 4) for way, values in own.items()},
        "within_default": [round(float((each <= usual).mean()), 4), round(float(precision[usual]), 4)],
        "first": round(float(np.mean(nearest)), 4),
    }


@command_line("duplicates")
def main(
    pictures: Data,
    ours: SomeNames = ("bingan256", "bingan256-lite", "bingan64-pictures"),
    split: Literal["train", "test"] = "test",
    num_pictures: int = 5000,
    copies: int = 500,
    threads: int = 1,
    out: Out = RESULTS / "duplicates.json",
) -> int:
    """Ask for the originals of changed copies.

    Args:
        ours: shipped names or weights files, separated by commas.
        split: whose pictures are taken.
        num_pictures: pictures of the database.
        copies: of these, how many are changed in each way.
        threads: of torch.
    """
    check_clean(out)
    use_threads(threads)
    everything = getattr(read_picture_set(pictures), split).pictures
    if not 1 <= copies <= num_pictures <= len(everything):
        raise UsageError(f"{copies} copies of {num_pictures} pictures are asked for; {pictures} has {len(everything)}")
    database = everything[np.random.default_rng(SEED).permutation(len(everything))[:num_pictures]]
    asking = {way: changed(database[:copies], way) for way in CHANGES}
    ways: dict[str, Callable[[Pictures], Codes]] = {
        f"{name}, {side**2} bits": partial(hashed, name=name, side=side) for name in HASHES for side in SIDES
    }
    for given in ours:
        path = find_weights(given)
        network = load_weights(path)
        if isinstance(network, OfPictures):
            ways[name_of_weights(path)] = partial(of_network, network=network)
        else:
            ways[name_of_weights(path)] = partial(as_patches, model=BinGAN.from_pretrained(path, output="packed"))
    results = []
    for name, encode in ways.items():
        results.append({"code": name, **score({way: encode(part) for way, part in asking.items()}, encode(database))})
    results.sort(key=lambda row: -row["recall"])
    own = [name_of_weights(find_weights(name)) for name in ours]
    record = {
        "protocol": "duplicates",
        "command": f"python -m eval duplicates PICTURES --ours {','.join(own)}",
        "split": split,
        "pictures": num_pictures,
        "copies": copies,
        "results": results,
        "provenance": provenance(find_weights(ours[0]), SEED),
    }
    write_json(out, record)
    print(text_of(COLUMNS, results))
    return 0
