"""The server's hold on its worker: one call at a time, each with a limit; a worker that hangs or dies is replaced.

Another worker waits ready beside it, since a Python that starts on a busy machine takes seconds. It has not touched the
driver.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Final

import structlog

from services.node_agent.gpu.faults import DriverTrouble
from services.node_agent.gpu.helper.frames import MAX_ANSWER_BYTES, READY, read_answer, request_line
from services.node_agent.gpu.helper.verbs import VERBS
from tradewind.rpc.service import end_task

# A worker that dies at once, again and again, is not started more often than this.
RESTART_PAUSE_S: Final = 1.0
# A Python that starts on a busy machine; the driver itself is opened later, within the limit of a call.
START_LIMIT_S: Final = 20.0


class Hand:
    """A worker that is always there, or about to be.

    Args:
        backend: name of the worker's back-end.
        call_limit_s: longest time for one call.
    """

    def __init__(self, backend: str, call_limit_s: float) -> None:
        self._backend, self._call_limit_s = backend, call_limit_s
        self._process: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()
        self._number = 0
        self.starts = 0
        self._keeper: asyncio.Task[None] | None = None
        self._spare: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._alive = asyncio.Event()
        self._log = structlog.get_logger("worker")

    def start(self) -> None:
        """Begins to keep a worker."""
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Ends the workers. Idempotent."""
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            await end_task(keeper)
        spare, self._spare = self._spare, None
        if spare is not None:
            await end_task(spare)
        waiting = spare.result() if spare is not None and not spare.cancelled() and not spare.exception() else None
        for process in (self._process, waiting):
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()

    async def ask(self, verb: str, **arguments: Any) -> Any:
        """Has the worker do something.

        Raises:
            GpuError: what the driver answered; DriverTrouble when it hangs or took the worker down with it.
        """
        async with self._one_at_a_time:
            await self._there()
            self._number += 1
            try:
                async with asyncio.timeout(self._call_limit_s):
                    line = await self._exchange(request_line(self._number, verb, arguments))
            except TimeoutError:
                self._replace()
                raise DriverTrouble(
                    f"{verb}: no answer from the driver in {self._call_limit_s:g} s; it may still be done", 10
                ) from None
            if not line:
                self._alive.clear()
                raise DriverTrouble(f"{verb}: the driver's library took the worker down with it; it is started again")
            return read_answer(line, self._number, VERBS[verb].answer)

    async def _there(self) -> None:
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await self._alive.wait()
        except TimeoutError:
            raise DriverTrouble(f"no worker starts within {START_LIMIT_S:g} s; the helper's log says why") from None

    async def _exchange(self, line: bytes) -> bytes:
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line)
            await self._process.stdin.drain()
            return await self._process.stdout.readline()
        except (ConnectionError, ValueError):
            return b""

    def _replace(self) -> None:
        """Leaves a worker that hangs behind: a call in the kernel may outlive even SIGKILL, so it is not waited for."""
        self._alive.clear()
        if self._process is not None and self._process.returncode is None:
            self._log.error("worker hangs and is replaced", pid=self._process.pid)
            self._process.kill()
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            self._process = process = await self._next()
            self._spare = asyncio.create_task(self._started())
            self.starts += 1
            self._alive.set()
            begun_s = time.monotonic()
            code = await process.wait()
            self._alive.clear()
            self._log.error("worker ended", code=code, pid=process.pid)
            await asyncio.sleep(max(0.0, begun_s + RESTART_PAUSE_S - time.monotonic()))

    async def _next(self) -> asyncio.subprocess.Process:
        """The worker that waits, or a new one where that has ended, too."""
        spare, self._spare = self._spare, None
        if spare is not None:
            process = await spare
            if process.returncode is None:
                return process
            await asyncio.sleep(RESTART_PAUSE_S)
        return await self._started()

    async def _started(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.node_agent.gpu.helper.worker",
            self._backend,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_ANSWER_BYTES,
            start_new_session=True,
        )
        assert process.stdout is not None
        if await process.stdout.readline() != READY:
            self._log.error("a worker did not start", pid=process.pid)
        return process
