"""The CPU as a device: partitions are sets of cores, energy is RAPL's or the linear model's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

from services.node_agent.core.energy import LinearPower, Rate, measured_rate, modelled_rate
from services.node_agent.core.meter_window import MeterPoint
from services.node_agent.devices.port import DeviceFacts, DeviceKind, Partition, Reading
from services.node_agent.meters.port import Meter
from tradewind.domain.errors import InvalidField
from tradewind.domain.figures import EnergyFigure, FigureSource

DEVICE_ID: Final = "cpu0"
KIND_PREFIX: Final = "cpu/"
# Readings closer together than this say nothing about power.
LEAST_WINDOW_S: Final = 0.05


class CpuUse(Protocol):
    """What the operating system tells of its CPUs."""

    def busy_core_s(self) -> float:
        """Core-seconds that the offered CPUs were busy, growing."""

    def memory_used_bytes(self) -> int:
        """Memory in use on the machine."""


class CpuDevice:
    """The cores that this node offers.

    Args:
        cpu_ids: logical CPUs offered, ascending.
        machine_cpus: logical CPUs of the machine; a counter of the whole is split by them.
        names: (device class, product name, targets).
        memory_bytes: of the machine.
        meter: counts energy.
        model: used for idle power and as the rate where the meter cannot give one.
        use: of the CPUs.
        now_s: monotonic clock.
    """

    def __init__(
        self,
        cpu_ids: Sequence[int],
        machine_cpus: int,
        names: tuple[str, str, tuple[str, ...]],
        memory_bytes: int,
        meter: Meter,
        model: LinearPower,
        use: CpuUse,
        now_s: Callable[[], float],
    ) -> None:
        self._meter, self._use, self._now_s = meter, use, now_s
        self._share = len(cpu_ids) / machine_cpus if meter.source is not FigureSource.MODELLED else 1.0
        self._idle_w, self._rate = model.idle_w, modelled_rate(model)
        self._last_s, self._last_busy_s, self._last_mj = now_s(), use.busy_core_s(), self._energy().energy_mj
        self._last = Reading(self._energy(), model.idle_w * 1e3, 0.0, use.memory_used_bytes())
        device_class, product, targets = names
        self._facts = DeviceFacts(
            device_id=DEVICE_ID,
            kind=DeviceKind.CPU,
            device_class=device_class,
            product_name=product,
            targets=targets,
            memory_bytes=memory_bytes,
            cpu_ids=tuple(cpu_ids),
            partition_kinds=tuple(f"{KIND_PREFIX}{n}" for n in _sizes(len(cpu_ids))),
            energy_source=self._energy().source,
            energy_method=self._energy().method,
            idle_power_mw=model.idle_w * 1e3,
            idle_power_source=FigureSource.MODELLED,
            can_partition=True,
        )

    @property
    def facts(self) -> DeviceFacts:
        """See `Device`."""
        return self._facts

    def partitions(self) -> tuple[Partition, ...]:
        """See `Device`."""
        return ()

    def cut(self, kind: str, busy: Collection[int | str] = ()) -> Partition:
        """See `Device`."""
        count = self._count(kind)
        by_use = sorted(self._facts.cpu_ids, key=lambda cpu: (cpu in busy, cpu))
        return self._partition(kind, tuple(sorted(by_use[:count])))

    def check(self, device_id: str, kind: str, cpu_ids: Collection[int], uuid: str = "") -> None:
        """See `Device`."""
        if device_id not in ("", DEVICE_ID):
            raise InvalidField("partition.device_id", f"this node has no device {device_id!r}, only {DEVICE_ID}")
        strange = sorted(set(cpu_ids) - set(self._facts.cpu_ids))
        if strange or not cpu_ids:
            raise InvalidField(
                "partition.cpu_ids", f"{strange or 'none'} given, this node offers {list(self._facts.cpu_ids)}"
            )
        if kind and self._count(kind) != len(set(cpu_ids)):
            raise InvalidField("partition.kind", f"{kind} does not go with {len(set(cpu_ids))} CPUs")

    def read(self) -> Reading:
        """See `Device`."""
        now_s, busy_s, energy = self._now_s(), self._use.busy_core_s(), self._energy()
        window_s = now_s - self._last_s
        if window_s < LEAST_WINDOW_S:
            return self._last
        grown_mj, more_busy_s = energy.energy_mj - self._last_mj, max(0.0, busy_s - self._last_busy_s)
        power_mw = grown_mj / window_s
        if self._meter.source is not FigureSource.MODELLED:
            self._idle_w = min(self._idle_w, power_mw / 1e3)
            found = measured_rate(grown_mj, window_s, more_busy_s, self._idle_w, energy.method)
            self._rate = found or self._rate
        utilization = min(1.0, more_busy_s / (window_s * len(self._facts.cpu_ids)))
        self._last = Reading(energy, power_mw, utilization, self._use.memory_used_bytes())
        self._last_s, self._last_busy_s, self._last_mj = now_s, busy_s, energy.energy_mj
        return self._last

    def meter(self, uuid: str, look: bool = True) -> MeterPoint | None:
        """See `Device`."""
        return None

    def rate(self) -> Rate:
        """See `Device`."""
        return self._rate

    def _energy(self) -> EnergyFigure:
        whole = EnergyFigure(self._meter.energy_mj(), self._meter.source, self._meter.method)
        # The counter is of the whole package: cores that are not ours drew their share.
        return whole.share(self._share, "by-cores@1") if self._share < 1 else whole

    def _count(self, kind: str) -> int:
        if kind not in self._facts.partition_kinds:
            raise InvalidField("partition_kind", f"{kind!r} is none of {', '.join(self._facts.partition_kinds)}")
        return int(kind.removeprefix(KIND_PREFIX))

    def _partition(self, kind: str, cpu_ids: tuple[int, ...]) -> Partition:
        return Partition(f"{DEVICE_ID}:cores={_ranges(cpu_ids)}", DEVICE_ID, kind, cpu_ids, self._facts.memory_bytes)


def _sizes(count: int) -> list[int]:
    """Every size up to 8, then powers of two, then the whole: enough choice, few profiles."""
    return sorted({*range(1, min(count, 8) + 1), *(2**n for n in range(count.bit_length())), count})


def _ranges(cpu_ids: Sequence[int]) -> str:
    """Ascending numbers as "0-3,8", the form in which partitions are named everywhere."""
    runs: list[list[int]] = []
    for cpu in cpu_ids:
        if runs and runs[-1][-1] == cpu - 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
