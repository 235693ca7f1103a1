"""The life of an engine: one thread that takes the next step and does it, until it is stopped or the device fails.

What a step is, and what becomes of requests in hand, says whoever derives from it.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

import structlog

from services.node_agent.core.phase_account import PhaseTotals
from tradewind.domain.errors import ReplicaLost

# How long `stop` waits for the step under way.
STOP_LIMIT_S: Final = 30.0

Step = TypeVar("Step")


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time, as the engine reads it.

    Attributes:
        now_s: monotonic.
        cpu_s: time that energy is charged by: CPU time of this process over all its threads; monotonic on a GPU.
        wait: returns when the condition is notified, or after so many seconds; None for as long as it takes.
    """

    now_s: Callable[[], float]
    cpu_s: Callable[[], float]
    wait: Callable[[threading.Condition, float | None], object] = threading.Condition.wait


@dataclass(frozen=True, slots=True)
class Load:
    """How busy an engine is."""

    active: int
    queued: int


class DeviceLoop(ABC, Generic[Step]):
    """Runs steps on a thread of its own. `_wake` guards everything that callers' threads touch.

    Args:
        clocks: time.
        on_fault: called once, on the loop's thread, when a step fails; the engine is dead then.
    """

    def __init__(self, clocks: Clocks, on_fault: Callable[[BaseException], None]) -> None:
        self._clocks, self._on_fault = clocks, on_fault
        self._log = structlog.get_logger("engine")
        self._wake = threading.Condition()
        self._stopping = False
        self._totals = PhaseTotals()
        # Set around what the device does; read by others without the lock.
        self._step_began_s = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the step under way; requests in hand get ReplicaLost. Idempotent."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(STOP_LIMIT_S)

    @property
    def totals(self) -> PhaseTotals:
        """What its steps took so far."""
        with self._wake:
            return replace(self._totals)

    def stalled_s(self) -> float:
        """How long the present step has been running; 0 between steps."""
        began_s = self._step_began_s
        return self._clocks.now_s() - began_s if began_s else 0.0

    @abstractmethod
    def _choose(self) -> Step | None:
        """The next step, None when there is nothing to do yet; called with the lock held."""

    def _wait_s(self) -> float | None:
        """After how long there is something to do although nobody says so; called as `_choose`."""
        return None

    @abstractmethod
    def _do(self, step: Step) -> None:
        """Does a step; called without the lock."""

    @abstractmethod
    def _abandon(self) -> None:
        """Tells everyone in hand that it is over; the last thing that is called."""

    def _refuse_when_stopping(self) -> None:
        """Called with the lock held, before a request is taken in.

        Raises:
            ReplicaLost: the engine has stopped.
        """
        if self._stopping:
            raise ReplicaLost("the replica is stopping; try again")

    def _run(self) -> None:
        try:
            while (step := self._next()) is not None:
                self._do(step)
        except Exception as error:  # noqa: BLE001  whatever the model throws, the callers must hear of it
            self._log.error("the model failed", exc_info=error)
            self._abandon()
            self._on_fault(error)
        else:
            self._abandon()

    def _next(self) -> Step | None:
        """The next step; waits for one. None at the end."""
        with self._wake:
            while not self._stopping:
                if (step := self._choose()) is not None:
                    return step
                self._clocks.wait(self._wake, self._wait_s())
        return None
