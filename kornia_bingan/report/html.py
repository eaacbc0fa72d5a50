"""Tables, plots and thumbnails become one HTML page that needs no network.

The page is rendered by Jinja2 and its plots by Plotly, whose script is part of the page; both come with the extra
``report``. What users wrote (names of photos) is escaped.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.images.read import read_color, sample_ranges, shrink
from kornia_bingan.work.files import atomic_path

THUMBNAIL_HEIGHT = 64
PREVIEW_SIDES = (480, 360, 270, 200, 150, 112, 84, 64)
INSTALL = "pip install 'kornia_bingan[report]'"


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what is shown, what it is sorted by, and whether it is the best of its column."""

    text: str
    value: str | float
    best: bool = False
    image: str = ""


def page_available() -> bool:
    """Say whether the libraries of the extra ``report`` are installed."""
    return all(find_spec(name) is not None for name in ("jinja2", "plotly"))


def render(template: str, title: str, provenance: Any, folders: Sequence[Path] = (), **values: Any) -> str:
    """Render a template to a page of its own.

    Args:
        template: file name in ``templates/`` or in ``folders``.
        title: of the page.
        provenance: anything JSON can hold; printed at the end.
        folders: more folders of templates, such as ``templates/`` beside the caller.
        values: what the template uses.

    Raises:
        UsageError: the extra ``report`` is not installed.
    """
    if not page_available():
        raise UsageError(f"the page needs Jinja2 and Plotly: {INSTALL}")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    loader = FileSystemLoader([*folders, Path(__file__).parent / "templates"])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    text = json.dumps(provenance, indent=1)
    return environment.get_template(template).render(title=title, plotly_js=get_plotlyjs(), provenance=text, **values)


def write_html(path: Path, page: str) -> None:
    """Write a page, whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # names may hold any bytes
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}; give a file in a writable folder") from error


def text_cell(text: str) -> Cell:
    """Give a cell that shows and sorts by a text."""
    return Cell(text, text)


def number_cell(value: float) -> Cell:
    """Give a cell that shows and sorts by a number."""
    return Cell(f"{value:,}", value)


def thumbnail(path: Path, height: int = THUMBNAIL_HEIGHT) -> str:
    """Give a small JPEG of a photo as a data URL; empty if the photo cannot be read any more."""
    image = _read(path)
    if image is None:
        return ""
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return _data_url(cv2.resize(image, (min(width, 4 * height), height), interpolation=cv2.INTER_AREA), 80)


def preview(path: Path, most_bytes: int) -> str:
    """Give a JPEG of a photo as a data URL of at most so many bytes, as large as that allows, up to 480 pixels.

    It is empty if the photo cannot be read any more, or does not fit with 64.
    """
    image = _read(path)
    if image is None:
        return ""
    longest = min(max(image.shape[:2]), PREVIEW_SIDES[0])
    for side in (longest, *(side for side in PREVIEW_SIDES if side < longest)):
        image = shrink(image, side)
        url = _data_url(image, 75)
        if len(url) <= most_bytes:
            return url
    return ""


def _read(path: Path) -> NDArray[np.uint8] | None:
    try:
        return read_color(path, sample_ranges(path.parent, [path.name], say=False))
    except UsageError:
        return None


def _data_url(image: NDArray[Any], quality: int) -> str:
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
