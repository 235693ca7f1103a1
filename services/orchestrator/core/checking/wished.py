"""Part of the independent check: what a wish says of its replicas beside latencies. Numbers, pins, context, power."""

from __future__ import annotations

from typing import Final

from services.orchestrator.core.checking.slo import least_active_mw, slo_findings
from services.orchestrator.core.facts.blueprint import Replica
from services.orchestrator.core.facts.fleet import PowerSetting
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Deployment

# Share of time that one replica answers, as docs/orchestrator.md states it; replicas fail independently.
_ONE_AVAILABILITY: Final = 0.99
# Two ways of adding up modelled power may differ by this share before it is a finding.
_TOLERANCE: Final = 0.02


def wished_findings(
    situation: Situation, wish: Deployment, replicas: tuple[Replica, ...], power: dict[tuple[str, str], PowerSetting]
) -> list[str]:
    """What a wish that is said to be met has not.

    Args:
        power: settings that devices shall have, by node and device.
    """
    findings = _numbers(wish, replicas)
    if wish.pinned_variant_id and any(r.variant_id != wish.pinned_variant_id for r in replicas):
        findings.append(f"{wish.name} runs another variant than the pinned one")
    if wish.chain and any(r.variant_id not in wish.chain for r in replicas):
        findings.append(f"{wish.name} runs a variant that is not of its chain")
    findings += _context(situation, wish, replicas)
    limit = wish.slo.power_mw
    if limit is not None and replicas:
        least = sum(least_active_mw(situation, wish, replicas, power))
        if least > limit * (1.0 + _TOLERANCE):
            findings.append(f"{wish.name} draws at least {least:.4g} mW, {limit:.4g} is the most")
    return [*findings, *slo_findings(situation, wish, replicas, power)]


def _numbers(wish: Deployment, replicas: tuple[Replica, ...]) -> list[str]:
    count, least, findings = len(replicas), max(wish.min_replicas, 1), []
    if count < least:
        findings.append(f"{wish.name} has {count} replicas, at least {least} are wished")
    if wish.max_replicas and count > wish.max_replicas:
        findings.append(f"{wish.name} has {count} replicas, at most {wish.max_replicas} are wished")
    wanted = wish.slo.availability
    reached = 1.0 - (1.0 - _ONE_AVAILABILITY) ** count
    if wanted is not None and reached < wanted - 1e-9:
        findings.append(
            f"{wish.name} is available {reached:.6g} of the time with {count} replicas, {wanted:g} is asked"
        )
    return findings


def _context(situation: Situation, wish: Deployment, replicas: tuple[Replica, ...]) -> list[str]:
    demand, used = wish.demand, {replica.variant_id for replica in replicas}
    longest = max(demand.prompt_tokens, demand.prompt_tokens_p95) + max(demand.output_tokens, demand.output_tokens_p95)
    return [
        f"{wish.name} needs {longest} tokens of context, {variant.name} has {variant.context_tokens}"
        for variant in situation.catalog.variants
        if variant.variant_id in used and variant.context_tokens and variant.context_tokens < longest
    ]
