"""Prompts that begin with what the cache holds: the same answers, with less work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.node_agent.core.kept_rows import Costs, KeptRows, admission
from services.node_agent.core.schedule import Policy
from services.node_agent.replica.limits import salt_of
from tests.node_agent.cache_model import VOCABULARY_SIZE, greedy, shapes
from tests.node_agent.engine_bench import Bench
from tradewind.domain.errors import InvalidField
from tradewind.v1 import inference_pb2

OPENING = [int(t) for t in np.random.default_rng(3).integers(1, VOCABULARY_SIZE, 21)]
# (how much of the common opening, own tokens, answer, cancelled at once)
ASKED = st.lists(
    st.tuples(st.integers(0, 21), st.lists(st.integers(1, 5), max_size=9), st.integers(1, 9), st.booleans()),
    min_size=2,
    max_size=14,
)


@settings(deadline=None, max_examples=60)
@given(ASKED, st.sampled_from([(1, 2, 4), (4,), (1, 4)]), st.sampled_from([1, 8, 64]), st.integers(1, 4))
def test_answers_are_those_of_prompts_worked_out_whole(
    asked: list[tuple[int, list[int], int, bool]], batches: tuple[int, ...], chunk: int, slots: int
) -> None:
    bench = Bench(shapes(batches=batches, slots=slots), Policy(interleaved_chunk_tokens=chunk))
    callers = []
    for number, (opening, own, count, cancelled) in enumerate(asked):
        prompt = [*OPENING[:opening], *own] or [1]
        caller = bench.ask(number + 1, prompt, count)
        if cancelled:
            bench.engine.cancel(number + 1)
        else:
            callers.append((caller, prompt, count))
    for caller, prompt, count in callers:
        assert caller.wait().tokens == greedy(prompt, count)
    bench.engine.stop()
    assert not bench.faults


def _turns(bench: Bench, salts: Sequence[str]) -> list[int]:
    """A conversation, a turn for each salt; tokens of each prompt that were in the cache."""
    prompt, reused = list(OPENING), []
    for number, salt in enumerate(salts):
        caller = bench.ask(number + 1, prompt, 4, salt=salt).wait()
        reused.append(bench.requests[number + 1].reused)
        prompt = [*prompt, *caller.tokens, 7, 8, number]
    return reused


def test_the_next_turn_takes_in_only_what_is_new() -> None:
    bench = Bench(shapes())
    # Of an answer's four tokens the last was never written into the cache.
    assert _turns(bench, ["", "", ""]) == [0, 24, 31]
    totals = bench.engine.totals
    assert (totals.reused_tokens, totals.prefill_tokens) == (55, 21 + 4 + 4)
    bench.engine.stop()


def test_rows_of_another_salt_are_as_good_as_empty() -> None:
    bench = Bench(shapes())
    assert _turns(bench, ["a", "b", "b", "a"]) == [0, 0, 31, 0]
    bench.engine.stop()


def test_a_prompt_that_is_held_whole_still_gives_its_first_token() -> None:
    bench = Bench(shapes())
    for number in (1, 2):
        assert bench.ask(number, OPENING, 3).wait().tokens == greedy(OPENING, 3)
    assert bench.requests[2].reused == len(OPENING) - 1
    bench.engine.stop()


def test_two_conversations_at_once_keep_their_slots() -> None:
    bench = Bench(shapes(batches=(4,)))
    prompts = {1: [*OPENING, 1], 2: [*OPENING[::-1], 2]}
    for turn in range(3):
        for who in (1, 2):
            number = 10 * turn + who
            answer = bench.ask(number, prompts[who], 2).wait().tokens
            assert (bench.requests[number].reused > 20) == (turn > 0)
            prompts[who] = [*prompts[who], *answer, who]
    bench.engine.stop()


def test_conversations_that_take_turns_get_slots_of_their_own() -> None:
    of = shapes(batches=(1, 4), contexts=(64,))
    kept, costs = KeptRows(4, of.cache_tokens), Costs(1.0, {1: 0.1, 4: 0.2})
    slots: dict[int, list[int]] = {1: [], 2: []}
    for turn in range(1, 13):
        for who, taken in slots.items():
            prompt = np.full(4 * turn, who)
            kept.learn(prompt, "")
            slot, start = admission(kept, [False] * 4, prompt, "", 64, of, costs)[1:]
            kept.admit(slot, start, "")
            kept.wrote(slot, start, prompt[start:])
            taken.append(slot)
    # At first nobody is known to come back, and the low slot is the quickest.
    assert slots[1][0] == slots[2][0] == 0
    assert len({slots[1][-1], slots[2][-1]}) == 2
    assert [taken[-3:] for taken in slots.values()] == [[taken[-1]] * 3 for taken in slots.values()]


def test_who_never_comes_back_leaves_the_low_slot_to_the_next() -> None:
    of = shapes(batches=(1, 4), contexts=(64,))
    kept = KeptRows(4, of.cache_tokens)
    for who in range(1, 20):
        prompt = np.full(40, who)
        kept.learn(prompt, "")
        assert admission(kept, [False] * 4, prompt, "", 64, of, Costs(1.0, {1: 0.1, 4: 0.2})).slot == 0
        kept.admit(0, 0, "")
        kept.wrote(0, 0, prompt)
    assert kept.wanted == 0.0


def _free(held: dict[int, int], taken: Sequence[int] = (), costs: Costs | None = None, answer: int = 64) -> int:
    of = shapes(batches=(1, 4), contexts=(64,))
    kept, prompt = KeptRows(4, 80), np.arange(1, 41)
    for slot, count in held.items():
        kept.admit(slot, 0, "")
        kept.wrote(slot, 0, prompt[:count])
    busy = [slot in taken for slot in range(4)]
    return admission(kept, busy, prompt, "", answer, of, costs or Costs(1.0, {1: 1.0, 4: 1.5})).slot


def test_a_high_slot_is_worth_it_when_it_holds_enough() -> None:
    # Batches of four take half a second more a step: 32 seconds in 64 steps, as many as 32 tokens of a prompt.
    assert _free({2: 31}) == 0
    assert _free({2: 33}) == 2
    assert _free({2: 31}, answer=8) == 2
    # Where one in a high slot decodes already, another costs nothing.
    assert _free({2: 5}, taken=[3]) == 2


def test_of_slots_that_hold_nothing_of_it_the_one_unused_longest_is_taken() -> None:
    assert _free({1: 0, 3: 0}, taken=[0]) == 2
    assert _free({3: 0, 2: 0, 1: 0}, taken=[0]) == 3


def test_a_step_of_unknown_length_is_no_shorter_than_one_of_fewer() -> None:
    assert _free({}, costs=Costs(1.0, {1: 5.0})) == 0


def test_the_start_leaves_room_for_a_function() -> None:
    # The cache has no room for a chunk of 16 behind row 68, and the context ends at 64.
    of = shapes(chunks=(16,), batches=(1,), contexts=(64,), slots=1)
    kept, prompt = KeptRows(1, of.cache_tokens), np.arange(1, 64)
    kept.admit(0, 0, "")
    kept.wrote(0, 0, prompt)
    got = admission(kept, [False], prompt, "", 1, of, Costs(1.0, {}))
    assert got.kept == 62
    assert of.takes(got.kept, 1)


def test_a_salt_is_bounded() -> None:
    assert salt_of(inference_pb2.Sampling(cache_salt="é" * 128)) == "é" * 128
    with pytest.raises(InvalidField, match="256"):
        salt_of(inference_pb2.Sampling(cache_salt="é" * 129))
