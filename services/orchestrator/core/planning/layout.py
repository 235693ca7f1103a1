"""Lays a choice out on concrete devices. Devices of a group are alike, so any of them will do for any of its shares.

What is kept stays where it is; new replicas of one deployment are put on different nodes as far as there are any.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from services.orchestrator.core.facts.blueprint import NodeLayout, Replica
from services.orchestrator.core.facts.fleet import DEFAULT_POWER, Partition, PowerSetting
from services.orchestrator.core.planning.choice import Mix, Share
from services.orchestrator.core.planning.lot import Lot
from services.orchestrator.core.planning.parcel import Rules
from services.orchestrator.core.planning.scores import Item


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new replica goes."""

    item: Item
    node_id: str
    partition: Partition


@dataclass(frozen=True, slots=True)
class Layout:
    """Replicas that stay with the item they count as, places of new ones, and what nodes must be like for it."""

    kept: tuple[Replica, ...] = ()
    places: tuple[Place, ...] = ()
    nodes: tuple[NodeLayout, ...] = ()


@dataclass(frozen=True, slots=True)
class Misfit:
    """Deployments whose replicas found no room, though their sums fitted."""

    deployments: frozenset[str]


def lay_out(mix: Mix, rules: Rules) -> Layout | Misfit:
    """A layout of all shares, or who did not fit."""
    lots: list[Lot] = []
    missing: set[str] = set()
    for share in mix.shares:
        opened = _lots(share)
        lots += opened
        missing |= _fill(share, opened, rules)
    places, masks = list[Place](), dict[tuple[str, str], int]()
    cuts: dict[tuple[int, frozenset[tuple[str, int]]], int | None] = {}
    for lot in lots:
        mask: int | None = 0
        if lot.group.board is not None:
            # Devices of a group with the same new slices are cut the same way.
            key = (lot.group.number, frozenset(lot.fresh.items()))
            mask = cuts[key] = cuts[key] if key in cuts else lot.layout()
        if mask is None:
            missing |= {item.deployment_id for item, _ in lot.new}
            continue
        masks[lot.spot.node.node_id, lot.spot.device.device_id] = mask
        places += [Place(item, lot.spot.node.node_id, partition) for item, partition in lot.partitions(mask)]
    if missing:
        return Misfit(frozenset(missing))
    kept = tuple(replica for lot in lots for replica in lot.kept)
    places.sort(key=lambda p: (p.item.deployment_id, p.item.option.key, p.node_id, p.partition.partition_id))
    return Layout(kept, tuple(places), _nodes(lots, masks, rules))


def _lots(share: Share) -> list[Lot]:
    """The group's devices, those to be opened with their opening; node after node, so that neighbours differ."""
    rank: Counter[str] = Counter()
    order: list[tuple[int, str, Lot]] = []
    for spot in share.group.spots:
        order.append((rank[spot.node.node_id], spot.node.node_id, Lot(share.group, spot)))
        rank[spot.node.node_id] += 1
    lots = [lot for _, _, lot in sorted(order, key=lambda entry: entry[:2])]
    for lot in lots:
        lot.hold()
    openings = [opening for opening, count in share.opened for _ in range(count)]
    if openings and share.group.board is None and not share.group.likeness.least_power_mw < _idle(share):
        # Nothing is saved by leaving a device alone that cannot sleep: replicas may lie apart.
        openings += [openings[0]] * (len(lots) - len(openings))
    for lot, opening in zip(lots, openings, strict=False):
        lot.open(opening)
    return lots


def _idle(share: Share) -> float:
    return share.group.likeness.idle_power_mw


def _fill(share: Share, lots: list[Lot], rules: Rules) -> set[str]:
    """Keeps and places; the deployments whose replicas found no room."""
    left = dict(share.placed)
    by_base: dict[tuple[object, ...], list[Item]] = defaultdict(list)
    for item in left:
        by_base[item.deployment_id, item.base, item.power].append(item)
    content = share.group.likeness.content
    if share.fixed:
        for lot in lots:
            for tenant, replica in zip(content, lot.spot.replicas, strict=True):
                if tenant in share.fixed:
                    lot.keep(replica)
    wanted = dict(share.kept)
    for lot in (lot for lot in lots if lot.opening is not None):
        for tenant, replica in zip(content, lot.spot.replicas, strict=True):
            items = by_base.get((tenant.deployment_id, tenant.base, lot.power), [])
            found = next((i for i in items if left[i] > 0), None)
            stay = next((key for key in ((tenant, lot.power), (tenant, None)) if wanted.get(key, 0) > 0), None)
            if stay is not None and found is not None and lot.keep(replica):
                wanted[stay] -= 1
                left[found] -= 1
    missing: set[str] = set()
    turn = 0
    ways = defaultdict[tuple[PowerSetting, str], list[Lot]](list)
    for lot in lots:
        if lot.opening is not None:
            ways[lot.opening.power, lot.opening.trust].append(lot)
    for item in sorted((i for i, count in left.items() if count), key=lambda i: _hardest(i, rules)):
        fitting = ways[item.power, rules.trust.get(item.deployment_id, "")]
        placed, turn = _deal(fitting, item, left[item], turn, mover=item.deployment_id in rules.movers)
        if placed < left[item]:
            missing.add(item.deployment_id)
    return missing


def _deal(lots: list[Lot], item: Item, count: int, turn: int, *, mover: bool) -> tuple[int, int]:
    """Deals replicas out, a device each, first to those without one of their deployment; how many, and whose turn."""
    queue, own = [(turn + step) % len(lots) for step in range(len(lots))], list[int]()
    placed, first = 0, True
    while queue and placed < count:
        left = []
        for number in queue:
            if placed == count:
                break
            if first and item.deployment_id in lots[number].served:
                own.append(number)
            elif lots[number].place(item, mover=mover):
                placed, turn = placed + 1, number + 1
                left.append(number)
        queue, own, first = left + own, [], False
    return placed, turn


def _hardest(item: Item, rules: Rules) -> tuple[object, ...]:
    mover = item.deployment_id in rules.movers
    return (not mover, -item.units, -item.memory_bytes, item.deployment_id, item.option.key)


def _nodes(lots: list[Lot], masks: dict[tuple[str, str], int], rules: Rules) -> tuple[NodeLayout, ...]:
    by_node: dict[str, list[Lot]] = defaultdict(list)
    for lot in lots:
        by_node[lot.spot.node.node_id].append(lot)
    found = []
    for node_id, here in sorted(by_node.items()):
        ordered = sorted(here, key=lambda lot: lot.spot.device.device_id)
        partitions = [p for lot in ordered for p in _slices(lot, masks[node_id, lot.spot.device.device_id])]
        power = [
            (lot.spot.device.device_id, lot.power)
            for lot in ordered
            if (lot.kept or lot.new) and lot.power != DEFAULT_POWER
        ]
        asleep = [lot.spot.device.device_id for lot in ordered if rules.consolidation and _sleeps(lot)]
        if partitions or power or asleep:
            found.append(NodeLayout(node_id, tuple(partitions), tuple(power), tuple(asleep)))
    return tuple(found)


def _slices(lot: Lot, mask: int) -> list[Partition]:
    """Slices of a board that can be cut; without UUIDs, which only name what stands already."""
    device, board = lot.spot.device, lot.group.board
    if board is None or not device.table:
        return []
    name = device.device_id
    return [Partition(name + s.suffix, name, s.kind, memory_bytes=s.memory_bytes) for s in board.seats_of(mask)]


def _sleeps(lot: Lot) -> bool:
    return lot.spot.device.can_sleep and not (lot.kept or lot.new or lot.spot.replicas)
