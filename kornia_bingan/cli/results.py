"""What a command leaves behind: text or JSON on stdout, a page, an exit status."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def print_result(value: dict[str, Any], table: str, as_json: bool) -> None:
    """Print a result as JSON or as a table."""
    print(json.dumps(value) if as_json else table)


def exit_status(unreadable: int, strict: bool) -> int:
    """Give the exit status of a command that did its work without the photos that it could not read."""
    if unreadable and strict:
        print(f"bingan: {unreadable} photos cannot be read, and --strict was given", file=sys.stderr)
        return 1
    return 0


def write_report(out: Path, photos: Path) -> None:
    """Write OUT/report.html unless it is there, or say how to get it."""
    from kornia_bingan.reconstruct.page import write_page
    from kornia_bingan.report.html import INSTALL, page_available

    if (out / "report.html").exists():
        return
    if page_available():
        print(f"report: {write_page(out, photos)}", file=sys.stderr)
    else:
        print(f"{out / 'report.html'} was not written, since Jinja2 or Plotly is missing: {INSTALL}", file=sys.stderr)
