"""The machine behind the fake library, as tests drive it: the same verbs as `SimulatedMachine` has."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from services.node_agent.core.mig.model import GiProfile
from services.node_agent.gpu.known_boards import EIGHT_SEVEN, FOUR_FOUR
from services.node_agent.gpu.simulated.faults import Fault, FaultKind
from services.node_agent.gpu.simulated.products import Product
from services.node_agent.gpu.simulated.slices import SimulatedProcess

_WHOLE_BOARD: Final = 0xFFFFFFFF
_ANY: Final = -1
# Index of NVML's enumeration for each short name; that index is not the profile's id.
_INDEX: Final = {"1g": 0, "2g": 1, "3g": 2, "4g": 3, "7g": 4, "1g+me": 7, "2g+me": 8, "1g2m": 9}
# The function of the library that carries each verb of the port.
SYMBOLS: Final = {
    "set_mig_mode": "nvmlDeviceSetMigMode",
    "create_gpu_instance": "nvmlDeviceCreateGpuInstanceWithPlacement",
    "create_compute_instance": "nvmlGpuInstanceCreateComputeInstance",
    "destroy_compute_instance": "nvmlComputeInstanceDestroy",
    "destroy_gpu_instance": "nvmlGpuInstanceDestroy",
    "set_power_cap": "nvmlDeviceSetPowerManagementLimit",
    "lock_sm_clock": "nvmlDeviceSetGpuLockedClocks",
    "instances": "nvmlDeviceGetGpuInstances",
    "read": "nvmlDeviceGetPowerUsage",
}
_ANSWERS: Final = {
    FaultKind.IN_USE: 19, FaultKind.NO_ROOM: 23, FaultKind.NO_PERMISSION: 4, FaultKind.NOT_FOUND: 6,
    FaultKind.TROUBLE: 999, FaultKind.MISSING_SYMBOL: 13,
}  # fmt: skip
_KINDS: Final = {
    FaultKind.LOST_REPLY: 1, FaultKind.HANG: 2, FaultKind.NOT_ACTIVE: 3, FaultKind.BOARD_LOST: 4,
    FaultKind.FOREIGN_CREATE: 5, FaultKind.FOREIGN_DESTROY: 6, FaultKind.COUNTER_RESET: 7,
    FaultKind.COUNTER_FROZEN: 8, FaultKind.COUNTER_ABSENT: 9, FaultKind.CAP_CLIPPED: 10,
}  # fmt: skip
DIE_BEFORE, DIE_AFTER = 11, 12


class FakeMachine:
    """A machine in a file that processes share; it outlives them.

    Args:
        library: as `build` made it.
        file: of the machine; FAKE_NVML_MACHINE names it to other processes.
        products: its boards, in the driver's order.
        seed: of UUIDs.
    """

    def __init__(self, library: Path, file: Path, products: Sequence[Product], seed: int = 1) -> None:
        self.file, self.path = file, library
        self._c: Any = ctypes.CDLL(str(library))
        self._c.fake_load.argtypes = (ctypes.c_int, ctypes.c_uint, ctypes.c_double, ctypes.c_double)
        self._c.fake_advance.argtypes = (ctypes.c_longlong,)
        self._c.fake_hold.argtypes = (ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_ulonglong, ctypes.c_uint)
        self._c.fake_tell.argtypes = (ctypes.c_int, ctypes.c_ulonglong, ctypes.c_ulonglong, ctypes.c_uint)
        self._c.fake_calls.restype = ctypes.c_ulonglong
        self._c.fake_size_of.restype = ctypes.c_size_t
        failed = self._c.fake_open(str(file).encode(), 1)
        assert failed == 0, f"the machine's file cannot be made: {failed}"
        self.uuids = tuple(f"GPU-{seed:08x}-0000-4000-8000-{n:012x}" for n in range(len(products)))
        for number, (uuid, product) in enumerate(zip(self.uuids, products, strict=True)):
            self._add(number, uuid, product)
        self._c.fake_ready(seed)
        self._boots = 0

    @property
    def boot_id(self) -> str:
        """Differs after each reboot."""
        return f"boot-{self._boots}"

    @property
    def calls(self) -> int:
        """Calls of the library so far, by whomever."""
        return int(self._c.fake_calls())

    def advance(self, seconds: float) -> None:
        """Lets the machine's clock go on."""
        self._c.fake_advance(round(seconds * 1e6))

    def run_in_real_time(self) -> None:
        """From now on the machine's clock is the system's; `advance` does nothing any more."""
        self._c.fake_real_clock()

    def inject(self, *faults: Fault) -> None:
        """Adds faults; `verb` is one of the port or a function of NVML."""
        for fault in faults:
            number = int(fault.number * 1e3) if fault.kind is FaultKind.HANG else int(fault.number)
            kind, number = (0, _ANSWERS[fault.kind]) if fault.kind in _ANSWERS else (_KINDS[fault.kind], number)
            self._inject(fault, kind, number)

    def die(self, fault: Fault, before: bool) -> None:
        """Kills the process that makes the call, right before or right after it is done."""
        self._inject(fault, DIE_BEFORE if before else DIE_AFTER, 0)

    def reboot(self) -> None:
        """The machine starts anew."""
        self._boots += 1
        self._c.fake_reboot()

    def reset(self, uuid: str) -> None:
        """One board is reset."""
        self._c.fake_reset(self._index(uuid))

    def start_process(self, uuid: str, process: SimulatedProcess) -> None:
        """A process opens a board or a slice."""
        gi_id = _WHOLE_BOARD if process.gi_id is None else process.gi_id
        self._c.fake_hold(self._index(uuid), process.pid, gi_id, process.used_memory_bytes, int(process.hidden))

    def end_process(self, uuid: str, pid: int) -> None:
        """It ends."""
        self._c.fake_release(self._index(uuid), pid)

    def set_load(self, uuid: str, gi_id: int | None, sm: float, dram: float = 0.0) -> None:
        """What is at work from now on."""
        self._c.fake_load(self._index(uuid), _WHOLE_BOARD if gi_id is None else gi_id, sm, dram)

    def lose(self, uuid: str) -> None:
        """A board falls off the bus."""
        self.set(uuid, "lost", 1)

    def xid(self, uuid: str, number: int, gi_id: int | None = None) -> None:
        """The driver tells of an XID."""
        self._c.fake_tell(self._index(uuid), 0x8, number, _WHOLE_BOARD if gi_id is None else gi_id)

    def set(self, uuid: str, what: str, value: int) -> None:
        """Turns something; see fake_set in control.c."""
        self._c.fake_set(self._index(uuid), what.encode(), value)

    def size_of(self, struct: str) -> int:
        """Bytes of a struct, by its name in pynvml."""
        return int(self._c.fake_size_of(struct.encode()))

    def _inject(self, fault: Fault, kind: int, number: int) -> None:
        board = self._index(fault.uuid) if fault.uuid else _ANY
        start = fault.placement.start if fault.placement else 0
        numbers = (ctypes.c_int * 7)(kind, board, number, fault.profile_id, start, fault.after, fault.times)
        symbol = SYMBOLS.get(fault.verb, fault.verb)
        assert self._c.fake_inject(symbol.encode(), numbers) == 0, "too many faults wait"

    def _index(self, uuid: str) -> int:
        return self.uuids.index(uuid)

    def _add(self, number: int, uuid: str, product: Product) -> None:
        clocks, power = product.sm_clocks_mhz, product.power
        cores = product.multiprocessor_count * (64 if product.compute_capability == (8, 0) else 128)
        later = int(product.hopper_or_later)
        values = (
            *product.compute_capability, product.memory_bytes, product.multiprocessor_count, cores,
            power.least_mw, power.most_mw, power.default_mw, product.idle_mw,
            clocks[0], clocks[-1], clocks[1] - clocks[0], later, later, later, 1,
        )  # fmt: skip
        bus_id = f"00000000:{number + 1:02X}:00.0"
        array = (ctypes.c_ulonglong * len(values))(*values)
        self._c.fake_add_board(uuid.encode(), product.name.encode(), bus_id.encode(), array)
        shapes = FOUR_FOUR if product.table.memory_slices == 4 else EIGHT_SEVEN
        for short, profile in zip(shapes, product.table.profiles, strict=True):
            self._add_profile(number, _INDEX[short], profile)

    def _add_profile(self, board: int, index: int, profile: GiProfile) -> None:
        starts = [place.start for place in profile.placements]
        ofa = dict(profile.engines).get("ofa", 0)
        values = (
            index, profile.profile_id, profile.compute_slices, profile.placements[0].size, profile.instance_limit,
            profile.multiprocessor_count, ofa, profile.memory_bytes >> 20,
        )  # fmt: skip
        numbers = (ctypes.c_ulonglong * len(values))(*values)
        self._c.fake_add_profile(
            board, profile.name.encode(), numbers, (ctypes.c_uint * len(starts))(*starts), len(starts)
        )
