"""How often devices may be changed: what nobody waits for comes once in a cool-down for each device. Pure.

How many may change for savings in a while is another bound, `portion.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.facts.blueprint import Blueprint
from services.orchestrator.core.facts.fleet import Device
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Deployment

# Dwell of a device between two changes for savings, as in arXiv 2508.20274: the order of time that a load holds, and
# far above the minute that a change itself takes.
DEVICE_COOL_DOWN_S: Final = 600.0

Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Touch:
    """When a device was last changed: a replica came or went, or its layout or power setting did."""

    place: Place
    at_s: float


def changed_places(before: Blueprint, after: Blueprint) -> tuple[Place, ...]:
    """(node id, device id) of every device that a new blueprint changes."""
    old, new = _contents(before), _contents(after)
    return tuple(sorted(place for place in {*old, *new} if old.get(place) != new.get(place)))


def touched(
    before: Iterable[Touch], places: Iterable[Place], now_s: float, within_s: float = DEVICE_COOL_DOWN_S
) -> tuple[Touch, ...]:
    """The newest touches, those that are longer ago left out."""
    known = {t.place: t.at_s for t in before if now_s - t.at_s < within_s}
    known.update(dict.fromkeys(places, now_s))
    return tuple(Touch(place, known[place]) for place in sorted(known))


def recent(touches: Iterable[Touch], within_s: float, now_s: float) -> tuple[Touch, ...]:
    """Touches within a rolling window."""
    return tuple(t for t in touches if now_s - t.at_s < within_s)


def cool_at_s(touches: Iterable[Touch], places: Iterable[Place], now_s: float) -> float | None:
    """When all of these devices may be changed for savings again; None when they may now."""
    wanted = set(places)
    ends = [t.at_s + DEVICE_COOL_DOWN_S for t in touches if t.place in wanted]
    latest = max(ends, default=now_s)
    return latest if latest > now_s else None


def is_asked(before: Situation | None, after: Situation) -> bool:
    """Whether people, nodes or faults ask for a plan: a wish, a node, a budget, a failure, a trial that failed."""
    if before is None:
        return True
    was = {d.deployment_id: d.generation for d in before.deployments}
    now = {d.deployment_id: d.generation for d in after.deployments}
    if was != now or before.budgets != after.budgets:
        return True
    if _nodes(before) != _nodes(after):
        return True
    known, old = {q.key for q in before.quarantined}, {d.deployment_id: d for d in before.deployments}
    return any(q.key not in known for q in after.quarantined) or any(
        is_narrower(old[d.deployment_id], d) for d in after.deployments
    )


def is_urgent(before: Situation | None, after: Situation) -> bool:
    """Whether somebody waits for a plan: it is asked for, or a load rises; not a mere saving."""
    if before is None or is_asked(before, after):
        return True
    was = {d.deployment_id: d.demand.requests_per_s for d in before.deployments}
    return any(d.demand.requests_per_s > was[d.deployment_id] for d in after.deployments)


def is_narrower(before: Deployment, after: Deployment) -> bool:
    """Whether the same wish is held to more, or to other, numbers of replicas than before: a trial failed."""
    if before.generation != after.generation:
        return False
    fewer = after.max_replicas != 0 and (before.max_replicas == 0 or after.max_replicas < before.max_replicas)
    return after.min_replicas > before.min_replicas or fewer or (after.spread is not None and before.spread is None)


def pressing(before: Situation | None, after: Situation, unmet: Iterable[str] = ()) -> frozenset[str] | None:
    """Deployments that somebody waits for, so that what a plan changes of them is no mere saving; None for all.

    Args:
        before: None after a start; what runs then is not waited for.
        unmet: deployments whose wish the last plan did not meet.
    """
    if before is None:
        placed = {r.deployment_id for r in after.parent.replicas}
        return frozenset(d.deployment_id for d in after.deployments if d.deployment_id not in placed)
    if before.budgets != after.budgets:
        return None
    was, now = ({d.deployment_id: d for d in s.deployments} for s in (before, after))
    found = {*unmet, *(was.keys() ^ now.keys())}
    found.update(n for n, d in now.items() if n in was and _presses(was[n], d))
    known = {q.key for q in before.quarantined}
    found.update(q.deployment_id for q in after.quarantined if q.key not in known)
    outlines = dict(_nodes(before))
    stable = {name for name, outline in _nodes(after) if outlines.get(name) == outline}
    found.update(r.deployment_id for r in after.parent.replicas if r.node_id not in stable)
    return frozenset(found)


def _presses(before: Deployment, after: Deployment) -> bool:
    rises = before.demand.requests_per_s < after.demand.requests_per_s
    return before.generation != after.generation or rises or is_narrower(before, after)


def _nodes(situation: Situation) -> list[tuple[str, object]]:
    """What is asked of nodes; layouts and settings that they follow us in are left out."""
    return [(n.node_id, (n.state, n.labels, [_device(d) for d in n.devices])) for n in situation.nodes]


def _device(device: Device) -> object:
    return (device.device_id, device.device_class, device.memory_bytes, device.cpu_ids, device.layout_trouble)


def _contents(blueprint: Blueprint) -> dict[Place, object]:
    """What each device is given, in an order of its own."""
    found: dict[Place, list[tuple[object, ...]]] = {}
    for r in blueprint.replicas:
        place = (r.node_id, r.partition.device_id)
        found.setdefault(place, []).append((r.replica_id, r.variant_id, r.partition.partition_id, r.batch_limit))
    for layout in blueprint.layouts:
        for p in layout.partitions:
            found.setdefault((layout.node_id, p.device_id), []).append(("partition", p.partition_id))
        for device_id, setting in layout.power_settings:
            found.setdefault((layout.node_id, device_id), []).append(("power", *setting.order))
    return {place: sorted(entries, key=repr) for place, entries in found.items()}
