"""The files below a folder: links are followed, none is listed twice, and folders that hold no photos are left out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_OF_SYSTEMS = (
    *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "__macosx"),
    *("lost+found", "system volume information"),
)
"""What storage boxes and archive programs put beside photos: thumbnails, deleted files, copies; in small letters."""


def is_of_system(name: str) -> bool:
    """Say whether a folder of this name belongs to a storage box or an archive program."""
    return name.lower() in _OF_SYSTEMS


def list_files(
    folder: Path, left_out: Mapping[str, str] | None = None
) -> tuple[list[str], list[tuple[str, str]], list[tuple[str, str]]]:
    """List the files below a folder, recursively; a link to a folder is followed if that is not listed anyway.

    Args:
        folder: an existing folder.
        left_out: reasons not to look into folders, by their real paths.

    Returns:
        - Files, relative to the folder with "/" between the parts, in any order.
        - Folders that were passed over, and why: hidden ones, those of systems, results of this package, links in a
          circle or to a folder that is listed already, in any order.
        - Folders that cannot be read, and why.
    """
    files: list[str] = []
    passed: list[tuple[str, str]] = []
    unread: list[tuple[str, str]] = []
    listed: dict[str, str] = {}

    def relative(path: str) -> str:
        return Path(path).relative_to(folder).as_posix()

    def walk(start: str) -> list[str]:
        links = []
        for parent, folders, names in os.walk(
            start, onerror=lambda error: unread.append((relative(error.filename), error.strerror or str(error)))
        ):
            real = os.path.realpath(parent)
            if real in listed:  # below the target of a link
                passed.append((relative(parent), f"the same folder as {listed[real]}"))
                folders.clear()
                continue
            listed[real] = relative(parent)
            kept = []
            for name in folders:
                path = os.path.join(parent, name)
                reason = _why_not(path, name) or (left_out or {}).get(os.path.realpath(path), "")
                if reason:
                    passed.append((relative(path), reason))
                elif os.path.islink(path):
                    links.append(path)
                else:
                    kept.append(name)
            folders[:] = kept
            files.extend(relative(os.path.join(parent, name)) for name in names)
        return links

    links = walk(str(folder))
    while links:
        found = []
        for link in sorted(links):  # in an order that no file system decides, for the first of two links is followed
            real = os.path.realpath(link)
            if Path(os.path.realpath(os.path.dirname(link))).is_relative_to(real) or listed.get(real) == ".":
                passed.append((relative(link), "link to a folder that holds it, not followed"))
            elif real in listed:
                passed.append((relative(link), f"link to a folder that is listed as {listed[real]}"))
            else:
                found += walk(link)
        links = found
    return files, passed, unread


def _why_not(path: str, name: str) -> str:
    def holds(file: str) -> bool:
        return os.path.isfile(os.path.join(path, file))

    reasons = {
        "hidden folder": name.startswith("."),
        "folder of a storage box or an archive program": is_of_system(name),
        "results of an earlier run": holds("run.json"),
        "index of photos": holds("index.json") and os.path.isdir(os.path.join(path, "parts")),
        "photos fetched by an earlier run": holds(".fetched.json"),
        "patch set": holds("info.txt") and holds("patches0000.bmp"),
    }
    return next((reason for reason, holds_true in reasons.items() if holds_true), "")
