"""How a service lives: parts start in order, become ready, and on SIGTERM or SIGINT stop in the reverse order.

    start part 1 … n → ready → (signal) → not ready → stop part n … 1

A second signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog

from tradewind.domain.errors import TradewindError

# Exit codes of a service: misuse and refusals at start are told apart from crashes.
EXIT_REFUSED: Final = 1
# A task that still runs after this time is cancelled again.
CANCEL_PERIOD_S: Final = 0.5


class Lifecycle:
    """Collects what to do at the end while a service starts.

    A composition root awaits each part's start and registers its stop with `on_stop`; stops run in reverse order, each
    even when an earlier one fails.
    """

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._not_ready: list[Callable[[], Awaitable[None]]] = []
        self.stopping = asyncio.Event()

    def on_stop(self, stop: Callable[[], Awaitable[object]]) -> None:
        """Runs `stop` at the end, before what was registered earlier."""
        self._stack.push_async_callback(stop)

    def on_not_ready(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Runs `tell` as soon as a signal comes, before anything stops."""
        self._not_ready.append(tell)

    async def close(self) -> None:
        """Not ready, then every stop in reverse order."""
        for tell in self._not_ready:
            await tell()
        await self._stack.aclose()


async def end_task(task: asyncio.Future[Any]) -> None:
    """Cancels a background task until it has ended; libraries in its way may swallow a cancellation. Never raises."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_PERIOD_S)


def run(name: str, start: Callable[[Lifecycle], Awaitable[None]]) -> None:
    """Runs a service until a signal comes; exits the process with 0, or 1 with one line when it cannot start.

    Args:
        name: of the service, for logs.
        start: the composition root: starts all parts, registers their stops, returns when ready.
    """
    try:
        asyncio.run(_run(name, start))
    except TradewindError as error:
        print(f"{name}: {error.message}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)


async def _run(name: str, start: Callable[[Lifecycle], Awaitable[None]]) -> None:
    log = structlog.get_logger(name)
    life = Lifecycle()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if life.stopping.is_set():
            log.warning("second signal, leaving at once", signal=number.name)
            os._exit(128 + number.value)
        life.stopping.set()

    # asyncio.run's own SIGINT handling and a `finally` after wait_for_termination both miss SIGTERM.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    starting = asyncio.ensure_future(start(life))
    signalled = asyncio.ensure_future(life.stopping.wait())
    try:
        await asyncio.wait({starting, signalled}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            log.info("ready")
            await signalled
        else:
            starting.cancel()
        log.info("stopping")
    finally:
        signalled.cancel()
        await life.close()
        log.info("stopped")
