"""Continuous batching as a step function: what the device does next, given which sequences there are. Pure.

    submit ──► queue ──(a free slot)──► prefill, chunk by chunk ──► decode, a token a step ──► gone

Each `step` names one action; `complete` says what it did. One prompt is taken in at a time, in the order of `line`;
between two of its chunks the sequences that decode get their steps, so that a long prompt does not stop the tokens of
others. A decode step that is not due yet (`core.due_steps`) leaves its time to prompts. Knows counts only: neither
tokens nor time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from services.node_agent.core.kept_rows import Admission
from services.node_agent.core.shapes import Shapes
from tradewind.domain.errors import Overloaded
from tradewind.domain.manifest import Function

# Waiting sequences beyond this are refused: with some seconds a sequence, the last would wait for minutes.
MAX_QUEUED: Final = 64
# While others decode, a chunk this long delays their next token by some tens of milliseconds on a small CPU.
INTERLEAVED_CHUNK_TOKENS: Final = 64


@dataclass(frozen=True, slots=True)
class Policy:
    """How prefill and decode share the device.

    Attributes:
        max_queued: sequences that may wait for a slot.
        interleaved_chunk_tokens: longest prefill chunk while others decode and their step is due.
        decodes_between_chunks: decode steps owed after each chunk while others decode, at least 1.
    """

    max_queued: int = MAX_QUEUED
    interleaved_chunk_tokens: int = INTERLEAVED_CHUNK_TOKENS
    decodes_between_chunks: int = 1

    def __post_init__(self) -> None:
        if min(self.interleaved_chunk_tokens, self.decodes_between_chunks) < 1 or self.max_queued < 0:
            raise ValueError("chunks and decode steps must be at least 1")


@dataclass(frozen=True, slots=True)
class Progress:
    """A sequence and how far it is.

    Attributes:
        prompt_tokens: length of the prompt, at least 1.
        most_output_tokens: tokens to generate at most, at least 1.
        filled: rows written in the cache.
        generated: tokens had so far.
    """

    sequence_id: int
    prompt_tokens: int
    most_output_tokens: int
    filled: int = 0
    generated: int = 0

    @property
    def decoding(self) -> bool:
        """Whether its prompt is in the cache."""
        return self.filled >= self.prompt_tokens


@dataclass(frozen=True, slots=True)
class State:
    """Everything there is: sequences in slots, sequences waiting, decode steps owed before the next chunk."""

    slots: tuple[Progress | None, ...]
    queue: tuple[Progress, ...] = ()
    owed_decodes: int = 0

    @property
    def active(self) -> int:
        """Sequences in slots."""
        return sum(1 for s in self.slots if s is not None)


@dataclass(frozen=True, slots=True)
class Prefill:
    """Take prompt tokens start … start+length-1 of a sequence into its slot; `last` yields its first token."""

    function: Function
    slot: int
    sequence_id: int
    start: int
    length: int
    last: bool


@dataclass(frozen=True, slots=True)
class Decode:
    """One token for each sequence of `rows`.

    Attributes:
        rows: (slot, sequence id) of those that take part.
        positions: for each slot 0…B-1 where its next token is written; of free slots 0.
    """

    function: Function
    rows: tuple[tuple[int, int], ...]
    positions: tuple[int, ...]


Action = Prefill | Decode


def empty(shapes: Shapes) -> State:
    """A state with nothing at work."""
    return State((None,) * shapes.slots)


def submit(state: State, sequence: Progress, policy: Policy) -> State:
    """The state with one more sequence waiting.

    Raises:
        Overloaded: all slots are taken and the queue is full.
    """
    room = len(state.slots) - state.active + policy.max_queued
    if len(state.queue) >= room:
        raise Overloaded(
            f"{state.active} sequences at work and {len(state.queue)} waiting, which is the limit; try again later "
            "or another replica",
            {"active": str(state.active), "queued": str(len(state.queue))},
        )
    return replace(state, queue=(*state.queue, sequence))


def cancel(state: State, sequence_id: int) -> State:
    """The state without a sequence, wherever it was; its slot is free at once. Unknown ids change nothing."""
    slots = tuple(None if s is not None and s.sequence_id == sequence_id else s for s in state.slots)
    return replace(state, slots=slots, queue=tuple(s for s in state.queue if s.sequence_id != sequence_id))


def step(
    state: State, shapes: Shapes, policy: Policy, admitted: Admission | None = None, room_tokens: int | None = None
) -> tuple[State, Action | None]:
    """Admits a waiting sequence into a free slot when its prompt is next, and names what to do.

    Args:
        state: the present one.
        shapes: the engine's functions.
        policy: how phases share the device.
        admitted: who goes where, when `next_admits`; None for the oldest into the lowest free slot.
        room_tokens: longest chunk that can be taken in before the next decode step is due; None when it is. Those that
            decode are held back by it while a slot is free for who comes next.

    Returns:
        The state, and what to do; None when nothing is at work, or nothing is due yet.
    """
    if next_admits(state):
        state = _admit(state, admitted or Admission(0, state.slots.index(None)))
    decoding = any(s is not None and s.decoding for s in state.slots)
    chunk = _in_prefill(state)
    if decoding and room_tokens is not None and not _crowded(state):
        # Owed steps wait, for they are not due; where no chunk fits they come early rather than that the device idles.
        if chunk is not None and (action := _prefill(state, chunk, shapes, room_tokens)).function.tokens <= room_tokens:
            return state, action
        # While all slots are taken, who comes next would wait for those that are held back.
        if chunk is None and None in state.slots:
            return state, None
    if chunk is not None and not (decoding and state.owed_decodes):
        return state, _prefill(state, chunk, shapes, policy.interleaved_chunk_tokens if decoding else None)
    return state, _decode(state, shapes) if decoding else None


def complete(state: State, action: Action, ended: Collection[int], policy: Policy) -> State:
    """The state after an action.

    Sequences cancelled meanwhile are left out; those that have all their tokens leave their slots.

    Args:
        state: the present one.
        action: what was done.
        ended: ids of sequences whose new token ends them.
        policy: as for `step`.
    """
    if isinstance(action, Prefill):
        slots = list(state.slots)
        sequence = slots[action.slot]
        if sequence is not None and sequence.sequence_id == action.sequence_id:
            filled, had = action.start + action.length, int(action.last)
            slots[action.slot] = _after(replace(sequence, filled=filled, generated=had), ended)
        return replace(state, slots=tuple(slots), owed_decodes=policy.decodes_between_chunks)
    slots = list(state.slots)
    for slot, sequence_id in action.rows:
        sequence = slots[slot]
        if sequence is not None and sequence.sequence_id == sequence_id:
            more = Progress(
                sequence_id,
                sequence.prompt_tokens,
                sequence.most_output_tokens,
                sequence.filled + 1,
                sequence.generated + 1,
            )
            slots[slot] = _after(more, ended)
    return State(tuple(slots), state.queue, max(0, state.owed_decodes - 1))


def _after(sequence: Progress, ended: Collection[int]) -> Progress | None:
    over = sequence.sequence_id in ended or sequence.generated >= sequence.most_output_tokens
    return None if over else sequence


def next_admits(state: State) -> bool:
    """Whether the next step admits a sequence: one waits, a slot is free, and no prompt is being taken in."""
    return bool(state.queue) and None in state.slots and _in_prefill(state) is None


def _admit(state: State, admitted: Admission) -> State:
    slots, queue = list(state.slots), list(state.queue)
    slots[admitted.slot] = replace(queue.pop(admitted.number), filled=admitted.kept)
    return replace(state, slots=tuple(slots), queue=tuple(queue))


def _crowded(state: State) -> bool:
    return bool(state.queue) and None not in state.slots


def _in_prefill(state: State) -> int | None:
    """Slot of the sequence whose prompt is being taken in."""
    return next((i for i, s in enumerate(state.slots) if s is not None and not s.decoding), None)


def _prefill(state: State, slot: int, shapes: Shapes, most_tokens: int | None) -> Prefill:
    sequence = state.slots[slot]
    assert sequence is not None
    remaining = sequence.prompt_tokens - sequence.filled
    most = shapes.cache_tokens if most_tokens is None else most_tokens
    function = shapes.prefill(sequence.filled, remaining, most)
    length = min(function.tokens, remaining)
    return Prefill(function, slot, sequence.sequence_id, sequence.filled, length, length == remaining)


def _decode(state: State, shapes: Shapes) -> Decode:
    rows = tuple((i, s.sequence_id) for i, s in enumerate(state.slots) if s is not None and s.decoding)
    # Slots inside the batch that take no part get a row written too: it must be the one written next anyway.
    next_rows = [s.filled if s is not None else 0 for s in state.slots]
    function = shapes.decode(rows[-1][0], next_rows)
    positions = (*next_rows, *(0,) * (function.batch - len(next_rows)))
    return Decode(function, rows, positions[: function.batch])
