"""Products that can be simulated: what a board of each says of itself, and what it draws.

Tables of profiles are the known ones. Power and clocks are the vendor's nominal figures where published (most power,
highest clock); least caps, idle power and clock steps are assumptions of the right order, good for tests only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from services.node_agent.core.mig.model import DeviceTable
from services.node_agent.gpu.board_name import device_class
from services.node_agent.gpu.known_boards import A30, A100_40, A100_80, B200_180, H100_80, H100_94, H200_141, Board
from services.node_agent.gpu.port import PowerLimits

_MIB: Final = 1 << 20
_AMPERE, _HOPPER, _BLACKWELL = (8, 0), (9, 0), (10, 0)
_LEAST_CLOCK_MHZ: Final = 210
_CLOCK_STEP_MHZ: Final = 15


@dataclass(frozen=True, slots=True)
class Product:
    """A board as sold.

    Attributes:
        board: its known table.
        idle_mw: drawn with nothing at work.
        most_clock_mhz: highest SM clock.
    """

    board: Board
    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    multiprocessor_count: int
    power: PowerLimits
    idle_mw: int
    most_clock_mhz: int

    @property
    def device_class(self) -> str:
        """As profiles are kept by."""
        return device_class(self.name, self.memory_bytes)

    @property
    def hopper_or_later(self) -> bool:
        """Mode without a reset and lost at a reboot, profiles told while off, activity of slices told."""
        return self.compute_capability >= _HOPPER

    @property
    def sm_clocks_mhz(self) -> tuple[int, ...]:
        """SM clocks that it can be locked to."""
        return tuple(range(_LEAST_CLOCK_MHZ, self.most_clock_mhz + 1, _CLOCK_STEP_MHZ))

    @property
    def table(self) -> DeviceTable:
        """Its profiles; multiprocessors that no source gives are shared out by compute slices."""
        known = self.board.table
        per_slice = self.multiprocessor_count // known.compute_slices
        return DeviceTable(
            self.device_class.removeprefix("gpu:").upper(),
            tuple(
                replace(p, multiprocessor_count=p.multiprocessor_count or per_slice * p.compute_slices)
                for p in known.profiles
            ),
        )


def _product(
    board: Board, name: str, capability: tuple[int, int], mib: int, sms: int, watts: tuple[int, int, int], mhz: int
) -> Product:
    """A product; `watts` are its least cap, most (and default) cap, and idle power."""
    least_w, most_w, idle_w = watts
    limits = PowerLimits(least_w * 1000, most_w * 1000, most_w * 1000)
    return Product(board, name, capability, mib * _MIB, sms, limits, idle_w * 1000, mhz)


PRODUCTS: Final = {
    "a100-40": _product(A100_40, "NVIDIA A100-SXM4-40GB", _AMPERE, 40960, 108, (100, 400, 50), 1410),
    "a100-80": _product(A100_80, "NVIDIA A100-SXM4-80GB", _AMPERE, 81920, 108, (100, 400, 60), 1410),
    "h100-80": _product(H100_80, "NVIDIA H100 80GB HBM3", _HOPPER, 81559, 132, (200, 700, 70), 1980),
    "h100-94": _product(H100_94, "NVIDIA H100 NVL", _HOPPER, 95830, 132, (200, 400, 60), 1785),
    "h200-141": _product(H200_141, "NVIDIA H200", _HOPPER, 143771, 132, (200, 700, 75), 1980),
    "b200-180": _product(B200_180, "NVIDIA B200", _BLACKWELL, 183359, 148, (200, 1000, 140), 1965),
    "a30": _product(A30, "NVIDIA A30", _AMPERE, 24576, 56, (100, 165, 30), 1440),
}
