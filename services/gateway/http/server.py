"""uvicorn inside the gateway's own event loop and life: an honest port, no signal handlers, a bounded drain."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp

from tradewind.rpc.server import port_in_use

# Idle connections are kept this long; longer than the 60 s that balancers in front usually do.
_KEEP_ALIVE_S: Final = 75
_BACKLOG: Final = 1024
# Beyond the drain limit, time for cancelled requests to end.
_LAST_WAIT_S: Final = 5.0


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the service's life, not to uvicorn."""
        yield


class HttpServer:
    """Serves an application on one address.

    Args:
        app: the application.
        listen: "host:port"; port 0 takes a free one.
    """

    def __init__(self, app: ASGIApp, listen: str) -> None:
        self._listen = listen
        self._config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=_KEEP_ALIVE_S,
            server_header=False,
            ws="none",
        )
        self._server = _Server(self._config)
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("http")
        self.port = 0

    @property
    def address(self) -> str:
        """Where it listens, with the real port."""
        return f"{self._listen.rpartition(':')[0]}:{self.port}"

    async def start(self) -> int:
        """Binds and serves. Returns the port.

        Raises:
            InUse: the port is taken; says by whom when that can be seen.
        """
        host, _, port = self._listen.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host.strip("[]"), int(port)))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise port_in_use("gateway (HTTP)", self._listen) from error
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http server")
        self._log.info("listening", server="gateway (HTTP)", address=self.address)
        return self.port

    async def stop(self, drain_s: float) -> None:
        """Takes nothing new, lets requests at work finish for `drain_s` seconds, then cancels them. Idempotent."""
        if self._task is None:
            return
        self._config.timeout_graceful_shutdown = max(int(drain_s), 1)
        self._server.should_exit = True
        try:
            async with asyncio.timeout(drain_s + _LAST_WAIT_S):
                await asyncio.shield(self._task)
        except TimeoutError:
            self._log.warning("requests did not end when cancelled")
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
