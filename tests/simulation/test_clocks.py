"""A simulated board whose clock eases, by the node agent's own rule: what it saves, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.node_agent.core.governor import DWELL_S, Limits, Work
from services.simulator.devices.clocks import at_clock
from services.simulator.engine.clocks import RISE_S, Clocks, Easing
from services.simulator.engine.replica import Replica
from services.simulator.engine.request import Request
from tests.simulation.test_replica import COST, in_runs

SLOW = at_clock(COST, 0.5)
LAX = Easing(SLOW, 2.0, Limits(60.0, 5.0))
STRICT = Easing(SLOW, 2.0, Limits(0.001, 0.001))
PRESSED = Work(prompt_tokens=10_000, prefill_token_s=COST.prefill_token_s)


def requests(count: int, every_s: float) -> list[Request]:
    return [Request(n, n * every_s, 200, 40) for n in range(count)]


def ran(easing: Easing | None, every_s: float, count: int = 20) -> tuple[Replica, list[Request]]:
    asked = requests(count, every_s)
    replica = Replica("r", COST, 4, easing=easing)
    return in_runs(asked, 4, replica=replica), asked


def test_a_prompt_alone_gets_the_full_clock_and_a_long_answer_the_eased_one() -> None:
    request, plain = Request(0, 0.0, 200, 400), Request(0, 0.0, 200, 400)
    replica = in_runs([request], 4, replica=Replica("r", COST, 4, easing=LAX))
    full = in_runs([plain], 4)
    assert replica.rises == 1
    assert request.first_s == pytest.approx(plain.first_s + RISE_S / 2.0)
    assert plain.tpot_s < request.tpot_s < SLOW.decode_s[1]
    assert replica.decode_mj < full.decode_mj


def test_what_would_be_late_is_done_at_the_full_clock_but_for_its_rise() -> None:
    replica, asked = ran(STRICT, 5.0)
    in_runs(plain := requests(20, 5.0), 4)
    assert replica.rises == 20, "it eased in each pause"
    late = [a.done_s - p.done_s for a, p in zip(asked, plain, strict=True)]
    assert late == pytest.approx([RISE_S / 2.0] * 20)


def test_under_a_queue_it_works_as_fast_as_without_easing() -> None:
    easing = replace(LAX, limits=Limits(1.0, 0.05))
    replica, asked = ran(easing, 0.05, 200)
    plain, without = ran(None, 0.05, 200)
    assert asked[-1].done_s == pytest.approx(without[-1].done_s, rel=0.02)
    assert replica.rises <= 3
    assert replica.active_mj == pytest.approx(plain.active_mj, rel=0.05)


def test_it_eases_once_there_was_no_need_for_a_while() -> None:
    clocks = Clocks(COST, LAX)
    assert clocks.cost is SLOW
    strict = Clocks(COST, replace(LAX, limits=Limits(0.5, 5.0)))
    assert strict.follow(PRESSED, 1.0) == pytest.approx(RISE_S / 2.0)
    assert strict.cost is COST
    assert strict.follow(Work(step_s=0.01), 2.0) == 0.0
    assert strict.cost is COST
    assert strict.eases_at_s == 2.0 + DWELL_S
    strict.follow(Work(step_s=0.01), 2.0 + DWELL_S)
    assert strict.cost is SLOW


def test_decode_that_could_ease_is_looked_at_again_when_it_may() -> None:
    easing = replace(LAX, limits=Limits(0.05, 5.0))
    replica = Replica("r", COST, 4, easing=easing)
    request = Request(0, 0.0, 200, 400)
    in_runs([request], 4, replica=replica)
    full_s = 399 * COST.decode_s[1]
    assert request.done_s - request.first_s > full_s * 1.2, "most of it was decoded at the eased clock"
