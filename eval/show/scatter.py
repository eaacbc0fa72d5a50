"""Named points with intervals become one SVG plot with a logarithmic x axis, drawn without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from kornia_bingan.errors import UsageError

WIDTH, HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 40
_LETTER, _LINE = 6.0, 12.0
"""Width of a letter and height of a line of the labels, roughly."""


@dataclass(frozen=True)
class Point:
    """A point with a name, its interval in y, and whether it is drawn in the colour that stands out."""

    label: str
    x: float
    y: float
    low: float
    high: float
    strong: bool = False


def svg_scatter(
    points: Sequence[Point], x_label: str, y_label: str, ticks: Sequence[float], *, guide: float | None = None
) -> str:
    """Draw points; labels that would lie on each other are moved, with a line to their points.

    Args:
        points: at least one, ``x`` above 0.
        x_label: of the logarithmic axis.
        y_label: of the linear axis, which starts at 0.
        ticks: of the logarithmic axis, as far as they lie in its range.
        guide: y of a thin horizontal line, or None.

    Raises:
        UsageError: no points, or one whose x is not above 0.
    """
    if not points or any(point.x <= 0 for point in points):
        raise UsageError("a plot with a logarithmic axis needs points, all above 0")
    logs = [math.log10(point.x) for point in points]
    span = max(logs) - min(logs) or 1.0
    left, right = min(logs) - 0.06 * span, max(logs) + 0.12 * span
    top = math.ceil(5 * max(point.high for point in points)) / 5
    inner_width, inner_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    bottom = _TOP + inner_height

    def place(log: float, y: float) -> tuple[float, float]:
        return _LEFT + inner_width * (log - left) / (right - left), bottom - inner_height * y / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{_LEFT + inner_width}" fill="none" stroke="#333"/>',
        f'<text x="{_LEFT + inner_width / 2:g}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text x="12" y="{_TOP + inner_height / 2:g}" text-anchor="middle" '
        f'transform="rotate(-90 12 {_TOP + inner_height / 2:g})">{escape(y_label)}</text>',
    ]
    for tick in ticks:
        if not left <= math.log10(tick) <= right:
            continue
        x, _ = place(math.log10(tick), 0)
        parts.append(f'<path d="M{x:.1f} {bottom}v4" stroke="#333"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:,.0f}</text>')
    for step in range(round(5 * top) + 1):
        _, y = place(left, step / 5)
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{step / 5:.1f}</text>')
    if guide is not None:
        _, y = place(left, guide)
        parts.append(f'<path d="M{_LEFT} {y:.1f}h{inner_width}" stroke="#bbb"/>')
    spots = [place(math.log10(point.x), point.y) for point in points]
    taken = [(x - 4, 8.0, y) for x, y in spots]
    for point, (x, y) in sorted(zip(points, spots, strict=True), key=lambda pair: (not pair[0].strong, -pair[0].y)):
        colour = "#0a7d3b" if point.strong else "#555"
        (_, low), (_, high) = place(left, point.low), place(left, point.high)
        parts.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}" stroke-opacity="0.35"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4 if point.strong else 3}" fill="{colour}"/>')
        start, text_y = _free(taken, x, y, _LETTER * len(point.label))
        taken.append((start, _LETTER * len(point.label), text_y))
        if abs(text_y - y) > _LINE / 2:
            end = x + 6 if start > x else x - 6
            parts.append(f'<path d="M{x:.1f} {y:.1f}L{end:.1f} {text_y:.1f}" stroke="#bbb"/>')
        side = f'x="{x + 7:.1f}"' if start > x else f'x="{x - 7:.1f}" text-anchor="end"'
        weight = ' font-weight="bold"' if point.strong else ""
        parts.append(f'<text {side} y="{text_y + 4:.1f}" fill="{colour}"{weight}>{escape(point.label)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _free(taken: Sequence[tuple[float, float, float]], x: float, y: float, width: float) -> tuple[float, float]:
    """Find the left end and the height, nearest to a point, at which its label lies on no other label or point."""
    for step in range(0, HEIGHT, 3):
        for height in (y + step, y - step):
            for start in (x + 7, x - 7 - width):
                inside = start >= _LEFT and start + width <= WIDTH and _TOP <= height <= HEIGHT - _BOTTOM - 4
                if inside and not any(
                    abs(height - other_y) < _LINE and start < other_x + other_width and other_x < start + width
                    for other_x, other_width, other_y in taken
                ):
                    return start, height
    return x + 7, y
