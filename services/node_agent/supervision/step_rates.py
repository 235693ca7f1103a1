"""Tells replicas on boards and slices what a second of their steps costs, by the meter of their partition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.node_agent.core.board_energy import MEASURED_WINDOW_S
from services.node_agent.core.meter_window import MeterPoint, step_rate
from services.node_agent.devices.inventory import Inventory
from services.node_agent.supervision.process import ReplicaProcess
from services.node_agent.supervision.replica import Replica
from tradewind.domain.errors import InvalidField


@dataclass(frozen=True, slots=True)
class _Window:
    process: ReplicaProcess
    began: MeterPoint
    step_s: float


class StepRates:
    """A window for each replica; its rate is told when the window is long enough to be believed.

    Args:
        inventory: devices with their meters.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._windows: dict[str, _Window] = {}

    def tell(self, replicas: Iterable[Replica]) -> None:
        """Looks at every replica that has a board or slice; never waits. Called about each report period."""
        found = {}
        for replica in replicas:
            process, uuid = replica.process, replica.spec.partition_uuid
            point = self._point(replica) if process is not None and uuid else None
            if process is not None and point is not None:
                found[replica.spec.replica_id] = self._after(self._windows.get(replica.spec.replica_id), process, point)
        self._windows = found

    def _after(self, window: _Window | None, process: ReplicaProcess, point: MeterPoint) -> _Window:
        totals = process.stats.totals
        step_s = totals.get("prefill_s", 0.0) + totals.get("decode_s", 0.0)
        if window is None or window.process is not process:
            return _Window(process, point, step_s)
        if point.at_s - window.began.at_s < MEASURED_WINDOW_S:
            return window
        rate = step_rate(window.began, point, step_s - window.step_s)
        if rate is not None:
            process.tell_rate(rate)
        return _Window(process, point, step_s)

    def _point(self, replica: Replica) -> MeterPoint | None:
        try:
            return self._inventory.find(replica.spec.device_id).meter(replica.spec.partition_uuid, look=False)
        except InvalidField:
            return None  # the slice is gone; the replica is on its way out
