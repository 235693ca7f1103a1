"""Hears gateways' traffic counts through Redis, adds up those of one deployment, keeps none: the next read is whole.

Gateways speak by their own wall clocks. Windows are matched by number; a gateway whose clock is off by more than
`MOST_SKEW_S` is shifted by whole windows, so that a wrong clock costs precision and never traffic.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from services.orchestrator.core.facts.traffic import MOST_WINDOWS, WINDOW_S, DeploymentTraffic, Window
from tradewind.domain.errors import LiveStateUnavailable
from tradewind.domain.traffic import DeploymentCount, GatewayCount, summed
from tradewind.store.live import LiveState

LISTEN_S: Final = 1.0
# Redis and the two loops around it explain this much.
MOST_SKEW_S: Final = 4.0


class TrafficListener:
    """The newest counts of every gateway.

    Args:
        live: Redis.
        unix_s: wall clock.
        offset_s: wall clock minus the clock of `now_s`, taken once: steps of the wall clock do not reach the core.
        heard: called when requests wait anywhere.

    Attributes:
        offset_s: as above.
    """

    def __init__(
        self, live: LiveState, unix_s: Callable[[], float], offset_s: float, heard: Callable[[], None]
    ) -> None:
        self._live, self._unix_s, self.offset_s, self._heard = live, unix_s, offset_s, heard
        self._counts: list[tuple[float, GatewayCount]] = []
        self._away = False
        self._log = structlog.get_logger("listener")

    async def run(self) -> None:
        """Reads until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(LISTEN_S)

    async def read(self) -> None:
        """Reads once; with Redis away nothing is known of traffic, and nothing is decided by it."""
        try:
            counts = await self._live.traffic()
            self._away = False
        except LiveStateUnavailable as error:
            if not self._away:
                self._log.warning("traffic is not known", error=error.message)
            self._away, counts = True, []
        now_s = self._unix_s()
        self._counts = [(_shift_s(now_s - count.sent_unix_s), count) for count in counts]
        if any(d.queued for _, count in self._counts for d in count.deployments):
            self._heard()

    def traffic(self, ids: Mapping[str, str], queued: Mapping[str, int]) -> tuple[DeploymentTraffic, ...]:
        """Traffic by deployment.

        Args:
            ids: deployment ids by name.
            queued: requests that wait at replicas, by deployment id.
        """
        found: dict[str, list[tuple[float, DeploymentCount]]] = defaultdict(list)
        for shift_s, count in self._counts:
            for deployment in count.deployments:
                if deployment.name in ids:
                    found[ids[deployment.name]].append((shift_s, deployment))
        return tuple(
            DeploymentTraffic(
                deployment_id,
                self._windows(counts),
                sum(c.queued for _, c in counts) + queued.get(deployment_id, 0),
                sum(c.at_work for _, c in counts),
            )
            for deployment_id, counts in sorted(found.items())
        )

    def _windows(self, counts: list[tuple[float, DeploymentCount]]) -> tuple[Window, ...]:
        by_number: dict[int, list[Window]] = defaultdict(list)
        for shift_s, count in counts:
            for window in count.windows:
                by_number[round((window.start_s + shift_s) / WINDOW_S)].append(window)
        windows: list[Window] = []
        for number in sorted(by_number)[-MOST_WINDOWS:]:
            total = summed(by_number[number])
            if total is not None:
                windows.append(_at(total, number * WINDOW_S - self.offset_s))
        return tuple(windows)


def _shift_s(late_s: float) -> float:
    """Whole windows to shift a gateway by whose clock differs so much from ours; 0 for an ordinary delay."""
    return 0.0 if abs(late_s) <= MOST_SKEW_S else round(late_s / WINDOW_S) * WINDOW_S


def _at(window: Window, start_s: float) -> Window:
    values = {name: getattr(window, name) for name in window.__slots__}
    return Window(**(values | {"start_s": start_s}))
