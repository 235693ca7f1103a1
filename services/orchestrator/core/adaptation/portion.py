"""The portion of a plan that is done now, when all of it would change more devices for savings than may change. Pure.

    changes = needed (their deployment is waited for) + savings
    needed + the savings that there is room for, the rest as it is in force ─► sound? ─► that; else fewer savings

A deployment's changes are taken whole, those first that save most for each device. One that changes more devices than
there is room for at all is taken in part: devices where it draws more come before those where it draws less. What is
not sound even without any savings is needed as a whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from services.orchestrator.core.adaptation.pace import Place, changed_places
from services.orchestrator.core.facts.blueprint import Blueprint, NodeLayout, Replica, child_of
from services.orchestrator.core.facts.explanation import Candidate, Explanation
from services.orchestrator.core.facts.fleet import PowerSetting

# Each try is checked as a whole plan is, which takes a tenth of planning; most often the first is sound.
MOST_TRIES: Final = 8

# What changes of a deployment on a device; layouts that no replica follows are nobody's, "".
Change: TypeAlias = tuple[str, Place]
# A deployment, and what one of its replicas runs: variant, device class, kind of partition, batch limit, power.
Option: TypeAlias = tuple[str, str, str, str, int, tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Portion:
    """What is done of a plan.

    Attributes:
        blueprint: the plan's own when nothing waits; the parent when nothing is done.
        savings: devices that it changes for savings.
        waiting: changes that it leaves out for now.
        waiting_mw: what those would save (modelled).
    """

    blueprint: Blueprint
    savings: tuple[Place, ...] = ()
    waiting: tuple[Change, ...] = ()
    waiting_mw: float = 0.0

    @property
    def places(self) -> frozenset[Place]:
        """Devices that wait."""
        return frozenset(place for _, place in self.waiting)


def portion_of(
    parent: Blueprint,
    wanted: Blueprint,
    figures: Figures,
    pressing: frozenset[str],
    room: int,
    is_sound: Callable[[Blueprint], bool],
) -> Portion:
    """As much of a plan as there is room for.

    Args:
        pressing: deployments that somebody waits for; what changes of them is needed.
        room: devices that may still be changed for savings.
        is_sound: whether a blueprint may be committed.
    """
    changes = changes_of(parent, wanted)
    needed = {place for name, place in changes if name in pressing}
    # What no replica follows, such as the sleep of an empty device, puts nobody's requests at risk.
    savings = [change for change in changes if change[0] not in {"", *pressing} and change[1] not in needed]
    if len({place for _, place in savings}) <= room:
        return Portion(wanted, tuple(sorted({place for _, place in savings})))
    saved = {change: figures.saved_mw(parent, wanted, change) for change in savings}
    units = _units(saved)
    for _ in range(MOST_TRIES):
        taken = _fitting(units, saved, room)
        while taken:
            found = _done(parent, wanted, figures, saved, [change for unit in taken for change in unit])
            if found is not None and is_sound(found.blueprint):
                return found
            if len(taken) == 1:
                break
            taken = taken[: len(taken) // 2]
        if not taken:
            break
        units = [unit for unit in units if unit[0][0] != taken[0][0][0]]
    found = _done(parent, wanted, figures, saved, [])
    return found if found is not None and is_sound(found.blueprint) else Portion(wanted)


def changes_of(parent: Blueprint, wanted: Blueprint) -> tuple[Change, ...]:
    """Everything that a plan changes, by deployment and device."""
    before, after = _by_place(parent), _by_place(wanted)
    found: set[Change] = set()
    for place in changed_places(parent, wanted):
        old = {(r.deployment_id, r.replica_id, r.batch_limit) for r in before.get(place, ())}
        new = {(r.deployment_id, r.replica_id, r.batch_limit) for r in after.get(place, ())}
        moved = old | new if parent.power_of(*place) != wanted.power_of(*place) else old ^ new
        found.update((name, place) for name in {name for name, _, _ in moved} or {""})
    return tuple(sorted(found))


class Figures:
    """What a plan's reports tell of replicas; modelled.

    Args:
        explanations: of the plan.
    """

    def __init__(self, explanations: Iterable[Explanation]) -> None:
        self._told: dict[Option, Candidate] = {}
        for explanation in explanations:
            for one in explanation.candidates:
                if not one.refusal or one.chosen:
                    self._told.setdefault((explanation.deployment_id, *one.key), one)

    def saved_mw(self, parent: Blueprint, wanted: Blueprint, change: Change) -> float:
        """What a deployment draws less on a device, with its share of idle power; what is not told counts as 0."""
        return self._drawn_mw(parent, change) - self._drawn_mw(wanted, change)

    def capacity(self, replica: Replica, power: PowerSetting) -> float:
        """Requests a second that a replica takes within its SLO; 0 when not told."""
        told = self._told.get(_option(replica, power))
        return told.capacity_requests_per_s if told is not None else 0.0

    def _drawn_mw(self, blueprint: Blueprint, change: Change) -> float:
        name, place = change
        power = blueprint.power_of(*place)
        told = (self._told.get(_option(r, power)) for r in blueprint.of(name) if _place(r) == place)
        return sum(one.power_mw / max(one.replicas, 1) for one in told if one is not None)


def _units(saved: Mapping[Change, float]) -> list[list[Change]]:
    """Changes by deployment, what saves most for a device first."""
    by_name: dict[str, list[Change]] = defaultdict(list)
    for change in sorted(saved):
        by_name[change[0]].append(change)
    return sorted(
        (_gains_first(changes, saved) for changes in by_name.values()),
        key=lambda unit: (-sum(saved[change] for change in unit) / len(unit), unit[0]),
    )


def _gains_first(changes: list[Change], saved: Mapping[Change, float]) -> list[Change]:
    """Devices that draw more and those that draw less in turns: as large a share of the former has come, rounded up."""
    losses = sorted((c for c in changes if saved[c] >= 0.0), key=lambda c: (-saved[c], c))
    gains = sorted((c for c in changes if saved[c] < 0.0), key=lambda c: (-saved[c], c))
    found: list[Change] = []
    for number, loss in enumerate(losses, 1):
        due = -(-len(gains) * number // len(losses))
        found += [*gains[len(found) - (number - 1) : due], loss]
    return found or gains


def _fitting(units: list[list[Change]], saved: Mapping[Change, float], room: int) -> list[list[Change]]:
    """Whole units while there is room; if not even one fits, the longest part of the first that saves something."""
    taken: list[list[Change]] = []
    places: set[Place] = set()
    for unit in units:
        more = places | {place for _, place in unit}
        if len(more) <= room:
            taken.append(unit)
            places = more
    if taken:
        return taken
    parts = (unit[:count] for unit in units for count in range(min(room, len(unit)), 0, -1))
    return next(([part] for part in parts if sum(saved[change] for change in part) > 0.0), [])


def _done(
    parent: Blueprint, wanted: Blueprint, figures: Figures, saved: Mapping[Change, float], taken: list[Change]
) -> Portion | None:
    """The plan with these savings only; None when it is not known how requests would be shared."""
    kept = frozenset(saved.keys() - set(taken))
    merged = _merged(parent, wanted, kept, figures)
    if merged is None:
        return None
    places = tuple(sorted({place for _, place in taken}))
    return Portion(merged, places, tuple(sorted(kept)), sum(saved[change] for change in kept))


def _merged(parent: Blueprint, wanted: Blueprint, kept: frozenset[Change], figures: Figures) -> Blueprint | None:
    """The plan with these changes left out. A device's layout and power are kept where all that changes there is."""
    done = {place for change in changes_of(parent, wanted) if change not in kept for place in change[1:]}
    as_before = frozenset(place for _, place in kept if place not in done)
    replicas = _shared_out(
        (
            *(r for r in wanted.replicas if (r.deployment_id, _place(r)) not in kept),
            *(r for r in parent.replicas if (r.deployment_id, _place(r)) in kept),
        ),
        lambda place: (parent if place in as_before else wanted).power_of(*place),
        figures,
    )
    if replicas is None:
        return None
    ordered = tuple(sorted(replicas, key=lambda r: (r.deployment_id, r.replica_id)))
    names = {r.replica_id for r in ordered}
    # What leaves goes on leaving, also where the plan would have taken it back.
    back = {r.replica_id for r in wanted.replicas}
    leaving = tuple(
        sorted(
            (
                *(r for r in wanted.leaving if r.replica_id not in names),
                *(r for r in parent.leaving if r.replica_id in back - names),
            ),
            key=lambda r: (r.deployment_id, r.replica_id),
        )
    )
    nodes = sorted({layout.node_id for layout in (*parent.layouts, *wanted.layouts)})
    layouts = tuple(
        layout for name in nodes if (layout := _layout(parent, wanted, name, as_before)) != NodeLayout(name)
    )
    if (ordered, leaving, layouts) == (parent.replicas, parent.leaving, parent.layouts):
        return parent
    return child_of(parent, ordered, leaving, layouts)


def _layout(parent: Blueprint, wanted: Blueprint, node_id: str, as_before: frozenset[Place]) -> NodeLayout:
    old, new = (b.layout_of(node_id) or NodeLayout(node_id) for b in (parent, wanted))
    stay = {device_id for node, device_id in as_before if node == node_id}
    partitions = [p for p in old.partitions if p.device_id in stay]
    partitions += [p for p in new.partitions if p.device_id not in stay]
    settings = [s for s in old.power_settings if s[0] in stay]
    settings += [s for s in new.power_settings if s[0] not in stay]
    asleep = [*(d for d in old.asleep if d in stay), *(d for d in new.asleep if d not in stay)]
    return NodeLayout(
        node_id,
        tuple(sorted(partitions, key=lambda p: p.partition_id)),
        tuple(sorted(settings, key=lambda s: s[0])),
        tuple(sorted(asleep)),
    )


def _shared_out(
    replicas: tuple[Replica, ...], power_of: Callable[[Place], PowerSetting], figures: Figures
) -> list[Replica] | None:
    """With capacities, where a deployment's replicas differ and some do not say theirs."""
    options: dict[str, set[Option]] = defaultdict(set)
    powers = {place: power_of(place) for place in {_place(r) for r in replicas}}
    silent: set[str] = set()
    for r in replicas:
        options[r.deployment_id].add(_option(r, powers[_place(r)]))
        if r.capacity_requests_per_s <= 0.0:
            silent.add(r.deployment_id)
    unknown = {name for name in silent if len(options[name]) > 1}
    found = []
    for r in replicas:
        if r.deployment_id not in unknown:
            found.append(r)
            continue
        capacity = r.capacity_requests_per_s or figures.capacity(r, powers[_place(r)])
        if capacity <= 0.0:
            return None
        found.append(replace(r, capacity_requests_per_s=float(f"{capacity:.3g}")))
    return found


def _by_place(blueprint: Blueprint) -> dict[Place, list[Replica]]:
    found: dict[Place, list[Replica]] = defaultdict(list)
    for replica in blueprint.replicas:
        found[_place(replica)].append(replica)
    return found


def _place(replica: Replica) -> Place:
    return (replica.node_id, replica.partition.device_id)


def _option(r: Replica, power: PowerSetting) -> Option:
    return (r.deployment_id, r.variant_id, r.device_class, r.partition.kind, r.batch_limit, power.order)
