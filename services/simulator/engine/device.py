"""One simulated device: its state, its layout, and the energy it has drawn. Changes only when told to."""

from __future__ import annotations

from dataclasses import replace

from services.orchestrator.core.facts.fleet import Device, Partition, PowerSetting
from services.simulator.devices.boards import Board
from services.simulator.engine.replica import Replica
from services.simulator.engine.spent import Part


class SimDevice:
    """Board power is a base (asleep, bare, loaded) that is integrated here; replicas add their own above it.

    Attributes:
        seen: the device as its node reports it.
        spent_mj: energy so far by part; that of replicas at work is there once they ended.
        loaded: replicas on it, from the start of their process to its end; `ready` those of them that serve.
    """

    def __init__(self, board: Board, device: Device) -> None:
        self.board, self.seen = board, device
        self.spent_mj = dict.fromkeys(Part, 0.0)
        self.loaded = self.ready = 0
        self._since_s = self.waking_until_s = 0.0

    @property
    def part(self) -> Part:
        """The state that its base is in, once it is awake."""
        if self.seen.asleep:
            return Part.ASLEEP
        if self.ready:
            return Part.READY
        return Part.LOADING if self.loaded else Part.EMPTY

    @property
    def base_w(self) -> float:
        """What it draws beside its replicas' work. Waking draws as much as being on."""
        if self.seen.asleep:
            return self.board.sleep_w
        return self.board.loaded_idle_w if self.loaded else self.board.bare_idle_w

    def settle(self, now_s: float) -> None:
        """Integrates the base up to now; before every change and every reading."""
        passed_s, waking_s, base_w = now_s - self._since_s, 0.0, self.base_w
        if self.waking_until_s > self._since_s:
            waking_s = min(self.waking_until_s - self._since_s, passed_s)
            self.spent_mj[Part.WAKING] += waking_s * base_w * 1000.0
        self.spent_mj[self.part] += (passed_s - waking_s) * base_w * 1000.0
        self._since_s = now_s

    def load(self, now_s: float) -> None:
        """A replica's process starts."""
        self.settle(now_s)
        self.loaded += 1

    def serve(self, now_s: float) -> None:
        """A replica on it is ready."""
        self.settle(now_s)
        self.ready += 1

    def unload(self, now_s: float, engine: Replica | None) -> None:
        """A replica's process has ended; `engine` is there when it was ready."""
        self.settle(now_s)
        self.loaded -= 1
        if engine is not None:
            self.ready -= 1
            self.spent_mj[Part.READY] -= engine.rested_mj(now_s)
            self.spent_mj[Part.PREFILL] += engine.prefill_mj
            self.spent_mj[Part.DECODE] += engine.decode_mj

    def sleep(self, now_s: float) -> None:
        """Goes to sleep; nothing is on it."""
        self.settle(now_s)
        self.waking_until_s = min(self.waking_until_s, now_s)
        self.seen = replace(self.seen, asleep=True)

    def wake(self, now_s: float) -> None:
        """Begins to wake; ready for work at `waking_until_s`."""
        self.settle(now_s)
        self.seen = replace(self.seen, asleep=False)
        self.waking_until_s = now_s + self.board.wake_s

    def set_power(self, setting: PowerSetting) -> None:
        """Another clock or cap."""
        self.seen = replace(self.seen, setting=setting)

    def cut(self, partitions: tuple[Partition, ...]) -> None:
        """Another layout."""
        self.seen = replace(self.seen, partitions=partitions)

    @property
    def clock_mhz(self) -> int:
        """The locked clock, 0 for the default."""
        return self.seen.setting.sm_clock_mhz or 0

    @property
    def eased_clock_mhz(self) -> int:
        """The clock it may ease to, 0 for none."""
        return self.seen.setting.eased_sm_clock_mhz or 0
