"""The known boards for tests and benchmarks, and short ways to write layouts of them."""

from __future__ import annotations

from typing import Final

from services.node_agent.core.mig import DeviceTable, Layout, Slice
from services.node_agent.gpu.known_boards import (
    A30,
    A100_40,
    A100_80,
    B200_180,
    BOARDS,
    EIGHT_SEVEN,
    FOUR_FOUR,
    GH200_96,
    H100_80,
    H100_94,
    H200_141,
    Board,
    Source,
)

__all__ = [
    "A30",
    "A100_40",
    "A100_80",
    "B200_180",
    "BOARDS",
    "EXTENDED",
    "GH200_96",
    "H100_80",
    "H100_94",
    "H200_141",
    "MACHINES",
    "PLAIN",
    "Board",
    "Source",
    "layout",
    "only",
    "slice_at",
    "wanted",
]

PLAIN: Final = ("1g", "2g", "3g", "4g", "7g")
EXTENDED: Final = (*PLAIN, "1g2m")

# Whole machines: the boards that one host has, by the host's kind.
MACHINES: Final = {
    "eight A100": (A100_40,) * 8,
    "eight H100": (H100_80,) * 8,
    "two H100 NVL": (H100_94,) * 2,
    "mixed": (A100_80, A30, H200_141),
}


def only(board: Board, *short_names: str) -> DeviceTable:
    """A board's table with some of its profiles ("1g", "1g2m", "1g+me" …), as the enumerations of the docs use it."""
    shapes = FOUR_FOUR if board is A30 else EIGHT_SEVEN
    ids = {shapes[short].profile_id for short in short_names}
    return DeviceTable(board.table.name, tuple(p for p in board.table.profiles if p.profile_id in ids))


def layout(table: DeviceTable, text: str) -> Layout:
    """A layout out of "3g.20gb@4 1g.5gb@0"."""
    return Layout.of(slice_at(table, word) for word in text.split())


def slice_at(table: DeviceTable, text: str) -> Slice:
    """A slice out of "3g.20gb@4"."""
    name, _, start = text.partition("@")
    profile = table.named(name)
    assert profile is not None, f"{table.name} has no {name}"
    return Slice(int(start), profile.placements[0].size, profile.profile_id)


def wanted(table: DeviceTable, text: str) -> dict[int, int]:
    """A multiset out of "3g.20gb 1g.5gb 1g.5gb"."""
    counts: dict[int, int] = {}
    for name in text.split():
        profile = table.named(name)
        assert profile is not None, f"{table.name} has no {name}"
        counts[profile.profile_id] = counts.get(profile.profile_id, 0) + 1
    return counts
