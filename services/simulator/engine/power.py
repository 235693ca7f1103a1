"""What the boards' meters of a run read: mean power of each device since its last report. All of it simulated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.orchestrator.core.facts.traffic import PowerReading
from services.simulator.engine.device import SimDevice
from services.simulator.engine.node import SimNode

# Nodes report power about so often.
REPORT_S: Final = 5.0


class PowerMeters:
    """One meter for each device, all read together."""

    def __init__(self, nodes: Mapping[str, SimNode]) -> None:
        self._nodes = nodes
        self._spent_mj: dict[tuple[str, str], float] = {}
        self._read_s = 0.0
        self._readings: tuple[PowerReading, ...] = ()

    def read(self, now_s: float) -> tuple[PowerReading, ...]:
        """Newest readings; none before the first period is over."""
        passed_s = now_s - self._read_s
        if passed_s < REPORT_S:
            return self._readings
        spent_mj = {
            (name, device_id): _spent_mj(node, device, now_s)
            for name, node in self._nodes.items()
            for device_id, device in node.devices.items()
        }
        self._readings = tuple(
            PowerReading(*place, (spent - self._spent_mj.get(place, 0.0)) / passed_s)
            for place, spent in spent_mj.items()
        )
        self._spent_mj, self._read_s = spent_mj, now_s
        return self._readings


def _spent_mj(node: SimNode, device: SimDevice, now_s: float) -> float:
    device.settle(now_s)
    engines = (held.engine for held in node.held.values() if held.engine is not None and held.device is device)
    return sum(device.spent_mj.values()) + sum(e.active_mj - e.rested_mj(now_s) for e in engines)
