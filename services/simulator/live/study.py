"""A live run of one policy: placed, loaded open loop, watched, and set beside what the simulator said of it.

Every policy is the orchestrator's own (`TRADEWIND_ORCHESTRATOR_POLICY`), with the demand that its simulated run had:
for `static` what the search with hindsight found, for `static-peak` the raised peak, for adaptive ones what an
operator states at the start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psutil

from services.orchestrator.core.facts.policy import POLICIES
from services.orchestrator.core.facts.wish import Demand, Metric
from services.simulator.baselines import Tell
from services.simulator.engine.world import LEAD_S
from services.simulator.live.bystanders import core_time
from services.simulator.live.generator import Answer, play
from services.simulator.live.observer import Observer, Watched
from services.simulator.outcome import Outcome
from services.simulator.policies import check_policy, run_policy
from services.simulator.run import Case, Limits, demand_of, run
from services.simulator.trace import Trace
from tradewind.client.tradewind import Tradewind
from tradewind.domain.errors import InvalidField, SloInfeasible
from tradewind.v1 import common_pb2, orchestrator_pb2

DEFAULT_POLICIES: Final = ("static-peak", "static", "energy")
# Decisions of a run of minutes; the cool-down of devices keeps them to a handful.
MOST_DECISIONS: Final = 100
# A live run lasts minutes: what is stated at its start is the rate of its busiest stretch of this length.
STATED_S: Final = 20.0
# Where no placement takes what is stated, as much as there is one for is provisioned: lowered by this factor, so often
# at most.
_PEAK_STEP: Final = 1.15
_PEAK_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One policy, live.

    Attributes:
        placed: at the start, "variant on partition kind" of each replica.
        began_s: when the first request was due, since the epoch.
        decisions: of the run, oldest first; those that placed it at the start are left out.
        simulated: the same policy with the same demand in the simulator.
        others_s: core-seconds that processes with no part in the run took meanwhile.
        cores: of the machine.
    """

    policy: str
    demand: Demand
    placed: tuple[str, ...]
    began_s: float
    length_s: float
    answers: tuple[Answer, ...]
    watched: Watched
    decisions: tuple[orchestrator_pb2.Decision, ...]
    simulated: Outcome
    others_s: float
    cores: int

    @property
    def others_share(self) -> float:
        """Share of the machine's core time that others took."""
        return self.others_s / max(self.cores * self.took_s, 1e-9)

    @property
    def took_s(self) -> float:
        """Until the last answer, or until the trace ended."""
        return max(self.length_s, *(a.done_s for a in self.answers))

    @property
    def device_mj(self) -> float:
        """Energy of all devices during the trace, idle and everything else on them included."""
        return self.watched.energy_mj(self.began_s, self.began_s + self.length_s)

    @property
    def charged_mj(self) -> float:
        """Energy that replicas charged to requests: the work alone."""
        return sum(a.energy_mj for a in self.answers)

    @property
    def idle_mj(self) -> float:
        """What the devices would have drawn during the trace with nothing at work, by their own figure."""
        return self.watched.idle_w * self.length_s * 1e3


def _placed_at_start(outcome: Outcome) -> bool:
    """Whether something was placed before the first request."""
    return any(line["changes"] for line in outcome.journal if line["at_s"] < LEAD_S)


def check_live(name: str) -> str:
    """The name of a policy that can be run live.

    Raises:
        InvalidField: there is no such policy, or it would have to know the future.
    """
    if POLICIES[check_policy(name)].foresees:
        raise InvalidField("--policy", f"{name} knows the future, which only a simulation has; leave it out")
    return name


def stated(trace: Trace, rate_per_s: float = 0.0) -> Demand:
    """What an operator states who has seen such traffic: its busiest `STATED_S`, its mean, its lengths.

    Args:
        rate_per_s: what is stated in place of the busiest stretch; 0 states that.
    """
    length_s = max(trace.length_s, 1.0)
    rate = rate_per_s or trace.peak_per_s(min(STATED_S, length_s))
    return demand_of(trace, rate, min(len(trace) / length_s, rate))


def simulated(case: Case, policy: str, tell: Tell, stated_per_s: float = 0.0) -> Outcome:
    """The policy in the simulator; what it was provisioned for is what the live run is, too.

    Args:
        stated_per_s: the rate that an adaptive policy begins with; 0 is the busiest stretch.

    Raises:
        SloInfeasible: nothing can be placed at the start, however little is provisioned for.
    """
    chosen = POLICIES[check_policy(policy)]
    outcome = run(case, chosen, stated(case.trace, stated_per_s)) if chosen.adaptive else run_policy(case, policy, tell)
    tries = _PEAK_TRIES
    while not _placed_at_start(outcome) and tries:
        demand = replace(outcome.demand, requests_per_s=outcome.demand.requests_per_s / _PEAK_STEP)
        outcome = run(case, chosen, demand)
        tell(f"{demand.requests_per_s:.3g}/s", outcome)
        tries -= 1
    if not _placed_at_start(outcome):
        raise SloInfeasible(
            f"{policy}: nothing measured here meets the SLO, not even at {outcome.demand.requests_per_s:.2g} requests "
            "a second; loosen --ttft-p95 or --tpot-p95, or raise --time-scale"
        )
    return outcome


def run_live(
    client: Tradewind,
    state: Path,
    deployed: orchestrator_pb2.Deployment,
    case: Case,
    policy: str,
    said: Outcome,
    tell: Callable[[int], None],
) -> LiveRun:
    """Plays the trace to a deployment that serves, and reads the meters.

    Args:
        state: state folder of the instance.
        said: of `simulated`.
        tell: is told how many requests are answered.

    Raises:
        TradewindError: the services do not answer.
    """
    placed = tuple(sorted(_placed(client, deployed)))
    with Observer(client.orchestrator) as observer:
        before, began_s = core_time(state), time.time()
        answers = asyncio.run(play(client.endpoints.gateway, deployed.name, case.trace, tell))
        others_s = core_time(state).others_since(before)
    made = client.orchestrator.decisions(deployed.name, limit=MOST_DECISIONS)
    during = tuple(reversed([d for d in made if d.generation and d.create_time.seconds >= int(began_s)]))
    return LiveRun(
        policy, said.demand, placed, began_s, case.trace.length_s, answers, observer.seen, during, said, others_s,
        psutil.cpu_count() or 1,
    )  # fmt: skip


_METRICS: Final = {
    Metric.TTFT: common_pb2.LATENCY_METRIC_TTFT,
    Metric.TPOT: common_pb2.LATENCY_METRIC_TPOT,
    Metric.E2E: common_pb2.LATENCY_METRIC_E2E,
}


def live_spec(model: str, limits: Limits, demand: Demand) -> orchestrator_pb2.DeploymentSpec:
    """A wish of this demand under the SLO of each request."""
    spec = orchestrator_pb2.DeploymentSpec(model=model, slo=_slo(limits), objective=common_pb2.OBJECTIVE_ENERGY)
    spec.demand.requests_per_s = demand.requests_per_s
    # The search with hindsight may provision for less than the mean; a wish states no mean above its rate.
    spec.demand.mean_requests_per_s = min(demand.mean_requests_per_s, demand.requests_per_s)
    spec.demand.prompt_tokens, spec.demand.output_tokens = demand.prompt_tokens, demand.output_tokens
    spec.demand.prompt_tokens_p95, spec.demand.output_tokens_p95 = demand.prompt_tokens_p95, demand.output_tokens_p95
    return spec


def _slo(limits: Limits) -> common_pb2.Slo:
    return common_pb2.Slo(
        latency=[
            common_pb2.LatencyLimit(metric=_METRICS[metric], percentile=limits.percentile, limit_ms=seconds * 1e3)
            for metric, seconds in limits.by_metric()
        ]
    )


def _placed(client: Tradewind, deployment: orchestrator_pb2.Deployment) -> list[str]:
    names = {v.variant_id: v.name for v in client.compiler.variants(deployment.spec.model)}
    return [f"{names.get(r.variant_id, r.variant_id)} on {r.partition_id}" for r in deployment.replicas]
