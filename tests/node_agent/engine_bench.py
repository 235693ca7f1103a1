"""An engine on the model that shows every misuse of the cache, and callers that collect its outcomes."""

from __future__ import annotations

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

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.over = threading.Event()

    def deliver(self, _request: Request, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if outcome.finish is not None or outcome.error is not None:
            self.over.set()

    @property
    def tokens(self) -> list[int]:
        return [o.token for o in self.outcomes if o.token is not None]

    def wait(self) -> Caller:
        assert self.over.wait(LIMIT_S), "no end"
        return self


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
    ) -> None:
        self.model = model(of, before_call, picks)
        self.faults: list[BaseException] = []
        clocks = Clocks(now_s, time.process_time)
        self.engine = Engine(self.model, of, policy or Policy(), clocks, self.faults.append)
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
        caller = Caller()
        ids = np.array(prompt, np.int64)
        request = Request(sequence_id, ids, count, choice or Choice(), stop_ids, caller.deliver, salt)
        self.requests[sequence_id] = request
        self.engine.submit(request)
        return caller
