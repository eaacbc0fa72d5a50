"""Photos under an fsspec URL, such as ``s3://bucket/photos``, become a folder beside the output.

Each is fetched once, whole or not at all, and again only if the store says that it changed. Those that are gone there
are removed here, so that the folder always holds what the URL does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.folders import EXTENSIONS, is_of_system
from kornia_bingan.work.files import LONGEST_NAME, atomic_path, write_json
from kornia_bingan.work.run_folder import alone_in, no_progress

INSTALL = "pip install 'kornia_bingan[remote]'"
_RECORD = ".fetched.json"
_WRITE_EVERY = 64


def local_photos(photos: str, out: Path) -> Path:
    """Give the folder of photos: itself, or for a URL the folder ``OUT.photos``, into which they are fetched.

    Raises:
        UsageError: fsspec or its part for this kind of URL is not installed, nothing is there, or another process
            fetches into the folder.
        JobError: the store refuses or breaks off; what is fetched is kept for the next run.
    """
    if "://" not in photos:
        return Path(photos)
    folder = out.with_name(f"{out.name}.photos")
    try:
        import fsspec

        store, root = fsspec.core.url_to_fs(photos)
    except ImportError as error:
        raise UsageError(f"{photos} needs fsspec ({INSTALL}) and its part for such URLs: {error}") from error
    except ValueError as error:  # an unknown protocol
        raise UsageError(f"{photos} is no URL that fsspec knows: {error}") from error
    try:
        found = {_name(path, root): about for path, about in store.find(root, detail=True).items()}
        wanted = {name: about for name, about in found.items() if _is_photo(name)}
        if not wanted:
            raise UsageError(f"{photos} holds no photos")
        with alone_in(folder):
            _fetch(store, wanted, folder)
    except (OSError, TimeoutError) as error:
        raise JobError(f"{photos} cannot be fetched: {error}; run it again to resume") from error
    if len(found) > len(wanted):
        print(f"{len(found) - len(wanted)} other files under {photos} were not fetched", file=sys.stderr)
    return folder


def _name(path: str, root: str) -> str:
    return str(path).removeprefix(root.rstrip("/")).lstrip("/")


def _is_photo(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)  # also "..", which would leave the folder
    too_long = any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts)
    return path.suffix.lower() in EXTENSIONS and not hidden and not too_long and not any(map(is_of_system, path.parts))


def _fetch(store: Any, wanted: dict[str, dict[str, Any]], folder: Path) -> None:
    record = folder / _RECORD
    known: dict[str, str] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for name in known.keys() - wanted.keys():
        (folder / name).unlink(missing_ok=True)
    have = {name: known[name] for name in known.keys() & wanted.keys()}
    try:
        for number, (name, about) in enumerate(
            tqdm(sorted(wanted.items()), desc="fetch", unit="photo", disable=no_progress())
        ):
            state, target = store.ukey(about["name"]), folder / name
            if have.get(name) == state and target.is_file() and target.stat().st_size == about["size"]:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(target) as temporary:
                store.get_file(about["name"], str(temporary))
                if (size := temporary.stat().st_size) != about["size"]:
                    raise OSError(f"{name} arrived with {size} of {about['size']} bytes")
            have[name] = state
            if number % _WRITE_EVERY == 0:
                write_json(record, have)
    finally:
        write_json(record, have)
