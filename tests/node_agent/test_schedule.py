"""The schedule under arbitrary arrivals, cancellations and shapes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.node_agent.core import schedule
from services.node_agent.core.kept_rows import Admission
from services.node_agent.core.schedule import Decode, Policy, Prefill, Progress, State
from services.node_agent.core.shapes import Shapes
from tests.node_agent.cache_model import shapes
from tradewind.domain.errors import Overloaded

SHAPES = st.builds(
    shapes,
    chunks=st.sampled_from([(4,), (4, 16), (16,), (8, 32)]),
    batches=st.sampled_from([(4,), (1, 4), (1, 2, 4)]),
    contexts=st.sampled_from([(64,), (32, 64)]),
    slots=st.integers(1, 4),
)
# (steps before it comes, prompt, output, steps after which it is cancelled or None)
ARRIVALS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 40), st.integers(1, 24), st.none() | st.integers(0, 12)),
    min_size=1,
    max_size=12,
)
POLICIES = st.builds(
    Policy,
    max_queued=st.just(64),
    interleaved_chunk_tokens=st.sampled_from([1, 8, 64]),
    decodes_between_chunks=st.integers(1, 3),
)


class Ledger:
    """Knows what each cache row holds and objects to every breach of the ABI."""

    def __init__(self, of: Shapes) -> None:
        self.of = of
        self.rows: dict[tuple[int, int], tuple[int, int] | None] = {}

    def apply(self, state: State, action: schedule.Action) -> None:
        (self._prefill if isinstance(action, Prefill) else self._decode)(state, action)  # type: ignore[operator]

    def _prefill(self, state: State, action: Prefill) -> None:
        function = action.function
        sequence = state.slots[action.slot]
        assert sequence is not None and sequence.sequence_id == action.sequence_id
        assert action.start == sequence.filled
        assert 1 <= action.length <= function.tokens
        assert action.start + action.length <= function.context
        assert action.start + function.tokens <= self.of.cache_tokens
        for row in range(action.start, action.start + function.tokens):
            self.rows[action.slot, row] = None
        for row in range(action.start, action.start + action.length):
            self.rows[action.slot, row] = (action.sequence_id, row)
        self._holds(action.slot, action.sequence_id, action.start + action.length)

    def _decode(self, state: State, action: Decode) -> None:
        assert len(action.positions) == action.function.batch
        taking = dict(action.rows)
        assert len(taking) == len(action.rows) >= 1
        for slot, position in enumerate(action.positions):
            assert position < action.function.context
            sequence = state.slots[slot] if slot < len(state.slots) else None
            assert position == (sequence.filled if sequence else 0)
            self.rows[slot, position] = (taking[slot], position) if slot in taking else None
        for slot, sequence_id in action.rows:
            assert slot < action.function.batch
            self._holds(slot, sequence_id, action.positions[slot] + 1)

    def _holds(self, slot: int, sequence_id: int, rows: int) -> None:
        """Every row that is attended to is the sequence's own."""
        assert all(self.rows.get((slot, row)) == (sequence_id, row) for row in range(rows))


@settings(max_examples=200, deadline=None)
@given(of=SHAPES, arrivals=ARRIVALS, policy=POLICIES)
def test_every_sequence_gets_its_tokens_on_rows_of_its_own(of: Shapes, arrivals: list, policy: Policy) -> None:
    ledger, state = Ledger(of), schedule.empty(of)
    tokens: dict[int, int] = {}
    cancelled: set[int] = set()
    lengths: dict[int, int] = {}
    due = sorted((when, i, prompt, out, stop) for i, (when, prompt, out, stop) in enumerate(arrivals))
    bound = sum(prompt + out for _, prompt, out, _ in arrivals) + 10 * len(arrivals) + 10
    chunks_in_a_row_while_decoding = 0
    for now in range(bound):
        while due and due[0][0] <= now:
            _, i, prompt, out, stop = due.pop(0)
            lengths[i] = min(out, of.context_tokens - prompt)
            state = schedule.submit(state, Progress(i, prompt, lengths[i]), policy)
            tokens[i] = 0
        for i, (when, _, _, stop) in enumerate(arrivals):
            if stop is not None and now == when + stop and i in lengths:
                state = schedule.cancel(state, i)
                cancelled.add(i)
        held = [s.sequence_id for s in (*state.slots, *state.queue) if s]
        assert len(held) == len(set(held))
        waited, admitted = state.queue, None
        if schedule.next_admits(state):
            free = [slot for slot, one in enumerate(state.slots) if one is None]
            admitted = Admission(now % len(waited), free[now % len(free)])
        first = admitted.number if admitted else 0
        state, action = schedule.step(state, of, policy, admitted)
        if action is None:
            assert not state.active and not state.queue
            if not due:
                break
            continue
        in_prefill = [s for s in state.slots if s and not s.decoding]
        assert not state.queue or all(state.slots) or in_prefill, "a slot is free while one waits"
        assert len(in_prefill) <= 1
        assert [s for s in waited if s not in state.queue] == list(
            waited[first : first + len(waited) - len(state.queue)]
        )
        ledger.apply(state, action)
        decoding = any(s is not None and s.decoding for s in state.slots)
        if isinstance(action, Prefill):
            chunks_in_a_row_while_decoding += decoding
            assert chunks_in_a_row_while_decoding <= 1, "decode starves"
            smallest = min(f.tokens for f in of.prefills)
            if decoding:
                assert action.function.tokens <= max(policy.interleaved_chunk_tokens, smallest)
            if action.last:
                tokens[action.sequence_id] += 1
        else:
            chunks_in_a_row_while_decoding = 0
            assert {i for _, i in action.rows} == {s.sequence_id for s in state.slots if s and s.decoding}
            for _, i in action.rows:
                tokens[i] += 1
        state = schedule.complete(state, action, (), policy)
    else:
        pytest.fail(f"not done after {bound} steps")
    for i, count in tokens.items():
        if i not in cancelled:
            assert count == lengths[i]


def test_one_that_ends_early_leaves_its_slot_to_the_next() -> None:
    of, policy = shapes(slots=1), Policy()
    state = schedule.empty(of)
    for i in (1, 2):
        state = schedule.submit(state, Progress(i, 3, 10), policy)
    state, action = schedule.step(state, of, policy)
    assert isinstance(action, Prefill) and action.sequence_id == 1
    state = schedule.complete(state, action, {1}, policy)
    state, action = schedule.step(state, of, policy)
    assert isinstance(action, Prefill) and (action.sequence_id, action.slot, action.start) == (2, 0, 0)


def test_a_cancelled_sequence_frees_its_slot_at_once() -> None:
    of, policy = shapes(slots=2), Policy()
    state = schedule.empty(of)
    for i in (1, 2, 3):
        state = schedule.submit(state, Progress(i, 3, 10), policy)
    state, _ = schedule.step(state, of, policy)
    state = schedule.cancel(state, 1)
    state, action = schedule.step(state, of, policy)
    assert isinstance(action, Prefill)
    assert (action.sequence_id, action.slot) == (2, 0)
    assert [s.sequence_id for s in state.queue] == [3]


def test_an_action_of_a_sequence_cancelled_meanwhile_changes_no_other() -> None:
    of, policy = shapes(slots=1), Policy()
    state = schedule.submit(schedule.empty(of), Progress(1, 3, 10), policy)
    state, action = schedule.step(state, of, policy)
    assert action is not None
    state = schedule.submit(schedule.cancel(state, 1), Progress(2, 5, 10), policy)
    state, _ = schedule.step(state, of, policy)
    after = schedule.complete(state, action, {1}, policy)
    assert after.slots == state.slots


def test_short_work_takes_the_small_functions() -> None:
    of, policy = shapes(chunks=(4, 16), batches=(1, 4), contexts=(32, 64)), Policy()
    state = schedule.submit(schedule.empty(of), Progress(1, 3, 10), policy)
    state, action = schedule.step(state, of, policy)
    assert isinstance(action, Prefill) and action.function.name == "prefill_t4_c32"
    state = schedule.complete(state, action, (), policy)
    state, action = schedule.step(state, of, policy)
    assert isinstance(action, Decode) and action.function.name == "decode_b1_c32"


@pytest.mark.parametrize(
    ("prompt", "chunks"),
    [
        (10, [32]),
        (32, [32]),
        (64, [32, 32]),
        (96, [128]),
        (100, [128]),
        (128, [128]),
        (160, [128, 32]),
        (250, [128, 128]),
    ],
)
def test_a_prompt_goes_in_with_little_padding_in_few_calls(prompt: int, chunks: list[int]) -> None:
    of, policy = shapes(chunks=(32, 128), contexts=(512,)), Policy()
    state = schedule.submit(schedule.empty(of), Progress(1, prompt, 1), policy)
    taken = []
    while True:
        state, action = schedule.step(state, of, policy)
        if action is None:
            break
        taken.append(action.function.tokens)
        state = schedule.complete(state, action, (), policy)
    assert taken == chunks


def test_a_long_neighbour_in_prefill_widens_the_decode_bucket() -> None:
    of = shapes(chunks=(16,), batches=(2,), contexts=(32, 64), slots=2)
    state = State((Progress(1, 3, 10, 3, 1), Progress(2, 60, 4, 48, 0)), owed_decodes=1)
    _, action = schedule.step(state, of, Policy())
    assert isinstance(action, Decode)
    assert action.function.context == 64 and action.positions == (3, 48)


def test_a_full_queue_refuses_with_figures() -> None:
    of, policy = shapes(slots=1), Policy(max_queued=2)
    state = schedule.empty(of)
    for i in range(3):
        state = schedule.submit(state, Progress(i, 3, 10), policy)
    with pytest.raises(Overloaded) as caught:
        schedule.submit(state, Progress(9, 3, 10), policy)
    assert caught.value.metadata == {"active": "0", "queued": "3"}


def test_shapes_without_a_phase_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Shapes((), shapes().decodes, 1, 32, 32)
