"""Plots as inline SVG: lines over time, grouped bars, a scatter. Pure: numbers in, text out. No library is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10
from typing import Final

WIDTH: Final = 860
HEIGHT: Final = 190
# Room for numbers and titles at the edges.
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 24, 30
# Colours that differ for most kinds of colour blindness (Okabe and Ito).
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#000000", "#8C564B")
_TICKS: Final = 4


@dataclass(frozen=True, slots=True)
class Series:
    """One line or cloud of points."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]


def lines(title: str, series: Sequence[Series], unit: str, *, steps: bool = False) -> str:
    """Lines over seconds; `steps` for counts that hold until they change."""
    xs = [x for s in series for x in s.xs]
    ys = [y for s in series for y in s.ys]
    if not xs:
        return ""
    frame = _Frame(min(xs), max(xs), min(0.0, *ys), max(ys))
    parts = [frame.axes(title, unit, "s")]
    for s, colour in zip(series, _cycle(len(series)), strict=True):
        points = _held(s) if steps else list(zip(s.xs, s.ys, strict=True))
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.4" points="{path}"/>')
    return _svg("".join(parts) + _legend([s.name for s in series]))


def bars(title: str, names: Sequence[str], values: Sequence[float], unit: str, marks: Sequence[str] = ()) -> str:
    """Horizontal bars with their value; `marks` are words after it."""
    most = max(values, default=1.0) or 1.0
    row, left = 22, 190
    rows = []
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        y, long = _TOP + 6 + i * row, (WIDTH - left - 230) * value / most
        mark = f" {marks[i]}" if marks else ""
        rows.append(
            f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left}" y="{y + 2}" width="{max(long, 0):.1f}" height="{row - 6}" fill="{COLOURS[0]}"/>'
            f'<text x="{left + long + 6:.1f}" y="{y + 13}">{_number(value)} {escape(unit)}{escape(mark)}</text>'
        )
    head = f'<text x="8" y="15" class="t">{escape(title)}</text>'
    return _svg(head + "".join(rows), height=_TOP + 14 + row * len(names))


def scatter(title: str, series: Sequence[Series], x_unit: str, y_unit: str) -> str:
    """Points with their names beside them."""
    xs, ys = [x for s in series for x in s.xs], [y for s in series for y in s.ys]
    if not xs:
        return ""
    pad_x, pad_y = 0.08 * (max(xs) - min(xs) or 1.0), 0.12 * (max(ys) - min(ys) or 1.0)
    frame = _Frame(min(xs) - pad_x, max(xs) + pad_x, min(ys) - pad_y, max(ys) + pad_y)
    parts = [frame.axes(title, y_unit, x_unit)]
    for s, colour in zip(series, _cycle(len(series)), strict=True):
        for x, y in zip(s.xs, s.ys, strict=True):
            near = f'x="{frame.x(x) + 6:.1f}" y="{frame.y(y) + 4:.1f}"'
            parts.append(f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="4" fill="{colour}"/>')
            parts.append(f"<text {near}>{escape(s.name)}</text>")
    return _svg("".join(parts))


class _Frame:
    """Maps figures to places and draws the axes."""

    def __init__(self, x0: float, x1: float, y0: float, y1: float) -> None:
        self._x0, self._x1 = x0, x1 if x1 > x0 else x0 + 1.0
        self._y0, self._y1 = y0, (y1 if y1 > y0 else y0 + 1.0)

    def x(self, value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (value - self._x0) / (self._x1 - self._x0)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - self._y0) / (self._y1 - self._y0)

    def axes(self, title: str, y_unit: str, x_unit: str) -> str:
        parts = [f'<text x="8" y="15" class="t">{escape(title)} ({escape(y_unit)})</text>']
        for value in _ticks(self._y0, self._y1):
            y = self.y(value)
            parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="g"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>')
        for value in _ticks(self._x0, self._x1):
            parts.append(
                f'<text x="{self.x(value):.1f}" y="{HEIGHT - 12}" text-anchor="middle">{_number(value)} {x_unit}</text>'
            )
        return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / _TICKS
    unit = 10.0 ** floor(log10(raw)) if raw > 0 else 1.0
    step = next(m * unit for m in (1.0, 2.0, 5.0, 10.0) if m * unit >= raw)
    first = floor(low / step) * step
    return [first + i * step for i in range(_TICKS + 3) if low <= first + i * step <= high]


def _held(series: Series) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for x, y in zip(series.xs, series.ys, strict=True):
        if points:
            points.append((x, points[-1][1]))
        points.append((x, y))
    return points


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    parts, x = [], WIDTH - _RIGHT - sum(24 + 7 * len(name) for name in names)
    for name, colour in zip(names, _cycle(len(names)), strict=True):
        parts.append(f'<rect x="{x}" y="7" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="16">{escape(name)}</text>')
        x += 24 + 7 * len(name)
    return "".join(parts)


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _svg(content: str, height: int = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" width="100%" role="img">{content}</svg>'
