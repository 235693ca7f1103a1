"""What the orchestrator learns from traffic, speed and power, and what follows for the next plan. Pure.

traffic → history → forecast → provision ─► demand of the next plan
   │                    ▲ pressure
   ├──► alarms ─────────┴────────────────► relief at once (rollout)
   └──► trials of changes ───────────────► quarantine or hold against what made it worse
speeds ─► drift ─────────────────────────► corrected profiles
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.adaptation.alarm import Alarm, alarms
from services.orchestrator.core.adaptation.drift import Drift, corrected, drifted
from services.orchestrator.core.adaptation.fading import NOTHING, Faded
from services.orchestrator.core.adaptation.history import NO_SEASON, History, absorb, judged_by
from services.orchestrator.core.adaptation.hold import Hold, held_to
from services.orchestrator.core.adaptation.promise import Told, promised_mw, slept_mw, told_of
from services.orchestrator.core.adaptation.provision import Provision, has_room, inherited, provide
from services.orchestrator.core.adaptation.trial import Change, Outcome, Trial, begin, judge
from services.orchestrator.core.facts.blueprint import Blueprint
from services.orchestrator.core.facts.catalog import EMPTY_CATALOG, Catalog, Quarantine
from services.orchestrator.core.facts.explanation import Explanation
from services.orchestrator.core.facts.fleet import Node
from services.orchestrator.core.facts.policy import Policy
from services.orchestrator.core.facts.traffic import DeploymentTraffic, PowerReading, Speed
from services.orchestrator.core.facts.wish import Demand, Deployment

# Power is averaged over a minute: shorter is the noise of single requests.
POWER_S: Final = 60.0
# Power and speed are reports of seconds; looking at them more often learns nothing.
METER_PERIOD_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Sense:
    """What is seen of work, at one moment."""

    traffic: tuple[DeploymentTraffic, ...] = ()
    power: tuple[PowerReading, ...] = ()
    speeds: tuple[Speed, ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """What was learnt.

    Attributes:
        histories: by deployment id.
        power: mean power by (node id, device id).
        metered_s: when power and speed were last taken in.
        source, catalog: the catalog as read, and as corrected by drift; kept so that equal ones stay one object.
        rolled_back, holds: what changes that were taken back are not tried again by.
        told: what the plan in force promised of each deployment.
        notes: what was learnt at the last look, in words for log and journal.
    """

    histories: tuple[tuple[str, History], ...] = ()
    provisions: tuple[Provision, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    trials: tuple[Trial, ...] = ()
    drifts: tuple[Drift, ...] = ()
    power: tuple[tuple[tuple[str, str], Faded], ...] = ()
    metered_s: float = -math.inf
    source: Catalog = EMPTY_CATALOG
    catalog: Catalog = EMPTY_CATALOG
    rolled_back: tuple[Quarantine, ...] = ()
    holds: tuple[Hold, ...] = ()
    told: tuple[Told, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def alarmed(self) -> frozenset[str]:
        """Deployments in danger."""
        return frozenset(a.deployment_id for a in self.alarms)

    def roomy(self, wishes: Iterable[Deployment]) -> frozenset[str]:
        """Deployments that kept their limits with room for half an hour, and are in no danger."""
        histories, alarmed = dict(self.histories), self.alarmed
        seen = ((w, histories.get(w.deployment_id)) for w in wishes if w.deployment_id not in alarmed)
        return frozenset(w.deployment_id for w, history in seen if history and has_room(w.slo, history))

    @property
    def on_trial(self) -> frozenset[str]:
        """Deployments whose last swap is being watched: what it replaced stands by."""
        return frozenset(t.deployment_id for t in self.trials if t.change is Change.SWAP)

    @property
    def asleep(self) -> tuple[str, ...]:
        """Deployments that run nothing until a request comes."""
        return tuple(p.deployment_id for p in self.provisions if p.asleep)


def handed_down(memory: Memory, shift_s: float, now_s: float) -> Memory:
    """What a new leader goes on with: what was provisioned, and the rhythm of days. All else is soon learnt anew.

    Args:
        memory: of the last leader, at its last decision.
        shift_s: how far our clock is ahead of the one it was learnt by.
    """
    seasons = ((name, history.season.later(shift_s)) for name, history in memory.histories)
    return Memory(
        histories=tuple((name, History(season=season)) for name, season in seasons if season != NO_SEASON),
        provisions=inherited(memory.provisions, now_s),
    )


def learn(
    memory: Memory,
    wishes: tuple[Deployment, ...],
    sense: Sense,
    blueprint: Blueprint,
    catalog: Catalog,
    nodes: tuple[Node, ...],
    now_s: float,
) -> Memory:
    """The memory after one look. A deployment of which no gateway tells keeps what it has."""
    fleet = sum(node.takes_work for node in nodes)
    memory = replace(
        memory,
        notes=(),
        rolled_back=tuple(q for q in memory.rolled_back if q.until_s > now_s),
        holds=tuple(h for h in memory.holds if h.until_s > now_s and fleet >= h.fleet),
    )
    memory = _metered(memory, sense, blueprint, catalog, now_s)
    histories, traffic = dict(memory.histories), {t.deployment_id: t for t in sense.traffic}
    kept = {w.deployment_id: histories.get(w.deployment_id) for w in wishes}
    for wish in wishes:
        name = wish.deployment_id
        if name in traffic:
            kept[name] = absorb(judged_by(kept[name] or History(), wish.slo.latency), traffic[name].windows)
    found = alarms(memory.alarms, wishes, sense.traffic, now_s)
    memory = replace(
        memory,
        histories=tuple((n, h) for n, h in sorted(kept.items()) if h and (h.age_s > 0 or h.season != NO_SEASON)),
        alarms=found,
    )
    memory = _judged(memory, wishes, traffic, blueprint, nodes, now_s)
    return _provisioned(memory, _awake_if_slow(wishes, blueprint, catalog), traffic, now_s)


def anticipated(
    memory: Memory, wishes: tuple[Deployment, ...], about: str, traffic: Iterable[DeploymentTraffic], now_s: float
) -> Memory:
    """The memory with provisions for wishes that are new or changed, as the first look at them will make them.

    Args:
        about: what somebody asks about, by id, is planned for though it sleeps; so are wishes that changed.
    """
    known = {p.deployment_id: p.generation for p in memory.provisions}
    changed = tuple(w for w in wishes if known.get(w.deployment_id) != w.generation)
    made = _provisioned(memory, changed, {t.deployment_id: t for t in traffic}, now_s).provisions
    names = {w.deployment_id for w in changed}
    both = (*(p for p in memory.provisions if p.deployment_id not in names), *made)
    woken = names | {about}
    return replace(memory, provisions=tuple(replace(p, asleep=p.asleep and p.deployment_id not in woken) for p in both))


def watch_changes(
    memory: Memory,
    wishes: tuple[Deployment, ...],
    before: Blueprint,
    after: Blueprint,
    savings: frozenset[tuple[str, str]],
    explanations: tuple[Explanation, ...],
    nodes: tuple[Node, ...],
    traffic: Iterable[DeploymentTraffic],
    now_s: float,
) -> Memory:
    """A new blueprint is in force: its changes are on trial, if their traffic can be seen.

    Args:
        savings: devices that it changes for savings.
    """
    by_id = {t.deployment_id: t for t in traffic}
    trials = {t.deployment_id: t for t in memory.trials}
    power = {place: mean.mean for place, mean in memory.power}
    told = {one.deployment_id: one for one in memory.told}
    newly = told_of(wishes, memory.provisions, explanations)
    for wish in wishes:
        seen = by_id.get(wish.deployment_id)
        if seen is None:
            continue
        name = wish.deployment_id
        promised = promised_mw(name, before, explanations, told.get(name), newly.get(name))
        promised = promised if promised is None else promised - slept_mw(before, after, nodes)
        saving = _is_saving(wish.deployment_id, before, after, savings)
        trial = begin(wish, before, after, seen.windows, power, promised, now_s, saving=saving)
        if trial is not None:
            trials[wish.deployment_id] = trial
    return replace(
        memory,
        trials=tuple(trials[name] for name in sorted(trials)),
        told=tuple(newly[name] for name in sorted(newly)),
    )


def planned_wishes(
    memory: Memory, wishes: tuple[Deployment, ...], policy: Policy, foreseen: tuple[tuple[str, Demand], ...]
) -> tuple[Deployment, ...]:
    """Wishes as they are planned for: sleeping ones left out, demand as provisioned or foreseen, under their holds."""
    demands = {p.deployment_id: p.demand for p in memory.provisions} if policy.adaptive else {}
    if policy.foresees:
        demands |= dict(foreseen)
    asleep = memory.asleep if policy.adaptive else ()
    holds = {hold.deployment_id: hold for hold in memory.holds} if policy.adaptive else {}
    return tuple(
        held_to(
            replace(
                wish,
                demand=demands.get(wish.deployment_id, wish.demand),
                objective=policy.objective or wish.objective,
            ),
            holds.get(wish.deployment_id),
            alarmed=wish.deployment_id in memory.alarmed,
        )
        for wish in wishes
        if wish.deployment_id not in asleep
    )


def _metered(memory: Memory, sense: Sense, blueprint: Blueprint, catalog: Catalog, now_s: float) -> Memory:
    if memory.source is not catalog and memory.source != catalog:
        memory = replace(memory, source=catalog, catalog=corrected(catalog, memory.drifts))
    if now_s - memory.metered_s < METER_PERIOD_S or not (sense.power or sense.speeds):
        return memory
    passed_s = min(now_s - memory.metered_s, POWER_S)
    known = dict(memory.power)
    means = {
        (r.node_id, r.device_id): known.get((r.node_id, r.device_id), NOTHING).after(r.power_mw, passed_s, POWER_S)
        for r in sense.power
    }
    drifts = drifted(memory.drifts, sense.speeds, blueprint, memory.source, passed_s)
    memory = replace(memory, power=tuple(sorted(means.items())), metered_s=now_s)
    factors = {d.key: d.factor for d in memory.drifts}
    moved = [d for d in drifts if d.factor != factors.get(d.key, 1.0)]
    if moved:
        words = tuple(
            f"{d.variant_id[:20]} on {d.device_class} takes {d.ratio.mean:.2f} × its profile; planned with "
            f"{d.factor:.2f} ×"
            for d in moved
        )
        memory = replace(memory, catalog=corrected(memory.source, drifts), notes=(*memory.notes, *words))
    return replace(memory, drifts=drifts)


def _judged(
    memory: Memory,
    wishes: tuple[Deployment, ...],
    traffic: dict[str, DeploymentTraffic],
    blueprint: Blueprint,
    nodes: tuple[Node, ...],
    now_s: float,
) -> Memory:
    if not memory.trials:
        return memory
    by_id = {w.deployment_id: w for w in wishes}
    power = {place: mean.mean for place, mean in memory.power}
    going: list[Trial] = []
    for trial in memory.trials:
        wish, seen = by_id.get(trial.deployment_id), traffic.get(trial.deployment_id)
        if wish is None:
            continue
        alarmed = trial.deployment_id in memory.alarmed
        windows = seen.windows if seen else ()
        result = judge(trial, wish, blueprint, nodes, windows, power, now_s, alarmed=alarmed)
        if isinstance(result, Outcome):
            notes = (*memory.notes, f"{wish.name}: {result.words}")
            holds = memory.holds
            if result.hold is not None:
                holds = (*(h for h in holds if h.deployment_id != trial.deployment_id), result.hold)
            rolled_back = (*memory.rolled_back, *result.quarantine)
            memory = replace(memory, rolled_back=rolled_back, holds=holds, notes=notes)
        else:
            going.append(result)
    return replace(memory, trials=tuple(going))


def _provisioned(
    memory: Memory, wishes: tuple[Deployment, ...], traffic: dict[str, DeploymentTraffic], now_s: float
) -> Memory:
    # One of which only the season is known says nothing of the load yet.
    histories = {name: history for name, history in memory.histories if history.age_s > 0.0}
    before = {p.deployment_id: p for p in memory.provisions}
    provisions: list[Provision] = []
    notes = list(memory.notes)
    for wish in wishes:
        name = wish.deployment_id
        mine = [a for a in memory.alarms if a.deployment_id == name]
        after = provide(before.get(name), wish, histories.get(name), traffic.get(name), mine, now_s)
        if name in before and after.words != before[name].words:
            notes.append(f"{wish.name}: {after.words}")
        provisions.append(after)
    return replace(memory, provisions=tuple(provisions), notes=tuple(notes))


def _awake_if_slow(wishes: tuple[Deployment, ...], blueprint: Blueprint, catalog: Catalog) -> tuple[Deployment, ...]:
    """Wishes as they are, but one whose cold start would take longer than it accepts may not sleep."""
    slow = []
    for wish in wishes:
        variants = {r.variant_id for r in blueprint.of(wish.deployment_id)} if wish.scale_to_zero else set()
        load_s = max((p.load_s for p in catalog.profiles if p.variant_id in variants), default=0.0)
        if 0.0 < wish.cold_start_s < load_s:
            slow.append(wish.deployment_id)
    return tuple(replace(w, scale_to_zero=False) if w.deployment_id in slow else w for w in wishes) if slow else wishes


def _is_saving(deployment_id: str, before: Blueprint, after: Blueprint, savings: frozenset[tuple[str, str]]) -> bool:
    """Whether a deployment was changed on devices only where nobody waited for it."""
    old, new = (
        {(r.node_id, r.partition.device_id, r.replica_id) for r in b.of(deployment_id)} for b in (before, after)
    )
    changed = {place[:2] for place in old ^ new} or {place[:2] for place in new} & savings
    return bool(changed) and changed <= savings
