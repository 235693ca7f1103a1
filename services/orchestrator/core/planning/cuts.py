"""Ways to cut a device of a group: how many partitions of each kind it can have at once beside what must stay.

Boards: the largest legal layouts. CPUs: if core sets divide each other (1, 2, 4, …) no list is needed, for then what
adds up also packs; else the largest combinations. Dominated ones are left out.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from services.orchestrator.core.facts.fleet import CPU_KIND_PREFIX
from services.orchestrator.core.planning.ground import Group

# Combinations of core sets that are listed; with more of them sums of cores decide, and a plan that then does not pack
# is tried again with less change.
MOST_CUTS: Final = 96

Cut = tuple[tuple[str, int], ...]


def board_cuts(group: Group, kinds: frozenset[str]) -> tuple[Cut, ...]:
    """Largest numbers of slices of these kinds, occupied ones included."""
    assert group.board is not None
    found = [
        {kind: count for kind, count in cut if kind in kinds}
        for cut in group.board.largest_beside(group.likeness.occupied)
    ]
    return _largest(found)


def core_cuts(cores: int, sizes: tuple[int, ...]) -> tuple[Cut, ...] | None:
    """Largest combinations of core sets; None when sums of cores decide.

    Args:
        cores: cores that can be given.
        sizes: rising.
    """
    if all(large % small == 0 for small, large in pairwise(sizes)):
        return None
    found: list[dict[str, int]] = []
    frontier: list[tuple[dict[str, int], int, int]] = [({}, cores, len(sizes) - 1)]
    while frontier:
        chosen, left, index = frontier.pop()
        size = sizes[index]
        if index == 0:
            found.append({**chosen, f"{CPU_KIND_PREFIX}{size}": left // size})
            if len(found) > MOST_CUTS * 4:
                return None
            continue
        frontier += [
            ({**chosen, f"{CPU_KIND_PREFIX}{size}": count}, left - count * size, index - 1)
            for count in range(left // size + 1)
        ]
    largest = _largest(found)
    return largest if len(largest) <= MOST_CUTS else None


def _largest(found: list[dict[str, int]]) -> tuple[Cut, ...]:
    distinct = sorted({tuple(sorted((k, c) for k, c in cut.items() if c)) for cut in found}, reverse=True)
    counts = [dict(cut) for cut in distinct]
    return tuple(
        cut
        for cut, mine in zip(distinct, counts, strict=True)
        if not any(
            other is not mine and other != mine and all(other.get(k, 0) >= c for k, c in mine.items())
            for other in counts
        )
    )
