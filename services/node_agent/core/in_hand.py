"""What an engine's schedule has in hand, as the rules for clocks and for who is next take it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.node_agent.core.governor import Limits, Work
from services.node_agent.core.kept_rows import Costs
from services.node_agent.core.line import Waiting, first_in_line
from services.node_agent.core.pace import Pace
from services.node_agent.core.schedule import Policy, State
from services.node_agent.core.shapes import Shapes


@dataclass(slots=True)
class Paces:
    """Of both phases: a prompt token's and a call's by its function's tokens, padding included; a decode step's of all
    sequences together, whole and by its function's batch."""

    prefill: Pace = field(default_factory=Pace)
    by_chunk: dict[int, Pace] = field(default_factory=dict)
    decode: Pace = field(default_factory=Pace)
    by_batch: dict[int, Pace] = field(default_factory=dict)

    def prefilled(self, seconds: float, tokens: int, chunk_tokens: int) -> None:
        """So many prompt tokens took so long, in a call of a function for that many."""
        self.prefill.saw(seconds, tokens)
        self.by_chunk.setdefault(chunk_tokens, Pace()).saw(seconds, 1)

    def decoded(self, seconds: float, batch: int) -> None:
        """A decode step took so long."""
        self.decode.saw(seconds, 1)
        self.by_batch.setdefault(batch, Pace()).saw(seconds, 1)

    def chunk_s(self, chunk_tokens: int) -> float:
        """A call of that function; of one that was never seen, as its tokens take elsewhere."""
        seen = self.by_chunk.get(chunk_tokens)
        return seen.each_s if seen else chunk_tokens * self.prefill.each_s

    @property
    def costs(self) -> Costs:
        """As the choice of a slot takes them."""
        return Costs(self.prefill.each_s, {batch: pace.each_s for batch, pace in self.by_batch.items()})


def next_of(
    state: State,
    shapes: Shapes,
    policy: Policy,
    paces: Paces,
    arrived_s: Mapping[int, float],
    limits: Limits,
    now_s: float,
) -> int:
    """Number in the queue of the sequence that is admitted next.

    Args:
        limits: of the requests. Others as for `work_of`.
    """
    if len(state.queue) < 2 or math.isinf(limits.ttft_s):
        return 0
    token_s = paces.prefill.each_s
    if state.active:
        token_s += paces.decode.each_s * policy.decodes_between_chunks / _paced_between(shapes, policy, paces, limits)
    line = [Waiting(arrived_s.get(one.sequence_id, now_s), one.prompt_tokens * token_s) for one in state.queue]
    return first_in_line(line, limits.ttft_s, now_s)


def work_of(
    state: State, shapes: Shapes, policy: Policy, paces: Paces, arrived_s: Mapping[int, float], now_s: float
) -> Work:
    """What there is to do. That a pace lets more of a prompt in between two steps is not counted on.

    Args:
        state: of the schedule.
        shapes: the engine's functions.
        policy: of the schedule.
        paces: lately.
        arrived_s: by sequence id, by the clock of `now_s`.
        now_s: monotonic.
    """
    at_work = [one for one in state.slots if one is not None]
    waiting = [*(one for one in at_work if not one.decoding), *state.queue]
    decoding = len(at_work) + len(state.queue) > len(waiting)
    oldest_s = min((arrived_s.get(one.sequence_id, now_s) for one in waiting), default=now_s)
    return Work(
        prompt_tokens=sum(one.prompt_tokens - one.filled for one in waiting),
        oldest_wait_s=max(0.0, now_s - oldest_s),
        crowded=len(state.queue) > len(state.slots) - len(at_work),
        prefill_token_s=paces.prefill.each_s,
        chunk_tokens=_between(shapes, policy) if decoding else _chunk_tokens(shapes, shapes.cache_tokens),
        step_s=paces.decode.each_s if decoding else 0.0,
    )


def _between(shapes: Shapes, policy: Policy) -> int:
    """Prompt tokens between two decode steps."""
    return _chunk_tokens(shapes, policy.interleaved_chunk_tokens)


def _paced_between(shapes: Shapes, policy: Policy, paces: Paces, limits: Limits) -> int:
    """As `_between`, where steps come a pace apart: the chunks that fit beside a step."""
    chunk_tokens = _between(shapes, policy)
    chunk_s = chunk_tokens * paces.prefill.each_s
    fitting = int((limits.pace_s - paces.decode.each_s) / chunk_s) if chunk_s else 0
    return chunk_tokens * max(1, fitting)


def _chunk_tokens(shapes: Shapes, most_tokens: int) -> int:
    """The largest chunk of at most so many tokens; the smallest there is, when none is that small."""
    sizes = [function.tokens for function in shapes.prefills]
    return max((size for size in sizes if size <= most_tokens), default=min(sizes))
