"""Fallback chains in a plan: of each device class the first link that can be used there is an option, no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from services.orchestrator.core.facts.explanation import Candidate, Refusal

if TYPE_CHECKING:
    from services.orchestrator.core.planning.points import Point


def first_links(chain: tuple[str, ...], points: Sequence[Point]) -> tuple[list[Point], list[Candidate]]:
    """Points of each device class's first link that runs there, and the others as refused."""
    first: dict[str, int] = {}
    for point in points:
        name, place = point.profile.device_class, chain.index(point.variant.variant_id)
        first[name] = min(first.get(name, place), place)
    kept, later = [], []
    for point in points:
        name = point.profile.device_class
        if chain.index(point.variant.variant_id) == first[name]:
            kept.append(point)
            continue
        reason = f"link {first[name] + 1} of the chain comes first and runs on a {name}"
        later.append(point.candidate(Refusal.EARLIER_LINK, reason))
    return kept, later
