"""Profiles made of a step cost say what the engine itself keeps up in a closed loop."""

from __future__ import annotations

import pytest

from services.simulator.devices.profiling import load_of
from services.simulator.engine.cost import StepCost
from services.simulator.engine.replica import Replica
from services.simulator.engine.request import Request

COST = StepCost(
    decode_s=(0.0, *(0.008 + 0.0001 * n for n in range(1, 65))),
    context_s=6e-8,
    prefill_token_s=2.3e-5,
    prefill_square_s=5e-10,
    chunk_tokens=512,
    decode_power_w=(120.0, *(300.0,) * 64),
    prefill_power_w=600.0,
    cache_tokens=500_000,
    load_s=20.0,
)


def closed_loop(prompt: int, output: int, n: int) -> tuple[float, float]:
    """Requests a second, and the mean TTFT in milliseconds, of n sequences that begin anew when they are done."""
    replica, done = Replica("r", COST, n), list[Request]()
    for number in range(n):
        replica.submit(Request(number, 0.0, prompt, 1 + (output - 1) * (number + 1) // n), 0.0)
    while len(done) < 12 * n:
        now_s = replica.ends_at_s
        for request in replica.advance(now_s):
            done.append(request)
            replica.submit(Request(n + len(done), now_s, prompt, output), now_s)
    steady = done[4 * n :]
    rate = (len(steady) - 1) / (steady[-1].done_s - steady[0].done_s)
    return rate, 1000.0 * sum(r.ttft_s for r in steady) / len(steady)


@pytest.mark.parametrize(
    ("prompt", "output", "n"),
    [(1024, 211, 16), (1024, 211, 64), (2048, 28, 4), (2048, 28, 16), (2048, 28, 64), (16384, 149, 16)],
)
def test_a_load_completes_what_the_engine_completes(prompt: int, output: int, n: int) -> None:
    load, (rate, ttft_ms) = load_of(COST, prompt, output, n), closed_loop(prompt, output, n)
    cycle_s = (load.ttft.mean_ms + (output - 1) * load.tpot.mean_ms) / 1000.0
    assert n / cycle_s == pytest.approx(rate, rel=0.05)
    if ttft_ms > 500.0:
        assert load.ttft.mean_ms == pytest.approx(ttft_ms, rel=0.05), "where some stand in line, the line is told"
