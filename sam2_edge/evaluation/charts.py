"""Line charts and stacked bars as SVG, for self-contained reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLORS = ("#0b6bcb", "#c4561b", "#2b8a3e", "#8a3ffc", "#b3261e", "#00838f", "#8d6e00", "#5f6b7a")

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 44, 34

Points = Sequence[tuple[float, float]]


def line_chart(
    title: str, series: Mapping[str, Points], *, x_label: str, low: float, high: float
) -> str:
    """Draw one line per name.

    Args:
        title: Title of the chart.
        series: Points (x, y) by name; points that are not finite are left out.
        x_label: Label of the x axis.
        low: Lower end of the y axis; values below it are clipped.
        high: Upper end of the y axis; values above it are clipped.
    """
    xs = [x for points in series.values() for x, _ in points]
    first, last = min(xs, default=0.0), max(xs, default=1.0)
    span = (last - first) or 1.0

    def place(x: float, y: float) -> str:
        inside = min(max(y, low), high)
        across = LEFT + (x - first) / span * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (inside - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return f"{across:.1f},{down:.1f}"

    parts = [_frame(title, x_label, (first, last), (low, high))]
    for number, (name, points) in enumerate(series.items()):
        color = COLORS[number % len(COLORS)]
        shown = " ".join(place(x, y) for x, y in points if math.isfinite(y))
        parts.append(
            f'<polyline points="{shown}" fill="none" stroke="{color}" stroke-width="2"/>'
            f'<text x="{LEFT + 8 + 80 * (number % 8)}" y="{TOP - 10}" fill="{color}">'
            f"{escape(name)}</text>"
        )
    return _svg(title, parts)


def stacked_bars(title: str, bars: Mapping[str, Mapping[str, float]], *, unit: str) -> str:
    """Draw one bar per name, stacked from its parts, with a legend."""
    names = list(dict.fromkeys(part for parts in bars.values() for part in parts))
    longest = ceiling([sum(parts.values()) for parts in bars.values()])
    left, row = 220, 26
    height = TOP + 16 + row * len(bars) + 18 * len(names) + 10
    scale = (WIDTH - left - 80) / longest
    drawn = [f'<text x="8" y="14" font-weight="600">{escape(title)}</text>']
    for number, (name, parts) in enumerate(bars.items()):
        y, x = TOP + row * number, float(left)
        drawn.append(f'<text x="8" y="{y + 14}">{escape(name[-34:])}</text>')
        for part, value in parts.items():
            color = COLORS[names.index(part) % len(COLORS)]
            width = value * scale
            drawn.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" fill="{color}"/>'
            )
            x += width
        total = sum(parts.values())
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{total:.3g} {escape(unit)}</text>')
    for number, part in enumerate(names):
        y = TOP + 16 + row * len(bars) + 18 * number
        color = COLORS[number % len(COLORS)]
        drawn.append(f'<rect x="{left}" y="{y}" width="10" height="10" fill="{color}"/>')
        drawn.append(f'<text x="{left + 16}" y="{y + 10}">{escape(part)}</text>')
    return _svg(title, drawn, height)


def ceiling(values: Sequence[float]) -> float:
    """Return a round number at or above all finite values; 1 if none is positive."""
    largest = max((v for v in values if math.isfinite(v)), default=0.0)
    if largest <= 0:
        return 1.0
    step = 10.0 ** math.floor(math.log10(largest))
    return next(step * k for k in (1, 2, 5, 10) if step * k >= largest)


def _frame(title: str, x_label: str, across: tuple[float, float], down: tuple[float, float]) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    marks = [
        f'<text x="{LEFT}" y="14" font-weight="600">{escape(title)}</text>',
        f'<path d="M{LEFT},{TOP}V{bottom}H{right}" fill="none" stroke="currentColor"/>',
        f'<text x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_label)}</text>",
    ]
    for value, y in zip(down, (bottom, TOP + 10), strict=True):
        marks.append(f'<text x="{LEFT - 6}" y="{y}" text-anchor="end">{value:.3g}</text>')
    for value, x in zip(across, (LEFT, right), strict=True):
        marks.append(f'<text x="{x}" y="{bottom + 15}" text-anchor="middle">{value:.6g}</text>')
    return "".join(marks)


def _svg(title: str, parts: Sequence[str], height: int = HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui,sans-serif" font-size="12" '
        f'fill="currentColor">{"".join(parts)}</svg>'
    )
