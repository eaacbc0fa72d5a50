"""The command line of a protocol is its function with typed arguments, read by tyro as the commands of ``bingan``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

GIVEN: ContextVar[tuple[str, ...]] = ContextVar("GIVEN", default=())
"""The words after ``python -m eval NAME`` of the command that runs."""


def _tuple(
    nargs: Literal[1, "*"], metavar: str, read: Callable[[list[str]], tuple[Any, ...]]
) -> tyro.constructors.PrimitiveConstructorSpec[tuple[Any, ...]]:
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=nargs,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )


def words_of(text: str) -> tuple[str, ...]:
    """Split at commas; what is empty is left out."""
    return tuple(word for word in text.split(",") if word)


def _some(words: Sequence[str]) -> Sequence[str]:
    if not words:
        raise ValueError("give one or more")
    return words


Data = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
Split = Annotated[Data, tyro.conf.arg(metavar="DATA", help="folder of a split, such as DATA/validate.")]
Out = Annotated[Path, tyro.conf.arg(help="JSON file to write.")]
Scenes = Annotated[Data, tyro.conf.arg(metavar="DATA", help="folder of scenes.")]
OptionalOut = Annotated[Path | None, tyro.conf.arg(help="JSON file to write, if any.")]
Place = tyro.conf.Positional[Path]
Paths = Annotated[
    tuple[Path, ...], tyro.conf.Positional, _tuple("*", "PATH [PATH ...]", lambda words: tuple(map(Path, _some(words))))
]
"""One path or more, blanks between."""
Names = Annotated[tuple[str, ...], _tuple(1, "A[,B ...]", lambda words: words_of(words[0]))]
"""One word, commas between the names; it may be empty."""
SomeNames = Annotated[tuple[str, ...], _tuple(1, "A[,B ...]", lambda words: tuple(_some(words_of(words[0]))))]


def command_line(name: str) -> Callable[[Callable[..., int]], Callable[[Sequence[str]], int]]:
    """Turn a function of typed arguments, with an ``Args:`` line for what needs one, into one of words.

    ``--help`` shows the docstring of its module before them. Wrong words end it with exit status 2.
    """

    def of(function: Callable[..., int]) -> Callable[[Sequence[str]], int]:
        def main(words: Sequence[str]) -> int:
            given = GIVEN.set(tuple(words))
            try:
                return tyro.cli(
                    function,
                    prog=f"python -m eval {name}",
                    description=sys.modules[function.__module__].__doc__,
                    args=list(words),
                    config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
                )
            finally:
                GIVEN.reset(given)

        return main

    return of
