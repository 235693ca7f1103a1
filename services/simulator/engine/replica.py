"""One replica with continuous batching, advanced in runs of equal steps instead of token by token.

    submit ──► waiting ──(place and cache free)──► prefill, chunk by chunk ──► decode, a token a step ──► done

Between two moments at which the batch changes (a sequence ends, a prompt is in, one arrives) every step takes the same
time, so a whole run of them is one event. The order is the engine's: one prompt at a time, by `line`; while others
decode it is taken in chunks, each with one decode step or, in engines that keep the two apart, followed by one. Where a
step's function is chosen by the highest slot in use, as our engine does, sequences keep the lowest slot that was free.
Knows nothing of nodes or of the event queue.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from math import ceil, inf
from typing import Final

from services.node_agent.core.governor import Work
from services.node_agent.core.schedule import MAX_QUEUED
from services.simulator.engine.clocks import LOOK_CHUNKS, Clocks, Easing
from services.simulator.engine.cost import StepCost
from services.simulator.engine.request import Request
from services.simulator.engine.waiting import WaitingRoom

# After the last kernel SM clocks fall within 2 s and power within 4 s, where they fall at all (arXiv 2605.23918, H100).
CLOCKS_FALL_S: Final = 2.0
POWER_FALLS_S: Final = 4.0


class Replica:
    """Sequences of one replica and the run of steps that is under way.

    Attributes:
        replica_id: as the blueprint names it.
        batch_limit: sequences at work together at most.
        in_hand: requests waiting, in prefill or decoding.
        unanswered: prompt tokens of those that have no first token yet.
        ends_at_s: end of the present run; infinite when there is nothing to do.
        version: grows whenever `ends_at_s` changes, so that queued events can be told stale.
        awaited: the version whose end is queued.
        prefill_mj, decode_mj: energy above loaded idle so far.
        busy_s: time at work so far.
        rests_from_s: when it last had nothing more to do, or was ready.
    """

    __slots__ = (
        *("awaited", "batch_limit", "busy_s", "decode_mj", "ends_at_s", "in_hand", "prefill_mj", "replica_id"),
        *("rests_from_s", "tokens", "unanswered", "_rested_mj"),
        *("version", "_chunks", "_context", "_cost", "_decode_mw", "_decoding"),
        *("_filled", "_owed", "_prefill", "_prefill_mw", "_reserved", "_slots", "_start_s", "_step_s"),
        *("_clocks", "_point", "_steps", "_todo", "_waiting"),
    )

    def __init__(
        self,
        replica_id: str,
        cost: StepCost,
        batch_limit: int,
        ready_s: float = 0.0,
        easing: Easing | None = None,
        ttft_limit_s: float = inf,
    ) -> None:
        self.replica_id, self._point = replica_id, (cost, easing)
        self._clocks = Clocks(cost, easing)
        self._cost = self._clocks.cost
        self.batch_limit = max(1, min(batch_limit, cost.most_sequences))
        self.in_hand = self.tokens = self.unanswered = self.version = self.awaited = 0
        self.ends_at_s = inf
        self.prefill_mj = self.decode_mj = self.busy_s = self._rested_mj = 0.0
        self.rests_from_s = ready_s
        self._waiting = WaitingRoom(ttft_limit_s)
        self._decoding: list[tuple[int, int, Request]] = []
        self._prefill: Request | None = None
        self._slots: dict[int, int] = {}
        self._filled = self._context = self._reserved = 0
        self._steps = self._todo = self._chunks = 0
        self._owed = False
        self._start_s = self._step_s = self._prefill_mw = self._decode_mw = 0.0

    @property
    def cost(self) -> StepCost:
        """The operating point it runs at; at full clock, where its clock eases."""
        return self._point[0]

    @property
    def rises(self) -> int:
        """How often its clock went up from the eased one since it was last set."""
        return self._clocks.rises

    @property
    def active_mj(self) -> float:
        """Energy above loaded idle so far."""
        return self.prefill_mj + self.decode_mj

    def rested_mj(self, now_s: float) -> float:
        """Energy that it drew less than loaded idle until now, for its clocks had fallen."""
        return self._rested_mj + self._rest_mj(now_s)

    @property
    def waiting(self) -> int:
        """Requests that have no place yet."""
        return len(self._waiting)

    def submit(self, request: Request, now_s: float) -> bool:
        """Takes one more request; it begins at the next step at the latest. False when there is no room for it.

        The engine's rule: `submit` in `node_agent/core/schedule.py`.
        """
        if self.in_hand >= self.batch_limit + MAX_QUEUED:
            return False
        request.replica_id = self.replica_id
        self.in_hand += 1
        self.unanswered += request.prompt_tokens
        self._waiting.add(request)
        if self.ends_at_s == inf:
            self._wake(now_s)
        elif self._prefill is None and len(self._decoding) < self.batch_limit:
            self._cut(now_s)
        return True

    def change(self, cost: StepCost, batch_limit: int, now_s: float, easing: Easing | None = None) -> None:
        """Another operating point of the same variant from the next step on: clocks, caps, batch limit."""
        if (cost, easing) == self._point and batch_limit == self.batch_limit:
            return
        self._cut(now_s)
        self._point, self._clocks = (cost, easing), Clocks(cost, easing)
        self._cost, self.batch_limit = self._clocks.cost, max(1, min(batch_limit, cost.most_sequences))

    def advance(self, now_s: float) -> list[Request]:
        """The run has ended: what happened in it. Returns requests that are done."""
        self._account(now_s)
        decoding, done, todo = self._decoding, [], self._todo
        if decoding:
            self._steps += todo
            self._context += todo * len(decoding)
            self.tokens += todo * len(decoding)
            steps = self._steps
            while decoding and decoding[0][0] <= steps:
                request = heappop(decoding)[2]
                self._leave(request, now_s)
                done.append(request)
        self._owed = self._cost.apart and self._chunks > 0 and not todo
        if self._prefill is not None and self._prefilled():
            done.append(self._first_token(now_s))
        self._begin(now_s)
        return [r for r in done if r.done_s >= 0.0]

    def delay(self, for_s: float) -> None:
        """Stands still for a time in the midst of a run; what is under way ends later by that."""
        self.ends_at_s += for_s
        self._start_s += for_s
        self.version += 1

    def stop(self, now_s: float) -> list[Request]:
        """Ends at once. Returns every request it still had, as they are."""
        if self.ends_at_s != inf:
            self._account(now_s)
            self.rests_from_s = now_s
        left = [r for _, _, r in sorted(self._decoding)] + list(self._waiting)
        if self._prefill is not None:
            left.insert(0, self._prefill)
        self._decoding, self._prefill = [], None
        self._waiting.clear()
        self._slots.clear()
        self.in_hand = self.unanswered = self._context = self._reserved = 0
        self.ends_at_s = inf
        self.version += 1
        return left

    def _prefilled(self) -> bool:
        assert self._prefill is not None
        self._filled += self._chunks
        return self._filled >= self._prefill.prompt_tokens

    def _first_token(self, now_s: float) -> Request:
        request, self._prefill = self._prefill, None
        assert request is not None
        request.first_s = now_s
        self.tokens += 1
        self.unanswered -= request.prompt_tokens
        self._context += request.prompt_tokens
        if request.output_tokens <= 1:
            self._leave(request, now_s, prompt_only=True)
        else:
            heappush(self._decoding, (self._steps + request.output_tokens - 1, request.number, request))
        return request

    def _leave(self, request: Request, now_s: float, *, prompt_only: bool = False) -> None:
        request.done_s = now_s
        self.in_hand -= 1
        self._slots.pop(request.number, None)
        self._reserved -= request.prompt_tokens + request.output_tokens
        self._context -= request.prompt_tokens + (0 if prompt_only else request.output_tokens - 1)

    def _admit(self, now_s: float) -> None:
        if self._prefill is not None or not self._waiting or len(self._decoding) >= self.batch_limit:
            return
        head = self._waiting.first(now_s, self._takes_s)
        need = head.prompt_tokens + head.output_tokens
        # One that could never fit is taken alone: its node would refuse it, a trace must not stop the run.
        if self._reserved and self._reserved + need > self._cost.cache_tokens:
            return
        self._reserved += need
        self._waiting.remove(head)
        self._prefill, self._filled = head, 0
        if self._cost.by_slot:
            used = set(self._slots.values())
            self._slots[head.number] = next(slot for slot in count() if slot not in used)

    def _takes_s(self, request: Request) -> float:
        """How long a prompt keeps the device, with the decode steps between its chunks."""
        cost, tokens = self._cost, request.prompt_tokens
        step_s = cost.decode_s[self._reach()] + cost.context_s * self._context if self._decoding else 0.0
        return cost.prefill_s(tokens) + step_s * tokens / cost.chunk_tokens

    def _reach(self) -> int:
        """Sequences that the next decode step computes: those that decode, or all slots up to their highest."""
        if not self._cost.by_slot:
            return len(self._decoding)
        return 1 + max((self._slots[request.number] for _, _, request in self._decoding), default=-1)

    def _rest_mj(self, now_s: float) -> float:
        if self.ends_at_s != inf:
            return 0.0
        return max(now_s - self.rests_from_s - POWER_FALLS_S, 0.0) * self._cost.rest_saved_w * 1000.0

    def _wake(self, now_s: float) -> None:
        """Begins after a rest: clocks that fell rise first, at the power of a prompt."""
        ramp_s = self._cost.ramp_s if now_s - self.rests_from_s > CLOCKS_FALL_S else 0.0
        self._rested_mj += self._rest_mj(now_s)
        self._begin(now_s)
        if ramp_s:
            self.prefill_mj += ramp_s * self._prefill_mw
            self.delay(ramp_s)

    def _begin(self, now_s: float) -> None:
        self._admit(now_s)
        lost_s = self._follow(now_s) if self._clocks.eases else 0.0
        cost, decoding = self._cost, self._decoding
        n = len(decoding)
        self._start_s, self.version = now_s, self.version + 1
        waits = self._owed and n > 0
        if self._prefill is not None and not waits:
            self._begin_prefill(n)
        elif n:
            # A prompt that waits for the step that is owed after the chunk before it waits for no more.
            self._todo = 1 if self._prefill is not None else decoding[0][0] - self._steps
            reach = self._reach()
            if self._clocks.eases_at_s != inf:
                step_s = cost.decode_s[reach] + cost.context_s * self._context
                self._todo = min(self._todo, int((self._clocks.eases_at_s - now_s) / step_s) + 1)
            self._step_s = cost.decode_s[reach] + cost.context_s * (self._context + 0.5 * n * (self._todo - 1))
            self._decode_mw = (cost.decode_power_w[reach] - cost.decode_power_w[0]) * 1000.0
            self._prefill_mw = 0.0
            self._chunks = 0
        else:
            self.ends_at_s, self._todo, self.rests_from_s = inf, 0, now_s
            return
        self.ends_at_s = now_s + self._step_s * max(self._todo, 1)
        if lost_s:
            self.prefill_mj += lost_s * self._prefill_mw
            self.decode_mj += lost_s * self._decode_mw
            self.delay(lost_s)

    def _follow(self, now_s: float) -> float:
        """Takes the clock that its node chooses for what is in hand; see `Clocks.follow`."""
        cost, n = self._clocks.now(now_s), len(self._decoding)
        oldest = self._prefill or (self._waiting.oldest)
        filled = self._filled if self._prefill else 0
        # As an engine sees it: of the tokens about to be taken in, which take longer the more came before them.
        tokens = min(cost.chunk_tokens, oldest.prompt_tokens - filled) if oldest else 0
        work = Work(
            prompt_tokens=self.unanswered - filled,
            oldest_wait_s=now_s - oldest.arrival_s if oldest else 0.0,
            crowded=self._prefill is None and oldest is not None,
            prefill_token_s=cost.prefill_s(tokens, filled) / tokens if tokens else 0.0,
            chunk_tokens=cost.chunk_tokens,
            step_s=cost.decode_s[self._reach()] + cost.context_s * self._context if n else 0.0,
        )
        lost_s = self._clocks.follow(work, now_s)
        self._cost = self._clocks.cost
        return lost_s

    def _begin_prefill(self, n: int) -> None:
        """The oldest prompt: whole when alone, else in chunks that come with one decode step each.

        Where chunks and steps are apart, the last chunk is a run of its own: its step has one sequence more.
        """
        cost, request = self._cost, self._prefill
        assert request is not None
        left = request.prompt_tokens - self._filled
        chunks = ceil(left / cost.chunk_tokens)
        if not n or (cost.apart and chunks == 1):
            self._todo, self._chunks = 0, left
            self._step_s = cost.prefill_s(left, self._filled)
            self._prefill_mw, self._decode_mw = (cost.prefill_power_w - cost.decode_power_w[0]) * 1000.0, 0.0
            return
        steps = min(chunks - cost.apart, self._decoding[0][0] - self._steps)
        if self._clocks.eases:
            steps = min(steps, LOOK_CHUNKS)
        tokens = min(steps * cost.chunk_tokens, left)
        take_s = cost.prefill_s(tokens, self._filled) / steps
        reach = self._reach()
        decode_s = cost.decode_s[reach] + cost.context_s * self._context
        self._todo, self._chunks, self._step_s = steps, tokens, take_s + decode_s
        idle_w, share = cost.decode_power_w[0], take_s / self._step_s
        self._prefill_mw = share * (cost.prefill_power_w - idle_w) * 1000.0
        self._decode_mw = (1.0 - share) * (cost.decode_power_w[reach] - idle_w) * 1000.0

    def _cut(self, now_s: float) -> None:
        """Ends a run of pure decode steps at the end of the step under way."""
        if self.ends_at_s == inf or self._prefill is not None:
            return
        steps = int((now_s - self._start_s) / self._step_s) + 1
        if steps < self._todo:
            self._todo = steps
            self.ends_at_s = self._start_s + steps * self._step_s
            self.version += 1

    def _account(self, now_s: float) -> None:
        took_s = now_s - self._start_s
        self.busy_s += took_s
        self.prefill_mj += took_s * self._prefill_mw
        self.decode_mj += took_s * self._decode_mw
