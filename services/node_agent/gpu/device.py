"""An NVIDIA board as the agent's `Device`: whole, or the MIG slices that stand on it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from services.node_agent.core.energy import Rate
from services.node_agent.core.meter_window import MeterPoint
from services.node_agent.core.power import offered
from services.node_agent.devices.port import BoardDetail, DeviceFacts, DeviceKind, Partition, Reading, SliceDetail
from services.node_agent.gpu.board_name import targets
from services.node_agent.gpu.board_watch import BoardWatch
from services.node_agent.gpu.bounds import bounds_of
from services.node_agent.gpu.state import BoardState, SliceState
from tradewind.domain.errors import DeviceFault, InUse, InvalidField
from tradewind.domain.figures import FigureSource, weakest

WHOLE: Final = "gpu/whole"
# What a board draws idle when it does not tell its power: a share of its greatest cap, of the right order only.
_IDLE_SHARE: Final = 0.12


class GpuDevice:
    """A board.

    Args:
        watch: looks at it; its first look has ended.
        may_partition: whether this agent may change its slices.
        may_set_power: whether this agent may change clocks and caps.
        simulated: whether the board is not there; its profiles are then kept apart, and no variant is for it.
    """

    def __init__(
        self, watch: BoardWatch, may_partition: bool = False, may_set_power: bool = False, simulated: bool = False
    ) -> None:
        self._watch = watch
        board, state = watch.facts, watch.state
        profiles = watch.table.profiles if watch.table else ()
        most_mw = board.power.most_mw if board.power else 0
        self._facts = DeviceFacts(
            device_id=board.uuid,
            kind=DeviceKind.SIMULATED if simulated else DeviceKind.NVIDIA_GPU,
            device_class=board.device_class.replace("gpu:", "sim:", 1) if simulated else board.device_class,
            product_name=board.product_name,
            targets=("sim:gpu",) if simulated else targets(board.compute_capability),
            memory_bytes=board.memory_bytes,
            cpu_ids=(),
            partition_kinds=(WHOLE, *(f"mig/{profile.name}" for profile in profiles)),
            energy_source=state.energy.source,
            energy_method=state.energy.method,
            idle_power_mw=state.idle_mw or most_mw * _IDLE_SHARE,
            idle_power_source=weakest((state.energy.source, FigureSource.MODELLED)),
            can_set_power=may_set_power and board.power is not None,
            can_partition=may_partition and board.mig_capable,
            table=watch.table,
            power_settings=offered(bounds_of(board)) if may_set_power else (),
        )

    @property
    def facts(self) -> DeviceFacts:
        """See `Device`."""
        return self._facts

    def partitions(self) -> tuple[Partition, ...]:
        """See `Device`."""
        state = self._watch.state
        if state.mode_on:
            return tuple(self._slice(one) for one in state.slices if one.uuid)
        board = self._facts
        return (Partition(f"{board.device_id}:whole", board.device_id, WHOLE, (), board.memory_bytes, board.device_id),)

    def cut(self, kind: str, busy: Collection[int | str] = ()) -> Partition:
        """See `Device`. Nothing is cut here: it names one that stands and that nobody has."""
        if kind not in self._facts.partition_kinds:
            raise InvalidField("partition_kind", f"{kind!r} is none of {', '.join(self._facts.partition_kinds)}")
        self._must_be_well()
        standing = [one for one in self.partitions() if one.kind == kind]
        if not standing:
            raise InvalidField("partition_kind", f"no {kind} stands on {self._facts.device_id}; {self._standing()}")
        free = [one for one in standing if one.uuid not in busy]
        if not free:
            raise InUse(
                f"every {kind} of {self._facts.device_id} has a replica or is somebody else's; measure on another node "
                "(`--node`), or once it is free",
                {"holder": standing[0].uuid},
            )
        return free[0]

    def check(self, device_id: str, kind: str, cpu_ids: Collection[int], uuid: str = "") -> None:
        """See `Device`."""
        board = self._facts.device_id
        if device_id not in ("", board):
            raise InvalidField("partition.device_id", f"this is {board}, not {device_id!r}")
        self._must_be_well()
        found = next((one for one in self.partitions() if one.uuid == uuid), None)
        if found is None:
            raise InvalidField("partition.uuid", f"{uuid!r} does not stand on {board}; {self._standing()}")
        if kind and kind != found.kind:
            raise InvalidField("partition.kind", f"{uuid} is {found.kind}, not {kind}")

    def read(self) -> Reading:
        """See `Device`. The last look's; never waits for the driver."""
        state = self._watch.state
        reading = state.reading
        detail = BoardDetail(
            power_source=state.power_source,
            power_cap_mw=reading.power_cap_mw if reading else None,
            temperature_c=reading.temperature_c if reading else None,
            sm_clock_mhz=reading.sm_clock_mhz if reading else None,
            memory_clock_mhz=reading.memory_clock_mhz if reading else None,
            clock_reasons=reading.clock_reasons if reading else (),
            ecc_uncorrected=reading.ecc_uncorrected if reading else None,
            slices=tuple(self._slice_detail(one) for one in state.slices if one.uuid),
            unallocated=state.unallocated if state.mode_on else None,
            events=state.events,
            fault_lasts=self._watch.fault_lasts,
        )
        return Reading(
            energy=state.energy,
            power_mw=state.power_mw,
            utilization=self._utilization(state),
            memory_used_bytes=reading.memory_used_bytes if reading else 0,
            fault=self._watch.fault,
            board=detail,
        )

    def meter(self, uuid: str, look: bool = True) -> MeterPoint | None:
        """See `Device`. The idle part of a slice is its share of memory."""
        if look:
            self._watch.look()
        state = self._watch.state
        board_used = state.reading.memory_used_bytes if state.reading else 0
        if uuid == self._facts.device_id and not state.mode_on:
            return MeterPoint(state.seen_at_s, state.energy, state.idle_mw, board_used)
        one = next((one for one in state.slices if one.uuid == uuid), None)
        if one is None or self._watch.table is None:
            raise InvalidField("partition.uuid", f"{uuid!r} does not stand on {self._facts.device_id} any more")
        idle_mw = state.idle_mw * one.instance.placement.size / self._watch.table.memory_slices
        used = one.reading.memory_used_bytes if one.reading else 0
        return MeterPoint(state.seen_at_s, one.energy, idle_mw, used)

    def rate(self) -> Rate:
        """See `Device`. None for CPU time: what steps cost is told to each replica by its own meter (step_rates.py)."""
        return Rate(0.0, FigureSource.UNAVAILABLE, "not-by-cpu-time@1")

    def _utilization(self, state: BoardState) -> float:
        if state.reading is not None and state.reading.utilization is not None:
            return state.reading.utilization
        whole = self._watch.facts.multiprocessor_count
        if not whole or self._watch.table is None:
            return 0.0
        busy = 0.0
        for one in state.slices:
            profile = self._watch.table.profile(one.instance.profile_id)
            if profile is not None and one.reading is not None:
                busy += (one.reading.sm_activity or 0.0) * profile.multiprocessor_count
        return min(1.0, busy / whole)

    def _slice(self, one: SliceState) -> Partition:
        board, instance = self._facts.device_id, one.instance
        name = f"{board}:mig:{instance.profile_id}@{instance.placement.start}"
        return Partition(name, board, one.kind, (), one.memory_bytes, one.uuid)

    def _slice_detail(self, one: SliceState) -> SliceDetail:
        reading = one.reading
        return SliceDetail(
            partition=self._slice(one),
            memory_used_bytes=reading.memory_used_bytes if reading else 0,
            sm_activity=reading.sm_activity if reading else None,
            dram_activity=reading.dram_activity if reading else None,
            energy=one.energy,
            power_mw=one.power_mw,
        )

    def _standing(self) -> str:
        kinds = sorted({one.kind for one in self.partitions()})
        return f"there is {', '.join(kinds)}" if kinds else "MIG is on and no slice stands"

    def _must_be_well(self) -> None:
        if fault := self._watch.fault:
            raise DeviceFault(f"{self._facts.device_id} is taken out: {fault}", {"device": self._facts.device_id})
