"""A query and the photos that were found for it become one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kornia_bingan.report.html import render, thumbnail, write_html
from kornia_bingan.search.index import Found, read_about

SEARCH_HEIGHT = 160


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
    page = render(
        "search.html",
        f"Photos like {picture.name}",
        {key: about[key] for key in ("weights", "sha256", "kind", "bits")},
        [Path(__file__).parent / "templates"],
        query={"name": picture.name, "image": thumbnail(picture, SEARCH_HEIGHT)},
        photos=photos,
        bits=about["bits"],
    )
    write_html(out, page)
