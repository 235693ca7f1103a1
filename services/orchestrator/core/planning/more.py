"""What to add so that a wish as it is would be met: the fewest devices of one class, each answer planned anew.

A device to add is one of the fleet's own, empty, on a node of its own with the labels that the wish asks for. In a
large fleet the answer is for a wish that lies on the added devices alone, which is enough and may be more than needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from services.orchestrator.core.facts.fleet import DEFAULT_POWER, Device, Node, NodeState
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.planning.accept import Desk
from services.orchestrator.core.planning.budgets import Budgets
from services.orchestrator.core.planning.demands import Wanted
from services.orchestrator.core.planning.ground import ground_of
from services.orchestrator.core.planning.offer import Known, offer_of
from services.orchestrator.core.planning.points import points_of
from services.orchestrator.core.planning.scores import items_of
from services.orchestrator.core.planning.weigh import Option, weigh_all

# More devices than this are no answer but a new fleet.
MOST_ADDED: Final = 64
# Classes that are tried.
MOST_CLASSES: Final = 4


def hardware_that_would_do(
    situation: Situation, deployment: Deployment, others: tuple[Wanted, ...], known: Known, *, along: bool
) -> tuple[str, ...]:
    """One answer for each class that helps, for instance "+2 gpu:h100-80"; fewest devices first.

    Args:
        others: wishes that are met, with what they may be met with.
        known: what was worked out of the catalogue.
        along: plan the rest of the fleet along.
    """
    kept = situation if along else replace(situation, nodes=(), parent=replace(situation.parent, replicas=()))
    found: list[tuple[int, str]] = []
    for device_class, device in _classes(situation)[:MOST_CLASSES]:
        count = _fewest(lambda n, device=device: _meets(kept, deployment, others if along else (), known, device, n))  # type: ignore[misc]
        if count:
            found.append((count, device_class))
    return tuple(f"+{count} {device_class}" for count, device_class in sorted(found))


def _classes(situation: Situation) -> list[tuple[str, Device]]:
    """The largest device of each class, profiled classes only."""
    profiled = {profile.device_class for profile in situation.catalog.profiles}
    found: dict[str, Device] = {}
    for node in situation.nodes:
        for device in node.devices:
            known = found.get(device.device_class)
            size = (len(device.cpu_ids), device.memory_bytes)
            if device.device_class in profiled and (known is None or size > (len(known.cpu_ids), known.memory_bytes)):
                found[device.device_class] = device
    return sorted(found.items())


def _fewest(meets: Callable[[int], bool]) -> int:
    """The least number that does, by doubling and halving; 0 when none up to the most does."""
    high = 1
    while not meets(high):
        high *= 2
        if high > MOST_ADDED:
            return 0
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high


def _meets(
    situation: Situation, deployment: Deployment, others: tuple[Wanted, ...], known: Known, device: Device, count: int
) -> bool:
    fresh = replace(device, partitions=() if device.table else device.partitions, setting=DEFAULT_POWER, asleep=False)
    labels = list(deployment.node_selector)
    label = deployment.spread.label if deployment.spread else ""
    added = tuple(
        Node(f"~{n}", NodeState.ACTIVE, (fresh,), (), tuple(sorted([*labels, *([(label, f"~{n}")] if label else [])])))
        for n in range(count)
    )
    larger = replace(situation, nodes=(*situation.nodes, *added))
    ground = ground_of(larger, known.boards)
    offer = offer_of(larger, ground, Known())
    weighed = weigh_all(deployment, points_of(deployment, offer)[0], offer.sheaves.get(deployment.model_id, ()))
    options = tuple(option for option in weighed if isinstance(option, Option))
    names = tuple(d.deployment_id for d in situation.deployments)
    trust = {d.deployment_id: d.trust_level for d in situation.deployments}
    budgets = Budgets(situation.budgets, situation.nodes, ())
    desk = Desk(ground, names, trust, budgets, consolidation=situation.levers.consolidation)
    items = items_of(deployment, options, frozenset(), budgeted=bool(situation.budgets))
    return desk.fit((*others, Wanted(deployment, items))) is not None
