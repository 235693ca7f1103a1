"""From the partitions that a target names on a board to the wish for its layout. Pure.

A slice is named by its place, "GPU-…:mig:9@4" (profile 9 at memory slice 4), or, where its name tells no place, by its
kind alone, "mig/3g.40gb": the node then puts it where it disturbs least. The whole board is "gpu/whole".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.node_agent.core.mig.goal import Order, Wish
from services.node_agent.core.mig.model import MAX_MEMORY_SLICES, DeviceTable, Slice
from tradewind.domain.errors import InvalidField

WHOLE_KIND: Final = "gpu/whole"
MIG_PREFIX: Final = "mig/"
_PLACE: Final = re.compile(r"(?P<uuid>.+):mig:(?P<profile>\d{1,5})@(?P<start>\d{1,3})")


@dataclass(frozen=True, slots=True)
class WantedPartition:
    """A partition as a target names it."""

    partition_id: str
    device_id: str
    kind: str


def partition_id(uuid: str, place: Slice) -> str:
    """Name of a slice, the same for whatever is made at this place."""
    return f"{uuid}:mig:{place}"


def whole_id(uuid: str) -> str:
    """Name of the whole board as a partition."""
    return f"{uuid}:whole"


def kind_of(table: DeviceTable | None, place: Slice) -> str:
    """Kind that profiles are kept by."""
    profile = table.profile(place.profile_id) if table else None
    return f"{MIG_PREFIX}{profile.name if profile else place.profile_id}"


def wish_of(order: Order, uuid: str, wanted: Sequence[WantedPartition], table: DeviceTable | None) -> Wish:
    """The wish for one board.

    Args:
        order: of the target.
        uuid: of the board.
        wanted: its partitions; at least one.
        table: profiles that the board offers; None for one that cannot be cut.

    Raises:
        InvalidField: a kind or place that the board does not have, or the whole board beside slices of it.
    """
    if any(one.kind == WHOLE_KIND for one in wanted):
        if len(wanted) > 1:
            raise InvalidField("target.partitions", f"{uuid} is wanted whole and in slices; it can be one or the other")
        return Wish(order, mig=False)
    if table is None:
        raise InvalidField("target.partitions", f"{uuid} cannot be cut into slices; it can be used whole")
    counts: Counter[int] = Counter()
    fixed: list[Slice] = []
    for one in wanted:
        place = _place(uuid, one, table)
        counts[place.profile_id if place else _profile_id(one, table)] += 1
        fixed += [place] if place else []
    if len(set(fixed)) != len(fixed):
        raise InvalidField("target.partitions", f"{uuid}: one place is wanted twice")
    return Wish(order, True, tuple(sorted(counts.items())), tuple(sorted(fixed)))


def _profile_id(one: WantedPartition, table: DeviceTable) -> int:
    profile = table.named(one.kind.removeprefix(MIG_PREFIX))
    if profile is None or not one.kind.startswith(MIG_PREFIX):
        offered = ", ".join(f"{MIG_PREFIX}{profile.name}" for profile in table.profiles)
        raise InvalidField("target.partitions.kind", f"{one.kind!r} is no kind of {one.device_id}; it has {offered}")
    return profile.profile_id


def _place(uuid: str, one: WantedPartition, table: DeviceTable) -> Slice | None:
    match = _PLACE.fullmatch(one.partition_id)
    if match is None:
        return None
    profile = table.profile(int(match["profile"]))
    start = int(match["start"])
    found = next((p for p in profile.placements if p.start == start), None) if profile else None
    if match["uuid"] != uuid or profile is None or found is None or start >= MAX_MEMORY_SLICES:
        raise InvalidField("target.partitions.partition_id", f"{one.partition_id!r} is no place on {uuid}")
    if one.kind and one.kind != f"{MIG_PREFIX}{profile.name}":
        raise InvalidField(
            "target.partitions.kind", f"{one.partition_id!r} is a {MIG_PREFIX}{profile.name}, not a {one.kind}"
        )
    return Slice(found.start, found.size, profile.profile_id)
