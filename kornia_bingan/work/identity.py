"""What the results in a folder are made from, as ``run.json`` keeps it: options, checksums of weights and of photos."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kornia_bingan.errors import UsageError
from kornia_bingan.work.files import write_json
from kornia_bingan.work.provenance import provenance


def write_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write ``run.json``, which says what the results in a folder are made from."""
    write_json(folder / "run.json", {"identity": dict(identity), "provenance": provenance()})


def read_identity(folder: Path) -> dict[str, Any]:
    """Read what :func:`write_identity` wrote.

    Raises:
        UsageError: the file is absent or something else.
    """
    record = folder / "run.json"
    try:
        identity: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))["identity"]
        identity["photos"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{record} was not written by this command; give another folder") from error
    return identity


def difference(known: Mapping[str, Any], wanted: Mapping[str, Any], other_photos: bool) -> str:
    """Name what differs between two identities and may not; empty if nothing does.

    Args:
        known: of the run in a folder.
        wanted: of the run that is asked for.
        other_photos: photos may differ, and where they do, lists of pairs.
    """
    before, now = known["photos"], wanted["photos"]
    masks_before, masks_now = known.get("masks") or {}, wanted.get("masks") or {}
    remain = before.keys() & now.keys()
    free = {"photos", "masks"}
    if other_photos and before != now and _is_list(known) and _is_list(wanted):
        free.add("pairs")
    differences = [
        f"{key} {known.get(key)}, now {wanted.get(key)}"
        for key in sorted((known.keys() | wanted.keys()) - free)
        if known.get(key) != wanted.get(key)
    ]
    named = [("another mask of", {name for name in remain if masks_before.get(name) != masks_now.get(name)})]
    if not other_photos:
        named += [
            ("new", now.keys() - before.keys()),
            ("gone", before.keys() - now.keys()),
            ("changed", {name for name in remain if now[name] != before[name]}),
        ]
    for word, names in named:
        if names:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            differences.append(f"{word} photo {min(names)}{others}")
    return "; ".join(differences)


def _is_list(identity: Mapping[str, Any]) -> bool:
    """Whether the pairs of photos were listed in a file, which then names photos of its run only."""
    return str(identity.get("pairs")).startswith("a list ")
