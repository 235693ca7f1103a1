"""Which points no other point beats. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
# Figures of one point, all of the kind "less is better" and in one order.
Costs = tuple[float, ...]


def dominates(one: Costs, other: Costs) -> bool:
    """Whether `one` is no worse in every figure and better in at least one.

    Raises:
        ValueError: they have different numbers of figures.
    """
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def on_front(points: Sequence[T], costs: Callable[[T], Costs]) -> list[bool]:
    """For each point whether it is on the Pareto front, that is whether no other point dominates it.

    Equal points do not beat each other: all of them are on the front. Quadratic, which is fine for the hundreds of
    operating points that a model has.
    """
    figures = [costs(p) for p in points]
    return [not any(dominates(other, mine) for other in figures) for mine in figures]
