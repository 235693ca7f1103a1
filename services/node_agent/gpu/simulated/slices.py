"""Slices of a simulated board: what a board lets be created and destroyed. Rules of the device, not of the planner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from services.node_agent.core.mig.model import DeviceTable, GiProfile, Placement
from services.node_agent.gpu.faults import InUse, InvalidRequest, NoRoom, NotSupported, NotThere
from services.node_agent.gpu.port import ComputeInstance, GpuInstance

# NVML's numbers, so that a test sees the same answer of every back-end.
_INVALID, _NOT_SUPPORTED, _NOT_FOUND, _IN_USE, _NO_ROOM = 2, 3, 6, 19, 23
# GPU instance ids go up from here; the lowest free one is taken, so ids come back.
_FIRST_ID: Final = 1


@dataclass(frozen=True, slots=True)
class SimulatedProcess:
    """A process on a board: on a slice, or on the whole board (`gi_id` None). A hidden one is in no list."""

    pid: int
    gi_id: int | None
    used_memory_bytes: int = 0
    hidden: bool = False


class SliceRules:
    """Instances of one board.

    Args:
        table: its profiles.
        uuid: of the board, for messages.
        new_uuid: gives each compute instance a UUID that never was before.
    """

    def __init__(self, table: DeviceTable, uuid: str, new_uuid: Callable[[], str]) -> None:
        self._table, self._uuid, self._new_uuid = table, uuid, new_uuid
        self.enabled = self.pending = False
        self.processes: dict[int, SimulatedProcess] = {}
        self._instances: dict[int, GpuInstance] = {}

    def all(self) -> tuple[GpuInstance, ...]:
        """Instances by start."""
        return tuple(sorted(self._instances.values(), key=lambda one: one.placement.start))

    def clear(self) -> None:
        """Everything is gone, as after a reset."""
        self._instances.clear()
        self.processes.clear()

    def create(self, profile_id: int, placement: Placement) -> int:
        """Creates an instance; its id."""
        self._must_be_enabled()
        profile = self._profile(profile_id)
        if placement not in profile.placements:
            raise InvalidRequest(f"{profile.name} cannot start at {placement.start}", _INVALID, self._uuid)
        self._must_have_room(profile, placement)
        gi_id = next(n for n in range(_FIRST_ID, _FIRST_ID + 64) if n not in self._instances)
        self._instances[gi_id] = GpuInstance(gi_id, profile_id, placement)
        return gi_id

    def create_compute(self, gi_id: int) -> ComputeInstance:
        """Creates the compute instance that takes all of an instance."""
        instance = self._instance(gi_id)
        if instance.compute:
            raise NoRoom(f"GPU instance {gi_id} has no compute slice left", _NO_ROOM, self._uuid)
        made = ComputeInstance(0, self._new_uuid())
        self._instances[gi_id] = replace(instance, compute=(made,))
        return made

    def destroy_compute(self, gi_id: int, ci_id: int) -> None:
        """Destroys a compute instance that no process holds."""
        instance = self._instance(gi_id)
        if all(one.ci_id != ci_id for one in instance.compute):
            raise NotThere(f"GPU instance {gi_id} has no compute instance {ci_id}", _NOT_FOUND, self._uuid)
        self._must_be_free(gi_id)
        self._instances[gi_id] = replace(instance, compute=())

    def destroy(self, gi_id: int) -> None:
        """Destroys an instance without compute instances."""
        instance = self._instance(gi_id)
        if instance.compute:
            raise InUse(f"GPU instance {gi_id} has a compute instance", _IN_USE, self._uuid)
        self._must_be_free(gi_id)
        del self._instances[gi_id]

    def at(self, placement: Placement) -> GpuInstance | None:
        """The instance at a place."""
        return next((one for one in self._instances.values() if one.placement == placement), None)

    def _must_have_room(self, profile: GiProfile, placement: Placement) -> None:
        standing = [(one, self._profile(one.profile_id)) for one in self._instances.values()]
        seats = {seat for one, _ in standing for seat in _seats(one.placement)}
        if seats & _seats(placement):
            raise NoRoom(f"{profile.name} at {placement.start} overlaps what exists", _NO_ROOM, self._uuid)
        if sum(p.profile_id == profile.profile_id for _, p in standing) >= profile.instance_limit:
            raise NoRoom(f"{profile.instance_limit} instances of {profile.name} are the most", _NO_ROOM, self._uuid)
        compute = sum(p.compute_slices for _, p in standing) + profile.compute_slices
        if compute > self._table.compute_slices:
            raise NoRoom(f"{compute} of {self._table.compute_slices} compute slices wanted", _NO_ROOM, self._uuid)
        for engine, limit in self._table.engine_limits.items():
            if sum(dict(p.engines).get(engine, 0) for p in (profile, *(p for _, p in standing))) > limit:
                raise NoRoom(f"no engine {engine} is left for {profile.name}", _NO_ROOM, self._uuid)

    def _must_be_free(self, gi_id: int) -> None:
        if any(process.gi_id == gi_id for process in self.processes.values()):
            raise InUse(f"a process holds GPU instance {gi_id}", _IN_USE, self._uuid)

    def _must_be_enabled(self) -> None:
        if not self.enabled:
            raise NotSupported("MIG mode is off", _NOT_SUPPORTED, self._uuid)

    def _instance(self, gi_id: int) -> GpuInstance:
        if gi_id not in self._instances:
            raise NotThere(f"no GPU instance {gi_id}", _NOT_FOUND, self._uuid)
        return self._instances[gi_id]

    def _profile(self, profile_id: int) -> GiProfile:
        profile = self._table.profile(profile_id)
        if profile is None:
            raise InvalidRequest(f"no profile {profile_id}", _INVALID, self._uuid)
        return profile


def _seats(placement: Placement) -> set[int]:
    return set(range(placement.start, placement.start + placement.size))
