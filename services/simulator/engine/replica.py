"""One replica with continuous batching, advanced in runs of equal steps instead of token by token.

    submit ──► waiting ──(place and cache free)──► prefill, chunk by chunk ──► decode, a token a step ──► done

Between two moments at which the batch changes (a sequence ends, a prompt is in, one arrives) every step takes the same
time, so a whole run of them is one event. The order is the engine's: one prompt at a time, by `line`; while others
decode it is taken in chunks, each with one decode step or, in engines that keep the two apart, followed by one. With a
pace, steps wait until they are due (`node_agent/core/pacing.py`), and prompts are taken in between them. Where a step's
function is chosen by the highest slot in use, as our engine does, sequences keep the lowest slot that was free.
Knows nothing of nodes or of the event queue.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from math import ceil, inf
from typing import Final

from services.node_agent.core.governor import Work
from services.node_agent.core.pacing import Pacer
from services.node_agent.core.schedule import MAX_QUEUED
from services.simulator.engine.clocks import LOOK_CHUNKS, Clocks, Easing
from services.simulator.engine.cost import StepCost
from services.simulator.engine.request import Request
from services.simulator.engine.runs import Run, decode_run, mixed_run, prefill_mw, prompt_run
from services.simulator.engine.waiting import WaitingRoom

# After the last kernel SM clocks fall within 2 s and power within 4 s, where they fall at all (arXiv 2605.23918, H100).
CLOCKS_FALL_S: Final = 2.0
POWER_FALLS_S: Final = 4.0
# Fewer prompt tokens are not taken in between two steps that are due, unless the prompt ends with them.
LEAST_CHUNK_TOKENS: Final = 128


IDLE: Final = Run(0, 0.0)


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
        rests_from_s: when it last had nothing more to do, or was ready.
    """

    __slots__ = (
        *("awaited", "batch_limit", "decode_mj", "ends_at_s", "in_hand", "prefill_mj", "replica_id"),
        *("rests_from_s", "tokens", "unanswered", "_rested_mj"),
        *("version", "_context", "_cost", "_decoding"),
        *("_filled", "_owed", "_pacer", "_prefill", "_reserved", "_run", "_slots", "_start_s"),
        *("_clocks", "_point", "_steps", "_waiting"),
    )

    def __init__(
        self,
        replica_id: str,
        cost: StepCost,
        batch_limit: int,
        ready_s: float = 0.0,
        easing: Easing | None = None,
        ttft_limit_s: float = inf,
        pace_s: float = 0.0,
    ) -> None:
        self.replica_id, self._point = replica_id, (cost, easing)
        self._clocks = Clocks(cost, easing)
        self._cost = self._clocks.cost
        self.batch_limit = max(1, min(batch_limit, cost.most_sequences))
        self.in_hand = self.tokens = self.unanswered = self.version = self.awaited = 0
        self.ends_at_s = inf
        self.prefill_mj = self.decode_mj = self._rested_mj = 0.0
        self.rests_from_s = ready_s
        self._waiting = WaitingRoom(ttft_limit_s)
        self._decoding: list[tuple[int, int, Request]] = []
        self._prefill: Request | None = None
        self._slots: dict[int, int] = {}
        self._filled = self._context = self._reserved = 0
        self._steps = 0
        self._owed = False
        self._pacer = Pacer(pace_s)
        self._run, self._start_s = IDLE, 0.0

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
        run = self._run
        self.prefill_mj += run.prefill_mj
        self.decode_mj += run.decode_mj
        decoding, done = self._decoding, []
        if run.steps:
            self._steps += run.steps
            self._context += run.steps * len(decoding)
            self.tokens += run.steps * len(decoding)
            self._pacer.stepped(now_s - run.rests_s - run.step_s, run.steps)
            steps = self._steps
            while decoding and decoding[0][0] <= steps:
                request = heappop(decoding)[2]
                self._leave(request, now_s)
                done.append(request)
        self._owed = self._cost.apart and run.chunk_tokens > 0 and not run.steps
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
            done = (now_s - self._start_s) / max(self.ends_at_s - self._start_s, 1e-9)
            self.prefill_mj += done * self._run.prefill_mj
            self.decode_mj += done * self._run.decode_mj
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
        self._filled += self._run.chunk_tokens
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
            self._pacer.joins(request.number, now_s)
        return request

    def _leave(self, request: Request, now_s: float, *, prompt_only: bool = False) -> None:
        request.done_s = now_s
        self.in_hand -= 1
        self._slots.pop(request.number, None)
        self._pacer.leaves(request.number)
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
        prefill_s = cost.prefill_s(tokens)
        if not self._decoding:
            return prefill_s
        step_s, steps = self._step_s(), tokens / cost.chunk_tokens
        if step_s < self._pacer.pace_s:
            steps = min(steps, prefill_s / (self._pacer.pace_s - step_s))
        return prefill_s + step_s * steps

    def _step_s(self) -> float:
        return self._cost.step_s(self._reach(), self._context)

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
            self.prefill_mj += ramp_s * prefill_mw(self._cost)
            self.delay(ramp_s)

    def _begin(self, now_s: float) -> None:
        self._admit(now_s)
        lost_s = self._follow(now_s) if self._clocks.eases else 0.0
        self._start_s, self.version = now_s, self.version + 1
        if not self._decoding and self._prefill is None:
            self.ends_at_s, self._run, self.rests_from_s = inf, IDLE, now_s
            return
        if self._prefill is None:
            self._run = self._decode(now_s)
        else:
            self._run = self._between_steps(now_s) or self._beside_steps()
        self.ends_at_s = now_s + self._run.length_s
        if lost_s:
            self._ramp(lost_s)

    def _ramp(self, lost_s: float) -> None:
        """The clock rises first: the run takes so much longer, at its own power."""
        run = self._run
        longer = lost_s / max(run.length_s - run.wait_s, 1e-9)
        self.prefill_mj += longer * run.prefill_mj
        self.decode_mj += longer * run.decode_mj
        self.delay(lost_s)

    def _decode(self, now_s: float) -> Run:
        """Steps until the next sequence ends, or the clock eases."""
        decoding, reach = self._decoding, self._reach()
        steps = decoding[0][0] - self._steps
        # While all places are taken, who comes next would wait for those that are held back.
        pace_s = 0.0 if self._waiting or len(decoding) >= self.batch_limit else self._pacer.pace_s
        if self._clocks.eases_at_s != inf:
            each_s = max(self._step_s(), pace_s)
            steps = min(steps, int((self._clocks.eases_at_s - now_s) / each_s) + 1)
        run = decode_run(self._cost, steps, reach, self._context, len(decoding))
        if pace_s <= run.step_s:
            return run
        return run.paced(pace_s, self._pacer.wait_s(run.step_s, now_s))

    def _between_steps(self, now_s: float) -> Run | None:
        """With a pace: as much of the prompt as fits before the next step is due, else that step.

        None where there is no pace, a step is late, or somebody waits for a place; and when nothing fits although a
        step was just made.
        """
        n, cost, request = len(self._decoding), self._cost, self._prefill
        assert request is not None
        crowded = self._waiting and n >= self.batch_limit - 1
        if not n or not self._pacer.pace_s or crowded:
            return None
        wait_s = self._pacer.wait_s(self._step_s(), now_s)
        if wait_s < 0.0:
            return None
        left = request.prompt_tokens - self._filled
        fits = min(cost.tokens_within(wait_s, self._filled), left)
        if fits >= min(left, LEAST_CHUNK_TOKENS, cost.chunk_tokens):
            return prompt_run(cost, fits, self._filled)
        stepped = self._run.steps and not self._run.rests_s
        return None if stepped else decode_run(cost, 1, self._reach(), self._context, n)

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

    def _beside_steps(self) -> Run:
        """The prompt whole when alone, else in chunks that come with one decode step each.

        Where chunks and steps are apart, a step is owed after each chunk, and the last chunk is a run of its own: its
        step has one sequence more.
        """
        cost, request, n = self._cost, self._prefill, len(self._decoding)
        assert request is not None
        if self._owed and n:
            return decode_run(cost, 1, self._reach(), self._context, n)
        left = request.prompt_tokens - self._filled
        chunks = ceil(left / cost.chunk_tokens)
        if not n or (cost.apart and chunks == 1):
            return prompt_run(cost, left, self._filled)
        steps = min(chunks - cost.apart, self._decoding[0][0] - self._steps)
        if self._pacer.pace_s:
            steps = 1
        elif self._clocks.eases:
            steps = min(steps, LOOK_CHUNKS)
        tokens = min(steps * cost.chunk_tokens, left)
        return mixed_run(cost, steps, tokens, self._filled, self._reach(), self._context)

    def _cut(self, now_s: float) -> None:
        """Ends a run of pure decode steps at the end of the step under way."""
        if self.ends_at_s == inf or self._prefill is not None:
            return
        run = self._run.cut(now_s - self._start_s)
        if run is not self._run:
            self._run, self.ends_at_s = run, self._start_s + run.length_s
            self.version += 1
