"""Starts an embedded instance in order, keeps it, and stops it in the reverse order.

PostgreSQL → Redis → services in waves → ready; stop: services in reverse → Redis → PostgreSQL.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import IO, Any, Final

from tradewind import __version__
from tradewind.domain.errors import InUse
from tradewind.embedded import fleet
from tradewind.embedded.layout import Layout
from tradewind.embedded.log_files import LogFiles
from tradewind.embedded.ports import Ports
from tradewind.embedded.process import Child, Spec
from tradewind.embedded.stores import Postgres, check_space, redis_url

# Told after each part that came up: (name, seconds it took).
Told = Callable[[str, float], None]
STATUS_PERIOD_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Running:
    """An instance that is up."""

    layout: Layout
    ports: Ports
    children: Sequence[Child]


class Supervisor:
    """One embedded instance.

    Args:
        layout: its state folder.
        ports: its ports.
        on_line: takes (service, line) of everything said, beside the log files.
    """

    def __init__(self, layout: Layout, ports: Ports, on_line: Callable[[str, str], None]) -> None:
        self._layout, self._ports, self._on_line = layout, ports, on_line
        self._stack = AsyncExitStack()
        self._children: list[Child] = []

    async def start(self, told: Told) -> Running:
        """Starts everything and returns when all of it is healthy.

        Raises:
            InUse: the state folder is in use, or a port is taken.
            NoSpace: the disk is full.
            ChildFailed: a service did not come up; what had started is stopped again by `stop`.
        """
        layout = self._layout
        for folder in (layout.root, layout.logs, layout.redis):
            folder.mkdir(parents=True, exist_ok=True)
        check_space(layout.root)
        lock = hold(layout)
        self._stack.callback(lock.close)
        self._ports.check_free()
        logs = LogFiles(layout)
        self._stack.callback(logs.close)

        def line(name: str, text: str) -> None:
            logs.write(name, text)
            self._on_line(name, text)

        clock = asyncio.get_running_loop().time
        began = clock()
        postgres = Postgres(layout)
        database_url = await postgres.start()
        self._stack.push_async_callback(postgres.stop)
        told("postgres", clock() - began)
        url = redis_url(layout)
        await self._wave([fleet.redis_spec(layout, url)], line, told)
        for wave in fleet.service_specs(layout, self._ports, database_url, url):
            await self._wave(wave, line, told)
        layout.endpoints.write_text(json.dumps(fleet.endpoints(self._ports), indent=2) + "\n")
        self._stack.callback(layout.endpoints.unlink, missing_ok=True)
        self._write_status()
        self._stack.callback(layout.supervisor.unlink, missing_ok=True)
        return Running(layout, self._ports, self._children)

    async def stop(self) -> None:
        """Stops everything that was started, in reverse order. Idempotent."""
        await self._stack.aclose()

    async def _wave(self, specs: Sequence[Spec], line: Callable[[str, str], None], told: Told) -> None:
        clock = asyncio.get_running_loop().time

        async def start(spec: Spec) -> None:
            began = clock()
            child = Child(spec, line)
            self._children.append(child)
            self._stack.push_async_callback(child.stop)
            await child.start()
            told(spec.name, clock() - began)

        results = await asyncio.gather(*(start(spec) for spec in specs), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _write_status(self) -> None:
        status: dict[str, Any] = {
            "pid": os.getpid(),
            "version": __version__,
            "services": {child.spec.name: child.pid for child in self._children},
        }
        self._layout.supervisor.write_text(json.dumps(status, indent=2) + "\n")


def hold(layout: Layout) -> IO[str]:
    """Takes the instance's lock; closing the file gives it back.

    Raises:
        InUse: another supervisor holds it.
    """
    lock = layout.lock.open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = holder(layout)
        lock.close()
        raise InUse(
            f"Tradewind already runs on {layout.root} (pid {pid}); `tradewind down` stops it, "
            "another --state-dir starts a second one",
            {"pid": str(pid), "path": str(layout.root)},
        ) from error
    lock.seek(0)
    lock.truncate()
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def holder(layout: Layout) -> int | None:
    """Pid of the supervisor that holds the instance; None when nobody does."""
    if not layout.lock.exists():
        return None
    with layout.lock.open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = lock.read().strip()
            return int(text) if text.isdigit() else None
    return None
