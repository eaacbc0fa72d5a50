"""The documentation as a site: ``python -m eval site [--out build/site]``; the extra ``docs`` has what it needs.

The pages of ``docs/``, the cards of ``weights/``, the plots of ``eval/results`` and the files at the top are put
together in ``build/docs``, with a page of every option that the commands themselves print; Zensical makes HTML of it
(``docs/site.yml``), the API from the docstrings; and every link of the result must lead somewhere, anchors and pictures
too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from eval import __main__ as commands
from eval.harness.command import command_line
from eval.show.markdown import ROOT, markdown
from kornia_bingan.cli.commands import COMMANDS
from kornia_bingan.errors import JobError
from kornia_bingan.train.config import PRESETS

STAGE = ROOT / "build" / "docs"
WIDTH = "100"

SOURCES = {"docs": "", "weights": "weights", "eval/results": "plots", "CHANGELOG.md": "", "CONTRIBUTING.md": ""}
"""Where the files of a folder, or a file, go in the site."""

KINDS = (".md", ".svg", ".png", ".jpg", ".css")


def staged_files() -> dict[Path, Path]:
    """Give the place in the site of every file that goes into it; both are relative, to the repository and the site."""
    places = {}
    for source, folder in SOURCES.items():
        start = ROOT / source
        for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
            if path.suffix in KINDS:
                inside = path.relative_to(start) if start.is_dir() else Path(path.name)
                places[path.relative_to(ROOT)] = Path(folder) / inside
    return places


def relink(text: str, page: Path, places: dict[Path, Path]) -> str:
    """Turn the links of a page, which fit the repository, into those that fit the site.

    Args:
        text: Markdown.
        page: its place in the repository.
        places: see :func:`staged_files`.

    Raises:
        JobError: a link leads to nothing that the site has.
    """

    def moved(match: re.Match[str]) -> str:
        address, _, anchor = match[2].partition("#")
        if "://" in address or not address:
            return match[0]
        target = Path(os.path.normpath(page.parent / address))
        if target not in places and target.name not in GENERATED:
            raise JobError(f"{page}: the site has no {address}; link to a page of docs/, a card or a plot")
        place = places.get(target, Path(target.name))
        found = os.path.relpath(place, places[page].parent)
        return f"{match[1]}{found}{'#' + anchor if anchor else ''})"

    return re.sub(r"(\]\()([^)\s]+)\)", moved, text)


def options_page() -> str:
    """Write what every command prints when it is asked for help, and what the presets of training change."""
    parts = ["# Every option", "", "What `bingan COMMAND --help` prints, made with this site.", ""]
    for name in [*COMMANDS, "train"]:
        parts += [f"## bingan {name}", "", "```text", _printed("kornia_bingan.cli", name, "--help").rstrip(), "```", ""]
    parts += ["### Presets of training", "", "What each changes of the values above, which are those of `photos`:", ""]
    keys = list(dict.fromkeys(key for preset in PRESETS.values() for key in preset))
    rows = [[f"`{key}`", *(f"`{preset[key]}`" if key in preset else "" for preset in PRESETS.values())] for key in keys]
    parts += [markdown(["option", *PRESETS], rows), ""]
    parts += ["## python -m eval", "", "Protocols and tools, each with a `--help` of its own:", ""]
    parts.append(markdown(["name", "what it does"], [[f"`{n}`", line] for n, (_, line) in commands.COMMANDS.items()]))
    return "\n".join([*parts, ""])


def _printed(module: str, *words: str) -> str:
    """Run a command of ours and give what it prints."""
    environment = {**os.environ, "COLUMNS": WIDTH, "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise JobError(f"{module} {' '.join(words)} ended with status {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


GENERATED = {"options.md": options_page}
"""Pages that exist in the site only."""


def stage() -> None:
    """Put the sources of the site together in ``build/docs``."""
    shutil.rmtree(STAGE, ignore_errors=True)
    places = staged_files()
    for source, place in places.items():
        target = STAGE / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            target.write_text(relink((ROOT / source).read_text(encoding="utf-8"), source, places), encoding="utf-8")
        else:
            shutil.copyfile(ROOT / source, target)
    for name, write in GENERATED.items():
        (STAGE / name).write_text(write(), encoding="utf-8")


def settings_of(out: Path) -> str:
    """Give the settings of a site that is to be written to a folder."""
    return (ROOT / "docs" / "site.yml").read_text(encoding="utf-8").format(out=out, root=ROOT)


class _Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name == "id":
                self.anchors.add(value)
            elif value and name in ("href", "src"):
                self.links.append(value)


def broken_links(site: Path) -> Iterator[str]:
    """Name every link inside a site that leads to no file, or to an anchor that its page does not have."""
    pages = {}
    for path in sorted(site.rglob("*.html")):
        pages[path.resolve()] = _Page()
        pages[path.resolve()].feed(path.read_text(encoding="utf-8"))
    for path, page in pages.items():
        if path.name == "404.html":  # its links begin at the root of the server
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("data:"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            name = path.relative_to(site.resolve())
            if not target.is_file():
                yield f"{name}: {link} leads nowhere"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{name}: {link} names no anchor of its page"


@command_line("site")
def main(out: Path = ROOT / "build" / "site") -> int:
    out = out.resolve()
    stage()
    # Its paths are relative to the file, so it is written beside what was staged.
    (STAGE.parent / "site.yml").write_text(settings_of(out), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", "site.yml"],
        cwd=STAGE.parent,
        check=False,
    )
    if built.returncode:
        raise JobError("the site was not built; what is wrong stands above (the extra docs has what it needs)")
    for path in out.rglob("*.html"):  # docstrings name things in Sphinx's way, which Markdown does not know
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r":(?:func|class|mod|meth|data|attr):(?=<code>)", "", text), encoding="utf-8")
    broken = list(broken_links(out))
    if broken:
        raise JobError("\n".join([f"{len(broken)} broken links:", *broken[:50]]))
    print(f"{out / 'index.html'}: {len(list(out.rglob('*.html')))} pages, every link leads somewhere")
    return 0
