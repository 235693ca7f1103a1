"""Clocks between two plans: as slow as the load of the last minute lets them be, fast again within a look. Pure.

A plan provisions for crests and sets clocks for them. Most of the time less is asked for, and a token at a lower clock
takes less energy as long as batches stay full. So the boards of a deployment go, one after the other, from the slowest
clock that keeps its limits up to the default, until together they take what the last crests asked for. Nothing is
remembered: a crest is in sight for a minute or two, which is what keeps clocks from flapping downwards; upwards
nothing waits. In danger the relief's default clocks rule (`relief.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from services.orchestrator.core.adaptation.history import History
from services.orchestrator.core.facts.blueprint import Blueprint, Replica
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.fleet import PowerSetting
from services.orchestrator.core.facts.loads import figures_at, longest_prompt, most_concurrency
from services.orchestrator.core.facts.profile import Profile
from services.orchestrator.core.facts.traffic import DeploymentTraffic
from services.orchestrator.core.facts.wish import Deployment, Metric

# Of the throughput with full batches so much is within the limits: beyond it queues grow faster than a look.
CRUISE_SHARE: Final = 0.8
# Traffic that goes on and off is waited for with so much of its highest crest: a burst is over before clocks rise.
BURST_SHARE: Final = 0.7
# A long prompt (95th percentile), by itself, takes this share of the TTFT limit at most.
LONG_SHARE: Final = 0.5
# Full batches over this share of the places are a surge that no window has told of yet: full speed.
SURGE_SHARE: Final = 0.85
# A slower clock that saves less of a request's energy is not worth what it costs in answers: prompts hardly gain.
LEAST_SAVING: Final = 0.05
_KEPT_RATES: Final = 8_192

Place = tuple[str, str]
Settings = Mapping[Place, PowerSetting]


@dataclass(frozen=True, slots=True)
class _Gear:
    """One board's clock: what its replicas take at it, a second and together, and the energy of a request."""

    setting: PowerSetting
    rate_per_s: float
    places: int
    request_mj: float


def cruise(
    wishes: Iterable[Deployment],
    routes: Iterable[tuple[str, tuple[Replica, ...]]],
    histories: Mapping[str, History],
    traffic: Mapping[str, DeploymentTraffic],
    catalog: Catalog,
    blueprint: Blueprint,
) -> dict[Place, PowerSetting]:
    """Settings by (node id, device id), for boards on which a single deployment is; others stay as planned."""
    by_id = {w.deployment_id: w for w in wishes}
    shared = _shared(blueprint)
    chosen: dict[Place, PowerSetting] = {}
    for name, routed in routes:
        wish, history, seen = by_id.get(name), histories.get(name), traffic.get(name)
        if wish is None or history is None or seen is None or not routed:
            continue
        boards: dict[Place, list[Replica]] = {}
        for replica in routed:
            place = (replica.node_id, replica.partition.device_id)
            if place not in shared:
                boards.setdefault(place, []).append(replica)
        gears = {place: _gears(wish, tuple(on), catalog) for place, on in boards.items()}
        chosen |= _chosen({p: g for p, g in gears.items() if len(g) > 1}, gears, history, seen)
    return chosen


def _chosen(
    free: Mapping[Place, tuple[_Gear, ...]],
    all_gears: Mapping[Place, tuple[_Gear, ...]],
    history: History,
    seen: DeploymentTraffic,
) -> dict[Place, PowerSetting]:
    """The slowest gear of each board, then one step faster for one after the other until the load is met."""
    at = dict.fromkeys(free, 0)
    wanted = max(history.crests.lately, BURST_SHARE * history.crests.high) / CRUISE_SHARE
    fixed = sum(g[-1].rate_per_s for p, g in all_gears.items() if p not in free and g)
    places = sum(g[0].places for g in all_gears.values() if g)
    if seen.at_work > SURGE_SHARE * places:
        return {place: gears[-1].setting for place, gears in free.items()}
    rate = fixed + sum(gears[0].rate_per_s for gears in free.values())
    most = max((len(gears) for gears in free.values()), default=0)
    for step in range(1, most):
        for place in sorted(free):
            if rate >= wanted:
                break
            if step < len(free[place]):
                rate += free[place][step].rate_per_s - free[place][step - 1].rate_per_s
                at[place] = step
    return {place: free[place][step].setting for place, step in at.items()}


def _gears(wish: Deployment, on: tuple[Replica, ...], catalog: Catalog) -> tuple[_Gear, ...]:
    """Gears of one board, slowest first: settings at which every replica on it is known to keep its limits."""
    by_setting: dict[PowerSetting, list[tuple[Profile, int]]] = {}
    for replica in on:
        for profile in catalog.profiles:
            like = (profile.variant_id, profile.device_class, profile.partition_kind)
            if like == (replica.variant_id, replica.device_class, replica.partition.kind):
                by_setting.setdefault(profile.power, []).append((profile, replica.batch_limit))
    gears = []
    for setting, profiles in by_setting.items():
        rates = [_rate(profile, wish, batch) for profile, batch in profiles]
        if len(rates) == len(on) and all(rates):
            known = [rate for rate in rates if rate is not None]
            total = sum(r for r, _, _ in known)
            energy_mj = sum(r * mj for r, _, mj in known) / total
            gears.append(_Gear(setting, total, sum(p for _, p, _ in known), energy_mj))
    return _worthwhile(sorted(gears, key=lambda gear: gear.rate_per_s))


def _worthwhile(gears: list[_Gear]) -> tuple[_Gear, ...]:
    """From the one of least energy on, when it saves enough against the fastest."""
    if not gears:
        return ()
    best = min(range(len(gears)), key=lambda i: gears[i].request_mj)
    saves = gears[best].request_mj <= (1.0 - LEAST_SAVING) * gears[-1].request_mj
    return tuple(gears[best:]) if saves else (gears[-1],)


@lru_cache(maxsize=_KEPT_RATES)
def _rate(profile: Profile, wish: Deployment, batch_limit: int) -> tuple[float, int, float] | None:
    """Requests a second of a full batch, how many that are together, and millijoules of one; None beyond the limits.

    In a closed loop of n requests each takes TTFT + (output - 1) · TPOT, so n over that are done a second (J. D. C.
    Little, "A Proof for the Queuing Formula L = λW", Operations Research 9, 1961).
    """
    demand = wish.demand
    later = max(demand.output_tokens - 1, 0)
    long = max(demand.prompt_tokens_p95, demand.prompt_tokens)
    for n in range(min(batch_limit, most_concurrency(profile)), 0, -1):
        if demand.prompt_tokens > longest_prompt(profile, n):
            continue
        seen = figures_at(profile, demand.prompt_tokens, n)
        whole_ms = seen.ttft.mean_ms + later * seen.tpot.mean_ms
        alone_ms = figures_at(profile, min(long, int(longest_prompt(profile, 1))), 1).ttft.p50_ms
        reached = {Metric.TPOT: seen.tpot.p95_ms, Metric.E2E: whole_ms, Metric.TTFT: alone_ms / LONG_SHARE}
        if all(reached[x.metric] <= x.limit_ms for x in wish.slo.latency if x.metric in reached):
            return (1000.0 * n / whole_ms, n, seen.energy_per_token_mj * demand.output_tokens)
    return None


def _shared(blueprint: Blueprint) -> set[Place]:
    """Boards with more than one deployment: the clock of one is the clock of the others."""
    owners: dict[Place, set[str]] = {}
    for replica in (*blueprint.replicas, *blueprint.leaving):
        owners.setdefault((replica.node_id, replica.partition.device_id), set()).add(replica.deployment_id)
    return {place for place, names in owners.items() if len(names) > 1}
