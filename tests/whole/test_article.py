"""Every command on the page about the article's tables and figures is one that exists, with these options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import tyro

import eval.__main__ as evaluation
from eval.show.markdown import ROOT
from kornia_bingan.cli import entry

PAGE = (ROOT / "docs" / "article-lines.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


class _Parsed(Exception):
    """The words of a command are understood."""


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = tyro.cli

    def parse_only(target: Callable[..., Any], **options: Any) -> Any:
        if options.get("return_unknown_args"):  # the first of two steps
            return parse(target, **options)
        if isinstance(target, type):
            parse(target, **options)
        else:

            @wraps(target)
            def stub(*_: Any, **__: Any) -> int:
                return 0

            parse(stub, **options)
        raise _Parsed

    monkeypatch.setattr(tyro, "cli", parse_only)


def run(line: str) -> int:
    words = shlex.split(line)
    if words[0] == "bingan":
        return entry.main(words[1:])
    assert words[:3] == ["python", "-m", "eval"], line
    return evaluation.main(words[3:])


@pytest.mark.parametrize("line", LINES)
@pytest.mark.usefixtures("nothing_runs")
def test_the_command_is_known_with_its_options(line: str) -> None:
    with pytest.raises(_Parsed):
        run(line)


@pytest.mark.parametrize(
    "line", ["python -m eval six_cells A B --no-such 1", "bingan train --data A --out B --no-such 1"]
)
@pytest.mark.usefixtures("nothing_runs")
def test_an_unknown_option_is_noticed(line: str) -> None:
    assert run(line) == 2


def test_the_page_has_the_commands_of_both_tables() -> None:
    names = {" ".join(shlex.split(line)[:4]) for line in LINES}
    assert {"python -m eval six_cells", "python -m eval brown", "python -m eval cifar10"} <= names
