"""Chooses one option for each deployment so that all fit together at the least total score.

This is the seam for larger fleets: anything that takes `Choice`s and a `fits` test and returns one choice for each
deployment can stand here, for instance a MILP over identical devices. This one is exhaustive depth-first search with
bounds: exact while it stays within `SEARCH_STEPS`, after that the best found so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from services.orchestrator.core.weigh import Option

# Fit tests of one search; each is a packing of about a tenth of a millisecond on a small fleet.
SEARCH_STEPS: Final = 3_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Choice:
    """An option of a deployment with its score in milliwatts, change included."""

    deployment_id: str
    option: Option
    score: float


def cheapest_together(
    menus: Sequence[Sequence[Choice]], fits: Callable[[tuple[Choice, ...]], T | None]
) -> tuple[tuple[Choice, ...], T] | None:
    """The cheapest combination with one choice of each menu that fits, and what `fits` said; None when none does.

    Args:
        menus: one for each deployment; every order within is fine.
        fits: says None when choices do not fit together; must then say None for every extension too.
    """
    ordered = [sorted(menu, key=_rank) for menu in menus]
    floors = [0.0] * (len(ordered) + 1)
    for index in range(len(ordered) - 1, -1, -1):
        if not ordered[index]:
            return None
        floors[index] = floors[index + 1] + ordered[index][0].score
    best: list[tuple[float, tuple[Choice, ...], T]] = []
    steps = [SEARCH_STEPS]

    def search(chosen: tuple[Choice, ...], score: float) -> None:
        depth = len(chosen)
        for choice in ordered[depth]:
            total = score + choice.score
            if steps[0] <= 0 or (best and total + floors[depth + 1] >= best[0][0]):
                return
            steps[0] -= 1
            together = (*chosen, choice)
            found = fits(together)
            if found is None:
                continue
            if depth + 1 == len(ordered):
                best[:] = [(total, together, found)]
                return
            search(together, total)

    if not ordered:
        empty = fits(())
        return None if empty is None else ((), empty)
    search((), 0.0)
    return (best[0][1], best[0][2]) if best else None


def _rank(choice: Choice) -> tuple[float, int, float, float, str, tuple[str, str, str, int]]:
    candidate = choice.option.candidate
    memory = float(candidate.memory_bytes * choice.option.replicas)
    name = candidate.variant_name
    return (choice.score, choice.option.replicas, candidate.e2e_ms, memory, name, choice.option.key)
