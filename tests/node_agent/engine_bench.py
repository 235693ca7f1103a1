"""An engine on the model that shows every misuse of the cache, and callers that collect its outcomes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from services.node_agent.core.sampling import Choice
from services.node_agent.core.schedule import Policy
from services.node_agent.core.shapes import Shapes
from services.node_agent.replica.device_loop import Clocks
from services.node_agent.replica.engine import Engine
from services.node_agent.replica.request import Outcome, Request
from tests.node_agent.cache_model import CacheModel
from tradewind.domain.manifest import Function

LIMIT_S = 20


class Caller:
    """Collects the outcomes of one request."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.outcomes: list[Outcome] = []
        self.came_s: list[float] = []
        self.over = threading.Event()
        self._now_s = now_s

    def deliver(self, _request: Request, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.came_s.append(self._now_s())
        if outcome.finish is not None or outcome.error is not None:
            self.over.set()

    @property
    def tokens(self) -> list[int]:
        return [o.token for o in self.outcomes if o.token is not None]

    def wait(self) -> Caller:
        assert self.over.wait(LIMIT_S), "no end"
        return self


class VirtualTime:
    """A clock that moves by what calls take and by waits that run out, so that nothing depends on the machine.

    Args:
        takes_s: what a call takes, by its function.

    Attributes:
        waits: those with a limit, so far.
    """

    def __init__(self, takes_s: Callable[[Function], float]) -> None:
        self.waits: list[float] = []
        self._now_s = 0.0
        self._takes_s = takes_s
        self._due: list[tuple[float, Callable[[], object]]] = []

    def now_s(self) -> float:
        return self._now_s

    def at(self, when_s: float, do: Callable[[], object]) -> None:
        """Has something done in the wait that this time falls into, or at the end of the call that it does."""
        self._due.append((when_s, do))
        self._due.sort(key=lambda one: one[0])

    def take(self, function: Function) -> None:
        self._now_s += self._takes_s(function)
        while self._due and self._due[0][0] <= self._now_s:
            self._due.pop(0)[1]()

    def wait(self, condition: threading.Condition, limit_s: float | None) -> None:
        """The engine's: with its lock held, on its thread; whoever submits there does so in the midst of a wait."""
        if limit_s is not None:
            self.waits.append(limit_s)
        until_s = math.inf if limit_s is None else self._now_s + limit_s
        if self._due and self._due[0][0] <= until_s:
            self._now_s, do = self._due.pop(0)
            do()
        elif limit_s is None:
            condition.wait()
        else:
            self._now_s = until_s


class Bench:
    """An engine and its callers."""

    def __init__(
        self,
        of: Shapes,
        policy: Policy | None = None,
        before_call: Callable[[Function], None] = lambda _: None,
        picks: int = 0,
        model: type[CacheModel] = CacheModel,
        now_s: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Condition, float | None], object] = threading.Condition.wait,
    ) -> None:
        self.model = model(of, before_call, picks)
        self.faults: list[BaseException] = []
        self._clocks = Clocks(now_s, time.process_time, wait)
        self.engine = Engine(self.model, of, policy or Policy(), self._clocks, self.faults.append)
        self.requests: dict[int, Request] = {}
        self.engine.start()

    def ask(
        self,
        sequence_id: int,
        prompt: Sequence[int],
        count: int,
        choice: Choice | None = None,
        stop_ids: frozenset[int] = frozenset(),
        salt: str = "",
    ) -> Caller:
        caller = Caller(self._clocks.now_s)
        ids = np.array(prompt, np.int64)
        request = Request(sequence_id, ids, count, choice or Choice(), stop_ids, caller.deliver, salt)
        self.requests[sequence_id] = request
        self.engine.submit(request)
        return caller
