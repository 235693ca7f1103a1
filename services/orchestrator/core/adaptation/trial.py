"""Every change for savings is on trial, and every swap: what it was to bring is held against what it brings.

    begun (blueprint in force) → settled (all new replicas READY) → judged by windows that began after that
      limits certainly broken, and not before the change   → back, at once
      more replicas again in danger, at no greater load     → the fewer ones are not tried again
      power certainly higher though it was to fall          → back, after `TRIAL_S`
      limits kept for `TRIAL_S`, or `MOST_TRIAL_S` is over   → stays

    swap                  goes back by a quarantine of the new (variant, device class)
    other partitions      of (variant, device class, kind of partition)
    clock, cap            of that and the power setting
    fewer replicas, nodes by a hold to at least as many
    more replicas         by a hold to at most as many, but in danger

Either is for that deployment and for half an hour; the planner then returns by its ordinary rules. After a swap the old
replicas stand by loaded until the trial is over (`rollout.py`). What was changed for a danger is not judged by power,
and but for a swap not at all: the load that called for it breaks limits, too. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeAlias

from services.orchestrator.core.adaptation.attainment import Verdict, attainment
from services.orchestrator.core.adaptation.hold import Hold
from services.orchestrator.core.facts.blueprint import Blueprint, Replica
from services.orchestrator.core.facts.catalog import Quarantine
from services.orchestrator.core.facts.fleet import Node, PowerSetting, ReplicaState
from services.orchestrator.core.facts.traffic import Window
from services.orchestrator.core.facts.wish import Deployment

# A kept limit is believed after two minutes, and a fall of power seen by its meters.
TRIAL_S: Final = 120.0
# Without enough requests to judge by, a change stays after ten minutes.
MOST_TRIAL_S: Final = 600.0
# What went back is not tried again for half an hour; the same load would bring the same end.
ROLLED_BACK_S: Final = 1800.0
# A rise of power below this share is within the meters' and the load's noise.
WORSE_SHARE: Final = 0.10
# What was before is judged by the last minute: a breach long over is no excuse for a new one, and so old is power.
BEFORE_WINDOWS: Final = 12
# Loads that differ by more cannot be compared.
LIKE_LOAD: Final = 0.20

# Variant id, device class, kind of partition, power setting.
Point: TypeAlias = tuple[str, str, str, PowerSetting]


class Change(StrEnum):
    """What was changed, the first of these that holds."""

    SWAP = "swap"
    REPARTITION = "repartition"
    POWER = "power setting"
    FEWER = "fewer replicas"
    MORE = "more replicas"
    CONSOLIDATION = "fewer nodes"


@dataclass(frozen=True, slots=True)
class Trial:
    """A change being watched.

    Attributes:
        old, new: operating points before and after.
        old_replicas, new_replicas, old_nodes: how many.
        was_kept: limits were not broken when it began.
        saving: nobody waited for it.
        settled_s: since when all new replicas serve; None before.
        predicted_mw: change of power that the plan promised; None when it did not say.
        power_mw, rate_per_s: of the devices concerned, and of the load, before it.
        planned_per_s: demand that it was planned for.
        devices: (node id, device id) concerned.
    """

    deployment_id: str
    blueprint_id: str
    begun_s: float
    change: Change
    old: tuple[Point, ...]
    new: tuple[Point, ...]
    old_replicas: int
    new_replicas: int
    old_nodes: int
    was_kept: bool
    saving: bool = False
    settled_s: float | None = None
    predicted_mw: float | None = None
    power_mw: float | None = None
    rate_per_s: float = 0.0
    planned_per_s: float = 0.0
    devices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended, in words with figures; `quarantine` or `hold` is what takes it back, neither when it stays."""

    deployment_id: str
    words: str
    quarantine: tuple[Quarantine, ...] = ()
    hold: Hold | None = None


def points_of(blueprint: Blueprint, deployment_id: str) -> tuple[Point, ...]:
    """Operating points of a deployment's replicas, each once."""
    found = {
        (r.variant_id, r.device_class, r.partition.kind, blueprint.power_of(r.node_id, r.partition.device_id))
        for r in blueprint.of(deployment_id)
    }
    return tuple(sorted(found, key=lambda point: (*point[:3], point[3].order)))


def change_of(before: Blueprint, after: Blueprint, deployment_id: str) -> Change | None:
    """What a new blueprint changes of a deployment; None when that is nothing to judge."""
    old, new = points_of(before, deployment_id), points_of(after, deployment_id)
    if not old or not new:
        return None
    for length, change in ((2, Change.SWAP), (3, Change.REPARTITION), (4, Change.POWER)):
        if {point[:length] for point in new} - {point[:length] for point in old}:
            return change
    was, now = before.of(deployment_id), after.of(deployment_id)
    if len(was) != len(now):
        return Change.FEWER if len(now) < len(was) else Change.MORE
    return Change.CONSOLIDATION if _nodes(now) < _nodes(was) else None


def begin(
    wish: Deployment,
    before: Blueprint,
    after: Blueprint,
    windows: tuple[Window, ...],
    power: Mapping[tuple[str, str], float],
    predicted_mw: float | None,
    now_s: float,
    *,
    saving: bool = False,
) -> Trial | None:
    """A trial of what a new blueprint changed for a deployment; None for nothing, or what people named or wait for."""
    change = change_of(before, after, wish.deployment_id)
    named = bool(wish.pinned_variant_id or wish.chain)
    if change is None or (named if change is Change.SWAP else not saving):
        return None
    was, now = before.of(wish.deployment_id), after.of(wish.deployment_id)
    devices = tuple(sorted({(r.node_id, r.partition.device_id) for r in (*was, *now)}))
    known = [power[d] for d in devices if d in power]
    return Trial(
        deployment_id=wish.deployment_id,
        blueprint_id=after.blueprint_id,
        begun_s=now_s,
        change=change,
        old=points_of(before, wish.deployment_id),
        new=points_of(after, wish.deployment_id),
        old_replicas=len(was),
        new_replicas=len(now),
        old_nodes=_nodes(was),
        was_kept=attainment(windows[-BEFORE_WINDOWS:], wish.slo).verdict is not Verdict.BREACHED,
        saving=saving,
        predicted_mw=predicted_mw,
        power_mw=sum(known) if len(known) == len(devices) else None,
        rate_per_s=_rate(windows[-BEFORE_WINDOWS:]),
        planned_per_s=wish.demand.requests_per_s,
        devices=devices,
    )


def judge(
    trial: Trial,
    wish: Deployment,
    blueprint: Blueprint,
    nodes: tuple[Node, ...],
    windows: tuple[Window, ...],
    power: Mapping[tuple[str, str], float],
    now_s: float,
    *,
    alarmed: bool = False,
) -> Trial | Outcome:
    """The trial after one look, or how it ended."""
    count = len(blueprint.of(trial.deployment_id))
    if points_of(blueprint, trial.deployment_id) != trial.new or count != trial.new_replicas:
        if trial.change is Change.FEWER and count > trial.new_replicas and alarmed and _is_like(trial, windows):
            words = f"{trial.new_replicas} replicas in place of {trial.old_replicas} brought danger"
            return _back(trial, words, nodes, now_s)
        return Outcome(trial.deployment_id, f"the {trial.change} was overtaken by another plan")
    if trial.settled_s is None:
        return replace(trial, settled_s=now_s) if _settled(trial, blueprint, nodes) else trial
    since = tuple(w for w in windows if w.start_s >= trial.settled_s)
    kept = attainment(since, wish.slo)
    through_it = trial.change is Change.SWAP or _is_like(trial, since)
    if kept.verdict is Verdict.BREACHED and trial.was_kept and through_it:
        return _back(trial, f"limits broken after the {trial.change}: {kept.words}", nodes, now_s)
    passed_s = now_s - trial.settled_s
    if passed_s >= TRIAL_S and (words := _dearer(trial, since, power)):
        return _back(trial, words, nodes, now_s)
    if (passed_s >= TRIAL_S and kept.verdict is Verdict.KEPT) or passed_s >= MOST_TRIAL_S:
        return Outcome(trial.deployment_id, f"the {trial.change} stays: {_gain(trial, power)}")
    return trial


def _back(trial: Trial, words: str, nodes: tuple[Node, ...], now_s: float) -> Outcome:
    until_s = now_s + ROLLED_BACK_S
    fleet = sum(node.takes_work for node in nodes)
    if trial.change in (Change.FEWER, Change.CONSOLIDATION):
        nodes_then = trial.old_nodes if trial.change is Change.CONSOLIDATION else 0
        hold = Hold(trial.deployment_id, words, until_s, least=trial.old_replicas, nodes=nodes_then, fleet=fleet)
        return Outcome(trial.deployment_id, words, hold=hold)
    if trial.change is Change.MORE:
        hold = Hold(
            trial.deployment_id, words, until_s, most=trial.old_replicas, up_to_per_s=trial.planned_per_s, fleet=fleet
        )
        return Outcome(trial.deployment_id, words, hold=hold)
    return Outcome(trial.deployment_id, words, _given_up(trial, words, until_s))


def _given_up(trial: Trial, words: str, until_s: float) -> tuple[Quarantine, ...]:
    """What is new, as narrow as the change was."""
    length = {Change.SWAP: 2, Change.REPARTITION: 3, Change.POWER: 4}[trial.change]
    old = {point[:length] for point in trial.old}
    found = {}
    for point in trial.new:
        if point[:length] not in old:
            variant_id, device_class, kind, power = point
            found[point[:length]] = Quarantine(
                trial.deployment_id,
                variant_id,
                device_class,
                words,
                until_s,
                kind if length > 2 else "",
                power if length > 3 else None,
            )
    return tuple(found.values())


def _nodes(replicas: Iterable[Replica]) -> int:
    return len({r.node_id for r in replicas})


def _settled(trial: Trial, blueprint: Blueprint, nodes: tuple[Node, ...]) -> bool:
    ready = {(n.node_id, r.replica_id) for n in nodes for r in n.replicas if r.state is ReplicaState.READY}
    return all((r.node_id, r.replica_id) in ready for r in blueprint.of(trial.deployment_id))


def _dearer(trial: Trial, since: tuple[Window, ...], power: Mapping[tuple[str, str], float]) -> str:
    if not trial.saving or trial.power_mw is None or trial.predicted_mw is None or trial.predicted_mw >= 0.0:
        return ""
    rate, now_mw = _rate(since), _now_mw(trial, power)
    if now_mw is None or rate < trial.rate_per_s * (1.0 - LIKE_LOAD) or not _is_like(trial, since):
        return ""
    if now_mw <= trial.power_mw * (1.0 + WORSE_SHARE):
        return ""
    return f"power rose: {_gain(trial, power)}"


def _is_like(trial: Trial, windows: tuple[Window, ...]) -> bool:
    """Whether the load has not risen beyond what can be compared."""
    return _rate(windows) <= trial.rate_per_s * (1.0 + LIKE_LOAD)


def _gain(trial: Trial, power: Mapping[tuple[str, str], float]) -> str:
    now_mw = _now_mw(trial, power)
    promised = "nothing was promised" if trial.predicted_mw is None else f"{trial.predicted_mw:+.4g} mW were promised"
    if now_mw is None or trial.power_mw is None:
        return f"{promised}, power is not measured"
    return f"{promised}, {now_mw - trial.power_mw:+.4g} mW were seen (from {trial.power_mw:.4g} to {now_mw:.4g} mW)"


def _now_mw(trial: Trial, power: Mapping[tuple[str, str], float]) -> float | None:
    known = [power[d] for d in trial.devices if d in power]
    return sum(known) if len(known) == len(trial.devices) else None


def _rate(windows: tuple[Window, ...]) -> float:
    passed_s = sum(w.length_s for w in windows)
    return sum(w.arrivals for w in windows) / passed_s if passed_s > 0.0 else 0.0
