"""One supervised child: in a group of its own, its lines logged, started again when it dies, stopped with care."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

# A child that dies is started again after this pause, doubled at each death, up to the limit.
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 10.0
# A child that lived this long was well; the pause begins anew.
WELL_AFTER_S: Final = 60.0
# Time a child has to drain and stop before it is killed.
STOP_LIMIT_S: Final = 25.0
# Pause between two health checks while a child starts.
CHECK_PAUSE_S: Final = 0.05
PR_SET_PDEATHSIG: Final = 1
# Longest line taken from a child whole; longer ones are cut into pieces.
MAX_LINE_BYTES: Final = 64 * 1024

Line = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run.

    Attributes:
        name: for logs and status.
        command: program and arguments.
        environment: added to (and over) this process's own.
        healthy: returns when the child answers; raises or hangs otherwise.
        start_limit_s: how long it may take to be healthy.
    """

    name: str
    command: Sequence[str]
    healthy: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str] = field(default_factory=dict)
    start_limit_s: float = 60.0


class Child:
    """A supervised child process.

    Args:
        spec: what to run.
        on_line: takes (name, line) of its output.
    """

    def __init__(self, spec: Spec, on_line: Line) -> None:
        self.spec = spec
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """Of the process now; None between two lives."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Starts it and returns when it is healthy.

        Raises:
            ChildFailed: it ended, or was not healthy in time; holds its last lines.
        """
        lines: list[str] = []
        process = await self._spawn(lines)
        healthy = asyncio.ensure_future(self._wait_healthy())
        ended = asyncio.ensure_future(_exited(process))
        done, _ = await asyncio.wait(
            {healthy, ended}, timeout=self.spec.start_limit_s, return_when=asyncio.FIRST_COMPLETED
        )
        healthy.cancel()
        if healthy not in done:
            reason = f"ended with code {process.returncode}" if ended in done else "was not healthy in time"
            await self.stop()
            raise ChildFailed(self.spec.name, reason, lines)
        self._keeper = asyncio.create_task(self._keep(ended), name=f"keep {self.spec.name}")

    async def stop(self) -> None:
        """Asks it to stop, waits, then kills its whole group. Idempotent."""
        self._stopping = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_LIMIT_S):
                    await _exited(process)
            except TimeoutError:
                self._on_line(self.spec.name, f"did not stop within {STOP_LIMIT_S:.0f} s, killed")
        # Whatever is left of its group (a replica whose agent was killed) goes too.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await _exited(process)
        await self._reader

    async def _spawn(self, lines: list[str]) -> asyncio.subprocess.Process:
        self.starts += 1
        process = await asyncio.create_subprocess_exec(
            *self.spec.command,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.spec.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
            limit=MAX_LINE_BYTES,
        )
        self._process = process
        self._reader = asyncio.create_task(self._read(process, lines), name=f"read {self.spec.name}")
        return process

    async def _read(self, process: asyncio.subprocess.Process, lines: list[str]) -> None:
        assert process.stdout is not None
        while chunk := await _line(process.stdout):
            text = chunk.decode(errors="replace").rstrip("\n")
            lines.append(text)
            del lines[:-20]
            self._on_line(self.spec.name, text)

    async def _wait_healthy(self) -> None:
        while not await self.spec.healthy():  # noqa: ASYNC110  the condition lies in another process
            await asyncio.sleep(CHECK_PAUSE_S)

    async def _keep(self, ended: asyncio.Future[int]) -> None:
        pause = FIRST_PAUSE_S
        while True:
            born = time.monotonic()
            code = await ended
            if self._stopping:
                return
            if time.monotonic() - born > WELL_AFTER_S:
                pause = FIRST_PAUSE_S
            self._on_line(self.spec.name, f"ended with code {code}, starting again in {pause:.1f} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            process = await self._spawn([])
            ended = asyncio.ensure_future(_exited(process))


class ChildFailed(Exception):
    """A child could not be brought to health.

    Attributes:
        name: of the child.
        lines: the last ones it printed.
    """

    def __init__(self, name: str, reason: str, lines: Sequence[str]) -> None:
        said = "\n  ".join(lines[-8:])
        super().__init__(f"{name} {reason}" + (f"; it said:\n  {said}" if said else ""))
        self.name, self.lines = name, tuple(lines)


async def _exited(process: asyncio.subprocess.Process) -> int:
    """The exit code once the process ended. `process.wait()` also waits for its pipes, which grandchildren may hold."""
    while process.returncode is None:  # noqa: ASYNC110  asyncio offers no event for it
        await asyncio.sleep(CHECK_PAUSE_S)
    return process.returncode


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)


def die_with_parent() -> None:
    """Runs in the child before exec: SIGTERM when the one who started it is gone, however it went."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
