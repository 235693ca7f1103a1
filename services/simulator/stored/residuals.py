"""How well the simulated engine reproduces the loads that its costs were taken from: each played again, closed loop."""

from __future__ import annotations

from services.simulator.devices.fits import Error
from services.simulator.engine.cost import StepCost
from services.simulator.engine.replica import Replica
from services.simulator.engine.request import Request
from tradewind.v1 import profiler_pb2


def residuals(profile: profiler_pb2.Profile, cost: StepCost, name: str) -> tuple[Error, ...]:
    """Relative errors of mean TTFT and TPOT over all loads of a profile.

    Args:
        name: of the variant, for the report.
    """
    first, later = list[float](), list[float]()
    for load in profile.loads:
        played = _play(cost, load)
        first.append(_error(sum(r.ttft_s for r in played) / len(played), load.ttft.mean_ms))
        if load.output_tokens > 1:
            later.append(_error(sum(r.tpot_s for r in played) / len(played), load.tpot.mean_ms))
    where = f"{name} on {profile.point.partition_kind}"
    return tuple(
        Error(
            f"{what} of the profiled loads played again, {where}", len(errors), sum(errors) / len(errors), max(errors)
        )
        for what, errors in (("TTFT", first), ("TPOT", later))
        if errors
    )


def _play(cost: StepCost, load: profiler_pb2.LoadPoint) -> list[Request]:
    replica = Replica("played", cost, load.concurrency)
    requests = [Request(i, 0.0, load.prompt_tokens, max(load.output_tokens, 1)) for i in range(load.concurrency)]
    for request in requests:
        replica.submit(request, 0.0)
    while replica.in_hand:
        replica.advance(replica.ends_at_s)
    return requests


def _error(played_s: float, measured_ms: float) -> float:
    return abs(played_s * 1000.0 / measured_ms - 1.0) if measured_ms > 0 else 0.0
