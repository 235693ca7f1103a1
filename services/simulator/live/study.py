"""A live comparison: the same trace under fixed and adaptive placement, on whatever the running instance has.

`static` is found with hindsight by the same planner: the demand of the trace's busiest minute is planned for, and what
comes out (variant, number of replicas) is then pinned. `energy` starts from the mean rate and may change what it likes.
Energy is the devices' own meters over the run, idle included, with the meters' label; on a machine without counters
that is `modelled`, and a saving of it is not a measured saving.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from services.simulator.live.generator import Answer, play
from services.simulator.live.replay import Compared, compare, cost_of_profile
from services.simulator.outcome import percentiles
from services.simulator.run import Limits
from services.simulator.trace import Trace
from tradewind.client.tradewind import Tradewind
from tradewind.domain.errors import InvalidField
from tradewind.domain.figures import FigureSource, weakest
from tradewind.v1 import common_pb2, orchestrator_pb2

LIVE_POLICIES: Final = ("static", "energy")
# The busiest stretch that a fixed placement is planned for; live runs last minutes, not hours.
PEAK_S: Final = 20.0
Place = Callable[[str, orchestrator_pb2.DeploymentSpec], orchestrator_pb2.Deployment]


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One policy, live.

    Attributes:
        energy_mj, source: of all devices over the run, with its label.
        replicas: at the end, variant by replica.
    """

    policy: str
    answers: tuple[Answer, ...]
    energy_mj: float
    source: FigureSource
    method: str
    replicas: tuple[str, ...]
    calibration: tuple[Compared, ...]

    def document(self, limits: Limits) -> dict[str, Any]:
        """For report.json."""
        done = [a for a in self.answers if not a.error]
        within = sum(a.ttft_s <= limits.ttft_s and a.tpot_s <= limits.tpot_s for a in done)
        ttft = percentiles([a.ttft_s for a in done])
        tpot = percentiles([a.tpot_s for a in done if a.output_tokens > 1])
        tokens = sum(a.output_tokens for a in done)

        def measured(value: float, unit: str) -> dict[str, Any]:
            return {"value": round(value, 4), "unit": unit, "source": "measured by the client"}

        return {
            "policy": self.policy,
            "requests": len(self.answers),
            "failed": len(self.answers) - len(done),
            "attainment": measured(within / max(len(self.answers), 1), "share"),
            "ttft": {f"p{p}": measured(v * 1e3, "ms") for p, v in zip((50, 95, 99), _all(ttft), strict=True)},
            "tpot": {f"p{p}": measured(v * 1e3, "ms") for p, v in zip((50, 95, 99), _all(tpot), strict=True)},
            "energy": {"value": round(self.energy_mj / 1e3, 3), "unit": "J", "source": self.source.label,
                       "method": self.method},
            "energy_per_output_token": {"value": round(self.energy_mj / max(tokens, 1), 3), "unit": "mJ",
                                        "source": self.source.label},
            "latest_send": measured(max((a.late_s for a in self.answers), default=0.0) * 1e3, "ms"),
            "replicas": list(self.replicas),
            "errors": sorted({a.error for a in self.answers if a.error})[:5],
            "calibration": [c.to_json() for c in self.calibration],
        }  # fmt: skip


def run_live(
    client: Tradewind, model: str, name: str, trace: Trace, limits: Limits, policy: str, place: Place,
    tell: Callable[[int], None],
) -> LiveRun:  # fmt: skip
    """One policy over a trace: places, waits until it serves, plays, reads the meters.

    Raises:
        TradewindError: nothing meets the SLO, or the services do not answer.
    """
    deployed = place(name, _spec(model, name, trace, limits, policy, place))
    before = meters(client)
    answers = asyncio.run(play(client.endpoints.gateway, name, trace, tell))
    energy_mj, source, method = _since(before, meters(client))
    after = client.orchestrator.deployment(deployed.name)
    replicas = tuple(f"{r.variant_id} on {r.partition_id}" for r in after.replicas)
    return LiveRun(policy, answers, energy_mj, source, method, replicas, _calibrated(client, model, after, answers))


def meters(client: Tradewind) -> dict[tuple[str, str], common_pb2.Energy]:
    """Energy of every device since its agent started."""
    return {
        (node.report.node_id, reading.device_id): reading.energy
        for node in client.orchestrator.nodes()
        for reading in node.report.readings
    }


def _spec(
    model: str, name: str, trace: Trace, limits: Limits, policy: str, place: Place
) -> orchestrator_pb2.DeploymentSpec:
    mean = len(trace) / max(trace.length_s, 1.0)
    spec = orchestrator_pb2.DeploymentSpec(model=model, slo=_slo(limits), objective=common_pb2.OBJECTIVE_ENERGY)
    count = len(trace)
    spec.demand.prompt_tokens = round(sum(trace.prompt_tokens) / count)
    spec.demand.output_tokens = round(sum(trace.output_tokens) / count)
    if policy != "static":
        spec.demand.requests_per_s = mean
        return spec
    spec.demand.requests_per_s = trace.peak_per_s(min(PEAK_S, max(trace.length_s, 1.0)))
    planned = place(name, spec)
    if not planned.replicas:
        raise InvalidField("--policy", "no fixed placement was found for the trace's peak; loosen the SLO or the load")
    spec.pinned_variant_id = planned.replicas[0].variant_id
    spec.min_replicas = spec.max_replicas = len(planned.replicas)
    return spec


def _slo(limits: Limits) -> common_pb2.Slo:
    pairs = ((common_pb2.LATENCY_METRIC_TTFT, limits.ttft_s), (common_pb2.LATENCY_METRIC_TPOT, limits.tpot_s))
    return common_pb2.Slo(
        latency=[
            common_pb2.LatencyLimit(metric=metric, percentile=limits.percentile, limit_ms=seconds * 1e3)
            for metric, seconds in pairs
        ]
    )


def _since(
    before: dict[tuple[str, str], common_pb2.Energy], after: dict[tuple[str, str], common_pb2.Energy]
) -> tuple[float, FigureSource, str]:
    shared = [key for key in after if key in before and after[key].energy_mj >= before[key].energy_mj]
    total = sum(after[key].energy_mj - before[key].energy_mj for key in shared)
    methods = sorted({after[key].method for key in shared})
    return total, weakest(after[key].source for key in shared), ", ".join(methods)


def _calibrated(
    client: Tradewind, model: str, deployment: orchestrator_pb2.Deployment, answers: tuple[Answer, ...]
) -> tuple[Compared, ...]:
    """The run replayed from the profile of what served at its end; nothing when variants were mixed."""
    variants = {r.variant_id for r in deployment.replicas}
    if len(variants) != 1 or not any(not a.error for a in answers):
        return ()
    kinds = {r.partition_id.partition("cores=")[2] for r in deployment.replicas}
    sizes = {_cores(kind) for kind in kinds}
    for profile in client.profiler.profiles(model, variant_id=variants.pop()):
        if sizes == {int(profile.point.partition_kind.removeprefix("cpu/") or 0)}:
            batch = profile.point.batch_limit
            return compare(answers, cost_of_profile(profile), len(deployment.replicas), batch)
    return ()


def _cores(ranges: str) -> int:
    """Cores of "0", "0-3" or "0,2-3"."""
    total = 0
    for part in filter(None, ranges.split(",")):
        first, dash, last = part.partition("-")
        total += int(last) - int(first) + 1 if dash else 1
    return total


def _all(found: Any) -> tuple[float, float, float]:
    return (found.p50_s, found.p95_s, found.p99_s)
