"""Ways to meet a wish that begin with what it runs: less of it, or all of it and some more. Pure arithmetic.

Replicas that run have their place already. What the cheapest ways at prices of room lack is that they fit beside each
other and beside what others leave only later; these do so as far as anything does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from services.orchestrator.core.planning.ground import Base
from services.orchestrator.core.planning.mixes import Way
from services.orchestrator.core.planning.parcel import Parcel
from services.orchestrator.core.planning.scores import Item

# Options that what runs is added to, the cheapest.
_ADDED: Final = 4
_SLACK: Final = 1e-9

Standing = Mapping[tuple[str, Base], Counter[tuple[int, int, int]]]


def standing_of(parcels: Sequence[Parcel]) -> Standing:
    """Replicas that may be kept, by deployment and base, at each power setting."""
    found: dict[tuple[str, Base], Counter[tuple[int, int, int]]] = {}
    for parcel in parcels:
        like, size = parcel.group.likeness, parcel.group.size
        stays = {tenant for tenant, _ in parcel.kept}
        for tenant in like.content:
            if tenant in stays:
                found.setdefault((tenant.deployment_id, tenant.base), Counter())[like.setting.order] += size
    return found


def standing_counts(items: Sequence[Item], costs: Sequence[float], standing: Standing) -> dict[int, int]:
    """How many replicas that run count as each item, by number of the item.

    Args:
        costs: of one replica of each item; what stands at a setting that no item has counts as the cheapest.
    """
    rows: dict[tuple[str, Base], list[int]] = {}
    for number, item in enumerate(items):
        rows.setdefault((item.deployment_id, item.base), []).append(number)
    found = Counter[int]()
    for key, numbers in rows.items():
        for order, count in standing.get(key, {}).items():
            found[min(numbers, key=lambda n: (items[n].power.order != order, costs[n]))] += count
    return dict(found)


def ways_from(
    counts: Mapping[int, int], capacities: Sequence[float], costs: Sequence[float], least: int, most: int
) -> list[Way]:
    """What runs without what is too much, or with as many more of one option as are missing.

    Args:
        counts: replicas that run by number of the item.
        capacities: what one replica of each item covers of a demand of 1.
        costs: of one replica of each item.
        least: fewest replicas.
        most: most replicas; 0 means no limit.
    """
    if not counts:
        return []
    covered, total = sum(capacities[n] * count for n, count in counts.items()), sum(counts.values())
    if covered >= 1.0 - _SLACK and total >= least:
        found = [_less(counts, capacities, costs, least)]
    else:
        found = [_more(counts, number, capacities, least) for number in range(len(capacities))]
    able = [way for way in found if not most or sum(way.values()) <= most]
    ways = [
        Way(tuple(sorted(way.items())), sum(costs[number] * count for number, count in way.items())) for way in able
    ]
    return sorted(ways, key=lambda way: (way.cost, way.counts))[:_ADDED]


def _less(counts: Mapping[int, int], capacities: Sequence[float], costs: Sequence[float], least: int) -> dict[int, int]:
    """What is left when all that is not needed ends, the dearest for what it covers first."""
    left = dict(counts)
    beyond, spare = sum(capacities[n] * count for n, count in left.items()) - 1.0, sum(left.values()) - least
    for number in sorted(left, key=lambda n: (-costs[n] / capacities[n], n)):
        gone = min(left[number], math.floor(beyond / capacities[number] + _SLACK), spare)
        left[number] -= gone
        beyond, spare = beyond - gone * capacities[number], spare - gone
    return {number: count for number, count in left.items() if count}


def _more(counts: Mapping[int, int], number: int, capacities: Sequence[float], least: int) -> dict[int, int]:
    """What runs, and as many more of one option as the demand takes."""
    missing = 1.0 - sum(capacities[n] * count for n, count in counts.items())
    more = max(math.ceil(missing / capacities[number] - _SLACK), least - sum(counts.values()), 0)
    return {**counts, number: counts.get(number, 0) + more}
