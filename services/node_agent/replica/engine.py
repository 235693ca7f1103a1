"""The device loop: one thread that asks the schedule what is next, does it on the model, samples, and delivers.

Decisions are `core.schedule` and `core.sampling`, the thread is `device_loop`. It knows neither gRPC nor IREE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.node_agent.core import schedule
from services.node_agent.core.draws import uniform
from services.node_agent.core.due_steps import DueSteps
from services.node_agent.core.governor import Limits, Work
from services.node_agent.core.in_hand import Paces, next_of, work_of
from services.node_agent.core.kept_rows import Admission, KeptRows, admission
from services.node_agent.core.sampling import log_probabilities
from services.node_agent.core.schedule import Decode, Policy, Prefill, Progress
from services.node_agent.core.shapes import Shapes
from services.node_agent.replica.device_loop import Clocks, DeviceLoop, Load
from services.node_agent.replica.model import Model
from services.node_agent.replica.request import Finish, Logprob, Outcome, Request
from services.node_agent.replica.scores import Scores
from tradewind.domain.errors import ReplicaLost


class Engine(DeviceLoop[schedule.Action]):
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
        super().__init__(clocks, on_fault)
        self._model, self._shapes, self._policy = model, shapes, policy
        self._state = schedule.empty(shapes)
        self._requests: dict[int, Request] = {}
        self._paces = Paces()
        self._due = DueSteps(shapes, self._paces)
        self._kept = KeptRows(shapes.slots, shapes.cache_tokens)
        self._limits = Limits()

    def follow(self, limits: Limits) -> None:
        """Takes in prompts so that most get their first token in time, and paces later ones, from now on."""
        with self._wake:
            self._limits = limits
            self._due.repace(limits.pace_s, self._clocks.now_s())
            self._wake.notify()

    def submit(self, request: Request) -> None:
        """Puts a request in line; outcomes come through its `deliver`.

        Raises:
            Overloaded: the queue is full.
            ReplicaLost: the engine has stopped.
        """
        progress = Progress(request.sequence_id, len(request.prompt), request.most_output_tokens)
        with self._wake:
            self._refuse_when_stopping()
            self._state = schedule.submit(self._state, progress, self._policy)
            request.arrived_s = self._clocks.now_s()
            self._requests[request.sequence_id] = request
            self._wake.notify()

    def cancel(self, sequence_id: int) -> None:
        """Forgets a request; its slot is free at once. Nothing is delivered any more. Idempotent."""
        with self._wake:
            if self._requests.pop(sequence_id, None) is not None:
                self._state = schedule.cancel(self._state, sequence_id)
                self._due.follow(self._state, self._clocks.now_s())
                self._wake.notify()

    @property
    def load(self) -> Load:
        """How busy it is."""
        with self._wake:
            return Load(self._state.active, len(self._state.queue))

    @property
    def work(self) -> Work:
        """What it has in hand, and how long that takes lately."""
        now_s = self._clocks.now_s()
        with self._wake:
            return work_of(self._state, self._shapes, self._policy, self._paces, self._arrived_s, now_s)

    def _choose(self) -> schedule.Action | None:
        admitted = self._admit() if schedule.next_admits(self._state) else None
        room_tokens = self._due.room_tokens(self._clocks.now_s())
        self._state, action = schedule.step(self._state, self._shapes, self._policy, admitted, room_tokens)
        return action

    def _wait_s(self) -> float | None:
        return self._due.wait_s(self._clocks.now_s())

    def _admit(self) -> Admission:
        """Who is next, and into which slot."""
        state = self._state
        known = (state, self._shapes, self._policy, self._paces, self._arrived_s)
        number = next_of(*known, self._limits, self._clocks.now_s())
        request = self._requests[state.queue[number].sequence_id]
        self._kept.learn(request.prompt, request.salt)
        taken = [one is not None for one in state.slots]
        asked = (request.prompt, request.salt, request.most_output_tokens)
        admitted = admission(self._kept, taken, *asked, self._shapes, self._paces.costs, number)
        self._kept.admit(admitted.slot, admitted.kept, request.salt)
        request.reused = admitted.kept
        self._totals.reused_tokens += admitted.kept
        return admitted

    @property
    def _arrived_s(self) -> dict[int, float]:
        return {sequence_id: request.arrived_s for sequence_id, request in self._requests.items()}

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
            now_s = self._clocks.now_s()
            self._count(action, now_s - began_s, self._clocks.cpu_s() - began_cpu_s)
            if isinstance(action, Decode):
                self._due.stepped(began_s)
            self._due.follow(self._state, now_s)
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
        self._kept.wrote(action.slot, action.start, tokens)
        outcomes = [(request, self._outcome(request, scores, 0))] if action.last else []
        request.account.prefill_core_s += self._clocks.cpu_s() - began_cpu_s
        return outcomes

    def _decode(self, action: Decode) -> list[tuple[Request, Outcome]]:
        part = [(slot, request) for slot, sequence in action.rows if (request := self._requests.get(sequence))]
        if not part:
            return []
        began_cpu_s = self._clocks.cpu_s()
        # A slot that takes no part gets the token that its row has, so that what it holds stays as it is.
        tokens = [self._kept.token(slot, row) for slot, row in enumerate(action.positions)]
        for slot, request in part:
            tokens[slot] = request.last_token
        scores = self._model.decode(action.function, tokens, action.positions)
        for slot, request in part:
            self._kept.wrote(slot, action.positions[slot], [request.last_token])
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
            self._paces.prefilled(wall_s, action.length, action.function.tokens)
        else:
            totals.decode_steps += 1
            totals.decode_tokens += len(action.rows)
            totals.decode_s += wall_s
            self._paces.decoded(wall_s, action.function.batch)

    def _abandon(self) -> None:
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
