"""Ways to meet one wish: so many replicas of one option, or of two, that its demand is covered. Pure arithmetic.

With prices for the room that replicas take, the cheapest ways of all wishes together are a lower bound of every plan
whose wishes use at most two options each, and the ways near the cheapest are all that a good plan is made of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy
from numpy.typing import NDArray

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
    begins = {count: _begun(count) for count in set(alone)}
    begun = [(first, number) for first, count in enumerate(alone) for number in begins[count]]
    if begun:
        found |= _pairs(begun, numpy.array(capacities), numpy.array(costs), least, most, keep)
    ordered = sorted(found.items(), key=lambda entry: (entry[1], entry[0]))
    return [Way(counts, cost) for counts, cost in ordered[:keep]]


def _pairs(
    begun: list[tuple[int, int]],
    capacities: NDArray[numpy.float64],
    costs: NDArray[numpy.float64],
    least: int,
    most: int,
    keep: int,
) -> dict[tuple[tuple[int, int], ...], float]:
    """The cheapest ways to go on with a second option after each beginning with a first one, at least `keep` of all."""
    firsts, numbers = (numpy.array(column) for column in zip(*begun, strict=True))
    rest = numpy.maximum(1.0 - numbers * capacities[firsts], 0.0)[:, None]
    more = numpy.maximum(numpy.ceil(rest / capacities - _SLACK), numpy.maximum(least - numbers, 1)[:, None])
    total = (numbers * costs[firsts])[:, None] + more * costs
    total[numpy.arange(len(begun)), firsts] = numpy.inf
    if most:
        total = numpy.where(numbers[:, None] + more > most, numpy.inf, total)
    # Each pair may come twice, from either of its options.
    found: dict[tuple[tuple[int, int], ...], float] = {}
    for row, second in _cheapest(total, 2 * keep):
        first, number = begun[row]
        pair = ((first, number), (second, int(more[row, second])))
        found.setdefault(pair if first < second else (pair[1], pair[0]), float(total[row, second]))
    return found


def _cheapest(costs: NDArray[numpy.float64], keep: int) -> list[tuple[int, int]]:
    """Rows and columns of the least costs, at most `_NEAR` of a row."""
    left, rows = costs.copy(), numpy.arange(len(costs))
    places, least = list[NDArray[numpy.int64]](), list[NDArray[numpy.float64]]()
    for _ in range(min(_NEAR, costs.shape[1])):
        columns = left.argmin(axis=1)
        places.append(columns)
        least.append(left[rows, columns])
        left[rows, columns] = numpy.inf
    flat = numpy.concatenate(least)
    order = numpy.argsort(flat, kind="stable")[:keep]
    second = numpy.concatenate(places)
    return [(int(n) % len(costs), int(second[n])) for n in order.tolist() if math.isfinite(flat[n])]


# Second options looked at for each number of replicas of the first; the cheapest is the bound, the others are choice.
_NEAR: Final = 3


def _begun(count: int) -> list[int]:
    """Numbers of replicas of a first option, fewer than it would need alone."""
    near = {count - 1, count - 2, count - 3, *(round(count * part) for part in _PARTS)}
    return sorted(number for number in near if 0 < number < count)
