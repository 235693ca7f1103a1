"""The schedule while decode steps are held back: prompts first as far as they fit, and never anybody for nothing."""

from __future__ import annotations

from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.node_agent.core import schedule
from services.node_agent.core.schedule import Decode, Policy, Prefill, Progress, State
from services.node_agent.core.shapes import Shapes
from tests.node_agent.cache_model import shapes
from tests.node_agent.test_schedule import POLICIES, SHAPES, Ledger

# Room before each step in turn; None where the decode step is due, which it is again and again.
ROOMS = st.lists(st.none() | st.integers(0, 80), min_size=1, max_size=6).map(lambda rooms: [*rooms, None])
# (steps before it comes, prompt, output)
ARRIVALS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40), st.integers(1, 16)), min_size=1, max_size=10)
OF, POLICY = shapes(chunks=(4, 16), slots=2), Policy(interleaved_chunk_tokens=4)


def held(state: State, room_tokens: int | None, of: Shapes = OF, policy: Policy = POLICY) -> schedule.Action | None:
    return schedule.step(state, of, policy, room_tokens=room_tokens)[1]


@settings(max_examples=200, deadline=None)
@given(of=SHAPES, arrivals=ARRIVALS, policy=POLICIES, rooms=ROOMS)
def test_whatever_is_held_back_everybody_gets_all_tokens_on_rows_of_their_own(
    of: Shapes, arrivals: list[tuple[int, int, int]], policy: Policy, rooms: list[int | None]
) -> None:
    ledger, state, tokens = Ledger(of), schedule.empty(of), dict[int, int]()
    due = sorted(
        (when, i, prompt, min(out, of.context_tokens - prompt)) for i, (when, prompt, out) in enumerate(arrivals)
    )
    wanted = {i: out for _, i, _, out in due}
    bound = (sum(prompt + out for _, _, prompt, out in due) + 10 * len(due) + 10) * len(rooms)
    for now, room in zip(range(bound), cycle(rooms), strict=False):
        while due and due[0][0] <= now:
            _, i, prompt, out = due.pop(0)
            state, tokens[i] = schedule.submit(state, Progress(i, prompt, out), policy), 0
        usual = held(state, None, of, policy)
        state, action = schedule.step(state, of, policy, room_tokens=room)
        _as_told(state, room, action, usual)
        if action is None:
            if not due and not state.active:
                break
            continue
        ledger.apply(state, action)
        if isinstance(action, Decode):
            for _, i in action.rows:
                tokens[i] += 1
        elif action.last:
            tokens[action.sequence_id] += 1
        state = schedule.complete(state, action, (), policy)
    assert tokens == wanted


def _as_told(state: State, room: int | None, action: schedule.Action | None, usual: schedule.Action | None) -> None:
    """What is done, and what would be done if the step were due."""
    decoding = any(one is not None and one.decoding for one in state.slots)
    prompts = any(one is not None and not one.decoding for one in state.slots)
    full = None not in state.slots and (bool(state.queue) or not prompts)
    if room is None or not decoding or full:
        assert action == usual, "nothing is held back"
    elif not prompts:
        assert action is None, "there is nothing to do before the step"
    elif isinstance(action, Prefill) and action != usual:
        assert action.function.tokens <= room
    elif action != usual:
        pytest.fail(f"{action} for {usual}, with room for {room}")


def decoding_and(prompt_tokens: int, owed: int, queued: int = 0) -> State:
    """One that decodes, one whose prompt is next, and some who wait."""
    queue = tuple(Progress(10 + i, 4, 4) for i in range(queued))
    return State((Progress(1, 3, 10, 3, 1), Progress(2, prompt_tokens, 4)), queue, owed)


@pytest.mark.parametrize(("room", "tokens"), [(80, 16), (16, 16), (15, 4), (4, 4)])
@pytest.mark.parametrize("owed", [0, 1])
def test_the_largest_chunk_that_fits_is_taken_in_although_a_step_is_owed(room: int, tokens: int, owed: int) -> None:
    action = held(decoding_and(40, owed), room)
    assert isinstance(action, Prefill) and (action.sequence_id, action.function.tokens) == (2, tokens)


def test_where_no_chunk_fits_the_owed_step_comes_early_and_then_a_chunk_all_the_same() -> None:
    assert isinstance(held(decoding_and(40, owed=1), 3), Decode)
    action = held(decoding_and(40, owed=0), 3)
    assert isinstance(action, Prefill) and action.function.tokens == 4


def test_a_step_without_a_prompt_beside_it_waits() -> None:
    alone = State((Progress(1, 3, 10, 3, 1), None))
    assert held(alone, 0) is None and held(alone, 80) is None
    assert isinstance(held(alone, None), Decode)


def test_all_go_on_while_no_slot_is_free_for_who_comes_next() -> None:
    full = State((Progress(1, 3, 10, 3, 1), Progress(2, 3, 10, 3, 1)))
    assert isinstance(held(full, 80), Decode)


def test_one_who_waits_for_a_slot_makes_all_go_on() -> None:
    both = State((Progress(1, 3, 10, 3, 1), Progress(2, 3, 10, 3, 1)), (Progress(3, 4, 4),))
    assert isinstance(held(both, 80), Decode)
    assert isinstance(held(decoding_and(40, owed=1, queued=1), 80), Decode)


def test_a_prompt_alone_goes_in_whatever_the_room() -> None:
    state = schedule.submit(schedule.empty(OF), Progress(1, 16, 4), POLICY)
    action = held(state, 0)
    assert isinstance(action, Prefill) and action.function.tokens == 16
