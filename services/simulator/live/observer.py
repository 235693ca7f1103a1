"""Watches a live run from outside: the devices' meters and the replicas that serve, as their nodes report them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import numpy as np

from tradewind.client.orchestrator import OrchestratorClient
from tradewind.domain.errors import ServiceUnavailable
from tradewind.domain.figures import FigureSource, weakest
from tradewind.v1 import node_pb2

# Nodes report every two seconds; asking twice as often misses none and costs a few milliseconds of a core each.
PERIOD_S: Final = 1.0
# After the end of a run the meters' next reports come within this, on a busy machine too.
LAST_REPORT_S: Final = 10.0
Place = tuple[str, str]


@dataclass(slots=True)
class Watched:
    """What was seen; times are seconds since the epoch.

    Attributes:
        energy: of each device, what its meter told at what time, since its agent started.
        power_w: of all devices, as their nodes said last.
        ready: replicas that served.
        idle_w: of all devices, by their own figure.
    """

    energy: dict[Place, list[tuple[float, float]]] = field(default_factory=dict)
    sources: dict[Place, tuple[FigureSource, str]] = field(default_factory=dict)
    power_w: list[tuple[float, float]] = field(default_factory=list)
    ready: list[tuple[float, int]] = field(default_factory=list)
    idle_w: float = 0.0

    def energy_mj(self, start_s: float, end_s: float) -> float:
        """Energy of all devices between two moments; between two reports a straight line."""
        total = 0.0
        for points in self.energy.values():
            times, values = zip(*points, strict=True)
            first, last = np.interp((start_s, end_s), times, values)
            total += float(last - first)
        return total

    @property
    def label(self) -> tuple[FigureSource, str]:
        """Label and methods of that energy."""
        methods = sorted({method for _, method in self.sources.values()})
        return weakest(source for source, _ in self.sources.values()), ", ".join(methods)

    @property
    def last_s(self) -> float:
        """The moment that every device's meter has reached."""
        return min((points[-1][0] for points in self.energy.values()), default=0.0)


class Observer:
    """Looks every second in a thread of its own, inside a `with`; what it saw is `seen`."""

    def __init__(self, orchestrator: OrchestratorClient) -> None:
        self._orchestrator = orchestrator
        self.seen = Watched()
        self._ending = threading.Event()
        self._until_s = 0.0
        self._thread = threading.Thread(target=self._watch, name="observer", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._until_s = time.time() if error is None else 0.0
        self._ending.set()
        self._thread.join(2 * LAST_REPORT_S)

    def _watch(self) -> None:
        """Until the end, and on until every meter has told of it."""
        deadline = 0.0
        while not self._ending.is_set() or (self.seen.last_s < self._until_s and time.monotonic() < deadline):
            pause = threading.Event() if self._ending.is_set() else self._ending
            pause.wait(PERIOD_S)
            if self._ending.is_set() and not deadline:
                deadline = time.monotonic() + LAST_REPORT_S
            try:
                self._look()
            except ServiceUnavailable:
                # One look less; the meters count on.
                continue

    def _look(self) -> None:
        seen, now_s, power_w, ready, idle_w = self.seen, time.time(), 0.0, 0, 0.0
        for node in self._orchestrator.nodes():
            told_s = node.last_seen_time.seconds + node.last_seen_time.nanos / 1e9
            idle_w += sum(device.idle_power_mw for device in node.report.devices) / 1e3
            ready += sum(r.state == node_pb2.REPLICA_STATE_READY for r in node.report.replicas)
            for reading in node.report.readings:
                place = (node.report.node_id, reading.device_id)
                points = seen.energy.setdefault(place, [])
                if not points or told_s > points[-1][0]:
                    points.append((told_s, reading.energy.energy_mj))
                seen.sources[place] = (FigureSource(reading.energy.source), reading.energy.method)
                power_w += reading.power_mw / 1e3
        seen.power_w.append((now_s, power_w))
        seen.ready.append((now_s, ready))
        seen.idle_w = idle_w
