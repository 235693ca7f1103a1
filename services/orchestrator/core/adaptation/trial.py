"""Every swap is on trial: what it was to bring is held against what it brings, and what made things worse goes back.

    begun (blueprint in force) → settled (all new replicas READY) → judged by windows that began after that
      limits certainly broken, and not before the swap      → back, at once
      power certainly higher though it was to fall          → back, after `TRIAL_S`
      limits kept for `TRIAL_S`, or `MOST_TRIAL_S` is over   → stays

Going back is a quarantine of the new (variant, device class) for that deployment: the planner then returns to the old
one, which stands by loaded until the trial is over (`rollout.py`). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.adaptation.attainment import Verdict, attainment
from services.orchestrator.core.facts.blueprint import Blueprint, Replica
from services.orchestrator.core.facts.catalog import Quarantine
from services.orchestrator.core.facts.fleet import Node, ReplicaState
from services.orchestrator.core.facts.traffic import Window
from services.orchestrator.core.facts.wish import Deployment

# A kept limit is believed after two minutes, and a fall of power seen by its meters.
TRIAL_S: Final = 120.0
# Without enough requests to judge by, a swap stays after ten minutes.
MOST_TRIAL_S: Final = 600.0
# What went back is not tried again for half an hour; the same load would bring the same end.
ROLLED_BACK_S: Final = 1800.0
# A rise of power below this share is within the meters' and the load's noise.
WORSE_SHARE: Final = 0.10
# What was before is judged by the last minute: a breach long over is no excuse for a new one.
BEFORE_WINDOWS: Final = 12
# Loads that differ by more cannot be compared.
LIKE_LOAD: Final = 0.20

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Trial:
    """A swap being watched.

    Attributes:
        old, new: (variant id, device class) before and after.
        was_kept: limits were not broken when it began.
        settled_s: since when all new replicas serve; None before.
        predicted_mw: change of power that the plan promised; None when it did not say.
        power_mw, rate_per_s: of the devices concerned, and of the load, before it.
        devices: (node id, device id) concerned.
    """

    deployment_id: str
    blueprint_id: str
    begun_s: float
    old: tuple[Key, ...]
    new: tuple[Key, ...]
    was_kept: bool
    settled_s: float | None = None
    predicted_mw: float | None = None
    power_mw: float | None = None
    rate_per_s: float = 0.0
    devices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended, in words with figures; `quarantine` is what takes the swap back, () when it stays."""

    deployment_id: str
    words: str
    quarantine: tuple[Quarantine, ...] = ()


def keys_of(replicas: Iterable[Replica]) -> tuple[Key, ...]:
    """(variant id, device class) of replicas, each once."""
    return tuple(sorted({(r.variant_id, r.device_class) for r in replicas}))


def begin(
    wish: Deployment,
    before: Blueprint,
    after: Blueprint,
    windows: tuple[Window, ...],
    power: Mapping[tuple[str, str], float],
    predicted_mw: float | None,
    now_s: float,
) -> Trial | None:
    """A trial of what a new blueprint swapped for a deployment; None when it swapped nothing, or what people named."""
    old, new = before.of(wish.deployment_id), after.of(wish.deployment_id)
    if wish.pinned_variant_id or wish.chain or not old or not set(keys_of(new)) - set(keys_of(old)):
        return None
    devices = tuple(sorted({(r.node_id, r.partition.device_id) for r in (*old, *new)}))
    known = [power[d] for d in devices if d in power]
    return Trial(
        deployment_id=wish.deployment_id,
        blueprint_id=after.blueprint_id,
        begun_s=now_s,
        old=keys_of(old),
        new=keys_of(new),
        was_kept=attainment(windows[-BEFORE_WINDOWS:], wish.slo).verdict is not Verdict.BREACHED,
        predicted_mw=predicted_mw,
        power_mw=sum(known) if len(known) == len(devices) else None,
        rate_per_s=_rate(windows),
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
) -> Trial | Outcome:
    """The trial after one look, or how it ended."""
    if set(keys_of(blueprint.of(trial.deployment_id))) != set(trial.new):
        return Outcome(trial.deployment_id, "the swap was overtaken by another plan")
    if trial.settled_s is None:
        return replace(trial, settled_s=now_s) if _settled(trial, blueprint, nodes) else trial
    since = tuple(w for w in windows if w.start_s >= trial.settled_s)
    kept = attainment(since, wish.slo)
    if kept.verdict is Verdict.BREACHED and trial.was_kept:
        return _back(trial, f"limits broken after the swap: {kept.words}", now_s)
    passed_s = now_s - trial.settled_s
    if passed_s >= TRIAL_S and (words := _dearer(trial, since, power)):
        return _back(trial, words, now_s)
    if (passed_s >= TRIAL_S and kept.verdict is Verdict.KEPT) or passed_s >= MOST_TRIAL_S:
        return Outcome(trial.deployment_id, f"the swap stays: {_gain(trial, power)}")
    return trial


def _settled(trial: Trial, blueprint: Blueprint, nodes: tuple[Node, ...]) -> bool:
    ready = {(n.node_id, r.replica_id) for n in nodes for r in n.replicas if r.state is ReplicaState.READY}
    return all((r.node_id, r.replica_id) in ready for r in blueprint.of(trial.deployment_id))


def _back(trial: Trial, words: str, now_s: float) -> Outcome:
    again = tuple(key for key in trial.new if key not in trial.old)
    return Outcome(
        trial.deployment_id,
        words,
        tuple(Quarantine(trial.deployment_id, *key, words, now_s + ROLLED_BACK_S) for key in again),
    )


def _dearer(trial: Trial, since: tuple[Window, ...], power: Mapping[tuple[str, str], float]) -> str:
    if trial.power_mw is None or trial.predicted_mw is None or trial.predicted_mw >= 0.0:
        return ""
    rate, now_mw = _rate(since), _now_mw(trial, power)
    if now_mw is None or abs(rate - trial.rate_per_s) > LIKE_LOAD * max(trial.rate_per_s, 1e-9):
        return ""
    if now_mw <= trial.power_mw * (1.0 + WORSE_SHARE):
        return ""
    return f"power rose: {_gain(trial, power)}"


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
