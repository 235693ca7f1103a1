"""Energy of a run, by device type and by what it was for, and samples for a timeline. All of it simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.simulator.engine.node import SimNode
from services.simulator.engine.spent import Energy, Part


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment of the timeline; power is the mean since the moment before."""

    at_s: float
    power_w: float
    arrivals: int
    done: int
    within: int
    ready: int
    awake: int
    commits: int


class Meter:
    """Reads all devices."""

    def __init__(self, nodes: Mapping[str, SimNode], lines: Sequence[Any], period_s: float) -> None:
        self._nodes, self._lines, self._period_s = nodes, lines, period_s
        boards = dict.fromkeys(d.board.name for node in nodes.values() for d in node.devices.values())
        self._keys = [(board, part) for board in boards for part in Part]
        self.samples: list[Sample] = []
        self._before = Energy()
        self._before_s = 0.0
        self._counts = (0, 0, 0)

    def energy(self, now_s: float) -> Energy:
        """Energy of all devices up to now."""
        spent_mj = dict.fromkeys(self._keys, 0.0)
        for node in self._nodes.values():
            for device in node.devices.values():
                device.settle(now_s)
                for part, millijoules in device.spent_mj.items():
                    if millijoules:
                        spent_mj[device.board.name, part] += millijoules
            for held in node.held.values():
                if held.engine:
                    spent_mj[held.device.board.name, Part.READY] -= held.engine.rested_mj(now_s)
                    spent_mj[held.device.board.name, Part.PREFILL] += held.engine.prefill_mj
                    spent_mj[held.device.board.name, Part.DECODE] += held.engine.decode_mj
        return Energy({key: millijoules / 1000.0 for key, millijoules in spent_mj.items() if millijoules})

    def sample(self, now_s: float, commits: int) -> None:
        """Notes one moment."""
        energy = self.energy(now_s)
        took_s = now_s - self._before_s
        power_w = energy.since(self._before).total_j / took_s if self.samples and took_s > 0 else 0.0
        self._before, self._before_s = energy, now_s
        totals = tuple(sum(getattr(line.count, name) for line in self._lines) for name in ("came", "gone", "good"))
        arrivals, done, within = (a - b for a, b in zip(totals, self._counts, strict=True))
        self._counts = totals
        ready = sum(len(node.engines()) for node in self._nodes.values())
        awake = sum(not d.seen.asleep for node in self._nodes.values() for d in node.devices.values())
        self.samples.append(Sample(now_s, power_w, arrivals, done, within, ready, awake, commits))
