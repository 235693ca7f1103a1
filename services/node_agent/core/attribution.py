"""Splits the energy of a board among its slices. Pure; the parts always sum to the board.

No board tells the energy of a slice, and slices on one board share caches, memory and clocks: this is a rule for
sharing a bill, not a measurement, and its label is never better than `attributed`.

    idle part    by share of memory slices; the share of free ones goes to "unallocated"
    active part  by multiprocessors × (their activity + a share of memory activity, where those are told);
                 where no activity is told (before Hopper) by multiprocessors of slices with a process
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Memory traffic against arithmetic at the same share of their maximum. An assumption: nobody has published it per
# board; turning slices on one at a time would give it.
DRAM_WEIGHT: Final = 0.5
BY_ACTIVITY: Final = "by-activity@1"
BY_OCCUPANCY: Final = "by-occupied-multiprocessors@1"


@dataclass(frozen=True, slots=True)
class SliceUse:
    """A slice over a window.

    Attributes:
        key: names it, for instance its UUID.
        memory_slices: that it holds.
        multiprocessors: that it holds.
        sm_activity, dram_activity: shares in [0, 1]; None where not told.
        occupied: whether a process is on it.
    """

    key: str
    memory_slices: int
    multiprocessors: int
    sm_activity: float | None
    dram_activity: float | None
    occupied: bool


@dataclass(frozen=True, slots=True)
class Attribution:
    """Energy of a window by slice, in millijoules; `unallocated_mj` is nobody's."""

    slices: dict[str, float]
    unallocated_mj: float
    rule: str


def attribute(energy_mj: float, idle_mj: float, memory_slices: int, uses: Sequence[SliceUse]) -> Attribution:
    """Splits the energy of a window.

    Args:
        energy_mj: of the board.
        idle_mj: what it would have used with nothing at work.
        memory_slices: of the board.
        uses: its slices; their memory slices sum to no more than the board's.
    """
    idle_mj = min(max(0.0, idle_mj), energy_mj)
    told = all(use.sm_activity is not None for use in uses)
    weights = [_activity(use) if told else use.multiprocessors * float(use.occupied) for use in uses]
    active_mj, total = energy_mj - idle_mj, sum(weights)
    parts: dict[str, float] = {}
    for use, weight in zip(uses, weights, strict=True):
        # Work that nobody's activity explains stays unallocated.
        share = weight / total if total > 0 else 0.0
        parts[use.key] = idle_mj * use.memory_slices / max(1, memory_slices) + active_mj * share
    unallocated_mj = max(0.0, energy_mj - sum(parts.values()))
    return Attribution(parts, unallocated_mj, BY_ACTIVITY if told else BY_OCCUPANCY)


def _activity(use: SliceUse) -> float:
    return use.multiprocessors * ((use.sm_activity or 0.0) + DRAM_WEIGHT * (use.dram_activity or 0.0))
