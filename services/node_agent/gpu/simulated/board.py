"""One simulated board: its mode, slices, power, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.node_agent.gpu.faults import InvalidRequest
from services.node_agent.gpu.port import Activation, BoardFacts, BoardReading, GpuProcess, MigMode, SliceReading
from services.node_agent.gpu.simulated.power import PowerRail
from services.node_agent.gpu.simulated.products import Product
from services.node_agent.gpu.simulated.slices import SimulatedProcess, SliceRules

_INVALID: Final = 2
_IDLE_C, _BUSY_C = 35, 75
_MEMORY_CLOCK_MHZ: Final = 1593


class SimulatedBoard:
    """A board.

    Args:
        product: what it is.
        uuid: "GPU-…".
        pci_bus_id: where it sits.
        now_s: clock of the machine.
        new_uuid: for compute instances.
    """

    def __init__(
        self, product: Product, uuid: str, pci_bus_id: str, now_s: Callable[[], float], new_uuid: Callable[[], str]
    ) -> None:
        self.product, self.uuid, self.pci_bus_id, self._now_s = product, uuid, pci_bus_id, now_s
        self.table = product.table
        self.slices = SliceRules(self.table, uuid, new_uuid)
        self.rail = PowerRail(product, now_s())
        self.lost = False
        self.ecc_uncorrected = 0
        # A machine that passes boards through cannot reset them: modes of Ampere then wait for a reboot.
        self.resettable = True
        # What the next change of mode answers instead of happening.
        self.next_activation: Activation | None = None
        self._loads: dict[int | None, tuple[float, float]] = {}

    def facts(self, peers: tuple[str, ...]) -> BoardFacts:
        """See `BoardFacts`."""
        product = self.product
        return BoardFacts(
            uuid=self.uuid,
            product_name=product.name,
            device_class=product.device_class,
            pci_bus_id=self.pci_bus_id,
            compute_capability=product.compute_capability,
            memory_bytes=product.memory_bytes,
            multiprocessor_count=product.multiprocessor_count,
            mig_capable=True,
            resetless_mode=product.hopper_or_later,
            query_while_off=product.hopper_or_later,
            power=product.power,
            sm_clocks_mhz=product.sm_clocks_mhz,
            peers=peers,
        )

    def mode(self) -> MigMode:
        """See `MigMode`."""
        return MigMode(self.slices.enabled, self.slices.pending)

    def set_mode(self, enabled: bool) -> Activation:
        """Changes the mode where nothing holds the board. Assumed: slices hold it, too."""
        slices, forced = self.slices, self.next_activation
        self.next_activation = None
        if forced is Activation.NOT_SUPPORTED:
            return forced
        slices.pending = enabled
        if forced is not None:
            return forced
        if enabled == slices.enabled:
            return Activation.ACTIVE
        if slices.processes or slices.all():
            return Activation.IN_USE
        if not self.product.hopper_or_later and not self.resettable:
            return Activation.RESET_REQUIRED
        slices.enabled = enabled
        return Activation.ACTIVE

    def reset(self, rebooted: bool) -> None:
        """A reset or reboot: slices, processes, caps and counter are gone; Hopper forgets its mode at a reboot."""
        slices = self.slices
        slices.clear()
        self._loads.clear()
        if rebooted and self.product.hopper_or_later:
            slices.pending = False
        slices.enabled = slices.pending
        self.rail = PowerRail(self.product, self._now_s())
        self.lost, self.ecc_uncorrected = False, 0

    def start_process(self, process: SimulatedProcess) -> None:
        """A process opens the board or a slice."""
        self.slices.processes[process.pid] = process

    def end_process(self, pid: int) -> None:
        """It ends."""
        self.slices.processes.pop(pid, None)

    def set_load(self, gi_id: int | None, sm: float, dram: float) -> None:
        """Shares of a slice, or of the whole board, that are at work from now on."""
        self._loads[gi_id] = (sm, dram)
        self.refresh_load()

    def refresh_load(self) -> None:
        """Counts only what still exists. To be called after each change of slices."""
        sms = {one.gi_id: self._multiprocessors(one.profile_id) for one in self.slices.all()}
        self._loads = {gi_id: load for gi_id, load in self._loads.items() if gi_id is None or gi_id in sms}
        whole = self.product.multiprocessor_count
        busy = sum(sm * (whole if gi_id is None else sms[gi_id]) for gi_id, (sm, _) in self._loads.items())
        self.rail.set_load(min(1.0, busy / whole), self._now_s())

    def processes(self) -> tuple[GpuProcess, ...]:
        """Those that can be seen."""
        seen = (one for one in self.slices.processes.values() if not one.hidden)
        return tuple(GpuProcess(one.pid, one.gi_id, one.used_memory_bytes) for one in seen)

    def read(self) -> BoardReading:
        """See `BoardReading`."""
        now_s, rail = self._now_s(), self.rail
        energy_mj = rail.energy_mj(now_s)
        busy = any(sm for sm, _ in self._loads.values())
        reasons = [*(["sw_power_cap"] if rail.capped else []), *([] if busy else ["gpu_idle"])]
        share = (rail.power_mw - self.product.idle_mw) / (self.product.power.most_mw - self.product.idle_mw)
        return BoardReading(
            energy_mj=energy_mj,
            power_mw=rail.power_mw,
            power_cap_mw=rail.enforced_mw,
            temperature_c=round(_IDLE_C + (_BUSY_C - _IDLE_C) * max(0.0, share)),
            sm_clock_mhz=rail.clock_mhz,
            memory_clock_mhz=_MEMORY_CLOCK_MHZ,
            clock_reasons=tuple(reasons),
            utilization=None if self.slices.enabled else self._loads.get(None, (0.0, 0.0))[0],
            memory_used_bytes=sum(one.used_memory_bytes for one in self.slices.processes.values()),
            ecc_uncorrected=self.ecc_uncorrected,
        )

    def read_slices(self) -> tuple[SliceReading, ...]:
        """See `SliceReading`; activity from Hopper on."""
        return tuple(self._read_slice(one.gi_id, one.profile_id) for one in self.slices.all() if one.compute)

    def set_power_cap(self, cap_mw: int | None) -> None:
        """Sets the cap, within the limits of the product."""
        limits = self.product.power
        if cap_mw is not None and not limits.least_mw <= cap_mw <= limits.most_mw:
            raise InvalidRequest(f"{cap_mw} mW is not in {limits.least_mw}…{limits.most_mw}", _INVALID, self.uuid)
        self.rail.advance(self._now_s())
        self.rail.cap_mw = limits.default_mw if cap_mw is None else cap_mw

    def lock_sm_clock(self, clock_mhz: int | None) -> None:
        """Locks the clock, within those of the product."""
        clocks = self.product.sm_clocks_mhz
        if clock_mhz is not None and not clocks[0] <= clock_mhz <= clocks[-1]:
            raise InvalidRequest(f"{clock_mhz} MHz is not in {clocks[0]}…{clocks[-1]}", _INVALID, self.uuid)
        self.rail.advance(self._now_s())
        self.rail.locked_mhz = clock_mhz

    def _read_slice(self, gi_id: int, profile_id: int) -> SliceReading:
        profile = self.table.profile(profile_id)
        assert profile is not None
        used = sum(one.used_memory_bytes for one in self.slices.processes.values() if one.gi_id == gi_id)
        sm, dram = self._loads.get(gi_id, (0.0, 0.0))
        told = self.product.hopper_or_later
        return SliceReading(gi_id, used, profile.memory_bytes, sm if told else None, dram if told else None)

    def _multiprocessors(self, profile_id: int) -> int:
        profile = self.table.profile(profile_id)
        return profile.multiprocessor_count if profile else 0
