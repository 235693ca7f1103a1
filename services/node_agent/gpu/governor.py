"""Eases boards' clocks while nothing on them would be late, and takes them up at once when it would.

Asks the replicas that have requests in hand what they have to do; decides by `core.governor`; the keeper sets clocks.
A replica that does not answer in time is taken to need the full clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from services.node_agent.core.easing import Easing, calm_since, shall_ease
from services.node_agent.core.governor import Limits, Work, needs_full_clock
from services.node_agent.gpu.faults import GpuError

# Half of it is what a prompt waits for to be noticed, on average.
PERIOD_S: Final = 0.1
# For boards that have no clock to ease to: settings change with plans.
IDLE_S: Final = 1.0
# A replica answers within a millisecond or two unless its machine is short of cores.
ANSWER_S: Final = 0.05


class Worker(Protocol):
    """A replica's process."""

    async def work(self, limit_s: float) -> Work | None:
        """What it has in hand; None when it does not say so within the limit."""


class Clocks(Protocol):
    """The keeper of boards' clocks; see `PowerKeeper`."""

    @property
    def easings(self) -> Mapping[str, Easing]:
        """Boards that have a clock to ease to."""

    def ease(self, uuid: str, *, eased: bool) -> None:
        """Puts one of the two clocks in force; blocks."""


AtWork = Callable[[str], Sequence[tuple[Limits, Worker]]]


class Governor:
    """See the module.

    Args:
        clocks: sets them.
        at_work: replicas of a board that have requests in hand, and their limits.
        measuring: whether something is measured on this node: at full clocks.
        in_thread: runs what blocks.
        now_s: monotonic clock.
    """

    def __init__(
        self,
        clocks: Clocks,
        at_work: AtWork,
        measuring: Callable[[], bool],
        in_thread: Callable[[Callable[[], None]], Awaitable[None]],
        now_s: Callable[[], float],
    ) -> None:
        self._clocks, self._at_work, self._measuring = clocks, at_work, measuring
        self._in_thread, self._now_s = in_thread, now_s
        self._calm_since_s: dict[str, float | None] = {}
        self._told = ""
        self._log = structlog.get_logger("governor")

    async def turn(self) -> float:
        """Looks at every board that has a clock to ease to, once; returns the seconds until the next turn."""
        easings = self._clocks.easings
        if not easings:
            return IDLE_S
        await asyncio.gather(*(self._govern(uuid, easing) for uuid, easing in easings.items()))
        return PERIOD_S

    async def _govern(self, uuid: str, easing: Easing) -> None:
        needs_full = self._measuring() or await self._needs_full(uuid, easing.slower)
        now_s = self._now_s()
        since_s = self._calm_since_s[uuid] = calm_since(self._calm_since_s.get(uuid), needs_full, now_s)
        if needs_full and easing.eased:
            await self._set(uuid, eased=False)
        elif not easing.eased and shall_ease(since_s, now_s):
            await self._set(uuid, eased=True)

    async def _needs_full(self, uuid: str, slower: float) -> bool:
        workers = self._at_work(uuid)
        answers = await asyncio.gather(*(worker.work(ANSWER_S) for _, worker in workers))
        known = [(work, limits) for work, (limits, _) in zip(answers, workers, strict=True) if work is not None]
        return len(known) < len(answers) or needs_full_clock(known, slower)

    async def _set(self, uuid: str, *, eased: bool) -> None:
        """One that fails is tried again at the next turn."""
        try:
            await self._in_thread(lambda: self._clocks.ease(uuid, eased=eased))
        except GpuError as error:
            if error.message != self._told:
                self._told = error.message
                self._log.warning("a clock is not changed", board=uuid, eased=eased, error=error.message)
