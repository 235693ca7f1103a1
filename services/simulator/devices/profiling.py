"""Profiles of operating points as the orchestrator knows them: what a steady load of n sequences would show.

Of n sequences at work together, each cycle of one takes its own prefill, the others' prefills and its decode steps:
T(n) = n·prefill + (O-1+chunks)·step(n). TTFT is the prefill with the decode steps between its chunks, and the wait for
a prompt under way (utilisation u of the prefill stage, half a service over 1-u, exponential tail); TPOT is what is
left of T, and its percentiles are those of a Poisson number of prefills met. All of it is modelled.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import Final

from services.orchestrator.core.facts.profile import Latency, Load
from services.simulator.devices.menu import Point
from services.simulator.engine.cost import StepCost
from tradewind.domain.figures import FigureSource

CONCURRENCIES: Final = (1, 4, 16, 32, 64, 96, 128, 192, 256)
PROMPTS: Final = (128, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
METHOD: Final = "public-tables@1"
# z-values at 95 % and 99 %; an exponential wait has its percentiles at these multiples of its mean.
_Z: Final = {"p50": 0.0, "p95": 1.645, "p99": 2.326}
_WAIT: Final = {"p50": 0.69, "p95": 3.0, "p99": 4.6}
# Closed loops never fill the prefill stage more than this before the wait is bounded by the others' prompts.
_MOST_UTILISATION: Final = 0.95


def loads_of(point: Point, output_tokens: int) -> tuple[Load, ...]:
    """Loads on a grid of prompts × concurrencies, as far as the cache reaches."""
    cost, loads = point.cost, []
    for prompt in PROMPTS:
        for n in CONCURRENCIES:
            if n <= cost.most_sequences and n * (prompt + output_tokens) <= cost.cache_tokens:
                loads.append(load_of(cost, prompt, output_tokens, n))
    return tuple(loads)


def load_of(cost: StepCost, prompt: int, output: int, n: int) -> Load:
    """One load: n sequences of this shape in a steady closed loop."""
    prefill_s = cost.prefill_s(prompt)
    step_s = cost.step_s(n, n * (prompt + output / 2.0))
    chunks = ceil(prompt / cost.chunk_tokens) if n > 1 else 0
    later = max(output - 1, 1)
    service_s = prefill_s + chunks * step_s
    cycle_s = n * prefill_s + (later + chunks) * step_s
    busy = min(n * prefill_s / cycle_s, _MOST_UTILISATION) if n > 1 else 0.0
    # One that comes alone may find the clocks down; with others at work they are up.
    service_s += cost.ramp_s if n == 1 else 0.0
    wait_s = min(busy * service_s / (2.0 * (1.0 - busy)), (n - 1) * prefill_s)
    met = (n - 1) * later * step_s / cycle_s
    ttft = {p: service_s + min(w * wait_s, (n - 1) * service_s) for p, w in _WAIT.items()}
    tpot = {p: step_s + prefill_s * (met + z * sqrt(met)) / later for p, z in _Z.items()}
    mean_tpot_s = max((cycle_s - service_s - wait_s) / later, step_s)
    # Above an idle board; where its clocks fall at rest, work pays for keeping them up.
    idle_w = cost.idle_power_w - cost.rest_saved_w
    prefill_mj = prefill_s * (cost.prefill_power_w - idle_w) * 1000.0
    decode_mj = later * step_s * (cost.decode_power_w[n] - idle_w) / n * 1000.0
    return Load(
        prompt_tokens=prompt,
        output_tokens=output,
        concurrency=n,
        ttft=_latency(ttft, service_s + wait_s),
        tpot=_latency(tpot, mean_tpot_s),
        energy_per_token_mj=(prefill_mj + decode_mj) / max(output, 1),
        energy_source=FigureSource.MODELLED,
        energy_method=METHOD,
        energy_per_prefill_mj=prefill_mj,
        power_mw=idle_w * 1000.0 + n * (prefill_mj + decode_mj) / cycle_s,
    )


def _latency(percentiles: dict[str, float], mean_s: float) -> Latency:
    return Latency(
        percentiles["p50"] * 1000.0, percentiles["p95"] * 1000.0, percentiles["p99"] * 1000.0, mean_s * 1000.0
    )
