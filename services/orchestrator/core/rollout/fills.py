"""How far each replica is filled before the next one works. Pure.

The energy of a token falls with the batch, and a loaded replica with nothing to do draws little; so requests go to one
replica until what waits there for its first token, or what decodes there together, comes near the SLO, and only then
to the next. The order is that of energy per token. In danger less is let wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.facts.blueprint import Blueprint, Replica
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.fleet import DEFAULT_POWER, PowerSetting
from services.orchestrator.core.facts.loads import figures_up_to, most_concurrency
from services.orchestrator.core.facts.profile import Profile
from services.orchestrator.core.facts.wish import Deployment, Metric

# Share of the TTFT limit that a prompt and those before it may take at a full batch; the rest is for the step under way
# and for gateways that do not know of each other. In danger it is the second; where limits were kept with room lately,
# the third: up to the whole limit chat takes 1.5 % less, and the day keeps 99.0 % in place of 99.5.
WAIT_SHARE: Final = 0.7
CAREFUL_SHARE: Final = 0.35
ROOMY_SHARE: Final = 0.8
# Without a limit on TTFT so many prompts of mean length wait at most.
WAITING_WITHOUT_LIMIT: Final = 4
# A decode step with prefills between may take longer than profiled at a steady load.
PACE_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Fill:
    """What one replica is filled up to.

    Attributes:
        sequences: requests at work together; 0 means that requests are shared out evenly.
        tokens: prompt tokens of requests without a first token.
        rank: replicas of the lowest rank are filled first.
    """

    sequences: int = 0
    tokens: int = 0
    rank: int = 0


EVENLY: Final = Fill()


def fills_of(
    routes: Iterable[tuple[str, tuple[Replica, ...]]],
    wishes: Iterable[Deployment],
    catalog: Catalog,
    blueprint: Blueprint,
    careful: frozenset[str] = frozenset(),
    roomy: frozenset[str] = frozenset(),
) -> tuple[tuple[str, Fill], ...]:
    """Fills by replica id; a deployment with one replica, or with one that was never profiled, has none.

    Args:
        careful: deployments in danger.
        roomy: deployments that keep their limits with room.
    """
    by_id = {w.deployment_id: w for w in wishes}
    powers = {(n.node_id, device): power for n in blueprint.layouts for device, power in n.power_settings}
    found: list[tuple[str, Fill]] = []
    for name, routed in routes:
        if name in by_id and len(routed) > 1:
            share = CAREFUL_SHARE if name in careful else ROOMY_SHARE if name in roomy else WAIT_SHARE
            found += _filled(by_id[name], routed, _profiles(catalog, routed), powers, share)
    return tuple(sorted(found, key=lambda entry: entry[0]))


Key = tuple[str, str, str, PowerSetting]


def _profiles(catalog: Catalog, routed: tuple[Replica, ...]) -> dict[Key, Profile]:
    wanted = {r.variant_id for r in routed}
    return {
        (p.variant_id, p.device_class, p.partition_kind, p.power): p for p in catalog.profiles if p.variant_id in wanted
    }


def _filled(
    wish: Deployment,
    routed: tuple[Replica, ...],
    profiles: dict[Key, Profile],
    powers: dict[tuple[str, str], PowerSetting],
    share: float,
) -> list[tuple[str, Fill]]:
    most, known = dict[str, tuple[int, int, float]](), dict[tuple[int, int], tuple[int, int, float]]()
    for r in routed:
        power = powers.get((r.node_id, r.partition.device_id), DEFAULT_POWER)
        profile = profiles.get((r.variant_id, r.device_class, r.partition.kind, power))
        if profile is None or profile.batch_limit < r.batch_limit:
            return []
        like = (id(profile), r.batch_limit)
        if like not in known:
            known[like] = _most(profile, wish, r.batch_limit, share)
        most[r.replica_id] = known[like]
    if min(sequences for sequences, _, _ in most.values()) < 1:
        return []
    order = sorted(most, key=lambda name: (most[name][2], name))
    return [(name, Fill(most[name][0], most[name][1], rank)) for rank, name in enumerate(order)]


def _most(profile: Profile, wish: Deployment, batch_limit: int, share: float) -> tuple[int, int, float]:
    """Sequences together, prompt tokens waiting, and energy per token in millijoules when so full."""
    slo, demand = wish.slo, wish.demand
    later = max(demand.output_tokens - 1, 0)
    batch = min(batch_limit, most_concurrency(profile))
    sequences, energy_mj, prompt_ms = 0, 0.0, 0.0
    for n, seen in enumerate(figures_up_to(profile, demand.prompt_tokens, batch), 1):
        reached = {Metric.TPOT: seen.tpot.mean_ms, Metric.E2E: seen.ttft.mean_ms + later * seen.tpot.mean_ms}
        if any(reached[x.metric] > PACE_SHARE * x.limit_ms for x in slo.latency if x.metric in reached):
            break
        # What a prompt takes while as many decode; some wait for others is in it, which errs on the safe side.
        sequences, energy_mj, prompt_ms = n, seen.energy_per_token_mj, seen.ttft.p50_ms
    if not sequences:
        return 0, 0, 0.0
    limit_ms = min((x.limit_ms for x in slo.latency if x.metric is Metric.TTFT), default=0.0)
    prompts = share * limit_ms / max(prompt_ms, 1e-3) if limit_ms else WAITING_WITHOUT_LIMIT
    return sequences, max(int(prompts * demand.prompt_tokens), 1), energy_mj
