"""The layout a node is told while a rollout goes on: nothing is destroyed that still serves. Pure.

A slice that a live replica has stays until that replica has ended, and what would lie over it waits; everything else of
the new layout is made at once. Slices are named "DEVICE:mig:PROFILE@START"; sizes come from the board's own table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from services.orchestrator.core.facts.blueprint import NodeLayout
from services.orchestrator.core.facts.fleet import DEFAULT_POWER, Device, Node, Partition, PowerSetting, SliceKind

_MARK: Final = ":mig:"


def told_partitions(layout: NodeLayout, node: Node | None, held: Sequence[Partition]) -> tuple[Partition, ...]:
    """Partitions to tell a node now.

    Args:
        layout: what it shall have in the end.
        node: as reported; None when it was not heard.
        held: partitions of replicas that have not ended yet, planned or leaving.
    """
    if not held:
        return tuple(sorted(layout.partitions, key=lambda p: p.partition_id))
    devices = {d.device_id: d for d in node.devices} if node else {}
    told: list[Partition] = []
    for device_id in sorted({p.device_id for p in layout.partitions}):
        wanted = [p for p in layout.partitions if p.device_id == device_id]
        names = {p.partition_id for p in wanted}
        strangers = [p for p in held if p.device_id == device_id and p.partition_id not in names]
        told += _between(devices.get(device_id), wanted, strangers)
    return tuple(sorted(told, key=lambda p: p.partition_id))


def overlap(a: Partition, b: Partition, device: Device | None) -> bool:
    """Whether two partitions of one device cannot be there together; the safe answer when that is not known."""
    if a.device_id != b.device_id:
        return False
    first, second = _span(a, device), _span(b, device)
    if first is None or second is None:
        return True
    return first[0] < second[1] and second[0] < first[1]


def reported(partition: Partition, device: Device | None) -> Partition | None:
    """The partition as its node reports it, with its UUID; None while it is not there."""
    found = device.partitions if device else ()
    return next((p for p in found if p.partition_id == partition.partition_id), None)


def told_setting(wanted: PowerSetting, in_force: PowerSetting, *, serving: bool, boosted: bool) -> PowerSetting:
    """The power setting to tell a device now.

    Args:
        serving: a replica on its way out still serves there, planned for the setting in force.
        boosted: a deployment in danger is there; it runs at its default.
    """
    if boosted:
        return DEFAULT_POWER
    return _faster(wanted, in_force) if serving else wanted


def _between(device: Device | None, wanted: list[Partition], strangers: list[Partition]) -> list[Partition]:
    """What can be there while strangers still serve: they, and what of the wanted does not touch them."""
    if not strangers:
        return wanted
    kept = [*strangers]
    for partition in wanted:
        if not any(overlap(partition, other, device) for other in strangers):
            kept.append(partition)
    # Partitions that stay on the board whatever comes are enough when the mixture is none that the board can have.
    return kept if device is not None and _is_legal(kept, device) else list(device.partitions) if device else strangers


def _is_legal(partitions: Iterable[Partition], device: Device) -> bool:
    kinds = [_kind(p, device) for p in partitions]
    if any(kind is None for kind in kinds):
        return False
    found = [kind for kind in kinds if kind is not None]
    # What the board has of compute is what the profile that fills it best takes.
    whole = max((kind.compute_slices * kind.most for kind in device.table), default=0)
    if sum(kind.compute_slices for kind in found) > whole or sum(kind.extra_engine for kind in found) > 1:
        return False
    return all(sum(other == kind for other in found) <= kind.most for kind in found)


def _span(partition: Partition, device: Device | None) -> tuple[int, int] | None:
    kind = _kind(partition, device)
    start = partition.partition_id.rpartition("@")[2]
    return (int(start), int(start) + kind.memory_slices) if kind and start.isdigit() else None


def _kind(partition: Partition, device: Device | None) -> SliceKind | None:
    number = partition.partition_id.rpartition(_MARK)[2].partition("@")[0]
    if device is None or _MARK not in partition.partition_id or not number.isdigit():
        return None
    return next((kind for kind in device.table if kind.profile_id == int(number)), None)


def _faster(a: PowerSetting, b: PowerSetting) -> PowerSetting:
    """The setting that slows neither down; None, the default, is the fastest. Where both ease it eases."""
    clocks, caps = (a.sm_clock_mhz, b.sm_clock_mhz), (a.power_cap_mw, b.power_cap_mw)
    faster = PowerSetting(
        None if None in clocks else max(c for c in clocks if c is not None),
        None if None in caps else max(c for c in caps if c is not None),
    )
    if faster != DEFAULT_POWER or a.eased_sm_clock_mhz is None or b.eased_sm_clock_mhz is None:
        return faster
    return PowerSetting(eased_sm_clock_mhz=max(a.eased_sm_clock_mhz, b.eased_sm_clock_mhz))
