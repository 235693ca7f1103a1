"""Calibration: a live run replayed in the simulator from the profile of what served it, and the error of each metric.

The replica's costs come from the measured profile only: a decode step of n is the median TPOT at n sequences and the
shortest prompt, a prompt token the slope of the median TTFT of one sequence. Nothing is fitted to the run itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from services.node_agent.core.schedule import INTERLEAVED_CHUNK_TOKENS
from services.orchestrator.core.rollout.fills import EVENLY
from services.simulator.engine.cost import StepCost
from services.simulator.engine.replica import Replica
from services.simulator.engine.request import Request
from services.simulator.engine.router import Router
from services.simulator.live.generator import Answer
from services.simulator.outcome import percentiles
from tradewind.domain.errors import InvalidField
from tradewind.v1 import profiler_pb2

# A cache that never fills: slots are what bounds a replica of this engine.
_NO_LIMIT: Final = 10**9


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of both worlds."""

    what: str
    unit: str
    live: float
    simulated: float

    @property
    def error(self) -> float:
        """Simulated over live, less one; 0 where there is nothing to compare."""
        return self.simulated / self.live - 1.0 if self.live > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """For reports."""
        return {
            "what": f"{self.what} ({self.unit})",
            "live": round(self.live, 4),
            "simulated": round(self.simulated, 4),
            "error": round(self.error, 4),
        }


def cost_of_profile(profile: profiler_pb2.Profile) -> StepCost:
    """What the engine pays, from a measured profile.

    Raises:
        InvalidField: the profile has no loads.
    """
    if not profile.loads:
        raise InvalidField("profile", f"{profile.profile_id} has no loads; run `tradewind profile run` for the model")
    shortest = min(load.prompt_tokens for load in profile.loads)
    row = sorted((load for load in profile.loads if load.prompt_tokens == shortest), key=lambda load: load.concurrency)
    single = (
        sorted((load for load in profile.loads if load.concurrency == 1), key=lambda load: load.prompt_tokens)
        or row[:1]
    )
    counts = range(1, max(load.concurrency for load in profile.loads) + 1)
    steps = np.interp(counts, [load.concurrency for load in row], [load.tpot.p50_ms / 1000.0 for load in row])
    watts = np.interp(counts, [load.concurrency for load in row], [load.power_mw / 1000.0 for load in row])
    idle_w = profile.idle_power_mw / 1000.0
    token_s, square_s = _prefill(single)
    return StepCost(
        decode_s=(0.0, *(float(s) for s in steps)),
        context_s=0.0,
        prefill_token_s=token_s,
        prefill_square_s=square_s,
        chunk_tokens=INTERLEAVED_CHUNK_TOKENS,
        decode_power_w=(idle_w, *(max(float(w), idle_w) for w in watts)),
        prefill_power_w=max(float(watts[0]), idle_w),
        cache_tokens=_NO_LIMIT,
        load_s=profile.load_s,
    )


def _prefill(single: Sequence[profiler_pb2.LoadPoint]) -> tuple[float, float]:
    """Linear and quadratic part through the measured prompts; linear alone with one or two of them."""
    prompts = np.array([float(load.prompt_tokens) for load in single])
    times = np.array([load.ttft.p50_ms / 1000.0 for load in single])
    if len(single) >= 3:
        features = np.stack([prompts, prompts**2], axis=1)
        (linear, square), *_ = np.linalg.lstsq(features / times[:, None], np.ones(len(times)), rcond=None)
        if linear > 0 and square >= 0:
            return float(linear), float(square)
    return float(np.sum(prompts * times) / np.sum(prompts**2)), 0.0


def replay(
    answers: Sequence[Answer], cost: StepCost, replicas: int, batch_limit: int
) -> tuple[tuple[Request, ...], float]:
    """The same requests at the same times on simulated replicas behind the gateway's rule.

    Returns:
        The requests as they went, and the energy of the work in joules.
    """
    engines = [Replica(f"r{i}", cost, batch_limit) for i in range(replicas)]
    router = Router()
    router.publish((engine, float(engine.batch_limit), EVENLY) for engine in engines)
    sent = sorted((a for a in answers if not a.error), key=lambda a: a.sent_s)
    requests = tuple(Request(a.number, a.sent_s, a.prompt_tokens, max(a.output_tokens, 1)) for a in sent)
    for request in requests:
        _until(engines, request.arrival_s)
        engine = router.choose(request.prompt_tokens)
        assert engine is not None
        engine.submit(request, request.arrival_s)
    _until(engines, float("inf"))
    return requests, sum(engine.active_mj for engine in engines) / 1000.0


def compare(answers: Sequence[Answer], cost: StepCost, replicas: int, batch_limit: int) -> tuple[Compared, ...]:
    """p50 and p95 of TTFT and TPOT, and the energy of the work, live against simulated."""
    live = [a for a in answers if not a.error]
    requests, energy_j = replay(answers, cost, replicas, batch_limit)
    rows = []
    for what, seen, said in (
        ("TTFT", [a.ttft_s for a in live], [r.ttft_s for r in requests]),
        ("TPOT", [a.tpot_s for a in live if a.output_tokens > 1], [r.tpot_s for r in requests if r.output_tokens > 1]),
    ):
        one, two = percentiles(seen), percentiles(said)
        rows.append(Compared(f"{what} p50", "ms", one.p50_s * 1e3, two.p50_s * 1e3))
        rows.append(Compared(f"{what} p95", "ms", one.p95_s * 1e3, two.p95_s * 1e3))
    told_j = sum(a.energy_mj for a in live) / 1000.0
    return (*rows, Compared("energy of the work", "J", told_j, energy_j))


def _until(engines: Sequence[Replica], end_s: float) -> None:
    """Advances every replica whose runs end before a moment; all runs end when it is infinite."""
    for engine in engines:
        while engine.ends_at_s < end_s:
            engine.advance(engine.ends_at_s)
