"""``python -m eval NAME ...`` runs the protocol or tool ``eval/NAME.py``; without a name they are listed.

``--dirty`` writes results of a checkout with changes into ``eval/results``, which is refused otherwise.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from eval.records import DIRTY
from kornia_bingan.errors import JobError, UsageError


def names() -> list[str]:
    """Names of what can be run: the modules that have a ``main``."""
    files = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    return [path.stem for path in files if "\ndef main(argv: list[str]) -> int:" in path.read_text(encoding="utf-8")]


def main(argv: list[str]) -> int:
    """Run what the first argument names; exit status 2 for wrong use, 1 for a job that could not be done."""
    if not argv or argv[0] not in names():
        print(f"usage: python -m eval NAME ... [--dirty], where NAME is one of {', '.join(names())}", file=sys.stderr)
        return 2
    asked = DIRTY.set("--dirty" in argv)
    argv = [word for word in argv if word != "--dirty"]
    try:
        status: int = import_module(f"eval.{argv[0]}").main(argv[1:])
    except SystemExit as error:  # of the argument parser: 0 after --help, 2 for wrong arguments
        return error.code if isinstance(error.code, int) else 2
    except (UsageError, JobError) as error:
        print(f"eval {argv[0]}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    finally:
        DIRTY.reset(asked)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
