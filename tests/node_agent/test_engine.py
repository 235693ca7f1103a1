"""The device loop on a model that shows every misuse of the cache."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from services.node_agent.core.governor import Limits
from services.node_agent.core.sampling import Choice
from services.node_agent.core.schedule import Policy
from services.node_agent.replica.request import Finish
from services.node_agent.replica.scores import Scores
from services.node_agent.replica.warmup import check_canary
from tests.node_agent.cache_model import VOCABULARY_SIZE, CacheModel, greedy, logits_of, shapes
from tests.node_agent.engine_bench import LIMIT_S, Bench
from tradewind.domain.errors import Overloaded, ReplicaLost, WrongAnswer
from tradewind.domain.manifest import Canary, Function


class Mixing(CacheModel):
    """Gives sequences each other's tokens where a decode takes several."""

    def decode(self, function: Function, tokens: Sequence[int], positions: Sequence[int]) -> Scores:
        return super().decode(function, list(tokens)[::-1], positions)


def prompts(count: int) -> list[list[int]]:
    random = np.random.default_rng(5)
    return [[int(t) for t in random.integers(1, VOCABULARY_SIZE, 1 + 7 * i % 37)] for i in range(count)]


def test_a_crowd_gets_what_each_would_get_alone() -> None:
    bench = Bench(shapes(chunks=(4, 16), batches=(1, 2, 4), contexts=(32, 64)))
    asked = prompts(17)
    callers = [bench.ask(i + 1, prompt, 1 + i % 9) for i, prompt in enumerate(asked)]
    for i, (caller, prompt) in enumerate(zip(callers, asked, strict=True)):
        assert caller.wait().tokens == greedy(prompt, 1 + i % 9)
    used = {f.name for f in bench.model.calls}
    assert {"decode_b4_c64", "decode_b1_c32"} <= used
    bench.engine.stop()


@pytest.mark.parametrize(("limit_s", "order"), [(math.inf, [1, 2, 3]), (4.9, [1, 3, 2]), (6.0, [1, 2, 3])])
def test_the_prompt_that_keeps_most_in_time_is_next(limit_s: float, order: list[int]) -> None:
    gate, now, answered = threading.Event(), [0.0], list[int]()

    def take_time(function: Function) -> None:
        assert gate.wait(LIMIT_S)
        now[0] += 0.1 * function.tokens

    bench = Bench(shapes(), before_call=take_time, now_s=lambda: now[0])
    bench.engine.follow(Limits(ttft_s=limit_s))
    callers = [bench.ask(i, [1] * length, 1) for i, length in ((1, 4), (2, 40), (3, 4))]
    for i, caller in enumerate(callers, 1):
        caller.over = _Noted(answered, i)
    gate.set()
    for caller in callers:
        caller.wait()
    assert answered == order
    bench.engine.stop()


class _Noted(threading.Event):
    """Notes in which order requests are over."""

    def __init__(self, order: list[int], number: int) -> None:
        super().__init__()
        self._order, self._number = order, number

    def set(self) -> None:
        self._order.append(self._number)
        super().set()


def test_a_seed_gives_the_same_tokens_alone_and_in_a_crowd() -> None:
    choice = Choice(temperature=1.0, top_p=0.9, seed=7)
    alone = Bench(shapes())
    expected = alone.ask(1, [3, 4, 5], 12, choice).wait().tokens
    alone.engine.stop()
    crowd = Bench(shapes())
    others = [crowd.ask(10 + i, p, 9, Choice(temperature=1.3, seed=i)) for i, p in enumerate(prompts(6))]
    same = crowd.ask(50, [3, 4, 5], 12, choice)
    other = crowd.ask(51, [3, 4, 5], 12, Choice(temperature=1.0, top_p=0.9, seed=8))
    assert same.wait().tokens == expected
    assert other.wait().tokens != expected
    for caller in others:
        caller.wait()
    crowd.engine.stop()


def test_a_stop_token_ends_and_is_not_sent() -> None:
    bench = Bench(shapes())
    expected = greedy([9, 9], 8)
    caller = bench.ask(1, [9, 9], 8, stop_ids=frozenset({expected[3]})).wait()
    first = expected.index(expected[3])
    assert caller.tokens == expected[:first]
    assert caller.outcomes[-1].finish is Finish.STOP
    assert bench.ask(2, [9, 9], 8).wait().outcomes[-1].finish is Finish.LENGTH
    bench.engine.stop()


def test_cancelling_frees_the_slot_for_one_that_waits() -> None:
    gate, entered = threading.Semaphore(0), threading.Semaphore(0)

    def hold(_function: Function) -> None:
        entered.release()
        assert gate.acquire(timeout=LIMIT_S)

    bench = Bench(shapes(slots=1), before_call=hold)
    first = bench.ask(1, [1, 2], 40)
    second = bench.ask(2, [3, 4], 2)
    assert entered.acquire(timeout=LIMIT_S)
    gate.release()
    assert entered.acquire(timeout=LIMIT_S)
    bench.engine.cancel(1)
    assert (bench.engine.load.active, bench.engine.load.queued) == (0, 1)
    for _ in range(10):
        gate.release()
    assert second.wait().tokens == greedy([3, 4], 2)
    assert first.tokens == greedy([1, 2], 1), "nothing comes after the cancel"
    bench.engine.stop()


def test_what_is_in_hand_is_told_while_a_step_is_under_way() -> None:
    gate, entered = threading.Semaphore(0), threading.Semaphore(0)

    def hold(_function: Function) -> None:
        entered.release()
        assert gate.acquire(timeout=LIMIT_S)

    bench = Bench(shapes(slots=1), before_call=hold)
    first, second = bench.ask(1, list(range(1, 21)), 2), bench.ask(2, [3, 4], 1)
    assert entered.acquire(timeout=LIMIT_S)
    work = bench.engine.work
    assert (work.prompt_tokens, work.crowded, work.prefill_token_s, work.step_s) == (22, True, 0.0, 0.0)
    assert work.oldest_wait_s > 0 and work.chunk_tokens == 16
    gate.release()
    assert entered.acquire(timeout=LIMIT_S)
    assert bench.engine.work.prompt_tokens == 6, "a chunk of 16 is taken in"
    assert bench.engine.work.prefill_token_s > 0
    for _ in range(8):
        gate.release()
    first.wait(), second.wait()
    bench.engine.stop()
    assert bench.engine.work.prompt_tokens == 0


def test_a_full_queue_refuses_and_the_others_go_on() -> None:
    bench = Bench(shapes(slots=1), Policy(max_queued=1), before_call=lambda _: time.thread_time())
    gate = threading.Event()
    blocked = Bench(shapes(slots=1), Policy(max_queued=1), before_call=lambda _: gate.wait(LIMIT_S))
    callers = [blocked.ask(i, [i + 1], 2) for i in (1, 2)]
    with pytest.raises(Overloaded):
        for i in (3, 4):
            callers.append(blocked.ask(i, [i + 1], 2))
    gate.set()
    for caller in callers:
        caller.wait()
    bench.engine.stop()
    blocked.engine.stop()


def test_a_model_that_fails_tells_every_caller() -> None:
    def fail(function: Function) -> None:
        if function.phase == "decode":
            raise RuntimeError("device lost")

    bench = Bench(shapes(), before_call=fail)
    caller = bench.ask(1, [1], 5).wait()
    assert isinstance(caller.outcomes[-1].error, ReplicaLost)
    bench.engine.stop()
    assert [str(f) for f in bench.faults] == ["device lost"]
    with pytest.raises(ReplicaLost):
        bench.ask(2, [1], 5)


def test_stopping_tells_those_in_hand() -> None:
    gate = threading.Event()
    bench = Bench(shapes(slots=1), before_call=lambda _: gate.wait(LIMIT_S))
    caller = bench.ask(1, [1], 50)
    threading.Timer(0.05, gate.set).start()
    bench.engine.stop()
    assert isinstance(caller.wait().outcomes[-1].error, ReplicaLost) or caller.outcomes[-1].finish


def test_time_and_phases_are_accounted() -> None:
    bench = Bench(shapes(chunks=(4,)))
    bench.ask(1, list(range(1, 10)), 6).wait()
    bench.engine.stop()
    totals = bench.engine.totals
    assert (totals.prefill_steps, totals.prefill_tokens) == (3, 9)
    assert (totals.decode_steps, totals.decode_tokens) == (5, 5)
    request = bench.requests[1]
    assert 0 < request.ttft_s <= request.last_token_s - request.arrived_s
    assert request.tpot_s > 0 and request.account.core_s <= totals.core_s + 1e-6


def test_logprobs_come_with_each_token() -> None:
    bench = Bench(shapes())
    caller = bench.ask(1, [5], 3, Choice(logprobs=True, top_logprobs=2)).wait()
    for outcome in caller.outcomes:
        assert outcome.logprob is not None and outcome.token is not None
        assert outcome.logprob.top[0] == (outcome.token, outcome.logprob.logprob)
        assert outcome.logprob.top[0][1] > outcome.logprob.top[1][1]
    bench.engine.stop()


def test_a_wrong_canary_is_refused() -> None:
    bench = Bench(shapes())
    right = tuple(greedy([1, 2, 3], 4))
    check_canary(bench.engine, Canary((1, 2, 3), right))
    with pytest.raises(WrongAnswer, match="from token 2 on"):
        check_canary(bench.engine, Canary((1, 2, 3), (*right[:2], 96 - right[2], right[3])))
    bench.engine.stop()


def test_the_source_s_answer_is_taken_with_a_tolerance_in_every_slot() -> None:
    bench = Bench(shapes())
    prompt = [1, 2, 3]
    first = greedy(prompt, 1)
    row = logits_of(prompt + first)
    runner_up = int(np.argsort(row)[-2])
    gap_nats = float(row.max() - row[runner_up])
    source = (*first, runner_up, *greedy([*prompt, *first, runner_up], 4))
    check_canary(bench.engine, Canary((1, 2, 3), source, gap_nats * 1.01), slots=4)
    assert {"decode_b4_c32", "decode_b1_c32"} <= {function.name for function in bench.model.calls}
    with pytest.raises(WrongAnswer, match=r"token 1 is \d+ where the source gives"):
        check_canary(bench.engine, Canary((1, 2, 3), source, gap_nats * 0.99), slots=4)
    bench.engine.stop()


def test_a_decode_that_is_wrong_only_when_it_is_wide_is_seen() -> None:
    bench = Bench(shapes(batches=(1, 4)), model=Mixing)
    canary = Canary((1, 2, 3), tuple(greedy([1, 2, 3], 8)), 0.5)
    check_canary(bench.engine, canary, slots=1)
    with pytest.raises(WrongAnswer):
        check_canary(bench.engine, canary, slots=4)
    bench.engine.stop()
