"""A folder becomes a list of photos, and of what is none with the reason.

Links are followed, no file is listed twice, and folders that hold no photos are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kornia_bingan.errors import UsageError
from kornia_bingan.work.files import printable
from kornia_bingan.work.run_folder import LOG, UNREADABLE

EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".heic", ".heif", ".avif"),
)

_OF_SYSTEMS = (
    *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "__macosx"),
    *("lost+found", "system volume information"),
)
"""What storage boxes and archive programs put beside photos: thumbnails, deleted files, copies; in small letters."""


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was not taken for a photo, and why, in words."""

    name: str
    reason: str


def list_images(folder: Path, masks: Path | None = None) -> tuple[list[str], list[Skipped]]:
    """List the photos under a folder, recursively, and what was passed over.

    A photo is a regular file whose extension, without case, is in ``EXTENSIONS``; its content is not opened here. Links
    to folders are followed, but no folder is listed twice. Passed over are: hidden files and folders, those of storage
    boxes (``@eaDir``), results of this package (runs, indices, patch sets, fetched photos), masks (the folder of masks,
    and ``a.jpg.png`` where there is ``a.jpg``, also in a folder of masks beside it), broken links, and all other files.

    Args:
        folder: of the photos.
        masks: folder of masks, which may lie below.

    Returns:
        Names relative to the folder with "/" between the parts, sorted by code point, so in the same order on every
        file system; and one ``Skipped`` for each thing passed over, sorted in the same way (a hidden folder is one
        thing). A folder without photos gives an empty list.

    Raises:
        UsageError: the folder does not exist or is not a folder.
    """
    pictures, skipped = list_pictures(folder, {} if masks is None else {os.path.realpath(masks): "the folder of masks"})
    present = set(pictures)
    names = []
    for name in pictures:
        photo = next((photo for photo in _masked_by(name) if photo in present), None)
        if photo is None:
            names.append(name)
        else:
            skipped.append(Skipped(name, f"the mask of {photo}"))
    return names, sorted(skipped, key=lambda item: item.name)


def list_pictures(folder: Path, left_out: Mapping[str, str]) -> tuple[list[str], list[Skipped]]:
    """As :func:`list_images`, masks too; ``left_out`` gives reasons not to look into folders, by their real paths."""
    folder = Path(folder)
    if not folder.exists():
        raise UsageError(f"{folder}: no such folder; give the folder that holds the photos")
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; give the folder that holds the photos")
    names: list[str] = []
    files, passed, unread = list_files(folder, left_out)
    skipped = [Skipped(name, reason) for name, reason in passed]
    skipped += [Skipped(name, f"the folder cannot be read ({reason})") for name, reason in unread]
    for name in files:
        reason = _why_not_a_photo(os.path.join(folder, name), name)
        if reason:
            skipped.append(Skipped(name, reason))
        else:
            names.append(name)
    return sorted(names), sorted(skipped, key=lambda item: item.name)


def _masked_by(name: str) -> Iterator[str]:
    """Name the photos whose mask a picture would be: a.jpg for a.jpg.png, beside it or in a folder of masks."""
    path = PurePosixPath(name)
    photo = path.with_suffix("")
    if path.suffix.lower() == ".png" and photo.suffix.lower() in EXTENSIONS:
        yield photo.as_posix()
        for index in range(len(photo.parts) - 1):
            yield "/".join(photo.parts[:index] + photo.parts[index + 1 :])


def no_photos(folder: Path, skipped: Sequence[Skipped]) -> UsageError:
    """Give the sentence on a folder without photos, with what was found instead."""
    if not skipped:
        return UsageError(f"{folder} holds no photos")
    first = f"{skipped[0].name}: {skipped[0].reason}"
    return UsageError(f"{folder} holds no photos; of {len(skipped)} other files and folders none is one ({first})")


def without_copies(names: Sequence[str], sums: Mapping[str, str]) -> tuple[list[str], list[Skipped]]:
    """Keep the first of equal files, so that no photo is matched with itself; the others are named with it."""
    first: dict[str, str] = {}
    kept, copies = [], []
    for name in names:
        if sums[name] == UNREADABLE or first.setdefault(sums[name], name) == name:
            kept.append(name)
        else:
            copies.append(Skipped(name, f"the same file as {first[sums[name]]}"))
    return kept, copies


def _why_not_a_photo(path: str, relative: str) -> str:
    name = os.path.basename(path)
    if name.startswith("."):
        return "hidden file"
    extension = os.path.splitext(name)[1]
    if extension.lower() not in EXTENSIONS:
        return f"{extension} is not a kind of picture read here" if extension else "no extension"
    if not os.path.exists(path):
        return "broken link"
    if not os.path.isfile(path):
        return "not a regular file"
    try:
        relative.encode("utf-8")
    except UnicodeEncodeError:  # neither a COLMAP database nor JSON can hold such a name
        return "the name is not valid UTF-8; rename the file"
    return ""


def reason_for(error: Exception, path: Path) -> str:
    """Say why a photo cannot be read, without its path."""
    return str(error).removeprefix(f"{path}").lstrip(": ")


def log_skipped(skipped: Iterable[Skipped]) -> None:
    """Write what was passed over to the log of the run."""
    for item in skipped:
        LOG.warning("skipped %s: %s", printable(item.name), printable(item.reason))


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
