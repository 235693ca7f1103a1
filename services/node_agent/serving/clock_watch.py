"""The SM clock that a board ran at while something was measured on it, out of the agent's own looks at the board."""

from __future__ import annotations

import asyncio
import statistics
from typing import Final

from services.node_agent.core.power import CLOCK_TOLERANCE_MHZ, Setting
from services.node_agent.devices.port import Device
from tradewind.domain.errors import InUse
from tradewind.rpc.service import end_task

# Boards are looked at each second; what is seen twice counts twice.
PERIOD_S: Final = 0.5


class ClockWatch:
    """Notes clocks between `start` and `stop`. A device that does not tell its clock has none.

    Args:
        device: read only once it was started; it has a meter of its own then, and reading it changes nothing.
        setting: that it is measured at.
    """

    def __init__(self, device: Device, setting: Setting) -> None:
        self._device, self._setting = device, setting
        self._seen_mhz: list[int] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to note: work has begun."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Notes no more. Idempotent."""
        if self._task is not None:
            task, self._task = self._task, None
            await end_task(task)

    def check(self) -> None:
        """Notes the clock as last seen, and returns when none was above the one that the board was locked at.

        Raises:
            InUse: one was: something else sets the board's clocks.
        """
        if self._task is None:
            return
        self._note()
        asked, most = self._setting.clock_mhz, max(self._seen_mhz, default=0)
        if asked is not None and most > asked + CLOCK_TOLERANCE_MHZ:
            raise InUse(
                f"{self._device.facts.device_id} ran at {most} MHz in place of the {asked} MHz asked for; stop what "
                "else sets its clocks and measure again"
            )

    @property
    def ran_mhz(self) -> int | None:
        """The median; None when nothing was seen."""
        return statistics.median_low(self._seen_mhz) if self._seen_mhz else None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            self._note()

    def _note(self) -> None:
        board = self._device.read().board
        if board is not None and board.sm_clock_mhz is not None:
            self._seen_mhz.append(board.sm_clock_mhz)
