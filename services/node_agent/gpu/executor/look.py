"""Reads a board into the `Sight` that decisions are made from. Looks; changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.node_agent.core.board_wish import partition_id, whole_id
from services.node_agent.core.mig.execution import Sight
from services.node_agent.core.mig.model import Layout, Slice
from services.node_agent.gpu.faults import NotSupported
from services.node_agent.gpu.port import BoardFacts, GpuInstance, GpuReader, MigMode

# Who holds partitions for all the agent knows itself, by partition id: names of replicas.
Held = Callable[[], Mapping[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Look:
    """A board as read: what decisions need, and the instances by place with their ids and UUIDs."""

    sight: Sight
    instances: Mapping[Slice, GpuInstance]


def look(reader: GpuReader, board: BoardFacts, held: Held) -> Look:
    """Reads a board.

    Raises:
        GpuError: it could not be read.
    """
    mode = _mode(reader, board)
    found = reader.instances(board.uuid) if mode.current else ()
    instances = {slice_of(one): one for one in found}
    known = held()
    holders: dict[Slice, tuple[str, ...]] = {
        place: known.get(partition_id(board.uuid, place), ()) for place in instances
    }
    whole = known.get(whole_id(board.uuid), ())
    places = {one.gi_id: place for place, one in instances.items()}
    for process in reader.processes(board.uuid):
        if process.gi_id in places:
            holders[places[process.gi_id]] += (f"pid {process.pid}",)
        elif process.gi_id is None:
            whole += (f"pid {process.pid}",)
    sight = Sight(
        capable=board.mig_capable,
        resetless=board.resetless_mode,
        mig=mode.current,
        pending=mode.pending,
        layout=Layout.of(instances),
        bare=frozenset(place for place, one in instances.items() if not one.compute),
        holders={place: names for place, names in holders.items() if names},
        whole=whole,
    )
    return Look(sight, instances)


def slice_of(one: GpuInstance) -> Slice:
    """The place and profile of an instance."""
    return Slice(one.placement.start, one.placement.size, one.profile_id)


def _mode(reader: GpuReader, board: BoardFacts) -> MigMode:
    if not board.mig_capable:
        return MigMode(False, False)
    try:
        return reader.mig_mode(board.uuid)
    except NotSupported:
        return MigMode(False, False)
