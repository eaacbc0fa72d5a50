"""Records go into ``eval/results`` from a clean checkout only: a number belongs to a commit that others can get.

``python -m eval NAME ... --dirty`` writes them all the same; their commit then ends in ``-dirty``, also in the tables.
"""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import Any

from eval.show.markdown import RESULTS
from kornia_bingan.errors import UsageError
from kornia_bingan.work import files
from kornia_bingan.work.provenance import commit

DIRTY = ContextVar("DIRTY", default=False)
"""Whether results of a changed checkout were asked for."""


def check_clean(path: Path | None) -> None:
    """Refuse a record in ``eval/results`` of a checkout with changes; called before hours of work too.

    Raises:
        UsageError: the place is there, the checkout has changes, and ``--dirty`` was not given.
    """
    if path is None or DIRTY.get() or not path.resolve().is_relative_to(RESULTS.resolve()):
        return
    if (commit() or "").endswith("-dirty"):
        raise UsageError(
            f"{path} would hold results of a checkout with changes; commit them, give --out another folder, "
            "or --dirty to write it all the same"
        )


def write_json(path: Path, record: Any) -> None:
    """Write a record, see :func:`kornia_bingan.work.files.write_json`.

    Raises:
        UsageError: see :func:`check_clean`.
    """
    check_clean(path)
    files.write_json(path, record)
