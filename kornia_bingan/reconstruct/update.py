"""Results in a folder go on with photos that were added, and without those that are gone.

What decides the results in ``OUT`` is in ``OUT/run.json``. Results of other photos are made in ``OUT/next/``, with a
``run.json`` of their own, and take the place of the old ones when they are whole. So the old ones stay until then,
whatever happens, and the same command goes on where it was killed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from kornia_bingan.reconstruct.features import features_path
from kornia_bingan.reconstruct.matches import forget_photos
from kornia_bingan.reconstruct.summary import Summary
from kornia_bingan.work.files import partial_path, printable
from kornia_bingan.work.identity import read_identity, write_identity
from kornia_bingan.work.run_folder import LOG

NEXT = "next"

RESULTS = ("database.db", "model", "models", "points.ply", "seconds.json", "run.json", "summary.json")
"""In the order in which they take their places. As long as ``summary.json`` is in ``next/``, this is not done, and what
else is there has not taken its place; so an empty ``models/`` stands for none."""


def place_for(out: Path, identity: Mapping[str, Any], names: Collection[str]) -> tuple[Path, Path | None]:
    """Say where the results of some photos are, or are to be made, and bring what is kept of other photos up to date.

    Args:
        out: folder of a run with the same options.
        identity: of the run that is asked for.
        names: of its photos that take part, as far as that is known before they are read.

    Returns:
        - The folder of the results: ``out``, or ``out/next`` where other results are in ``out``.
        - ``out`` if the new results can go on from its database and model: no photo of the database is gone or has
          changed. None if they are made anew, from the features and matches of the photos that remain.
    """
    from kornia_bingan.colmap import read_images

    coming = out / NEXT
    if (coming / "summary.json").exists():
        take_place(out)
    wanted = json.loads(json.dumps(identity))
    before = read_identity(out)
    begun = read_identity(coming) if (coming / "run.json").exists() else None
    for known in (before, begun):
        if known is not None:
            _forget(out, set().union(*_gone_and_changed(known, wanted)))
    if before == wanted:
        shutil.rmtree(coming, ignore_errors=True)
        return out, None
    gone, changed = _gone_and_changed(before, wanted)
    database = out / "database.db"
    base = out if database.exists() and set(read_images(database)) <= set(names) - changed else None
    if begun == wanted:
        return coming, base
    _say(wanted["photos"].keys() - before["photos"].keys(), gone, changed)
    shutil.rmtree(coming, ignore_errors=True)
    if not any((out / name).exists() for name in ("database.db", "model", "summary.json")):
        (out / "unverified.db").unlink(missing_ok=True)
        write_identity(out, identity)
        return out, None
    coming.mkdir()
    write_identity(coming, identity)
    return coming, base


def matched_pairs(database: Path) -> set[frozenset[str]]:
    """Give the pairs that have matches in a database, which orders them by numbers of photos, not by names."""
    from kornia_bingan.colmap import read_verification

    return {frozenset(pair) for pair in read_verification(database).inliers}


def finish(summary: Summary, place: Path, out: Path) -> None:
    """Write the summary, which says that the results are whole, and put them where they are to be."""
    if place != out:
        (place / "models").mkdir(exist_ok=True)
    summary.write(place / "summary.json")
    if place != out:
        take_place(out)


def take_place(out: Path) -> None:
    """Put the finished results in ``out/next`` in the place of the old ones."""
    coming = out / NEXT
    (out / "report.html").unlink(missing_ok=True)  # of the old ones
    for name in RESULTS:
        if not (coming / name).exists():
            continue
        away = partial_path(out / name)
        if (out / name).is_dir():  # os.replace takes the place of files only
            shutil.rmtree(away, ignore_errors=True)
            os.replace(out / name, away)
        if name == "models" and not any((coming / name).iterdir()):
            (coming / name).rmdir()
        else:
            os.replace(coming / name, out / name)
        shutil.rmtree(away, ignore_errors=True)
    shutil.rmtree(coming)


def _gone_and_changed(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    before, now = known["photos"], wanted["photos"]
    return before.keys() - now.keys(), {name for name in before.keys() & now.keys() if before[name] != now[name]}


def _forget(out: Path, names: Collection[str]) -> None:
    """Remove features and matches of photos, so that another photo of the same name does not get them."""
    if names:
        for name in names:
            features_path(out / "features", name).unlink(missing_ok=True)
        forget_photos(out / "matches", names)


def _say(added: Collection[str], gone: Collection[str], changed: Collection[str]) -> None:
    if added:
        LOG.info("%d photos were added since the last run", len(added))
    for word, names in (("are gone", gone), ("have changed", changed)):
        if names:
            listed = ", ".join(printable(name) for name in sorted(names))
            LOG.warning("%d photos of the last run %s: %s", len(names), word, listed)
