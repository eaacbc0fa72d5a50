"""A folder of photos becomes an index of codes, and a picture finds the most similar ones in it.

INDEX is a folder, searched by faiss (:mod:`kornia_bingan.search.faiss_store`), or ``lancedb://`` and a path or the
address of object storage, searched by LanceDB (:mod:`kornia_bingan.search.lance_store`); one word tells both commands
which. The same command adds new photos, describes changed ones again (by size and time of the file) and forgets those
that are gone; one that was killed resumes with the photos that are not stored yet. Pictures with the same bytes are
kept once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.datasets.pictures import reduce_picture
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.folders import Skipped, list_images, log_skipped, no_photos, reason_for
from kornia_bingan.images.read import ImageError, Ranges, read_color, read_image, sample_ranges, shrink
from kornia_bingan.keypoints import detect
from kornia_bingan.network.inference import Precision
from kornia_bingan.network.published import OfPictures
from kornia_bingan.network.weights import find_weights, load_weights
from kornia_bingan.search.faiss_store import FaissStore, Row, Stamp
from kornia_bingan.search.lance_store import LanceStore
from kornia_bingan.search.photo_code import CELL_BITS, global_code
from kornia_bingan.work.engine import Engine, check_engine, open_engine, run_units
from kornia_bingan.work.files import sha256_of
from kornia_bingan.work.options import Detector
from kornia_bingan.work.run_folder import LOG_FILE, alone_in, log_to
from kornia_bingan.work.unit import Failed, Unit, local_file

if TYPE_CHECKING:
    from kornia_bingan.descriptor import BinGAN

MAX_KEYPOINTS = 1000
MAX_SIZE = 1024
PART = 64
"""Photos that are stored at once: little work is lost by a kill."""
LANCEDB = "lancedb://"

Kind = Literal["keypoints", "patch", "picture"]
"""What codes are of: the keypoints of a photo, a picture as one patch, or a picture as a whole."""

Encode = Callable[[Path], NDArray[np.uint8]]


@dataclass(frozen=True)
class IndexSummary:
    """What became of a folder: photos in the index, of these new and described again, removed ones, skipped files."""

    photos: int
    added: int
    changed: int
    removed: int
    bits: int
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Found:
    """A photo that was found: its name in the folder, and its Hamming distance."""

    name: str
    distance: int


def encoder(weights: Path, precision: Precision = "auto", kind: Kind | None = None) -> tuple[Encode, dict[str, Any]]:
    """Give the function that turns a photo's file into a packed code, and what decides that code, for ``index.json``.

    Args:
        weights: file.
        precision: of a network of patches.
        kind: ``keypoints``: weights of patches describe the keypoints of a photo, whose codes are aggregated;
            ``patch``: they describe its middle square as one patch; ``picture``: weights of whole pictures describe
            its middle square, reduced to 32 x 32. None takes the first or the last, as the weights are.

    Raises:
        UsageError: the weights are of the other sort.
    """
    network = load_weights(weights)
    about: dict[str, Any] = {"weights": weights.stem, "sha256": sha256_of(weights)}
    whole = isinstance(network, OfPictures)
    if kind is not None and whole != (kind == "picture"):
        what = "whole pictures" if whole else "patches"
        raise UsageError(f"{weights.stem} describes {what}, which gives no codes of kind '{kind}'; give other weights")
    if isinstance(network, OfPictures):
        return partial(_code_of_picture, network), {**about, "kind": "picture", "bits": network.bits}
    from kornia_bingan.descriptor import BinGAN

    if kind == "patch":
        model = BinGAN.from_pretrained(weights, output="packed", precision=precision)
        return partial(_code_of_patch, model), {**about, "kind": kind, "bits": model.bits}
    model = BinGAN.from_pretrained(weights, precision=precision)
    about |= {"kind": "keypoints", "bits": model.bits << CELL_BITS, "max_keypoints": MAX_KEYPOINTS}
    return lambda path: global_code(photo_codes(model, path)), about


def _code_of_picture(network: OfPictures, path: Path) -> NDArray[np.uint8]:
    import torch

    picture = torch.from_numpy(_small(path)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        values = network.describe(network.prepare(picture))[0].numpy()
    return np.packbits(values >= 0)


def _code_of_patch(model: BinGAN, path: Path) -> NDArray[np.uint8]:
    import torch

    grey = cv2.cvtColor(_small(path), cv2.COLOR_RGB2GRAY)
    with torch.no_grad():
        code: NDArray[np.uint8] = model(torch.from_numpy(grey)[None, None].float() / 255)[0].numpy()
    return code


def _small(path: Path) -> NDArray[np.uint8]:
    return reduce_picture(read_color(path, _own_range(path)))


def _own_range(path: Path) -> Ranges:
    """Give the range of one photo, which does not change when others come into the index."""
    return sample_ranges(path.parent, [path.name], say=False)


def photo_codes(
    model: BinGAN, path: Path, detector: Detector = "dog", max_keypoints: int = MAX_KEYPOINTS
) -> NDArray[np.uint8]:
    """Describe the strongest keypoints of a photo, reduced to at most 1,024 pixels: packed codes, uint8 (N, bytes)."""
    from kornia_bingan.descriptor import describe

    image = shrink(read_image(path, _own_range(path)), MAX_SIZE)
    return describe(model, image, detect(image, detector, max_keypoints))


def open_store(index: Path | str) -> FaissStore | LanceStore:
    """Give the store that the name of an index stands for; nothing is read or made yet.

    Raises:
        UsageError: the name is an address without ``lancedb://`` before it, or LanceDB is not installed.
    """
    name = str(index)
    if name.startswith(LANCEDB) and name != LANCEDB:
        return LanceStore(name, name.removeprefix(LANCEDB))
    if "://" in name or name.startswith("lancedb:"):
        raise UsageError(
            f"the index '{name}' is neither a folder nor lancedb://PATH, such as lancedb://s3://bucket/index"
        )
    return FaissStore(Path(name))


def update_index(
    photos: Path,
    index: Path | str,
    descriptor: str,
    *,
    kind: Kind | None = None,
    workers: int = 0,
    scheduler: str | None = None,
) -> IndexSummary:
    """Bring an index up to date with a folder of photos; make it if it is absent.

    Args:
        photos: searched recursively.
        index: absent, empty, or made with the same weights; see :func:`open_store`.
        descriptor: shipped name or weights file.
        kind: of the codes, see :func:`encoder`.
        workers: processes on this machine that share the work; 0 works in this one.
        scheduler: address of a running Dask scheduler, whose workers must see the photos.

    Raises:
        UsageError: there are no photos, the weights are for another kind, the index was made with other weights or of
            another kind, its place holds something else, or another process works in its folder.
        JobError: no photo can be read, or see :func:`kornia_bingan.work.engine.open_engine`.
    """
    store = open_store(index)
    names, foreign = list_images(photos)
    if not names:
        raise no_photos(photos, foreign)
    check_engine(workers, scheduler)
    weights = find_weights(descriptor)
    _, about = encoder(weights, kind=kind)
    _begin(store, about, photos)
    with ExitStack() as stack:
        if isinstance(store, FaissStore):
            stack.enter_context(alone_in(store.folder))
            stack.enter_context(log_to(store.folder / LOG_FILE))
        engine = stack.enter_context(open_engine(weights, [photos], workers, scheduler))
        summary = _update(photos, store, names, foreign, engine, about)
        log_skipped(summary.skipped)
    return summary


def _update(
    photos: Path,
    store: FaissStore | LanceStore,
    names: list[str],
    foreign: list[Skipped],
    engine: Engine,
    about: dict[str, Any],
) -> IndexSummary:
    known = store.known()
    listed = set(names)
    kept = {name: stamp for name, stamp in known.items() if name in listed and _is_current(photos / name, stamp)}
    removed = len(known.keys() - listed)
    skipped = list(foreign)
    first_of = {stamp.checksum: name for name, stamp in kept.items()}
    new: dict[str, Row] = {}
    wanted = [name for name in names if name not in kept]
    counts = {"added": 0, "changed": 0}
    units = (
        Unit(name, (engine.path(photos / name), engine.sha256, engine.precision, about["kind"])) for name in wanted
    )
    for name, found in run_units(
        engine, index_unit, units, len(wanted), description="index", done="indexed", word="photo"
    ):
        if isinstance(found, Failed | str):
            skipped.append(Skipped(name, found.reason if isinstance(found, Failed) else found))
            continue
        stamp = found[0]
        if stamp.checksum in first_of:
            skipped.append(Skipped(name, f"the same picture as {first_of[stamp.checksum]}"))
            continue
        new[name] = found
        kept[name] = stamp
        first_of[stamp.checksum] = name
        counts["changed" if name in known else "added"] += 1
        if len(new) == PART:
            store.add(new)
            new = {}
    if new:
        store.add(new)
    if not kept:
        raise JobError(f"no photo of {photos} can be read: {skipped[0].name}: {skipped[0].reason}")
    store.finish([name for name in names if name in kept], about["bits"])
    return IndexSummary(len(kept), counts["added"], counts["changed"], removed, about["bits"], tuple(skipped))


def index_unit(photo: str, sha256: str, precision: Precision, kind: Kind) -> Row | str:
    """Give what an index stores of a photo, or why it cannot be read."""
    path = Path(photo)
    try:
        data = path.read_bytes()
        status = path.stat()
        checksum = hashlib.blake2b(data, digest_size=16).hexdigest()
        return Stamp(status.st_size, status.st_mtime_ns, checksum), _encode(sha256, precision, kind)(path)
    except (ImageError, OSError) as error:
        return reason_for(error, path)


@lru_cache(maxsize=1)
def _encode(sha256: str, precision: Precision, kind: Kind) -> Encode:
    return encoder(local_file(sha256), precision, kind)[0]


def _is_current(path: Path, stamp: Stamp) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (stamp.size, stamp.time)


def _begin(store: FaissStore | LanceStore, about: dict[str, Any], photos: Path) -> None:
    if store.exists():
        known = store.about()
        if changed := [key for key in about if known.get(key) != about[key]]:
            key = changed[0] if changed[0] != "weights" or len(changed) == 1 else changed[1]
            raise UsageError(
                f"{store} was made with {known.get('weights')} ({key} {known.get(key)}), not with {about['weights']} "
                f"({key} {about[key]}); give the same --descriptor and --code, or another index"
            )
    store.begin({"format": 1, **about, "photos": str(photos.resolve())})


def read_about(index: Path | str) -> dict[str, Any]:
    """Read what decides the codes of an index, and the folder of its photos.

    Raises:
        UsageError: there is no index of this format.
    """
    return open_store(index).about()


def search_index(index: Path | str, picture: Path, top: int = 20, descriptor: str | None = None) -> list[Found]:
    """Find the photos of an index that are most similar to a picture: nearest first, of equally near ones by name.

    Up to a million photos are compared exhaustively; of more, those whose codes lie in the nearest clusters.

    Args:
        index: made by :func:`update_index`.
        picture: any picture.
        top: how many; all if there are fewer.
        descriptor: weights, if they are not shipped: those that the index was made with.

    Raises:
        UsageError: the index is absent, unfinished or damaged, its weights are not at hand, the picture cannot be read,
            or ``top`` is below 1.
    """
    if top < 1:
        raise UsageError(f"top is {top}; give 1 or more")
    store = open_store(index)
    about = store.about()
    weights = find_weights(descriptor or about["weights"])
    if sha256_of(weights) != about["sha256"]:
        raise UsageError(f"{index} was made with other weights called {about['weights']}; give them by --descriptor")
    encode, _ = encoder(weights, kind=about["kind"])
    found = store.search(encode(picture), top)
    return [Found(name, distance) for distance, name in sorted((distance, name) for name, distance in found)]
