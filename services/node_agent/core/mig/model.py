"""Words of a board cut into slices: profile, placement, slice, layout, table, and what stands on a board now.

Data only. What is legal is said in `space.py` and, a second time and independently, in `check.py`; this module must
not say it. Everything here is as the device itself reports it at run time: no table of a product belongs in here.

Memory slices are the unit of `start` and `size`, compute slices that of `compute_slices`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

# A board has at most 18 profiles in NVML's enumeration and 8 memory slices today; these leave room for what comes,
# and stop a garbled answer of a driver from becoming an endless enumeration.
MAX_PROFILES: Final = 64
MAX_MEMORY_SLICES: Final = 64


@dataclass(frozen=True, slots=True, order=True)
class Placement:
    """Where a GPU instance lies: memory slices `start` to `start + size - 1`."""

    start: int
    size: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.size < 1 or self.start + self.size > MAX_MEMORY_SLICES:
            raise ValueError(f"no such placement: {self.start}:{self.size}; at most {MAX_MEMORY_SLICES} slices")


@dataclass(frozen=True, slots=True)
class GiProfile:
    """A kind of GPU instance that a device offers.

    Attributes:
        profile_id: what create and placement calls take (not the index of the enumeration).
        name: the device's name for it, for instance "3g.40gb".
        compute_slices: what one instance takes of the board's compute slices.
        memory_bytes: memory that one instance has; the size in the name overstates it.
        instance_limit: most instances of this profile at one time.
        placements: every place it can ever have, not the free ones only.
        engines: what one instance takes of engines that instances cannot share, by name. The reader of the device
            says which engines those are; the optical flow engine ("ofa") alone tells the "+me" profiles.
        multiprocessor_count: of one instance; 0 when not told.
    """

    profile_id: int
    name: str
    compute_slices: int
    memory_bytes: int
    instance_limit: int
    placements: tuple[Placement, ...]
    engines: tuple[tuple[str, int], ...] = ()
    multiprocessor_count: int = 0

    def __post_init__(self) -> None:
        if self.compute_slices < 1 or self.instance_limit < 0 or self.memory_bytes < 0:
            raise ValueError(f"profile {self.name}: a negative or missing amount")
        if len({placement.start for placement in self.placements}) != len(self.placements):
            raise ValueError(f"profile {self.name}: one start is given twice")


@dataclass(frozen=True, slots=True)
class DeviceTable:
    """All profiles of one device. The limits of the board are what its largest profiles take."""

    name: str
    profiles: tuple[GiProfile, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.profiles) <= MAX_PROFILES:
            raise ValueError(f"{self.name}: {len(self.profiles)} profiles; 1 to {MAX_PROFILES} are understood")
        if len({profile.profile_id for profile in self.profiles}) != len(self.profiles):
            raise ValueError(f"{self.name}: one profile id is given twice")

    @property
    def memory_slices(self) -> int:
        """Memory slices of the board."""
        return max((p.start + p.size for profile in self.profiles for p in profile.placements), default=0)

    @property
    def compute_slices(self) -> int:
        """Compute slices of the board."""
        return max(profile.compute_slices for profile in self.profiles)

    @property
    def engine_limits(self) -> dict[str, int]:
        """Engines of the board that cannot be shared."""
        limits: dict[str, int] = {}
        for profile in self.profiles:
            for engine, count in profile.engines:
                limits[engine] = max(limits.get(engine, 0), count)
        return limits

    def memory_slices_of(self, wanted: Wanted) -> int:
        """Fewest memory slices that these slices take; unknown profiles count nothing."""
        sizes = {p.profile_id: min((place.size for place in p.placements), default=0) for p in self.profiles}
        return sum(sizes.get(profile_id, 0) * count for profile_id, count in wanted.items())

    def compute_slices_of(self, wanted: Wanted) -> int:
        """Compute slices that these slices take; unknown profiles count nothing."""
        amounts = {profile.profile_id: profile.compute_slices for profile in self.profiles}
        return sum(amounts.get(profile_id, 0) * count for profile_id, count in wanted.items())

    def describe(self, slices: Iterable[Slice]) -> str:
        """Slices for a person: "3g.40gb@4, 1g.10gb@0"."""
        names = {profile.profile_id: profile.name for profile in self.profiles}
        return ", ".join(f"{names.get(one.profile_id, one.profile_id)}@{one.start}" for one in slices) or "none"

    def describe_counts(self, wanted: Wanted) -> str:
        """A multiset for a person: "2 × 3g.40gb, 1 × 1g.10gb"."""
        names = {profile.profile_id: profile.name for profile in self.profiles}
        return ", ".join(f"{count} × {names.get(one, one)}" for one, count in wanted.items() if count) or "nothing"

    def profile(self, profile_id: int) -> GiProfile | None:
        """The profile of this id, None when the device has no such."""
        return next((profile for profile in self.profiles if profile.profile_id == profile_id), None)

    def named(self, name: str) -> GiProfile | None:
        """The profile of this name, None when the device has no such."""
        return next((profile for profile in self.profiles if profile.name == name), None)


@dataclass(frozen=True, slots=True, order=True)
class Slice:
    """A GPU instance at a place. Two slices are the same when profile and start are; ids and UUIDs do not matter."""

    start: int
    size: int
    profile_id: int

    def __str__(self) -> str:
        return f"{self.profile_id}@{self.start}"


@dataclass(frozen=True, slots=True)
class Layout:
    """A set of slices, in order of their start."""

    slices: tuple[Slice, ...] = ()

    def __post_init__(self) -> None:
        if list(self.slices) != sorted(set(self.slices)):
            raise ValueError("slices of a layout are distinct and sorted; use Layout.of")

    @classmethod
    def of(cls, slices: Iterable[Slice]) -> Layout:
        """The layout with these slices, in any order."""
        return cls(tuple(sorted(slices)))

    def __iter__(self) -> Iterator[Slice]:
        return iter(self.slices)

    def __len__(self) -> int:
        return len(self.slices)

    def __contains__(self, one: object) -> bool:
        return one in self.slices

    def counts(self) -> dict[int, int]:
        """How many slices of each profile id there are."""
        return dict(Counter(one.profile_id for one in self.slices))


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands on a board, and what may be done with it.

    Attributes:
        layout: every GPU instance, whoever made it, with a compute instance or without.
        live: slices that carry work: destroying one costs a drain and a move.
        pinned: slices that must not be touched: a lease forbids it, or they are not ours.
        bare: GPU instances without a compute instance, left by an interrupted change.
    """

    layout: Layout
    live: frozenset[Slice] = field(default_factory=frozenset)
    pinned: frozenset[Slice] = field(default_factory=frozenset)
    bare: frozenset[Slice] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        strangers = (self.live | self.pinned | self.bare).difference(self.layout)
        if strangers:
            raise ValueError(f"marked, but not on the board: {', '.join(map(str, sorted(strangers)))}")
        if self.live & self.bare:
            raise ValueError("a slice without a compute instance carries no work")


# How many slices of each profile id are wanted; absent means none.
Wanted = Mapping[int, int]
