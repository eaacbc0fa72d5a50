"""Curves become one SVG file of panels, drawn without a plotting library."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from kornia_bingan.errors import UsageError

WIDTH, HEIGHT = 330, 230
"""Size of a panel in SVG units."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 24, 36
_LEGEND_ROW = 16
_NUM_TICKS = 4


@dataclass(frozen=True)
class Line:
    """A curve with a name; ``dashed`` for real-valued descriptors."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One plot."""

    title: str
    lines: Sequence[Line]


def svg_panels(
    panels: Sequence[Panel],
    x_label: str,
    y_label: str,
    y_range: tuple[float, float],
    *,
    guide: float | None = None,
    columns: int = 3,
) -> str:
    """Draw panels in rows with one legend below.

    Args:
        panels: at least one; a label has one colour in all of them. Each has its own x axis, from 0.
        x_label: of all panels.
        y_label: of all panels.
        y_range: lowest and highest y; curves are cut off there.
        guide: y of a thin horizontal line, or None.
        columns: panels in a row.

    Raises:
        UsageError: no panels.
    """
    if not panels:
        raise UsageError("there is nothing to draw")
    labels = {line.label: line.dashed for panel in panels for line in panel.lines}
    colours = {label: _colour(index, len(labels)) for index, label in enumerate(labels)}
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    per_row = max(1, columns * WIDTH // 120)
    legend_rows = -(-len(labels) // per_row)
    width, height = columns * WIDTH, rows * HEIGHT + legend_rows * _LEGEND_ROW + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for index, panel in enumerate(panels):
        x, y = index % columns * WIDTH, index // columns * HEIGHT
        parts.append(f'<g transform="translate({x} {y})">')
        parts += _panel(panel, colours, (x_label, y_label), y_range, guide)
        parts.append("</g>")
    for index, (label, dashed) in enumerate(labels.items()):
        x, y = index % per_row * 120 + 10, rows * HEIGHT + index // per_row * _LEGEND_ROW + 10
        parts.append(f'<path d="M{x} {y}h18" {_stroke(colours[label], dashed)}/>')
        parts.append(f'<text x="{x + 22}" y="{y + 4}">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(
    panel: Panel,
    colours: dict[str, str],
    axes: tuple[str, str],
    y_range: tuple[float, float],
    guide: float | None,
) -> list[str]:
    right = max((max(line.x) for line in panel.lines if len(line.x)), default=1) or 1
    low, high = y_range
    inner_width, inner_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        clipped = min(max(y, low), high)
        return _LEFT + inner_width * x / right, _TOP + inner_height * (high - clipped) / (high - low)

    bottom = _TOP + inner_height
    parts = [
        f'<text x="{_LEFT}" y="15" font-weight="bold">{escape(panel.title)}</text>',
        f'<text x="{_LEFT + inner_width / 2:g}" y="{HEIGHT - 6}" text-anchor="middle">{escape(axes[0])}</text>',
        f'<text x="10" y="{_TOP + inner_height / 2:g}" text-anchor="middle" '
        f'transform="rotate(-90 10 {_TOP + inner_height / 2:g})">{escape(axes[1])}</text>',
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{_LEFT + inner_width}" fill="none" stroke="#333"/>',
    ]
    for tick in range(_NUM_TICKS + 1):
        x, _ = place(right * tick / _NUM_TICKS, low)
        y_value = low + (high - low) * tick / _NUM_TICKS
        _, y = place(0, y_value)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 13}" text-anchor="middle">{right * tick / _NUM_TICKS:.0f}</text>')
        parts.append(f'<text x="{_LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{y_value:g}</text>')
    if guide is not None:
        x, y = place(0, guide)
        parts.append(f'<path d="M{x:.1f} {y:.1f}h{inner_width}" stroke="#bbb"/>')
    for line in panel.lines:
        if len(line.x):
            points = [place(x, y) for x, y in zip(line.x, line.y, strict=True)]
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            parts.append(f'<path d="{path}" {_stroke(colours[line.label], line.dashed)}/>')
    return parts


def _stroke(colour: str, dashed: bool) -> str:
    return f'fill="none" stroke="{colour}" stroke-width="1.5"' + (' stroke-dasharray="4 2"' if dashed else "")


def _colour(index: int, count: int) -> str:
    """Hues evenly around the circle, light and dark in turn, so that neighbours differ in two ways."""
    red, green, blue = colorsys.hls_to_rgb(index / count, (0.35, 0.55)[index % 2], 0.8)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
