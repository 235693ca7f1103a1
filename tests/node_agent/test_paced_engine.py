"""The device loop with a pace: the same answers, tokens when they are due, prompts in between. Time is virtual."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from services.node_agent.core.governor import Limits
from tests.node_agent.cache_model import greedy, shapes
from tests.node_agent.engine_bench import LIMIT_S, Bench, Caller, VirtualTime
from tests.node_agent.test_engine import prompts
from tradewind.domain.manifest import Function

PACE_S, STEP_S, TOKEN_S = 0.050, 0.010, 0.001
# Of chunks of 16 tokens; what a token may be late by, with a chunk begun that does not fit.
CHUNK_S = 16 * TOKEN_S
EPS_S = 1e-6


def takes_s(function: Function) -> float:
    return TOKEN_S * function.tokens if function.phase == "prefill" else STEP_S


def paced(pace_s: float = PACE_S, slots: int = 4) -> tuple[Bench, VirtualTime]:
    """A bench whose engine has seen a request, so that it knows what its calls take."""
    clock = VirtualTime(takes_s)
    of = shapes(chunks=(4, 16), contexts=(32, 64), slots=slots)
    bench = Bench(of, before_call=clock.take, now_s=clock.now_s, wait=clock.wait)
    bench.ask(99, [1] * 16, 3).wait()
    bench.engine.follow(Limits(pace_s=pace_s))
    bench.model.calls.clear()
    return bench, clock


def phases(bench: Bench) -> str:
    """Calls in order: p and d, by phase."""
    return "".join(function.phase[0] for function in bench.model.calls)


def lateness_s(caller: Caller, pace_s: float = PACE_S) -> list[float]:
    """By how much each token came after it was due."""
    first_s = caller.came_s[0]
    return [came_s - first_s - k * pace_s for k, came_s in enumerate(caller.came_s)]


@pytest.mark.parametrize("pace_s", [0.0, 0.005, PACE_S, 0.5])
def test_answers_are_those_without_a_pace(pace_s: float) -> None:
    bench, clock = paced(pace_s)
    asked, callers = prompts(17), list[Caller]()
    start_s = clock.now_s()
    for i, prompt in enumerate(asked):
        clock.at(start_s + 0.020 * i, lambda i=i, p=prompt: callers.append(bench.ask(i + 1, p, 1 + i % 9)))  # type: ignore[misc]
    begin = bench.ask(50, [7, 8], 30)
    assert begin.wait().tokens == greedy([7, 8], 30)
    for i, prompt in enumerate(asked):
        assert callers[i].wait().tokens == greedy(prompt, 1 + i % 9)
    bench.engine.stop()
    assert bool(clock.waits) is (pace_s > STEP_S), "without a pace, or with one that is too fast, nothing waits"


def test_each_token_comes_when_it_is_due_after_one_wait() -> None:
    bench, clock = paced()
    caller = bench.ask(1, [5], 8).wait()
    bench.engine.stop()
    assert lateness_s(caller) == pytest.approx([0.0] * 8, abs=EPS_S)
    assert clock.waits == pytest.approx([PACE_S - STEP_S] * 7), "it neither polls nor sleeps"
    assert bench.requests[1].tpot_s == pytest.approx(PACE_S), "what is told is what was"


def test_sequences_of_any_moment_share_their_steps() -> None:
    bench, clock = paced()
    callers = list[Caller]()
    start_s = clock.now_s()
    for i in (1, 2, 3):
        clock.at(start_s + 0.033 * i, lambda i=i: callers.append(bench.ask(1 + i, [i], 8)))  # type: ignore[misc]
    callers.append(bench.ask(1, [5], 8))
    for caller in callers[:1]:
        caller.wait()
    assert len(callers) == 4
    for caller in callers:
        assert max(lateness_s(caller.wait())) <= CHUNK_S + EPS_S
    bench.engine.stop()
    assert phases(bench).count("d") < 4 * 7 / 2, "two or more to a step"


def test_a_prompt_that_comes_in_a_wait_begins_at_once_and_goes_in_while_it_fits() -> None:
    bench, clock = paced()
    callers = list[Caller]()
    first_s = clock.now_s() + 4 * TOKEN_S
    asked_s = first_s + 2 * PACE_S + 0.002
    clock.at(asked_s, lambda: callers.append(bench.ask(2, [3] * 48, 2)))
    caller = bench.ask(1, [5], 8).wait()
    callers[0].wait()
    bench.engine.stop()
    assert bench.requests[2].began_s == pytest.approx(asked_s)
    # 38 ms are left: chunks of 16, 16 and 4 tokens fit, then the step comes 2 ms early; the rest fits after it.
    assert phases(bench).startswith("p" + "dd" + "ppp" + "d" + "p" + "d")
    assert caller.came_s[3] == pytest.approx(first_s + 3 * PACE_S - 0.002)
    assert max(lateness_s(caller)) <= EPS_S, "nobody waits for it"


def test_a_prompt_whose_chunks_never_fit_takes_turns_with_the_steps() -> None:
    bench, clock = paced(pace_s=0.013)
    callers = list[Caller]()
    clock.at(clock.now_s() + 2 * PACE_S, lambda: callers.append(bench.ask(2, [3] * 48, 2)))
    caller = bench.ask(1, [5], 20).wait()
    callers[0].wait()
    bench.engine.stop()
    assert "pdpdp" in phases(bench)
    assert max(lateness_s(caller, 0.013)) <= 3 * CHUNK_S + EPS_S


def test_who_is_cancelled_in_a_wait_is_waited_for_no_more() -> None:
    bench, clock = paced()
    other, over = list[Caller](), threading.Event()
    asked_s = clock.now_s()
    clock.at(asked_s + 0.020, lambda: other.append(bench.ask(2, [3], 3)))
    clock.at(asked_s + PACE_S + 0.020, lambda: bench.engine.cancel(1))
    clock.at(asked_s + 1.0, over.set)
    cancelled = bench.ask(1, [5], 8)
    assert over.wait(LIMIT_S)
    bench.engine.stop()
    assert cancelled.tokens == greedy([5], 2), "nothing comes after the cancel"
    assert other[0].tokens == greedy([3], 3)
    # The step that both shared came early for the second; the one due first is gone, the next a pace after that step.
    assert _gaps_s(other[0])[1] == pytest.approx(PACE_S)
    assert phases(bench) == "ppdd"


@pytest.mark.parametrize("pace_s", [0.0, 0.030, 0.100])
def test_a_new_pace_counts_from_the_midst_of_a_wait_on(pace_s: float) -> None:
    bench, clock = paced()
    first_s = clock.now_s() + 4 * TOKEN_S
    told_s = first_s + PACE_S + 0.010
    clock.at(told_s, lambda: bench.engine.follow(Limits(pace_s=pace_s)))
    caller = bench.ask(1, [5], 4).wait()
    bench.engine.stop()
    begins_s = max(told_s, caller.came_s[1] - STEP_S + pace_s)
    assert caller.came_s[2] == pytest.approx(begins_s + STEP_S), "a pace after the step before it, or at once"
    assert caller.came_s[3] == pytest.approx(caller.came_s[2] + (pace_s or STEP_S))


def test_nobody_is_held_back_while_no_slot_is_free_for_who_comes_next() -> None:
    bench, clock = paced(slots=1)
    others = list[Caller]()
    clock.at(clock.now_s(), lambda: others.append(bench.ask(2, [3], 3)))
    first = bench.ask(1, [5], 6).wait()
    others[0].wait()
    bench.engine.stop()
    assert _gaps_s(first) == pytest.approx([STEP_S] * 5)
    assert _gaps_s(others[0]) == pytest.approx([STEP_S] * 2)
    assert not clock.waits


def _gaps_s(caller: Caller) -> Sequence[float]:
    return [after - before for before, after in zip(caller.came_s, caller.came_s[1:], strict=False)]
