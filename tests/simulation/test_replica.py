"""A replica advanced in runs of steps does what one advanced token by token does."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace
from math import inf

import pytest

from services.node_agent.core.line import PATIENCE
from services.node_agent.core.pacing import Pacer
from services.simulator.engine.cost import StepCost
from services.simulator.engine.replica import Replica
from services.simulator.engine.request import Request

COST = StepCost(
    decode_s=(0.0, *(0.010 + 0.001 * n for n in range(1, 9))),
    context_s=0.0,
    prefill_token_s=0.0002,
    prefill_square_s=0.0,
    chunk_tokens=64,
    decode_power_w=(100.0, *(200.0 + 10.0 * n for n in range(1, 9))),
    prefill_power_w=400.0,
    cache_tokens=100_000,
    load_s=1.0,
)


APART = replace(COST, apart=True)


def token_by_token(requests: list[Request], batch: int, *, apart: bool) -> tuple[dict[int, tuple[float, float]], float]:
    """The plain way: one step at a time. Returns (first, done) of each request, and joules above idle."""
    coming, waiting = deque(requests), deque[Request]()
    decoding: dict[int, int] = {}
    prefill: tuple[Request, int] | None = None
    times: dict[int, tuple[float, float]] = {}
    now, joules, owed = 0.0, 0.0, False
    while coming or waiting or decoding or prefill:
        if not waiting and not decoding and prefill is None:
            now = max(now, coming[0].arrival_s)
        while coming and coming[0].arrival_s <= now:
            waiting.append(coming.popleft())
        if prefill is None and waiting and len(decoding) < batch:
            prefill = (waiting.popleft(), 0)
        step_s = watts = 0.0
        n, tokens = len(decoding), 0
        chunk = prefill is not None and not (owed and n)
        if chunk and prefill is not None:
            left = prefill[0].prompt_tokens - prefill[1]
            tokens = min(left, COST.chunk_tokens) if n else left
            step_s = COST.prefill_s(tokens)
            watts = COST.prefill_power_w * step_s
        steps = bool(n and not (apart and chunk))
        owed = apart and chunk
        if steps:
            step_s += COST.decode_s[n]
            watts += COST.decode_power_w[n] * COST.decode_s[n]
        now += step_s
        joules += watts - COST.idle_power_w * step_s
        for number in list(decoding) if steps else ():
            decoding[number] -= 1
            if not decoding[number]:
                times[number] = (times[number][0], now)
                del decoding[number]
        if chunk and prefill is not None:
            prefill = (prefill[0], prefill[1] + tokens)
            if prefill[1] >= prefill[0].prompt_tokens:
                request, prefill = prefill[0], None
                times[request.number] = (now, now)
                if request.output_tokens > 1:
                    decoding[request.number] = request.output_tokens - 1
    return times, joules


def in_runs(requests: list[Request], batch: int, cost: StepCost = COST, replica: Replica | None = None) -> Replica:
    replica, coming = replica or Replica("r", cost, batch), deque(requests)
    while coming or replica.in_hand:
        if coming and coming[0].arrival_s <= replica.ends_at_s:
            request = coming.popleft()
            replica.submit(request, request.arrival_s)
        else:
            replica.advance(replica.ends_at_s)
    return replica


@pytest.mark.parametrize("cost", [COST, APART], ids=["mixed", "apart"])
@pytest.mark.parametrize("seed", range(12))
def test_runs_of_steps_equal_single_steps(seed: int, cost: StepCost) -> None:
    requests = some_requests(seed, 0.25)
    times, joules = token_by_token(requests, batch=4, apart=cost.apart)
    replica = in_runs(requests, batch=4, cost=cost)
    for request in requests:
        # A chunk's and a step's order within one mixed step differ by rounding only.
        assert request.first_s == pytest.approx(times[request.number][0], abs=1e-6), request.number
        assert request.done_s == pytest.approx(times[request.number][1], abs=1e-6), request.number
    assert replica.active_mj / 1000.0 == pytest.approx(joules, rel=1e-6)
    assert replica.tokens == sum(r.output_tokens for r in requests)


Times = dict[int, tuple[float, float]]


def paced_step_by_step(requests: list[Request], batch: int, pace_s: float) -> tuple[Times, float]:
    """The plain way with a pace: after each step, chunk and pause it is asked anew what comes. As `token_by_token`."""
    coming, waiting = deque(requests), deque[Request]()
    decoding: dict[int, int] = {}
    prefill: tuple[Request, int] | None = None
    times: dict[int, tuple[float, float]] = {}
    pacer, now, joules, stepped = Pacer(pace_s), 0.0, 0.0, False
    while coming or waiting or decoding or prefill:
        if not waiting and not decoding and prefill is None:
            now = max(now, coming[0].arrival_s)
        while coming and coming[0].arrival_s <= now:
            waiting.append(coming.popleft())
        if prefill is None and waiting and len(decoding) < batch:
            prefill = (waiting.popleft(), 0)
        n = len(decoding)
        step_s, tokens, steps = COST.decode_s[n], 0, n > 0
        wait_s = pacer.wait_s(step_s, now)
        if prefill is not None:
            left = prefill[0].prompt_tokens - prefill[1]
            crowded = waiting and n >= batch - 1
            fits = min(COST.tokens_within(wait_s, prefill[1]), left) if n and wait_s < inf else left
            if not n or (wait_s >= 0.0 and not crowded and fits >= min(left, COST.chunk_tokens)):
                tokens, steps = fits if n else left, False
            elif wait_s < 0.0 or crowded or stepped:
                tokens = min(left, COST.chunk_tokens)
        elif not waiting and n < batch and wait_s > 0.0:
            pause_s = min(wait_s, coming[0].arrival_s - now) if coming else wait_s
            if pause_s < wait_s:
                now += pause_s
                stepped = False
                continue
            now += wait_s
        began, took = now, COST.prefill_s(tokens)
        joules += took * (COST.prefill_power_w - COST.idle_power_w)
        if steps:
            took += step_s
            joules += step_s * (COST.decode_power_w[n] - COST.idle_power_w)
        now += took
        stepped = steps
        if steps:
            pacer.stepped(began)
        for number in list(decoding) if steps else ():
            decoding[number] -= 1
            if not decoding[number]:
                times[number] = (times[number][0], now)
                del decoding[number]
                pacer.leaves(number)
        if prefill is not None and tokens:
            prefill = (prefill[0], prefill[1] + tokens)
            if prefill[1] >= prefill[0].prompt_tokens:
                request, prefill = prefill[0], None
                times[request.number] = (now, now)
                if request.output_tokens > 1:
                    decoding[request.number] = request.output_tokens - 1
                    pacer.joins(request.number, now)
    return times, joules


def some_requests(seed: int, each_s: float) -> list[Request]:
    draw, now = random.Random(seed), 0.0
    made = []
    for number in range(60):
        now += draw.expovariate(1.0 / each_s) if draw.random() < 0.9 else 3.0
        made.append(Request(number, now, 64 * draw.randint(1, 8), draw.randint(1, 40)))
    return made


@pytest.mark.parametrize("pace_s", [0.01237, 0.03141, 0.07993])
@pytest.mark.parametrize("seed", range(8))
def test_paced_runs_equal_single_steps(seed: int, pace_s: float) -> None:
    requests = some_requests(seed, 0.25)
    times, joules = paced_step_by_step(requests, 4, pace_s)
    replica = in_runs(requests, 4, replica=Replica("r", COST, 4, pace_s=pace_s))
    # Whether a token more fits between two steps is a matter of rounding.
    tokens_s = 20 * COST.prefill_token_s
    for request in requests:
        assert request.first_s == pytest.approx(times[request.number][0], abs=tokens_s), request.number
        assert request.done_s == pytest.approx(times[request.number][1], abs=tokens_s), request.number
    assert replica.active_mj / 1000.0 == pytest.approx(joules, rel=1e-6)


def test_a_pace_makes_batches_larger_and_takes_less_energy_within_its_limit() -> None:
    pace_s = 0.040
    free, held = some_requests(1, 0.5), some_requests(1, 0.5)
    fast = in_runs(free, 8)
    slow = in_runs(held, 8, replica=Replica("r", COST, 8, pace_s=pace_s))
    assert slow.active_mj < 0.9 * fast.active_mj
    assert slow.prefill_mj == pytest.approx(fast.prefill_mj), "it is the same work"
    each_s = [(r.done_s - r.first_s) / (r.output_tokens - 1) for r in held if r.output_tokens > 4]
    assert max(each_s) < 1.25 * pace_s, "a pace, and what others' prompts take"
    assert sum(r.first_s - r.arrival_s for r in held) < sum(r.first_s - r.arrival_s for r in free)


def test_prompts_that_fit_between_no_two_steps_are_taken_in_all_the_same() -> None:
    pace_s = 1.05 * COST.decode_s[1]
    first, second = Request(0, 0.0, 64, 400), Request(1, 1.0, 512, 2)
    in_runs([first, second], 4, replica=Replica("r", COST, 4, pace_s=pace_s))
    chunks = 512 / COST.chunk_tokens
    assert second.first_s - 1.0 < 2.0 * (COST.prefill_s(512) + 2.0 * chunks * COST.decode_s[1])


def test_where_prompts_are_apart_the_first_token_waits_for_no_step_of_others_and_the_second_for_one() -> None:
    """As `services/node_agent/core/schedule.py` goes about it."""
    first, second = Request(0, 0.0, 64, 100), Request(1, 0.1, 64, 3)
    in_runs([first, second], batch=4, cost=APART)
    prompt_s, one_s = APART.prefill_s(64), APART.decode_s[1]
    steps = int((0.1 - prompt_s) / one_s) + 1
    assert second.first_s == pytest.approx(prompt_s + steps * one_s + prompt_s)
    assert second.done_s == pytest.approx(second.first_s + 2 * APART.decode_s[2])


def test_a_slower_clock_takes_hold_at_the_next_step() -> None:
    slow = StepCost(
        **{**{f: getattr(COST, f) for f in COST.__slots__}, "decode_s": tuple(2 * s for s in COST.decode_s)}
    )
    request = Request(0, 0.0, 64, 101)
    replica = Replica("r", COST, 4)
    replica.submit(request, 0.0)
    replica.advance(replica.ends_at_s)
    half_s = replica.ends_at_s - 50.5 * COST.decode_s[1]
    replica.change(slow, 4, half_s)
    while replica.in_hand:
        replica.advance(replica.ends_at_s)
    assert request.done_s - request.first_s == pytest.approx((50 + 2 * 50) * COST.decode_s[1], rel=1e-6)


def test_what_does_not_fit_the_cache_waits() -> None:
    small = replace(COST, cache_tokens=300)
    first, second = Request(0, 0.0, 128, 100), Request(1, 0.0, 128, 2)
    replica = Replica("r", small, 4)
    for request in (first, second):
        replica.submit(request, 0.0)
    while replica.in_hand:
        replica.advance(replica.ends_at_s)
    assert second.first_s > first.done_s


def test_a_rest_saves_power_and_delays_what_comes_after_it() -> None:
    resting = replace(COST, rest_saved_w=50.0, ramp_s=0.2)
    busy, rested = Replica("r", COST, 4), Replica("r", resting, 4)
    for replica in (busy, rested):
        for number, arrival_s in enumerate((0.0, 60.0)):
            replica.submit(Request(number, arrival_s, 100, 1), arrival_s)
            while replica.in_hand:
                replica.advance(replica.ends_at_s)
    took_s = COST.prefill_s(100)
    assert rested.rests_from_s == pytest.approx(busy.rests_from_s + 0.2), "only the one after a rest comes later"
    assert busy.rested_mj(100.0) == 0.0
    rests_s = (60.0 - took_s - 4.0) + (100.0 - 60.2 - took_s - 4.0)
    assert rested.rested_mj(100.0) == pytest.approx(50.0 * 1000.0 * rests_s)
    assert rested.prefill_mj - busy.prefill_mj == pytest.approx(0.2 * 300.0 * 1000.0), "clocks rise at full power"


def test_one_that_works_or_waits_for_seconds_only_saves_nothing() -> None:
    replica = Replica("r", replace(COST, rest_saved_w=50.0, ramp_s=0.2), 4)
    for number in range(20):
        replica.submit(Request(number, float(number), 100, 1), float(number))
        while replica.in_hand:
            replica.advance(replica.ends_at_s)
    assert replica.rested_mj(20.0) == 0.0
    assert replica.rests_from_s == pytest.approx(19.0 + COST.prefill_s(100)), "nothing came later"


def test_with_a_limit_a_burst_makes_fewer_late_than_first_come_first_served() -> None:
    draw, limit_s = random.Random(3), 0.5
    arrivals = sorted(draw.uniform(0.0, 2.0) for _ in range(40))
    lengths = [64 * draw.randint(1, 16) for _ in arrivals]
    late = {}
    for of in (inf, limit_s):
        requests = [Request(i, at_s, tokens, 4) for i, (at_s, tokens) in enumerate(zip(arrivals, lengths, strict=True))]
        in_runs(requests, 8, replica=Replica("r", COST, 8, ttft_limit_s=of))
        assert all(request.done_s > 0.0 for request in requests), "nobody is left"
        late[of] = sum(request.ttft_s > limit_s for request in requests)
    assert late[limit_s] < 0.75 * late[inf]


def test_a_late_one_goes_before_those_that_have_waited_less_once_patience_ends() -> None:
    limit_s = 0.5
    replica, old = Replica("r", COST, 1, ttft_limit_s=limit_s), Request(1, 0.01, 6_400, 2)
    others = [Request(2 * i, 0.1 * i, 640, 2) for i in range(100)]
    in_runs(sorted([old, *others], key=lambda one: one.arrival_s), 1, replica=replica)
    passed = sum(one.first_s < old.first_s for one in others)
    assert old.first_s > PATIENCE * limit_s
    assert 30 < passed < 60, "passed over while others could be in time, and no longer"
