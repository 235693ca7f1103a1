"""What energy was spent on: parts by device type. Pure values; joules are simulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Part(StrEnum):
    """What a device drew power for.

    The first five are the base of a board: it is in exactly one of these states. The last two come above it.
    """

    ASLEEP = "asleep"
    WAKING = "waking"
    EMPTY = "empty"
    LOADING = "loading"
    READY = "ready"
    PREFILL = "prefill"
    DECODE = "decode"


# Above the base: what replicas draw while they work.
ACTIVE = (Part.PREFILL, Part.DECODE)
# What a change costs: a board on its way up, and replicas on their way to ready.
CHANGE = (Part.WAKING, Part.LOADING)


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy up to a moment in joules, by (device type, part)."""

    parts_j: Mapping[tuple[str, Part], float] = field(default_factory=dict)

    @property
    def total_j(self) -> float:
        """All of it."""
        return sum(self.parts_j.values())

    @property
    def active_j(self) -> float:
        """Of replicas at work, above the base of their boards."""
        return self.of(*ACTIVE)

    @property
    def base_j(self) -> float:
        """Of boards without their replicas' work."""
        return self.total_j - self.active_j

    def of(self, *parts: Part, board: str = "") -> float:
        """Of some parts, of one device type or of all."""
        return sum(joules for (name, part), joules in self.parts_j.items() if part in parts and board in ("", name))

    @property
    def boards(self) -> tuple[str, ...]:
        """Device types that drew anything."""
        return tuple(sorted({name for name, _ in self.parts_j}))

    def since(self, earlier: Energy) -> Energy:
        """What came after an earlier moment."""
        return Energy({key: joules - earlier.parts_j.get(key, 0.0) for key, joules in self.parts_j.items()})
