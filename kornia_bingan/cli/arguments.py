"""Arguments that many commands take, and how arguments are read where tyro would read them otherwise."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

Photos = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS")]
"""A folder, or an fsspec URL."""
Index = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="INDEX")]
"""A folder, or LanceDB's address."""
Out = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
Scene = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE")]
Picture = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")]
Image0 = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE0")]
Image1 = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE1")]
Video = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")]
Panoramas = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PANORAMAS")]
NewPhotos = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS")]
OnnxFile = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CODES.onnx")]
TextFile = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT.txt")]
Json = Annotated[bool, tyro.conf.arg(help="print one JSON object on stdout instead of a table.")]
Strict = Annotated[bool, tyro.conf.arg(help="exit status 1 at the end if a photo could not be read.")]

ARGUMENTS = tyro.constructors.ConstructorRegistry()


@ARGUMENTS.primitive_rule
def _numbers(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Read numbers with commas or blanks between them."""
    if info.type != tuple[float, ...]:
        return None

    def read(words: list[str]) -> tuple[float, ...]:
        try:
            return tuple(float(word) for word in ",".join(words).split(",") if word)
        except ValueError:
            print(f"bingan: intrinsics are numbers, got '{' '.join(words)}'", file=sys.stderr)
            raise SystemExit(2) from None

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[FLOAT [FLOAT ...]]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(f"{number:g}" for number in value)],
    )
