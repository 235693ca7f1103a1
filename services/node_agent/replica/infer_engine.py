"""The device loop of a tensor model: one thread that takes what waits, as many together as fit, and calls the model.

What goes together is `core.batching`, the thread is `device_loop`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from services.node_agent.core.batching import Batching, Waiting
from services.node_agent.core.governor import Work
from services.node_agent.core.pace import Pace
from services.node_agent.replica.device_loop import Clocks, DeviceLoop, Load
from services.node_agent.replica.infer_model import InferModel
from tradewind.domain.errors import Overloaded, ReplicaLost, TradewindError
from tradewind.domain.padding import Array, Extent, stack, unstack
from tradewind.domain.tensors import TensorSpec

# Requests in line. At milliseconds a call this is seconds of work; more would only wait.
MOST_QUEUED: Final = 256


@dataclass(slots=True)
class InferWork:
    """One request and what became of it; `deliver` is called once, on the engine's thread."""

    request_id: int
    inputs: Mapping[str, Array]
    extent: Extent
    deliver: Callable[[InferWork], None]
    arrived_s: float = 0.0
    began_s: float = 0.0
    ended_s: float = 0.0
    core_s: float = 0.0
    outputs: list[Array] = field(default_factory=list)
    error: TradewindError | None = None

    @property
    def tokens(self) -> int:
        """Rows, each as long as it is; what a call's time is counted by."""
        return self.extent.rows * max(1, self.extent.length)


class InferEngine(DeviceLoop[tuple[str, list[InferWork]]]):
    """Runs requests on a tensor model.

    Args:
        model: loaded and warm.
        specs: its inputs and outputs.
        batching: what goes together.
        clocks: time.
        on_fault: called once, on the engine's thread, when the model fails; the engine is dead then.
    """

    def __init__(
        self,
        model: InferModel,
        specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        batching: Batching,
        clocks: Clocks,
        on_fault: Callable[[BaseException], None],
    ) -> None:
        super().__init__(clocks, on_fault)
        self._model, self._batching = model, batching
        self._inputs, self._outputs = specs
        self._queue: dict[int, InferWork] = {}
        self._active: list[InferWork] = []
        self._pace = Pace()

    def submit(self, work: InferWork) -> None:
        """Puts a request in line.

        Raises:
            Overloaded: the line is full.
            ReplicaLost: the engine has stopped.
        """
        with self._wake:
            self._refuse_when_stopping()
            if len(self._queue) >= MOST_QUEUED:
                raise Overloaded(f"{MOST_QUEUED} requests wait already; try again", {"limit": str(MOST_QUEUED)})
            work.arrived_s = self._clocks.now_s()
            self._queue[work.request_id] = work
            self._wake.notify()

    def cancel(self, request_id: int) -> None:
        """Forgets a request that waits; one that is being computed is computed to its end. Idempotent."""
        with self._wake:
            self._queue.pop(request_id, None)

    @property
    def load(self) -> Load:
        """How busy it is."""
        with self._wake:
            return Load(len(self._active), len(self._queue))

    @property
    def work(self) -> Work:
        """What it has in hand, rows counted as prompt tokens; the answer is the first and only one."""
        now_s = self._clocks.now_s()
        with self._wake:
            waiting = [*self._active, *self._queue.values()]
            oldest_s = min((one.arrived_s for one in waiting), default=now_s)
            tokens = sum(one.tokens for one in waiting)
            return Work(tokens, max(0.0, now_s - oldest_s), prefill_token_s=self._pace.each_s)

    def _choose(self) -> tuple[str, list[InferWork]] | None:
        """The next call's function and requests."""
        if not self._queue:
            return None
        call = self._batching.next_call([Waiting(w.request_id, w.extent) for w in self._queue.values()])
        self._active = [self._queue.pop(request_id) for request_id in call.members]
        return call.function.name, self._active

    def _do(self, step: tuple[str, list[InferWork]]) -> None:
        """One call; it counts as a prefill step of its rows."""
        name, works = step
        function = next(f for f in self._batching.functions if f.name == name)
        began_s, began_cpu_s = self._clocks.now_s(), self._clocks.cpu_s()
        self._step_began_s = began_s
        arrays = stack(self._inputs, [work.inputs for work in works], function.batch or 1, function.length)
        answers = unstack(self._outputs, self._model.infer(function, arrays), [work.extent for work in works])
        self._step_began_s = 0.0
        ended_s, core_s = self._clocks.now_s(), self._clocks.cpu_s() - began_cpu_s
        rows = sum(work.extent.rows for work in works)
        for work, outputs in zip(works, answers, strict=True):
            work.outputs, work.began_s, work.ended_s = outputs, began_s, ended_s
            work.core_s = core_s * work.extent.rows / rows
        with self._wake:
            self._active = []
            self._totals.prefill_steps += 1
            tokens = sum(work.tokens for work in works)
            self._totals.prefill_tokens += tokens
            self._totals.prefill_s += ended_s - began_s
            self._pace.saw(ended_s - began_s, tokens)
            self._totals.core_s += core_s
        for work in works:
            work.deliver(work)

    def _abandon(self) -> None:
        with self._wake:
            self._stopping = True
            left = [*self._active, *self._queue.values()]
            self._active, self._queue = [], {}
        for work in left:
            work.error = ReplicaLost("the replica stopped; try again")
            work.deliver(work)
