"""Policies: the same step function, with or without adaptation, with all levers or without one. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.facts.change_bound import DEFAULT_BOUND, ChangeBound
from services.orchestrator.core.facts.levers import ALL_LEVERS, Levers
from services.orchestrator.core.facts.wish import Objective


@dataclass(frozen=True, slots=True)
class Policy:
    """How the orchestrator goes about its work.

    Attributes:
        adaptive: demand follows the traffic; without it, the wish's own demand is what is provisioned for, for ever.
        objective: replaces the objective of every wish; None leaves it.
        foresees: demand is what `Observation.foreseen` says, not a forecast: the oracle of an evaluation.
        bound: how much of the fleet may change for savings in a while, if it adapts.
    """

    name: str
    adaptive: bool = True
    levers: Levers = ALL_LEVERS
    objective: Objective | None = None
    foresees: bool = False
    bound: ChangeBound = DEFAULT_BOUND


# Nodes as people run them: clocks do not ease, prompts come first come, first served, and tokens as soon as they can.
AS_USUAL: Final = Levers(easing=False, deadlines=False, pacing=False)
ENERGY: Final = Policy("energy", objective=None)
# What people run: the fastest variant on whole devices, provisioned for the peak, never changed.
STATIC_PEAK: Final = Policy(
    "static-peak",
    adaptive=False,
    levers=replace(
        AS_USUAL, variants=False, partitions=False, power=False, resting=False, consolidation=False, packing=False
    ),
    objective=Objective.LATENCY,
)
POLICIES: Final[dict[str, Policy]] = {
    policy.name: policy
    for policy in (
        ENERGY,
        Policy("latency", levers=replace(AS_USUAL, resting=False, packing=False), objective=Objective.LATENCY),
        Policy("static", adaptive=False, levers=replace(AS_USUAL, resting=False, packing=False)),
        Policy("static-resting", adaptive=False, levers=replace(AS_USUAL, packing=False)),
        Policy("static-packed", adaptive=False, levers=replace(AS_USUAL, resting=False)),
        Policy("static-packed-resting", adaptive=False, levers=AS_USUAL),
        Policy("static-equipped", adaptive=False),
        STATIC_PEAK,
        Policy("energy-no-variants", levers=Levers(variants=False)),
        Policy("energy-no-partitions", levers=Levers(partitions=False)),
        Policy("energy-no-power", levers=Levers(power=False, easing=False, resting=False)),
        Policy("energy-no-easing", levers=Levers(easing=False)),
        Policy("energy-no-deadlines", levers=Levers(deadlines=False)),
        Policy("energy-no-pacing", levers=Levers(pacing=False)),
        Policy("energy-no-resting", levers=Levers(resting=False)),
        Policy("energy-no-consolidation", levers=Levers(consolidation=False)),
        Policy("energy-no-packing", levers=Levers(packing=False)),
        Policy("oracle", foresees=True),
    )
}
