"""Energy of each slice since it was first seen, kept so that slices, former slices and "unallocated" sum to the board.

Pure. Slices are named by UUID: GPU instance ids come back, UUIDs do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.node_agent.core.attribution import SliceUse, attribute


@dataclass(frozen=True, slots=True)
class SliceAccounts:
    """Energy so far, in millijoules.

    Attributes:
        slices: by UUID, of those that stand.
        former_mj: of slices that are gone.
        unallocated_mj: of nobody.
        rule: of the last split.
    """

    slices: dict[str, float] = field(default_factory=dict)
    former_mj: float = 0.0
    unallocated_mj: float = 0.0
    rule: str = ""

    @property
    def total_mj(self) -> float:
        """Of the board."""
        return sum(self.slices.values()) + self.former_mj + self.unallocated_mj


def charge(
    accounts: SliceAccounts, energy_mj: float, idle_mj: float, memory_slices: int, uses: Sequence[SliceUse]
) -> SliceAccounts:
    """The accounts after a window; see `attribute`."""
    split = attribute(energy_mj, idle_mj, memory_slices, uses)
    standing = {use.key for use in uses}
    gone_mj = sum(total for key, total in accounts.slices.items() if key not in standing)
    return SliceAccounts(
        slices={key: accounts.slices.get(key, 0.0) + part for key, part in split.slices.items()},
        former_mj=accounts.former_mj + gone_mj,
        unallocated_mj=accounts.unallocated_mj + split.unallocated_mj,
        rule=split.rule,
    )
