"""When the step of a schedule's sequences is due, by what its function took, and what fits before it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.node_agent.core.due_steps import DueSteps
from services.node_agent.core.governor import Limits
from services.node_agent.core.in_hand import Paces, next_of
from services.node_agent.core.schedule import Policy, Progress, State
from tests.node_agent.cache_model import shapes

PACE_S, TOKEN_S = 0.040, 0.0015
OF = shapes(batches=(1, 4), slots=4)
ONE = Progress(1, 3, 10, 3, 1)
FIRST = State((ONE, None, None, None))
THIRD = State((None, None, ONE, None))


@pytest.fixture
def paces() -> Paces:
    paces = Paces()
    paces.prefill.saw(10 * TOKEN_S, 10)
    paces.decoded(0.010, 1)
    paces.decoded(0.020, 4)
    return paces


def due_of(paces: Paces, state: State = FIRST, pace_s: float = PACE_S) -> DueSteps:
    due = DueSteps(OF, paces)
    due.repace(pace_s, 0.0)
    due.follow(state, 100.0)
    return due


@pytest.mark.parametrize(("state", "step_s"), [(FIRST, 0.010), (THIRD, 0.020)])
def test_a_step_of_its_function_ends_when_the_token_is_due(paces: Paces, state: State, step_s: float) -> None:
    due = due_of(paces, state)
    assert due.wait_s(100.005) == pytest.approx(PACE_S - step_s - 0.005)
    assert due.wait_s(100.0 + PACE_S - step_s / 2) == 0.0, "it is late"


def test_a_function_that_was_never_seen_takes_what_steps_take(paces: Paces) -> None:
    del paces.by_batch[4]
    assert due_of(paces, THIRD).wait_s(100.0) == pytest.approx(PACE_S - paces.decode.each_s)


def test_a_chunk_fits_by_what_its_calls_took_however_little_was_in_them(paces: Paces) -> None:
    due, free_s = due_of(paces), PACE_S - 0.010
    assert due.room_tokens(100.0 + free_s - 16 * TOKEN_S) == 16, "as its tokens take elsewhere"
    assert due.room_tokens(100.0 + free_s - 16 * TOKEN_S + 0.001) == 4
    assert due.room_tokens(100.0 + free_s - 4 * TOKEN_S + 0.001) == 0
    assert due.room_tokens(100.0 + PACE_S) is None, "the step is due"
    paces.prefilled(0.030, 5, 16)
    paces.prefilled(0.0299, 16, 16)
    assert due.room_tokens(100.0) == 16
    assert due.room_tokens(100.001) == 4


def test_without_a_pace_or_sequences_nothing_is_held_back(paces: Paces) -> None:
    unpaced = due_of(paces, pace_s=0.0)
    assert (unpaced.wait_s(100.0), unpaced.room_tokens(100.0)) == (0.0, None)
    empty = due_of(paces, State((None,) * 4))
    assert (empty.wait_s(100.0), empty.room_tokens(100.0)) == (None, None)
    prompt = due_of(paces, State((Progress(1, 3, 10), None, None, None)))
    assert prompt.wait_s(100.0) is None


def test_who_is_gone_is_not_waited_for_and_who_stays_keeps_its_place(paces: Paces) -> None:
    due = due_of(paces)
    both = replace(FIRST, slots=(ONE, replace(ONE, sequence_id=2), None, None))
    due.follow(both, 100.015)
    due.follow(both, 100.017)
    assert due.wait_s(100.017) == pytest.approx(PACE_S - 0.020 - 0.017)
    due.follow(replace(both, slots=(None, both.slots[1], None, None)), 100.020)
    assert due.wait_s(100.020) == pytest.approx(0.015 + PACE_S - 0.020 - 0.020)
    due.stepped(100.030)
    assert due.wait_s(100.050) == pytest.approx(min(0.015 + 2 * PACE_S - 0.020, 0.030 + PACE_S) - 0.050)


def test_a_pace_lets_more_of_a_prompt_in_between_two_steps(paces: Paces) -> None:
    of, policy = shapes(slots=2), Policy(interleaved_chunk_tokens=4)
    state = State((ONE, None), (Progress(2, 40, 4), Progress(3, 4, 4)))
    # 40 tokens take 60 ms, and another 150 ms when a step comes after each 4: then the first is late anyway.
    known = (state, of, policy, paces, {2: 0.0, 3: 0.0})
    assert next_of(*known, Limits(ttft_s=0.150), 0.0) == 1
    assert next_of(*known, Limits(ttft_s=0.150, pace_s=PACE_S), 0.0) == 0
    assert next_of(*known, Limits(pace_s=PACE_S), 0.0) == 0
