"""Energy from RAPL counters, packages and their memory, where the kernel lets us read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.node_agent.core.energy import counter_growth
from tradewind.domain.figures import FigureSource

ROOT: Final = Path("/sys/class/powercap")
# Zones that add up without counting anything twice: "core" and "uncore" lie inside "package", "psys" around it.
_PACKAGE: Final = "package"
_MEMORY: Final = "dram"


@dataclass(slots=True)
class _Zone:
    """A counter in microjoules."""

    file: Path
    wraps_at_uj: int
    last_uj: int
    total_uj: int = 0

    def advance(self) -> int:
        now_uj = _number(self.file)
        self.total_uj += counter_growth(self.last_uj, now_uj, self.wraps_at_uj)
        self.last_uj = now_uj
        return self.total_uj


class RaplMeter:
    """Sums package and memory zones. Open it with `open_rapl`."""

    source = FigureSource.MEASURED_COUNTER

    def __init__(self, zones: list[_Zone], method: str) -> None:
        self._zones = zones
        self.method = method

    def energy_mj(self) -> float:
        """See `Meter`. A zone that cannot be read this time counts later."""
        total_uj = 0
        for zone in self._zones:
            try:
                total_uj += zone.advance()
            except OSError:
                total_uj += zone.total_uj
        return total_uj / 1e3


def open_rapl(root: Path = ROOT) -> RaplMeter | None:
    """The meter of this machine; None where there are no zones or they may not be read."""
    zones: list[_Zone] = []
    names: list[str] = []
    for folder in sorted(root.glob("intel-rapl:*")) if root.is_dir() else []:
        try:
            name = (folder / "name").read_text(encoding="ascii").strip()
            if not name.startswith(_PACKAGE) and name != _MEMORY:
                continue
            counter = folder / "energy_uj"
            zones.append(_Zone(counter, _number(folder / "max_energy_range_uj"), _number(counter)))
            names.append(name)
        except (OSError, ValueError):
            # A zone that may not be read would make the sum too small: then there is no meter.
            return None
    if not any(name.startswith(_PACKAGE) for name in names):
        return None
    return RaplMeter(zones, f"rapl@1({'+'.join(sorted(names))})")


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
