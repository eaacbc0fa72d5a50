"""What was found in an index becomes one HTML page: the photos like a query, or groups of near duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kornia_bingan.report.html import render, thumbnail, write_html
from kornia_bingan.search.duplicates import Group
from kornia_bingan.search.index import Found, read_about

SEARCH_HEIGHT = 160
GROUP_HEIGHT = 96
MOST_SHOWN = 1000
"""Photos that a page of groups shows at most: of 96 pixels, some megabytes."""


def write_search_page(out: Path, picture: Path, index: Path | str, found: Sequence[Found]) -> None:
    """Write a page with the picture that was searched for, and those that were found, with their distances.

    Args:
        out: HTML file.
        picture: the query.
        index: for the folder of the photos; those that are gone have no thumbnail.
        found: of :func:`kornia_bingan.search.index.search_index`.

    Raises:
        UsageError: the extra ``report`` is not installed.
    """
    about = read_about(index)
    folder = Path(about["photos"])
    photos = [
        {"name": one.name, "distance": one.distance, "image": thumbnail(folder / one.name, SEARCH_HEIGHT)}
        for one in found
    ]
    _write(
        out,
        "search.html",
        f"Photos like {picture.name}",
        about,
        query={"name": picture.name, "image": thumbnail(picture, SEARCH_HEIGHT)},
        photos=photos,
        bits=about["bits"],
    )


def write_duplicates_page(out: Path, index: Path | str, groups: Sequence[Group]) -> None:
    """Write a page with groups of near duplicates, the largest first, and by how many bits each differs from the first.

    Args:
        out: HTML file.
        index: for the folder of the photos; those that are gone have no thumbnail.
        groups: of :func:`kornia_bingan.search.duplicates.find_duplicates`.

    Raises:
        UsageError: the extra ``report`` is not installed.
    """
    about = read_about(index)
    folder = Path(about["photos"])
    shown: list[list[dict[str, object]]] = []
    left = MOST_SHOWN
    for group in groups:
        part = list(zip(group.names, group.distances, strict=True))[:left]
        left -= len(part)
        if part:
            shown.append(
                [
                    {"name": name, "distance": distance, "image": thumbnail(folder / name, GROUP_HEIGHT)}
                    for name, distance in part
                ]
            )
    _write(
        out,
        "duplicates.html",
        f"Near duplicates in {folder.name}",
        about,
        groups=shown,
        count=len(groups),
        photos=sum(len(group.names) for group in groups),
        left_out=sum(len(group.names) for group in groups) - (MOST_SHOWN - left),
    )


def _write(out: Path, template: str, title: str, about: Mapping[str, Any], **values: Any) -> None:
    origin = {key: about[key] for key in ("weights", "sha256", "kind", "bits")}
    write_html(out, render(template, title, origin, [Path(__file__).parent / "templates"], **values))
