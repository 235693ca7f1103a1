"""Ways to meet one wish: so many replicas of one option, or of two, that its demand is covered. Pure arithmetic.

With prices for the room that replicas take, the cheapest ways of all wishes together are a lower bound of every plan
whose wishes use at most two options each, and the ways near the cheapest are all that a good plan is made of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy

# Parts of a wish that its first option covers, beside "all but one, two or three replicas".
_PARTS: Final = (0.25, 0.5, 0.75)
_SLACK: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Way:
    """Replicas by number of the item, and what they cost at the prices."""

    counts: tuple[tuple[int, int], ...]
    cost: float


def ways(capacities: list[float], costs: list[float], least: int, most: int, keep: int) -> list[Way]:
    """The cheapest ways to cover a demand of 1, at most `keep`, cheapest first.

    Args:
        capacities: what one replica of each item covers.
        costs: of one replica of each item.
        least: fewest replicas.
        most: most replicas; 0 means no limit.
    """
    found: dict[tuple[tuple[int, int], ...], float] = {}
    alone = [max(math.ceil(1.0 / capacity - _SLACK), least) for capacity in capacities]
    for item, count in enumerate(alone):
        if not most or count <= most:
            found[(item, count),] = count * costs[item]
    for first, count in enumerate(alone):
        for begun in _begun(count):
            rest = max(1.0 - begun * capacities[first], 0.0)
            more = numpy.maximum(numpy.ceil(rest / numpy.array(capacities) - _SLACK), max(least - begun, 1))
            total = begun * costs[first] + more * numpy.array(costs)
            total[first] = numpy.inf
            if most:
                total = numpy.where(begun + more > most, numpy.inf, total)
            for second in numpy.argsort(total, kind="stable")[:_NEAR]:
                if math.isfinite(total[second]):
                    pair = tuple(sorted(((first, begun), (int(second), int(more[second])))))
                    found.setdefault(pair, float(total[second]))
    ordered = sorted(found.items(), key=lambda entry: (entry[1], entry[0]))
    return [Way(counts, cost) for counts, cost in ordered[:keep]]


# Second options looked at for each number of replicas of the first; the cheapest is the bound, the others are choice.
_NEAR: Final = 3


def _begun(count: int) -> list[int]:
    """Numbers of replicas of a first option, fewer than it would need alone."""
    near = {count - 1, count - 2, count - 3, *(round(count * part) for part in _PARTS)}
    return sorted(number for number in near if 0 < number < count)
