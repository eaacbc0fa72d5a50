"""A folder of photos becomes an index of codes, and a picture finds the most similar ones in it.

INDEX is a folder:

    INDEX/index.json      the weights, the photos' folder, and what decides a code
    INDEX/parts/*.npz     names, sizes, times, checksums and codes of 64 photos each
    INDEX/codes.faiss     faiss binary index of all codes, with
    INDEX/names.json      the photo of each of its rows

The same command adds new photos, describes changed ones again (by size and time of the file) and forgets those that are
gone; a killed one goes on with the photos that are in no part yet. Pictures with the same bytes are kept once.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.engine import Engine, check_engine, open_engine, run_units
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.files import atomic_path, sha256_of, write_json
from kornia_bingan.folded import Precision
from kornia_bingan.global_code import CELL_BITS, global_code
from kornia_bingan.images import ImageError, Skipped, list_images, log_skipped, read_color, read_image, reason_for
from kornia_bingan.keypoints import detect
from kornia_bingan.network import ImageDiscriminator
from kornia_bingan.picture_sets import reduce_picture
from kornia_bingan.runs import LOG_FILE, alone_in, log_to
from kornia_bingan.units import Failed, Unit, local_file
from kornia_bingan.weights import find_weights, load_weights

if TYPE_CHECKING:
    from kornia_bingan.descriptor import BinGAN

MAX_KEYPOINTS = 1000
MAX_SIZE = 1024
PART = 64
"""Photos in one part: little work is lost by a kill."""

Encode = Callable[[Path], NDArray[np.uint8]]


@dataclass(frozen=True)
class Entry:
    """A photo in the index: its file's size and time (ns) when it was read, its content's checksum, and its code."""

    size: int
    time: int
    checksum: str
    code: NDArray[np.uint8]


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


def encoder(weights: Path, precision: Precision = "auto") -> tuple[Encode, dict[str, Any]]:
    """Give the function that turns a photo's file into a packed code, and what decides that code, for ``index.json``.

    Weights of patches describe the keypoints of a photo, whose codes are aggregated; weights of whole pictures describe
    its middle, reduced to 32 x 32.
    """
    network = load_weights(weights)
    about: dict[str, Any] = {"weights": weights.stem, "sha256": sha256_of(weights)}
    if isinstance(network, ImageDiscriminator):
        return _picture_encoder(network), {**about, "kind": "picture", "bits": network.bits}
    from kornia_bingan.descriptor import BinGAN

    model = BinGAN.from_pretrained(weights, precision=precision)
    about |= {"kind": "keypoints", "bits": model.bits << CELL_BITS, "max_keypoints": MAX_KEYPOINTS}
    return lambda path: global_code(photo_codes(model, path)), about


def _picture_encoder(network: ImageDiscriminator) -> Encode:
    import torch

    def encode(path: Path) -> NDArray[np.uint8]:
        picture = torch.from_numpy(reduce_picture(read_color(path))).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            values = network.describe(network.prepare(picture))[0].numpy()
        return np.packbits(values >= 0)

    return encode


def photo_codes(model: BinGAN, path: Path) -> NDArray[np.uint8]:
    """Describe the strongest keypoints of a photo, reduced to at most 1,024 pixels: packed codes, uint8 (N, bytes)."""
    import cv2

    from kornia_bingan.descriptor import describe

    image = read_image(path)
    factor = MAX_SIZE / max(image.shape)
    if factor < 1:
        size = [max(1, round(side * factor)) for side in image.shape[::-1]]
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return describe(model, image, detect(image, "dog", MAX_KEYPOINTS))


def update_index(
    photos: Path, index: Path, descriptor: str, *, workers: int = 0, scheduler: str | None = None
) -> IndexSummary:
    """Bring an index up to date with a folder of photos; make it if it is absent.

    Args:
        photos: searched recursively.
        index: folder of the index, absent, empty, or an index made with the same weights.
        descriptor: shipped name or weights file.
        workers: processes on this machine that share the work; 0 works in this one.
        scheduler: address of a running Dask scheduler, whose workers must see the photos.

    Raises:
        UsageError: there are no photos, the index was made with other weights, the folder holds something else, or
            another process works in it.
        JobError: no photo can be read, or see :func:`kornia_bingan.engine.open_engine`.
    """
    names, foreign = list_images(photos)
    if not names:
        raise UsageError(f"{photos} holds no photos")
    check_engine(workers, scheduler)
    weights = find_weights(descriptor)
    _, about = encoder(weights)
    _open(index, about, photos)
    with (
        alone_in(index),
        log_to(index / LOG_FILE),
        open_engine(weights, [photos], workers, scheduler) as engine,
    ):
        summary = _update(photos, index, names, foreign, engine, about["bits"])
        log_skipped(summary.skipped)
    return summary


def _update(
    photos: Path, index: Path, names: list[str], foreign: list[Skipped], engine: Engine, bits: int
) -> IndexSummary:
    known = _read_parts(index)
    entries = {name: entry for name, entry in known.items() if name in set(names) and _is_current(photos / name, entry)}
    removed = len(set(known) - set(names))
    skipped = list(foreign)
    first_of = {entry.checksum: name for name, entry in entries.items()}
    new: dict[str, Entry] = {}
    wanted = [name for name in names if name not in entries]
    counts = {"added": 0, "changed": 0}
    units = (Unit(name, (engine.path(photos / name), engine.sha256, engine.precision)) for name in wanted)
    for name, found in run_units(
        engine, index_unit, units, len(wanted), description="index", done="indexed", word="photo"
    ):
        if not isinstance(found, Entry):
            skipped.append(Skipped(name, found.reason if isinstance(found, Failed) else found))
            continue
        if found.checksum in first_of:
            skipped.append(Skipped(name, f"the same picture as {first_of[found.checksum]}"))
            continue
        new[name] = found
        first_of[found.checksum] = name
        counts["changed" if name in known else "added"] += 1
        if len(new) == PART:
            _write_part(index, new)
            entries |= new
            new = {}
    if new:
        _write_part(index, new)
        entries |= new
    if not entries:
        raise JobError(f"no photo of {photos} can be read: {skipped[0].name}: {skipped[0].reason}")
    _finish(index, {name: entries[name] for name in names if name in entries}, bits)
    return IndexSummary(len(entries), counts["added"], counts["changed"], removed, bits, tuple(skipped))


def index_unit(photo: str, sha256: str, precision: Precision) -> Entry | str:
    """Give a photo's entry, or why it cannot be read."""
    path = Path(photo)
    try:
        data = path.read_bytes()
        checksum = hashlib.blake2b(data, digest_size=16).hexdigest()
        status = path.stat()
        return Entry(status.st_size, status.st_mtime_ns, checksum, _encode(sha256, precision)(path))
    except (ImageError, OSError) as error:
        return reason_for(error, path)


@lru_cache(maxsize=1)
def _encode(sha256: str, precision: Precision) -> Encode:
    return encoder(local_file(sha256), precision)[0]


def _is_current(path: Path, entry: Entry) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (entry.size, entry.time)


def _open(index: Path, about: dict[str, Any], photos: Path) -> None:
    path = index / "index.json"
    if path.is_file():
        known = read_about(index)
        if changed := [key for key in about if known.get(key) != about[key]]:
            key = changed[0] if changed[0] != "weights" or len(changed) == 1 else changed[1]
            raise UsageError(
                f"{index} was made with {known.get('weights')} ({key} {known.get(key)}), not with {about['weights']} "
                f"({key} {about[key]}); give the same --descriptor, or another folder"
            )
    elif index.exists() and (not index.is_dir() or any(index.iterdir())):
        raise UsageError(f"{index} is not empty and holds no index; give another folder")
    (index / "parts").mkdir(parents=True, exist_ok=True)
    write_json(path, {"format": 1, **about, "photos": str(photos.resolve())})


def read_about(index: Path) -> dict[str, Any]:
    """Read ``index.json``.

    Raises:
        UsageError: the folder holds no index of this format.
    """
    try:
        about: dict[str, Any] = json.loads((index / "index.json").read_text(encoding="utf-8"))
        if about["format"] != 1:
            raise ValueError(f"format {about['format']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{index} holds no index that this version reads ({error}); bingan index makes one in a new folder"
        ) from error
    return about


def _read_parts(index: Path) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for path in sorted((index / "parts").glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as file:
                columns = [file[name] for name in ("names", "sizes", "times", "checksums", "codes")]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UsageError(f"{path} is damaged; delete it to have its photos described again") from error
        for name, size, time, checksum, code in zip(*columns, strict=True):
            entries[str(name)] = Entry(int(size), int(time), str(checksum), code)
    return entries


def _write_part(index: Path, entries: dict[str, Entry]) -> None:
    parts = index / "parts"
    number = 1 + max((int(path.stem) for path in parts.glob("*.npz") if path.stem.isdecimal()), default=-1)
    with atomic_path(parts / f"{number:06}.npz") as temporary:
        np.savez(temporary, **_columns(entries))  # type: ignore[arg-type]


def _columns(entries: dict[str, Entry]) -> dict[str, NDArray[Any]]:
    values = list(entries.values())
    return {
        "names": np.array(list(entries)),
        "sizes": np.array([entry.size for entry in values], np.int64),
        "times": np.array([entry.time for entry in values], np.int64),
        "checksums": np.array([entry.checksum for entry in values]),
        "codes": np.stack([entry.code for entry in values]),
    }


def _finish(index: Path, entries: dict[str, Entry], bits: int) -> None:
    """Write all entries as one part, the faiss index and its names; earlier parts go last."""
    old = list((index / "parts").glob("*.npz"))
    _write_part(index, entries)
    flat = faiss.IndexBinaryFlat(bits)
    flat.add(np.stack([entry.code for entry in entries.values()]))
    with atomic_path(index / "codes.faiss") as temporary:
        # not by faiss, which takes no name that is not valid UTF-8
        temporary.write_bytes(faiss.serialize_index_binary(flat).tobytes())
    write_json(index / "names.json", list(entries))
    for path in old:
        path.unlink()


def search_index(index: Path, picture: Path, top: int = 20, descriptor: str | None = None) -> list[Found]:
    """Find the photos of an index that are most similar to a picture, nearest first.

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
    about = read_about(index)
    weights = find_weights(descriptor or about["weights"])
    if sha256_of(weights) != about["sha256"]:
        raise UsageError(f"{index} was made with other weights called {about['weights']}; give them by --descriptor")
    encode, _ = encoder(weights)
    names = _read_names(index)
    try:
        flat = faiss.deserialize_index_binary(np.fromfile(index / "codes.faiss", np.uint8))
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{index / 'codes.faiss'} is damaged or missing; run bingan index again") from error
    if flat.ntotal != len(names):
        raise UsageError(f"{index} has {flat.ntotal} codes and {len(names)} names; run bingan index again")
    distances, rows = flat.search(encode(picture)[None], min(top, len(names)))
    return [Found(names[row], int(d)) for row, d in zip(rows[0].tolist(), distances[0].tolist(), strict=True)]


def _read_names(index: Path) -> list[str]:
    try:
        names: list[str] = json.loads((index / "names.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{index} is not finished or damaged; run bingan index again") from error
    return names
