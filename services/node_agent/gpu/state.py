"""A board as its watch last saw it: immutable, handed from the watch's thread to whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from services.node_agent.core.mig.model import DeviceTable
from services.node_agent.gpu.port import BoardReading, GpuInstance, SliceReading
from tradewind.domain.figures import EnergyFigure, FigureSource

NO_ENERGY: Final = EnergyFigure(0.0, FigureSource.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class SliceState:
    """A slice.

    Attributes:
        instance: as it stands.
        kind: of the partition, for instance "mig/1g.10gb".
        uuid: what a process opens; "" for one without a compute instance.
        memory_bytes: that a process can use.
        reading: None until there is one.
        energy: attributed to it since it was first seen.
        power_mw: over the last window.
    """

    instance: GpuInstance
    kind: str
    uuid: str
    memory_bytes: int
    reading: SliceReading | None
    energy: EnergyFigure
    power_mw: float


@dataclass(frozen=True, slots=True)
class BoardState:
    """A board.

    Attributes:
        seen_at_s: when the last look ended.
        mode_on: whether MIG is on.
        slices: every GPU instance, by start.
        reading: None until there is one.
        energy: of the whole board since the watch began.
        power_mw: mean over the last window, five seconds where there are so many.
        power_source: label of `power_mw`.
        idle_mw: least power seen.
        unallocated: energy of no slice.
        former_mj: energy of slices that are gone; with slices and unallocated it sums to the board.
        events: how often each kind came, by "kind" or "xid 48".
    """

    seen_at_s: float
    mode_on: bool = False
    slices: tuple[SliceState, ...] = ()
    reading: BoardReading | None = None
    energy: EnergyFigure = NO_ENERGY
    power_mw: float = 0.0
    power_source: FigureSource = FigureSource.UNAVAILABLE
    idle_mw: float = 0.0
    unallocated: EnergyFigure = NO_ENERGY
    former_mj: float = 0.0
    events: tuple[tuple[str, int], ...] = ()


def seen(instance: GpuInstance, table: DeviceTable, known: Mapping[str, SliceState]) -> SliceState:
    """A slice as it was just listed; what is known of the same one stays with it.

    Args:
        instance: as listed.
        table: profiles of the board.
        known: slices of before by UUID.
    """
    uuid = instance.compute[0].uuid if instance.compute else ""
    if uuid and uuid in known:
        return replace(known[uuid], instance=instance)
    profile = table.profile(instance.profile_id)
    return SliceState(
        instance=instance,
        kind=f"mig/{profile.name if profile else instance.profile_id}",
        uuid=uuid,
        memory_bytes=profile.memory_bytes if profile else 0,
        reading=None,
        energy=NO_ENERGY,
        power_mw=0.0,
    )
