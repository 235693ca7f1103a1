"""One run: a cluster, a trace, a policy in; an outcome out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from services.orchestrator.core.facts.policy import Policy
from services.orchestrator.core.facts.wish import Demand, Deployment, LatencyLimit, Metric, Slo
from services.simulator.catalogue import catalog_of, cost_of
from services.simulator.cluster import TYPE_LABEL, Cluster
from services.simulator.devices.menu import Menu
from services.simulator.engine.spent import Energy
from services.simulator.engine.world import Service, Setting, World
from services.simulator.inject import inject
from services.simulator.outcome import Outcome, percentiles, shares
from services.simulator.scenario import Scenario
from services.simulator.stored.menu import StoredMenu
from services.simulator.trace import Trace


@dataclass(frozen=True, slots=True)
class Limits:
    """The SLO of every request: it is within it when all hold; an infinite limit is none."""

    ttft_s: float
    tpot_s: float
    percentile: float = 99.0
    e2e_s: float = math.inf

    def by_metric(self) -> tuple[tuple[Metric, float], ...]:
        """The limits that there are, in seconds."""
        found = ((Metric.TTFT, self.ttft_s), (Metric.TPOT, self.tpot_s), (Metric.E2E, self.e2e_s))
        return tuple((metric, seconds) for metric, seconds in found if math.isfinite(seconds))

    def slo(self) -> Slo:
        """As a wish states it."""
        return Slo(tuple(LatencyLimit(metric, self.percentile, s * 1000.0) for metric, s in self.by_metric()))


@dataclass(frozen=True, slots=True)
class Case:
    """What policies are compared on.

    Attributes:
        from_s: figures count from here; what comes before is for tuning and for the policy to see.
    """

    cluster: Cluster
    menu: Menu | StoredMenu
    trace: Trace
    limits: Limits
    from_s: float = 0.0
    look_s: float = 1.0
    scenario: Scenario = field(default_factory=Scenario)
    seed: int = 0


def run(
    case: Case,
    policy: Policy,
    demand: Demand,
    *,
    foresee: Callable[[float], tuple[tuple[str, Demand], ...]] | None = None,
    device_type: str = "",
    progress: Callable[[float], None] | None = None,
) -> Outcome:
    """Runs a policy over the case's trace.

    Args:
        demand: what is provisioned for, or where an adaptive policy begins.
        foresee: what is to come, for policies that know it.
        device_type: only devices of this type may be used; "" is all.
        progress: is told shares in [0, 1].
    """
    world = World(_setting(case, policy, demand, foresee, device_type))
    inject(world, case.scenario)
    marks: dict[str, Energy] = {}
    lead_s = world.setting.lead_s

    def mark(now_s: float, name: str) -> None:
        marks[name] = world.meter.energy(now_s)

    world.timeline.at(lead_s + case.from_s, mark, "from")
    world.timeline.at(world.end_s, mark, "to")
    commits_before: list[int] = []
    world.timeline.at(lead_s + case.from_s, lambda *_: commits_before.append(world.conductor.commits))
    world.run(progress)
    requests = [r for r in world.requests() if r.arrival_s - lead_s >= case.from_s]
    limits = case.limits
    within, first, later, last = shares(requests, limits.ttft_s, limits.tpot_s, limits.e2e_s)
    answered = [r for r in requests if r.whole]
    return Outcome(
        policy=policy.name,
        from_s=case.from_s,
        to_s=case.trace.length_s,
        requests=len(requests),
        output_tokens=sum(r.output_tokens for r in requests if not r.refused),
        attainment=within,
        ttft_attainment=first,
        tpot_attainment=later,
        ttft=percentiles([r.ttft_s for r in answered]),
        tpot=percentiles([r.tpot_s for r in answered if r.output_tokens > 1]),
        energy=marks["to"].since(marks["from"]),
        lost=sum(r.done_s < 0.0 for r in requests),
        cut=sum(r.cut for r in requests),
        changes=world.conductor.commits - (commits_before or [0])[0],
        started=sum(h.started for n in world.nodes.values() for h in n.held.values()),
        findings=tuple(world.checks.findings),
        digest=world.digest,
        samples=tuple(replace(s, at_s=s.at_s - lead_s) for s in world.meter.samples),
        journal=tuple(world.conductor.journal),
        demand=demand,
        e2e=percentiles([r.e2e_s for r in answered]),
        e2e_attainment=last,
        refused=sum(r.refused for r in requests),
        done_s=max((r.done_s for r in answered), default=lead_s) - lead_s,
    )


def demand_of(trace: Trace, rate_per_s: float, mean_per_s: float = 0.0) -> Demand:
    """Demand of a trace's shape at a rate to provision for."""
    count = max(len(trace), 1)
    prompts, outputs = sorted(trace.prompt_tokens), sorted(trace.output_tokens)
    return Demand(
        requests_per_s=rate_per_s,
        prompt_tokens=max(round(sum(prompts) / count), 1),
        output_tokens=max(round(sum(outputs) / count), 1),
        mean_requests_per_s=mean_per_s,
        prompt_tokens_p95=prompts[int(0.95 * (count - 1))],
        output_tokens_p95=outputs[int(0.95 * (count - 1))],
    )


def _setting(
    case: Case,
    policy: Policy,
    demand: Demand,
    foresee: Callable[[float], tuple[tuple[str, Demand], ...]] | None,
    device_type: str,
) -> Setting:
    menu = case.menu
    if policy.levers.resting and isinstance(menu, Menu):
        menu = menu.resting()
    deployment = Deployment(
        deployment_id=case.trace.name,
        name=case.trace.name,
        model_id=case.cluster.model_id,
        slo=case.limits.slo(),
        demand=demand,
        node_selector=((TYPE_LABEL, device_type),) if device_type else (),
    )
    return Setting(
        nodes=case.cluster.placed(),
        costs=lambda variant, board, kind, clock: cost_of(menu, variant, board, kind, clock),
        catalog=catalog_of(menu, demand.output_tokens),
        services=(Service(deployment, case.trace, case.limits.ttft_s, case.limits.tpot_s, case.limits.e2e_s),),
        policy=policy,
        look_s=case.look_s,
        foresee=foresee,
    )
