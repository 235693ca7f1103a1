"""Counts traffic by windows for the orchestrator, which plans by it; whole counts each time, losing one is no harm."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from services.gateway.limits import MAX_METRIC_DEPLOYMENTS
from tradewind.domain.errors import LiveStateUnavailable
from tradewind.domain.routes import DeploymentRoute
from tradewind.domain.traffic import WINDOW_S, DeploymentCount, GatewayCount, Window
from tradewind.store.live import LiveState

# Two minutes: a new leader of the orchestrators learns the load from its first read.
KEPT_WINDOWS: Final = 24
# How often the orchestrator is told; with its own second of reading a queue is seen within two.
TELL_S: Final = 1.0
# Ends of requests that are ours to answer for; everything else is the client's choice.
OUR_FAULTS: Final = frozenset(
    {"REPLICA_LOST", "SERVICE_UNAVAILABLE", "NO_READY_REPLICA", "OVERLOADED", "JOB_TIMEOUT", "INTERNAL"}
)


class TrafficCount:
    """Windows of every deployment.

    Args:
        now_unix_s: wall clock; windows begin at its multiples of `WINDOW_S`, so that those of gateways match.
        routes: the routing table as known, for the limits that requests are judged by.
    """

    def __init__(self, now_unix_s: Callable[[], float], routes: Callable[[], Mapping[str, DeploymentRoute]]) -> None:
        self._now_unix_s, self._routes = now_unix_s, routes
        self._open: dict[str, dict[str, float]] = {}
        self._closed: dict[str, deque[Window]] = {}
        self._open_s = self._begin_s()

    def arrived(self, deployment: str, prompt_tokens: int) -> None:
        """A request whose prompt is known."""
        self._add(deployment, arrivals=1, prompt_tokens=prompt_tokens, prompt_squares=prompt_tokens**2)

    def finished(self, deployment: str, ttft_s: float, tpot_s: float | None, e2e_s: float, output_tokens: int) -> None:
        """A request that ended well."""
        route = self._routes().get(deployment)
        if route is None:
            return
        ttft = _within(ttft_s, route.ttft_limit_ms)
        tpot = tpot_s is None or _within(tpot_s, route.tpot_limit_ms)
        e2e = _within(e2e_s, route.e2e_limit_ms)
        self._add(
            deployment,
            finished=1,
            output_tokens=output_tokens,
            output_squares=output_tokens**2,
            judged=1,
            within=ttft and tpot and e2e,
            ttft_within=ttft,
            tpot_within=tpot,
            e2e_within=e2e,
        )

    def ended(self, deployment: str, code: str) -> None:
        """A request is over; only faults of ours count."""
        if code in OUR_FAULTS:
            self._add(deployment, lost=1)

    def count(self, gateway_id: str, waiting: Mapping[str, int], at_work: Mapping[str, int]) -> GatewayCount:
        """Everything, as of now; deployments without requests have empty windows, which is news, too."""
        self._turn()
        names = sorted(self._routes())[:MAX_METRIC_DEPLOYMENTS]
        counts = tuple(
            DeploymentCount(name, tuple(self._closed.get(name, ())), waiting.get(name, 0), at_work.get(name, 0))
            for name in names
        )
        return GatewayCount(gateway_id, self._now_unix_s(), counts)

    def _add(self, deployment: str, **sums: float) -> None:
        if deployment not in self._routes():
            return
        self._turn()
        found = self._open.setdefault(deployment, {})
        for name, value in sums.items():
            found[name] = found.get(name, 0) + value

    def _turn(self) -> None:
        """Closes windows that are over; a pause leaves empty ones."""
        begin_s = self._begin_s()
        # After a step of the clock backwards the open window simply lasts longer.
        while self._open_s < begin_s:
            for name in self._routes():
                kept = self._closed.setdefault(name, deque(maxlen=KEPT_WINDOWS))
                kept.append(Window(self._open_s, **self._open.get(name, {})))  # type: ignore[arg-type]
            self._open = {}
            missed = (begin_s - self._open_s) / WINDOW_S
            self._open_s = begin_s if missed > KEPT_WINDOWS else self._open_s + WINDOW_S
        for name in [name for name in self._closed if name not in self._routes()]:
            del self._closed[name]

    def _begin_s(self) -> float:
        return math.floor(self._now_unix_s() / WINDOW_S) * WINDOW_S


def _within(seconds: float, limit_ms: float) -> bool:
    return not limit_ms or seconds <= limit_ms / 1e3


async def tell(
    traffic: TrafficCount,
    live: LiveState,
    gateway_id: str,
    waiting: Callable[[], Mapping[str, int]],
    at_work: Callable[[], Mapping[str, int]],
) -> None:
    """Writes the counts to Redis again and again; Redis away is said once and costs nothing else."""
    log, away = structlog.get_logger("traffic"), False
    while True:
        try:
            await live.put_traffic(traffic.count(gateway_id, waiting(), at_work()))
            away = False
        except LiveStateUnavailable as error:
            if not away:
                log.warning("the orchestrator cannot be told of traffic", error=error.message)
            away = True
        await asyncio.sleep(TELL_S)
