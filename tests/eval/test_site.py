"""The documentation as a site: what goes into it, and that no link leads nowhere."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

from eval.show import site
from kornia_bingan.cli import entry
from kornia_bingan.errors import JobError


def test_links_of_a_page_fit_the_site() -> None:
    places = {
        Path("docs/results/scenes.md"): Path("results/scenes.md"),
        Path("eval/results/m95.svg"): Path("plots/m95.svg"),
        Path("docs/protocols.md"): Path("protocols.md"),
    }
    page = Path("docs/results/scenes.md")
    text = "![a](../../eval/results/m95.svg) [b](../protocols.md#m95) [c](#here) [d](https://example.org/x)"
    moved = "![a](../plots/m95.svg) [b](../protocols.md#m95) [c](#here) [d](https://example.org/x)"
    assert site.relink(text, page, places) == moved
    with pytest.raises(JobError, match=r"scenes.md: the site has no \.\./\.\./eval/m95.py"):
        site.relink("[code](../../eval/m95.py)", page, places)


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "index.html").write_text('<a href="more/#there">a</a><a href="#no">b</a><img src="none.png">')
    (tmp_path / "more" / "index.html").write_text('<p id="there"><a href="../#no">c</a><a href="mailto:a@b">d</a>')
    (tmp_path / "404.html").write_text('<a href="/none/">e</a>')
    assert list(site.broken_links(tmp_path)) == [
        "index.html: #no names no anchor of its page",
        "index.html: none.png leads nowhere",
        "more/index.html: ../#no names no anchor of its page",
    ]


def test_everything_that_goes_into_the_site_can_be_staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "STAGE", tmp_path / "docs")
    monkeypatch.setattr(site, "GENERATED", {"options.md": lambda: "# Every option\n"})
    site.stage()
    staged = {path.relative_to(tmp_path / "docs").as_posix() for path in (tmp_path / "docs").rglob("*")}
    assert {"index.md", "options.md", "results/index.md", "weights/bingan256.md", "plots/m95-heldout.svg"} <= staged
    pages = {line.partition(": ")[2] for line in site.settings_of(tmp_path).splitlines() if line.endswith(".md")}
    assert pages <= staged
    assert {name for name in staged if name.endswith(".md") and not name.startswith("weights/")} <= pages


def test_every_name_of_the_api_is_there_and_documented() -> None:
    names = re.findall(r"^::: (\S+)$", (site.ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) > 20
    for name in names:
        assert pkgutil.resolve_name(name).__doc__, name


def test_every_command_is_on_the_page_of_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "_printed", lambda module, name, help: f"{module} {name}")
    listed = entry.overview()
    headings = re.findall(r"^## bingan (\w+)$", site.options_page(), re.MULTILINE)
    assert {"reconstruct", "match", "describe", "index", "search", "scene", "doctor", "demo", "train"} <= set(headings)
    assert headings == re.findall(r"^  (\w+) {2,}\S", listed, re.MULTILINE)
