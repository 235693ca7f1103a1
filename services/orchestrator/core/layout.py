"""Lays chosen options out on concrete devices, changing least: replicas that fit the choice stay where they are."""

from __future__ import annotations

from dataclasses import dataclass

from services.orchestrator.core.blueprint import Replica
from services.orchestrator.core.choose import Choice
from services.orchestrator.core.fleet import Budget, Device, Node, ReplicaState
from services.orchestrator.core.scores import key_of
from services.orchestrator.core.situation import Situation
from services.orchestrator.core.yard import Ask, Lot, Place, Yard, units_of

# States in which a leaving replica can be taken back, or still answers for its deployment.
_ALIVE = (ReplicaState.STARTING, ReplicaState.READY)


@dataclass(frozen=True, slots=True)
class Layout:
    """Replicas that stay and places of new ones, with the choice each is of."""

    kept: tuple[Replica, ...]
    places: tuple[tuple[Choice, Place], ...]


def lay_out(
    situation: Situation, choices: tuple[Choice, ...], stuck: tuple[str, ...], budgets: tuple[Budget, ...]
) -> Layout | None:
    """A layout, or None when the choices do not fit together.

    Args:
        stuck: deployments without a choice; what they have stays as it is.
        budgets: limits of mean modelled power that must hold.
    """
    yard = Yard(n for n in situation.nodes if n.keeps_work)
    kept = _kept(situation, yard, choices, stuck)
    ids = {r.replica_id for r in kept}
    for replica in (*situation.parent.replicas, *situation.parent.leaving):
        lot = yard.lot_of(replica)
        if lot and replica.replica_id not in ids and replica.replica_id not in situation.gone:
            lot.hold(replica)
    wishes = {d.deployment_id: d for d in situation.deployments}
    asks: dict[Ask, Choice] = {}
    for choice in choices:
        have = sum(r.deployment_id == choice.deployment_id for r in kept)
        point, option = choice.option.point, choice.option
        if have < option.replicas:
            selector = wishes[choice.deployment_id].node_selector
            mover = bool(incumbents_of(situation, choice.deployment_id))
            profile, count = point.profile, option.replicas - have
            device = (profile.device_class, profile.partition_kind, point.memory_bytes)
            asks[Ask(choice.deployment_id, *device, count, mover, selector)] = choice
    places = yard.pack(asks)
    if places is None:
        return None
    layout = Layout(kept, tuple((asks[place.ask], place) for place in places))
    return layout if within_budgets(situation.nodes, choices, layout, budgets) else None


def incumbents_of(situation: Situation, deployment_id: str) -> tuple[Replica, ...]:
    """Replicas of a deployment that a plan may keep: planned ones, and leaving ones that still live."""
    wish = next((d for d in situation.deployments if d.deployment_id == deployment_id), None)
    parent, found = situation.parent, list[Replica]()
    for replica in (*parent.of(deployment_id), *parent.leaving_of(deployment_id)):
        node = situation.node(replica.node_id)
        leaving = replica in parent.leaving
        report = situation.report_of(replica)
        if not node or not node.keeps_work or not wish or not node.matches(wish.node_selector):
            continue
        device = next((d for d in node.devices if d.device_id == replica.partition.device_id), None)
        if not device or not _exists(device, replica):
            continue
        if leaving and (not replica.hold or replica.replica_id in situation.gone):
            continue
        if leaving and (report is None or report.state not in _ALIVE):
            continue
        found.append(replica)
    return tuple(found)


def within_budgets(
    nodes: tuple[Node, ...], choices: tuple[Choice, ...], layout: Layout, budgets: tuple[Budget, ...]
) -> bool:
    """Whether idle power of all devices plus active power of all replicas stays within every budget."""
    if not budgets:
        return True
    active = {choice.deployment_id: choice.option.active_mw for choice in choices}
    draws = [(n.node_id, d.device_id, d.idle_power_mw) for n in nodes for d in n.devices]
    draws += [(r.node_id, r.partition.device_id, active.get(r.deployment_id, 0.0)) for r in layout.kept]
    draws += [(p.node_id, p.partition.device_id, choice.option.active_mw) for choice, p in layout.places]
    for budget in budgets:
        kind, _, rest = budget.scope.partition("/")
        node_id, _, device_id = rest.partition("/")
        drawn = sum(
            mw
            for node, device, mw in draws
            if kind == "site" or (node == node_id and (kind == "node" or device == device_id))
        )
        if drawn > budget.limit_mw:
            return False
    return True


def _kept(situation: Situation, yard: Yard, choices: tuple[Choice, ...], stuck: tuple[str, ...]) -> tuple[Replica, ...]:
    kept: list[Replica] = []

    def keep(replica: Replica) -> None:
        lot = yard.lot_of(replica)
        if lot and not _taken(lot, replica):
            lot.take(replica)
            kept.append(replica)

    for deployment_id in stuck:
        for replica in incumbents_of(situation, deployment_id):
            if replica in situation.parent.replicas:
                keep(replica)
    menus = []
    for choice in choices:
        same = [r for r in incumbents_of(situation, choice.deployment_id) if key_of(r) == choice.option.key]
        ready = [r for r in same if _is_ready(situation, r)]
        menus.append((choice, [*ready, *(r for r in same if r not in ready)]))
    # Planned replicas first: a leaving one may have lost its cores to another deployment by now.
    for planned in (True, False):
        for choice, same in menus:
            for replica in same:
                have = sum(r.deployment_id == choice.deployment_id for r in kept)
                if have < choice.option.replicas and (replica in situation.parent.replicas) is planned:
                    keep(replica)
    return tuple(kept)


def _taken(lot: Lot, replica: Replica) -> bool:
    return any(unit in lot.claimed for unit in units_of(replica.partition))


def _is_ready(situation: Situation, replica: Replica) -> bool:
    report = situation.report_of(replica)
    return report is not None and report.state is ReplicaState.READY


def _exists(device: Device, replica: Replica) -> bool:
    if replica.partition.cpu_ids:
        return set(replica.partition.cpu_ids) <= set(device.cpu_ids)
    return any(p.partition_id == replica.partition.partition_id for p in device.partitions)
