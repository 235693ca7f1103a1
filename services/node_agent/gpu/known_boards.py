"""Boards as their devices are known to report them: what the simulator plays, tests use, and discovery compares with.

Never the truth: planner and NVML back-end read each device and must not import this module (a linter sees to it).

Every 8/7 board (8 memory, 7 compute slices) has the same profile ids and starts; the memory differs. How sure each is:

- `LISTED`: ids and starts from the vendor's guide and real `nvidia-smi` output of such boards.
- `INFERRED`: ids and starts taken over from the guide and the common scheme, never seen on hardware. An agent that
  meets such a board must trust the device and log the difference.

Memory that no source gives is *inferred* too: so many eighths of the whole board's; `inferred_memory` names those
profiles. The optical flow engine ("ofa") stands for the media extensions: the vendor's guide gives one to each "+me"
profile and to the whole board, none to the others, on A30 and A100; for the others that is inferred.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from services.node_agent.core.mig.model import DeviceTable, GiProfile, Placement

_GIB: Final = 1 << 30
_OFA: Final = (("ofa", 1),)


class Source(Enum):
    """Where ids and starts of a table come from."""

    LISTED = "vendor's guide and output of real boards"
    INFERRED = "common scheme, not seen on hardware"


@dataclass(frozen=True)
class Board:
    """A device's table and how sure it is."""

    table: DeviceTable
    source: Source
    inferred_memory: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Shape:
    """A profile of the 8/7 scheme: id, limit, starts, size, compute slices, engines."""

    profile_id: int
    limit: int
    starts: Iterable[int]
    size: int
    compute: int
    engines: tuple[tuple[str, int], ...] = ()


# Multiprocessors of a slice; those of 1g+me are those of 1g. H100 on PCIe has 114 in all.
_A100_SMS: Final = {"1g": 14, "1g+me": 14, "1g2m": 14, "2g": 28, "3g": 42, "4g": 56, "7g": 98}
_H100_SMS: Final = {"1g": 16, "1g+me": 16, "1g2m": 26, "2g": 32, "3g": 60, "4g": 64, "7g": 132}
_A30_SMS: Final = {"1g": 14, "1g+me": 14, "2g": 28, "2g+me": 28, "4g": 56}

# Keys are short names; a device's own name appends its memory ("3g.40gb").
EIGHT_SEVEN: Final = {
    "1g": Shape(19, 7, range(7), 1, 1),
    "1g+me": Shape(20, 1, range(7), 1, 1, _OFA),
    "1g2m": Shape(15, 4, (0, 2, 4, 6), 2, 1),
    "2g": Shape(14, 3, (0, 2, 4), 2, 2),
    "3g": Shape(9, 2, (0, 4), 4, 3),
    "4g": Shape(5, 1, (0,), 4, 4),
    "7g": Shape(0, 1, (0,), 8, 7, _OFA),
}
FOUR_FOUR: Final = {
    "1g": Shape(14, 4, range(4), 1, 1),
    "1g+me": Shape(21, 1, range(4), 1, 1, _OFA),
    "2g": Shape(5, 2, (0, 2), 2, 2),
    "2g+me": Shape(6, 1, (0, 2), 2, 2, _OFA),
    "4g": Shape(0, 1, (0,), 4, 4, _OFA),
}


def _board(
    name: str,
    shapes: dict[str, Shape],
    source: Source,
    names: str,
    whole_gib: float,
    known_gib: dict[str, float],
    known_sms: dict[str, int] | None = None,
) -> Board:
    """Builds a board; `names` in the order of `shapes`, `known_gib` and `known_sms` by short name."""
    memory_slices = max(shape.size for shape in shapes.values())
    profiles, inferred = [], set()
    for (short, shape), full in zip(shapes.items(), names.split(), strict=True):
        if short not in known_gib:
            inferred.add(full)
        gib = known_gib.get(short, whole_gib * shape.size / memory_slices)
        places = tuple(Placement(start, shape.size) for start in shape.starts)
        sms = (known_sms or {}).get(short, 0)
        profiles.append(
            GiProfile(shape.profile_id, full, shape.compute, int(gib * _GIB), shape.limit, places, shape.engines, sms)
        )
    return Board(DeviceTable(name, tuple(profiles)), source, frozenset(inferred))


A100_40: Final = _board(
    "A100-40",
    EIGHT_SEVEN,
    Source.LISTED,
    "1g.5gb 1g.5gb+me 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb",
    39.25,
    {"1g": 4.75, "1g+me": 4.75, "1g2m": 9.62, "2g": 9.62, "3g": 19.5, "4g": 19.5, "7g": 39.25},
    _A100_SMS,
)
A100_80: Final = _board(
    "A100-80",
    EIGHT_SEVEN,
    Source.LISTED,
    "1g.10gb 1g.10gb+me 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb",
    78.5,
    {"1g": 9.5, "2g": 19.5, "3g": 39.25, "7g": 78.5},
    _A100_SMS,
)
H100_80: Final = _board(
    "H100-80",
    EIGHT_SEVEN,
    Source.LISTED,
    "1g.10gb 1g.10gb+me 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb",
    79.25,
    {"1g": 9.75, "1g2m": 19.62, "2g": 19.62, "3g": 39.5, "4g": 39.5, "7g": 79.25},
    _H100_SMS,
)
H100_94: Final = _board(
    "H100-94",
    EIGHT_SEVEN,
    Source.LISTED,
    "1g.12gb 1g.12gb+me 1g.24gb 2g.24gb 3g.47gb 4g.47gb 7g.94gb",
    93.0,
    {"1g": 10.75, "2g": 21.62, "3g": 46.38},
)
GH200_96: Final = _board(
    "GH200-96",
    EIGHT_SEVEN,
    Source.INFERRED,
    "1g.12gb 1g.12gb+me 1g.24gb 2g.24gb 3g.48gb 4g.48gb 7g.96gb",
    95.0,
    {},
)
H200_141: Final = _board(
    "H200-141",
    EIGHT_SEVEN,
    Source.INFERRED,
    "1g.18gb 1g.18gb+me 1g.35gb 2g.35gb 3g.71gb 4g.71gb 7g.141gb",
    140.0,
    {},
)
B200_180: Final = _board(
    "B200-180",
    EIGHT_SEVEN,
    Source.INFERRED,
    "1g.23gb 1g.23gb+me 1g.45gb 2g.45gb 3g.90gb 4g.90gb 7g.180gb",
    179.0,
    {},
)
A30: Final = _board(
    "A30",
    FOUR_FOUR,
    Source.LISTED,
    "1g.6gb 1g.6gb+me 2g.12gb 2g.12gb+me 4g.24gb",
    23.44,
    {"1g": 5.81, "2g": 11.69, "4g": 23.44},
    _A30_SMS,
)

BOARDS: Final = (A100_40, A100_80, H100_80, H100_94, GH200_96, H200_141, B200_180, A30)


def known_board(device_class: str) -> Board | None:
    """The board of a device class such as "gpu:h100-80" or "gpu:h100-80-pcie"; None when it is not known."""
    name = device_class.removeprefix("gpu:").removesuffix("-pcie")
    return next((board for board in BOARDS if board.table.name.lower() in (name, name.rpartition("-")[0])), None)
