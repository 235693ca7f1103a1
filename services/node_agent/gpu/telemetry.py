"""Looks at every board each second, each on a thread of its own, and hears the driver's events on one more.

NVML calls block, for seconds when a driver is in trouble; none of this touches the event loop. Threads are daemons:
one that hangs in a driver never keeps the agent from ending.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

import structlog

from services.node_agent.gpu.board_watch import BoardWatch
from services.node_agent.gpu.faults import GpuError
from services.node_agent.gpu.port import GpuReader

# Counters refresh ten times in it, windows of five seconds hold five looks, and a silent board is out after 3.5 s.
PERIOD_S: Final = 1.0
# A driver without events is asked again this often: after an update of the driver it may have them.
WITHOUT_EVENTS_S: Final = 30.0
# How long `stop` waits for looks under way.
STOP_LIMIT_S: Final = 1.0


class Telemetry:
    """Threads over the boards of a machine.

    Args:
        reader: hears events.
        watches: one for each board.
        period_s: between two looks at a board.
    """

    def __init__(self, reader: GpuReader, watches: Sequence[BoardWatch], period_s: float = PERIOD_S) -> None:
        self._reader, self._period_s = reader, period_s
        self._watches = {watch.facts.uuid: watch for watch in watches}
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(w,), daemon=True) for w in watches]
        self._threads.append(threading.Thread(target=self._hear, name="gpu-events", daemon=True))
        self._log = structlog.get_logger("gpu")

    def start(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends; waits a moment for looks under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(STOP_LIMIT_S)

    def _watch(self, watch: BoardWatch) -> None:
        told = ""
        while not self._stopping.is_set():
            watch.look()
            if watch.fault != told:
                told = watch.fault
                self._log.warning("board" if told else "board is well again", uuid=watch.facts.uuid, fault=told)
            # All boards at one beat: what is warm for the first look is warm for the others.
            self._stopping.wait(self._period_s - time.monotonic() % self._period_s)

    def _hear(self) -> None:
        """Events as they come; without them, slices are still listed now and then and faults still seen by looking."""
        while not self._stopping.is_set():
            try:
                for event in self._reader.events(self._period_s):
                    self._log.info("event", uuid=event.uuid, kind=event.kind.value, number=event.number)
                    if event.uuid in self._watches:
                        self._watches[event.uuid].on_event(event)
            except GpuError as error:
                self._log.info("the driver tells no events", error=error.message)
                self._stopping.wait(WITHOUT_EVENTS_S)
