"""Results become tables of Markdown: what all tables share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "eval" / "results"


def read(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Render a table; the first column is text, the others are numbers."""
    rule = "|---|" + "--:|" * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" if row else rule for row in (header, [], *rows))


def provenance_line(record: dict[str, Any]) -> str:
    """Say which command made a record, from which commit and on which machine."""
    about = record["provenance"]
    commit = (about["commit"] or "no commit")[:12]
    return f"`{record['command']}`, commit {commit}, {about['machine']['cpu']}, {about['date'][:10]}."
