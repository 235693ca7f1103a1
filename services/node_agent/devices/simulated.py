"""A simulated device: exact rules, seeded draws, time as an argument of its clock. Its figures say SIMULATED."""

from __future__ import annotations

from collections.abc import Callable, Collection

from services.node_agent.core.draws import uniform
from services.node_agent.core.energy import Rate
from services.node_agent.core.meter_window import MeterPoint
from services.node_agent.devices.port import DeviceFacts, DeviceKind, Partition, Reading
from tradewind.domain.errors import InvalidField
from tradewind.domain.figures import EnergyFigure, FigureSource

_METHOD = "simulated@1"


class SimulatedDevice:
    """Cores that are not there.

    Args:
        device_id: identity.
        cores: how many; partitions are "sim/N".
        seed: of the load it pretends.
        now_s: monotonic clock, real or simulated.
        idle_w: drawn always.
        core_w: drawn by each busy core.
    """

    def __init__(
        self,
        device_id: str,
        cores: int,
        seed: int,
        now_s: Callable[[], float],
        idle_w: float = 5.0,
        core_w: float = 4.0,
    ) -> None:
        self._seed, self._now_s, self._idle_w, self._core_w = seed, now_s, idle_w, core_w
        self._last_s, self._readings, self._energy_mj = now_s(), 0, 0.0
        self._power_mw, self._utilization = idle_w * 1e3, 0.0
        self._facts = DeviceFacts(
            device_id=device_id,
            kind=DeviceKind.SIMULATED,
            device_class=f"sim:cores-{cores}",
            product_name="simulated device",
            targets=("sim:any",),
            memory_bytes=cores << 30,
            cpu_ids=tuple(range(cores)),
            partition_kinds=tuple(f"sim/{n}" for n in range(1, cores + 1)),
            energy_source=FigureSource.SIMULATED,
            energy_method=_METHOD,
            idle_power_mw=idle_w * 1e3,
            idle_power_source=FigureSource.SIMULATED,
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
        cpu_ids = tuple(sorted(sorted(self._facts.cpu_ids, key=lambda c: (c in busy, c))[:count]))
        name = f"{self._facts.device_id}:cores={','.join(map(str, cpu_ids))}"
        return Partition(name, self._facts.device_id, kind, cpu_ids, count << 30)

    def check(self, device_id: str, kind: str, cpu_ids: Collection[int], uuid: str = "") -> None:
        """See `Device`."""
        if device_id not in ("", self._facts.device_id):
            raise InvalidField("partition.device_id", f"this is {self._facts.device_id}, not {device_id!r}")
        if not cpu_ids or not set(cpu_ids) <= set(self._facts.cpu_ids):
            raise InvalidField("partition.cpu_ids", f"{sorted(cpu_ids)} are not among {list(self._facts.cpu_ids)}")
        if kind and self._count(kind) != len(set(cpu_ids)):
            raise InvalidField("partition.kind", f"{kind} does not go with {len(set(cpu_ids))} cores")

    def read(self) -> Reading:
        """See `Device`."""
        now_s = self._now_s()
        elapsed_s = now_s - self._last_s
        if elapsed_s > 0:
            self._utilization = uniform(self._seed, self._readings)
            self._readings += 1
            busy_cores = self._utilization * len(self._facts.cpu_ids)
            self._power_mw = (self._idle_w + self._core_w * busy_cores) * 1e3
            self._energy_mj += self._power_mw * elapsed_s
            self._last_s = now_s
        energy = EnergyFigure(self._energy_mj, FigureSource.SIMULATED, _METHOD)
        return Reading(energy, self._power_mw, self._utilization, 0)

    def meter(self, uuid: str, look: bool = True) -> MeterPoint | None:
        """See `Device`."""
        return None

    def rate(self) -> Rate:
        """See `Device`."""
        return Rate(self._core_w * 1e3, FigureSource.SIMULATED, _METHOD)

    def _count(self, kind: str) -> int:
        if kind not in self._facts.partition_kinds:
            raise InvalidField("partition_kind", f"{kind!r} is none of {', '.join(self._facts.partition_kinds)}")
        return int(kind.removeprefix("sim/"))
