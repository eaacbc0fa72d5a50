"""Write the tables and plots of README.md and docs/ from the JSON files of ``eval/results`` and ``weights``.

python -m eval tables            # rewrites what stands between the markers of all pages, and the plots
python -m eval tables --check    # exit status 1 if something is not what the files say
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from eval.harness.command import command_line
from eval.mutation import changes
from eval.show import descriptor_tables, front_tables, pipeline_tables, speed_tables, training_tables
from eval.show.markdown import ROOT
from kornia_bingan.work.files import atomic_path

START = "<!-- table "


def pages() -> list[str]:
    """Name the files that hold generated tables, relative to the repository."""
    paths = [ROOT / "README.md", ROOT / "weights" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in paths if START in path.read_text(encoding="utf-8")]


TABLES: dict[str, Callable[[], str]] = {
    **descriptor_tables.TABLES,
    **training_tables.TABLES,
    **speed_tables.TABLES,
    **pipeline_tables.TABLES,
    **front_tables.TABLES,
    **{name: partial(changes.table, name) for name in ("mutants", "mutants-package", "mutants-more", "mutants-eval")},
}


def fill(text: str) -> str:
    """Replace what stands between the markers of each table."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- table {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table (\S+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def contents() -> dict[str, str]:
    """Give what every page and plot should hold, by its name relative to the repository."""
    texts = {name: fill((ROOT / name).read_text(encoding="utf-8")) for name in pages()}
    return texts | {name: front_tables.plot("heldout", over) for name, over in front_tables.PLOTS.items()}


@command_line("tables")
def main(check: bool = False) -> int:
    stale = []
    for name, after in contents().items():
        path = ROOT / name
        if not path.is_file() or path.read_text(encoding="utf-8") != after:
            stale.append(name)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(path) as temporary:
                    temporary.write_text(after, encoding="utf-8")
    if check:
        print(f"{', '.join(stale)}: stale, run python -m eval tables" if stale else "all tables are up to date")
    return int(bool(stale) and check)
