"""The link to the orchestrator: whole reports up, whole targets down, again and again. Serving never waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog

from services.node_agent.core.backoff import RECONNECT
from services.node_agent.orchestrators import Orchestrators
from services.node_agent.report import Reporter
from tradewind.domain.errors import TradewindError
from tradewind.rpc.errors import translated
from tradewind.rpc.service import end_task
from tradewind.v1 import node_pb2

# Changes that come together go into one report.
LEAST_PAUSE_S: Final = 0.1
# Leaders named one after the other are followed without a pause so often; then something is wrong with them.
MOST_LEAPS: Final = 3


class Link:
    """Keeps a stream to the orchestrator.

    Args:
        orchestrators: whom to talk to.
        reporter: makes reports.
        obey: takes each target; raises TradewindError for one it refuses.
        news: set by others when something changed: a report follows soon.
        period_s: longest time between two reports.
        draw: uniform in [0, 1), for the back-off.
    """

    def __init__(
        self,
        orchestrators: Orchestrators,
        reporter: Reporter,
        obey: Callable[[node_pb2.NodeTarget], None],
        news: asyncio.Event,
        period_s: float,
        draw: Callable[[], float],
    ) -> None:
        self._orchestrators, self._reporter, self._obey, self._news = orchestrators, reporter, obey, news
        self._period_s, self._draw = period_s, draw
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._log = structlog.get_logger("link")

    def start(self) -> None:
        """Begins to connect."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends the stream. Idempotent."""
        if self._task is not None:
            task, self._task = self._task, None
            await end_task(task)
        await self._orchestrators.close()

    async def _run(self) -> None:
        while True:
            try:
                with translated("orchestrator"):
                    await self._talk()
                self._log.info("the orchestrator closed the stream")
                self._orchestrators.ended()
            except TradewindError as error:
                # Told once for each outage; the retries go on silently.
                (self._log.debug if self._failures else self._log.warning)("no link", error=error.message)
                if self._orchestrators.failed(error) and self._failures < MOST_LEAPS:
                    self._failures += 1
                    continue
            self._failures += 1
            await asyncio.sleep(RECONNECT.pause_s(self._failures, self._draw()))

    async def _talk(self) -> None:
        stub = await self._orchestrators.stub()
        call = stub.Connect(self._reports())
        try:
            async for response in call:
                self._failures = 0
                self._take(response.target)
        finally:
            call.cancel()

    def _take(self, target: node_pb2.NodeTarget) -> None:
        try:
            self._obey(target)
        except TradewindError as error:
            self._log.warning(
                "target refused", error=error.message, generation=target.generation, fencing=target.fencing
            )

    async def _reports(self) -> AsyncIterator[node_pb2.ConnectRequest]:
        while True:
            self._news.clear()
            yield node_pb2.ConnectRequest(report=self._reporter.report())
            await asyncio.sleep(min(LEAST_PAUSE_S, self._period_s))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._period_s - LEAST_PAUSE_S)):
                    await self._news.wait()
