"""The device loop: one thread that asks the schedule what is next, does it on the model, samples, and delivers.

Decisions are `core.schedule` and `core.sampling`; this file holds the thread, the clock and the lock. It knows neither
gRPC nor IREE.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from services.node_agent.core import schedule
from services.node_agent.core.draws import uniform
from services.node_agent.core.phase_account import PhaseTotals
from services.node_agent.core.sampling import log_probabilities
from services.node_agent.core.schedule import Decode, Policy, Prefill, Progress
from services.node_agent.core.shapes import Shapes
from services.node_agent.replica.model import Model
from services.node_agent.replica.request import Finish, Logprob, Outcome, Request
from services.node_agent.replica.scores import Scores
from tradewind.domain.errors import ReplicaLost

# How long `stop` waits for the step under way.
STOP_LIMIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time, as the engine reads it.

    Attributes:
        now_s: monotonic.
        cpu_s: time that energy is charged by: CPU time of this process over all its threads; monotonic on a GPU.
    """

    now_s: Callable[[], float]
    cpu_s: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Load:
    """How busy an engine is."""

    active: int
    queued: int


class Engine:
    """Runs requests on a model.

    Args:
        model: loaded and warm.
        shapes: its functions.
        policy: of the schedule.
        clocks: time.
        on_fault: called once, on the engine's thread, when the model fails; the engine is dead then.
    """

    def __init__(
        self,
        model: Model,
        shapes: Shapes,
        policy: Policy,
        clocks: Clocks,
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self._model, self._shapes, self._policy, self._clocks = model, shapes, policy, clocks
        self._on_fault = on_fault
        self._log = structlog.get_logger("engine")
        self._wake = threading.Condition()
        self._state = schedule.empty(shapes)
        self._requests: dict[int, Request] = {}
        self._stopping = False
        self._totals = PhaseTotals()
        self._step_began_s = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the step under way; requests in hand get ReplicaLost. Idempotent."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(STOP_LIMIT_S)

    def submit(self, request: Request) -> None:
        """Puts a request in line; outcomes come through its `deliver`.

        Raises:
            Overloaded: the queue is full.
            ReplicaLost: the engine has stopped.
        """
        progress = Progress(request.sequence_id, len(request.prompt), request.most_output_tokens)
        with self._wake:
            if self._stopping:
                raise ReplicaLost("the replica is stopping; try again")
            self._state = schedule.submit(self._state, progress, self._policy)
            request.arrived_s = self._clocks.now_s()
            self._requests[request.sequence_id] = request
            self._wake.notify()

    def cancel(self, sequence_id: int) -> None:
        """Forgets a request; its slot is free at once. Nothing is delivered any more. Idempotent."""
        with self._wake:
            if self._requests.pop(sequence_id, None) is not None:
                self._state = schedule.cancel(self._state, sequence_id)

    @property
    def load(self) -> Load:
        """How busy it is."""
        with self._wake:
            return Load(self._state.active, len(self._state.queue))

    @property
    def totals(self) -> PhaseTotals:
        """What its steps took so far."""
        with self._wake:
            return replace(self._totals)

    def stalled_s(self) -> float:
        """How long the present step has been running; 0 between steps."""
        began_s = self._step_began_s
        return self._clocks.now_s() - began_s if began_s else 0.0

    def _run(self) -> None:
        try:
            while (action := self._next()) is not None:
                self._do(action)
        except Exception as error:  # noqa: BLE001  whatever the model throws, the callers must hear of it
            self._log.error("the model failed", exc_info=error)
            self._abandon()
            self._on_fault(error)
        else:
            self._abandon()

    def _next(self) -> schedule.Action | None:
        """The next action; waits for one. None at the end."""
        with self._wake:
            while not self._stopping:
                self._state, action = schedule.step(self._state, self._shapes, self._policy)
                if action is not None:
                    return action
                self._wake.wait()
        return None

    def _do(self, action: schedule.Action) -> None:
        began_s, began_cpu_s = self._clocks.now_s(), self._clocks.cpu_s()
        self._step_began_s = began_s
        outcomes = self._prefill(action, began_s) if isinstance(action, Prefill) else self._decode(action)
        self._step_began_s = 0.0
        ended = {request.sequence_id for request, outcome in outcomes if outcome.finish is not None}
        with self._wake:
            self._state = schedule.complete(self._state, action, ended, self._policy)
            delivered = [pair for pair in outcomes if pair[0].sequence_id in self._requests]
            for sequence_id in ended:
                self._requests.pop(sequence_id, None)
            self._count(action, self._clocks.now_s() - began_s, self._clocks.cpu_s() - began_cpu_s)
        for request, outcome in delivered:
            request.deliver(request, outcome)

    def _prefill(self, action: Prefill, now_s: float) -> list[tuple[Request, Outcome]]:
        request = self._requests.get(action.sequence_id)
        if request is None:
            return []
        request.began_s = request.began_s or now_s
        began_cpu_s = self._clocks.cpu_s()
        tokens = request.prompt[action.start : action.start + action.length]
        scores = self._model.prefill(action.function, tokens, action.slot, action.start)
        outcomes = [(request, self._outcome(request, scores, 0))] if action.last else []
        request.account.prefill_core_s += self._clocks.cpu_s() - began_cpu_s
        return outcomes

    def _decode(self, action: Decode) -> list[tuple[Request, Outcome]]:
        part = [(slot, request) for slot, sequence in action.rows if (request := self._requests.get(sequence))]
        if not part:
            return []
        began_cpu_s = self._clocks.cpu_s()
        tokens = [0] * action.function.batch
        for slot, request in part:
            tokens[slot] = request.last_token
        scores = self._model.decode(action.function, tokens, action.positions)
        outcomes = [(request, self._outcome(request, scores, slot)) for slot, request in part]
        share_s = (self._clocks.cpu_s() - began_cpu_s) / len(part)
        for _, request in part:
            request.account.decode_core_s += share_s
        return outcomes

    def _outcome(self, request: Request, scores: Scores, row: int) -> Outcome:
        """Samples a request's next token out of its row and says whether it is the last."""
        choice = request.choice
        draw = 0.0 if choice.greedy else uniform(choice.seed, request.tokens)
        token = scores.choose(row, choice, draw)
        now_s = self._clocks.now_s()
        request.last_token, request.last_token_s = token, now_s
        request.first_token_s = request.first_token_s or now_s
        request.tokens += 1
        if token in request.stop_ids:
            return Outcome(None, finish=Finish.STOP)
        request.sent += 1
        finish = Finish.LENGTH if request.tokens >= request.most_output_tokens else None
        return Outcome(token, _logprob(scores, row, token, request), finish)

    def _count(self, action: schedule.Action, wall_s: float, core_s: float) -> None:
        totals = self._totals
        totals.core_s += core_s
        if isinstance(action, Prefill):
            totals.prefill_steps += 1
            totals.prefill_tokens += action.length
            totals.prefill_s += wall_s
        else:
            totals.decode_steps += 1
            totals.decode_tokens += len(action.rows)
            totals.decode_s += wall_s

    def _abandon(self) -> None:
        """Tells everyone in hand that it is over."""
        with self._wake:
            self._stopping = True
            requests: Sequence[Request] = list(self._requests.values())
            self._requests.clear()
        for request in requests:
            request.deliver(request, Outcome(None, error=ReplicaLost("the replica stopped; try again")))


def _logprob(scores: Scores, row: int, token: int, request: Request) -> Logprob | None:
    choice = request.choice
    if not choice.logprobs and not choice.top_logprobs:
        return None
    own, top = log_probabilities(scores.logits(row), token, choice.top_logprobs)
    return Logprob(token, own, tuple(top))
