"""A small scatter plot of letters, for a terminal. Pure: points in, lines out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 56
HEIGHT: Final = 12
# Room kept free at each edge, as a share of the span, so that points do not sit on the axes.
MARGIN: Final = 0.08


@dataclass(frozen=True, slots=True)
class Dot:
    """A point: its place, and the one character that stands for it."""

    x: float
    y: float
    mark: str


def scatter(dots: Sequence[Dot], x_title: str, y_title: str, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """Lines of a plot; where several points share a cell the first one given is shown, with its like marked "+".

    Args:
        dots: at least one.
        x_title: what x is, with its unit.
        y_title: what y is, with its unit.
    """
    left, right = _span([d.x for d in dots])
    low, high = _span([d.y for d in dots])
    cells = [[" "] * width for _ in range(height)]
    for dot in reversed(dots):
        column = round((dot.x - left) / (right - left) * (width - 1))
        row = height - 1 - round((dot.y - low) / (high - low) * (height - 1))
        cells[row][column] = dot.mark
    labels = [""] * height
    labels[0], labels[height // 2], labels[-1] = _number(high), _number((low + high) / 2), _number(low)
    gutter = max(len(label) for label in labels)
    lines = [f"{'':>{gutter}}  {y_title}"]
    lines += [f"{label:>{gutter}} ┤{''.join(row).rstrip()}" for label, row in zip(labels, cells, strict=True)]
    lines.append(f"{'':>{gutter}} └{'─' * width}")
    first, middle, last = _number(left), _number((left + right) / 2), _number(right)
    ends = f"{first}{middle:^{width - len(first) - len(last)}}{last}"
    lines.append(f"{'':>{gutter}}  {ends}")
    lines.append(f"{'':>{gutter}}  {x_title:^{width}}".rstrip())
    return lines


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * MARGIN or max(abs(high) * MARGIN, 0.5)
    return max(0.0, low - room) if low >= 0 else low - room, high + room


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"
