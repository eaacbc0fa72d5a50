"""Write the tables of README.md from the JSON files of ``eval/results`` and ``weights``.

python -m eval tables            # rewrites README.md
python -m eval tables --check    # exit status 1 if README.md is not what the files say
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kornia_bingan.files import atomic_path

ROOT = Path(__file__).parents[1]


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


def models() -> str:
    """Shipped weights."""
    manifest = read(ROOT / "weights" / "manifest.json")
    rows = [
        [f"[`{name}`](weights/{name}.md)", str(row["bits"]), f"{row['multiply_adds'] / 1e6:.1f} M", row["summary"]]
        for name, row in manifest.items()
    ]
    return markdown(["name", "bits", "multiply-adds a patch", "what it is"], rows)


def sfm(name: str) -> str:
    """COLMAP reconstructions of scenes."""
    record = read(ROOT / "eval" / "results" / f"{name}.json")
    header = ["scene", "descriptor", "registered", "points", "observations", "track length", "reprojection error px"]
    header += ["rotation error deg", "position error %", "bytes"]
    rows = []
    for r in record["results"]:
        truth = ["" if r[key] is None else f"{r[key]:.3f}" for key in ("rotation_deg", "position_percent")]
        row = [r["scene"], r["descriptor"], f"{len(r['registered'])} / {r['images']}", f"{r['points']:,}"]
        row += [f"{r['observations']:,}", f"{r['mean_track_length']:.2f}", f"{r['mean_reprojection_error_px']:.3f}"]
        rows.append([*row, *truth, f"{r['descriptor_bytes']:,}"])
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


TABLES: dict[str, Callable[[], str]] = {"models": models, "sfm-validate": lambda: sfm("sfm-validate")}


def fill(text: str) -> str:
    """Replace what stands between the markers of each table."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- table {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table (\S+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval tables")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args(argv)
    path = ROOT / "README.md"
    before = path.read_text(encoding="utf-8")
    after = fill(before)
    if arguments.check:
        print("README.md is up to date" if after == before else "README.md is stale: run python -m eval tables")
        return int(after != before)
    with atomic_path(path) as temporary:
        temporary.write_text(after, encoding="utf-8")
    return 0
