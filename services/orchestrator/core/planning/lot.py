"""One device while a plan lays it out: what is claimed, what leaving replicas still hold, what is new. Never kept.

Units are core numbers of a CPU, seats of a board. A mover (a deployment that has replicas already) takes free units
and those of its own leaving replicas; a newcomer takes any unit that is not claimed and waits for it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from services.orchestrator.core.facts.blueprint import Replica
from services.orchestrator.core.facts.fleet import Partition, PowerSetting
from services.orchestrator.core.planning.ground import Group, Spot
from services.orchestrator.core.planning.offer import USABLE_MEMORY_SHARE
from services.orchestrator.core.planning.parcel import Opening
from services.orchestrator.core.planning.scores import Item


@dataclass(slots=True)
class Lot:
    """A device with its opening.

    Attributes:
        slots: partitions left by kind, None when only cores count.
        served: deployments of which replicas stand here when all is done.
    """

    group: Group
    spot: Spot
    opening: Opening | None = None
    claimed: set[int] = field(default_factory=set)
    held: dict[str, set[int]] = field(default_factory=dict)
    memory_bytes: int = 0
    slots: Counter[str] | None = None
    fresh: Counter[str] = field(default_factory=Counter)
    kept: list[Replica] = field(default_factory=list)
    new: list[tuple[Item, tuple[int, ...]]] = field(default_factory=list)
    served: set[str] = field(default_factory=set)

    def open(self, opening: Opening) -> None:
        """Sets how it is cut and powered; done before anything is kept or placed."""
        self.opening = opening
        self.slots = Counter(dict(opening.cut)) if opening.cut is not None else None

    def hold(self) -> None:
        """Notes what stands here; until it is kept it is on its way out."""
        for replica in self.spot.replicas:
            self.held.setdefault(replica.deployment_id, set()).update(self.units_of(replica))
            self.memory_bytes += replica.memory_bytes

    @property
    def power(self) -> PowerSetting:
        """The setting it shall have; what is left alone keeps the one it has."""
        return self.opening.power if self.opening is not None else self.group.likeness.setting

    def keep(self, replica: Replica) -> bool:
        """Keeps a replica where it is, unless another has its units by now."""
        units = self.units_of(replica)
        if units & self.claimed or replica in self.kept:
            return False
        self.claimed |= units
        self.held[replica.deployment_id] -= units
        self.kept.append(replica)
        self.served.add(replica.deployment_id)
        if self.slots is not None:
            self.slots[replica.partition.kind] -= 1
        return True

    def place(self, item: Item, *, mover: bool) -> bool:
        """Finds room for one new replica."""
        usable = self.spot.device.memory_bytes * USABLE_MEMORY_SHARE
        if item.memory_bytes and self.memory_bytes + item.memory_bytes > usable:
            return False
        if self.slots is not None and self.slots[item.kind] <= 0:
            return False
        units = self._cores(item, mover=mover) if self.group.board is None else self._seat(item, mover=mover)
        if units is None:
            return False
        self.claimed.update(units)
        self.memory_bytes += item.memory_bytes
        self.new.append((item, units))
        self.served.add(item.deployment_id)
        if self.slots is not None:
            self.slots[item.kind] -= 1
        return True

    def units_of(self, replica: Replica) -> set[int]:
        """What a replica takes of the device."""
        if self.group.board is None:
            return set(replica.partition.cpu_ids)
        mask = self.group.board.mask_of(self.spot.device.device_id, (replica.partition.partition_id,))
        return {index for index in range(mask.bit_length()) if mask >> index & 1}

    def layout(self) -> int | None:
        """The mask of a board's slices: everything occupied or new, and what stands and does no harm."""
        board, like = self.group.board, self.group.likeness
        assert board is not None
        wanted = board.kinds_of(like.occupied)
        wanted.update(self.fresh)
        return board.cut(wanted, like.occupied, like.standing)

    def partitions(self, mask: int) -> list[tuple[Item, Partition]]:
        """Partitions of new replicas, given the layout of a board; of a CPU they are cut from its cores."""
        device, board = self.spot.device, self.group.board
        if board is None:
            return [(item, _core_set(device.device_id, units, device.memory_bytes)) for item, units in self.new]
        occupied, found, taken = self.group.likeness.occupied, list[tuple[Item, Partition]](), set[int]()
        for item, units in self.new:
            seat = units[0] if units else None
            if seat is None:
                free = [i for i, s in enumerate(board.seats) if s.kind == item.kind and mask >> i & 1]
                left = [i for i in free if not occupied >> i & 1 and i not in taken]
                seat = min(left, key=lambda i: (not self.group.likeness.standing >> i & 1, i))
            taken.add(seat)
            found.append((item, board.partition(device, seat)))
        return found

    def _cores(self, item: Item, *, mover: bool) -> tuple[int, ...] | None:
        held = set[int]().union(*self.held.values())
        cores = sorted(self.spot.device.cpu_ids)
        free = [cpu for cpu in cores if cpu not in self.claimed and cpu not in held]
        if len(free) >= item.units:
            return tuple(_neighbours(free, item.units))
        again = self.held.get(item.deployment_id, set()) if mover else held
        found = free + [cpu for cpu in cores if cpu not in self.claimed and cpu in again]
        return tuple(found[: item.units]) if len(found) >= item.units else None

    def _seat(self, item: Item, *, mover: bool) -> tuple[int, ...] | None:
        """A held seat of the kind when no other is left; () stands for one that the layout will give."""
        board, like = self.group.board, self.group.likeness
        assert board is not None
        assert self.opening is not None
        assert self.opening.cut is not None
        free = dict(self.opening.cut).get(item.kind, 0) - board.kinds_of(like.occupied)[item.kind]
        if self.fresh[item.kind] < free:
            self.fresh[item.kind] += 1
            return ()
        again = self.held.get(item.deployment_id, set()) if mover else set[int]().union(*self.held.values())
        found = [seat for seat in sorted(again - self.claimed) if board.seats[seat].kind == item.kind]
        return (found[0],) if found else None


def _core_set(device_id: str, units: tuple[int, ...], memory_bytes: int) -> Partition:
    cpu_ids = tuple(sorted(units))
    name = f"{device_id}:cores={_ranges(cpu_ids)}"
    return Partition(name, device_id, f"cpu/{len(cpu_ids)}", cpu_ids, memory_bytes=memory_bytes)


def _neighbours(free: list[int], need: int) -> list[int]:
    """The first run of neighbouring cores that is long enough, else the first cores."""
    for start in range(len(free) - need + 1):
        if free[start + need - 1] - free[start] == need - 1:
            return free[start : start + need]
    return free[:need]


def _ranges(ids: tuple[int, ...]) -> str:
    parts: list[str] = []
    start = last = ids[0]
    for number in (*ids[1:], -1):
        if number == last + 1:
            last = number
            continue
        parts.append(str(start) if start == last else f"{start}-{last}")
        start = last = number
    return ",".join(parts)
