"""MIG slices: what a profile takes of a board, which layouts exist, and what a slice costs. Shares no planner code.

Facts: NVIDIA MIG user guide, placements of A100/H100. A slice's speed is taken as its share of compute for prefill and
of memory bandwidth for decode; its active power as its share of bandwidth. Slices share clocks and the board's idle
power. Stated model; partitions of LLM servers were measured by others at 1.1 to 1.4 times whole-board figures
(arXiv 2508.18556), which is not claimed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.simulator.engine.cost import StepCost

_MEMORY_SLICES: Final = 8
_COMPUTE_SLICES: Final = 7


@dataclass(frozen=True, slots=True)
class Slice:
    """A profile: compute sevenths, memory eighths, and the memory slices it may start at."""

    name: str
    compute: int
    memory: int
    starts: tuple[int, ...]


# Profile sizes are those of a board of 80 GB; of 40 GB the halves of the memory.
SLICES: Final = (
    Slice("1g", 1, 1, (0, 1, 2, 3, 4, 5, 6)),
    Slice("2g", 2, 2, (0, 2, 4)),
    Slice("3g", 3, 4, (0, 4)),
    Slice("4g", 4, 4, (0,)),
    Slice("7g", 7, 8, (0,)),
)
_BY_NAME: Final = {s.name: s for s in SLICES}


def slice_of(kind: str) -> Slice | None:
    """The slice of a partition kind ("mig/3g.40gb"), None for another kind."""
    if not kind.startswith("mig/"):
        return None
    return _BY_NAME.get(kind.removeprefix("mig/").split(".")[0])


def kind_of(slice_: Slice, memory_bytes: int) -> str:
    """The partition kind on a board of so much memory."""
    return f"mig/{slice_.name}.{round(memory_bytes / 1024**3) * slice_.memory // _MEMORY_SLICES}gb"


def legal(kinds: Sequence[str]) -> bool:
    """Whether slices of these kinds can be on one board together: some placement has no two overlap."""
    slices = [slice_of(kind) for kind in kinds]
    if any(s is None for s in slices):
        return list(kinds) == ["gpu/whole"]
    known = sorted((s for s in slices if s is not None), key=lambda s: -s.memory)
    return sum(s.compute for s in known) <= _COMPUTE_SLICES and _place(known, frozenset())


def on_slice(cost: StepCost, part: Slice, weights_bytes: float, memory_bytes: float, token_bytes: float) -> StepCost:
    """The cost on a slice of the board; a cache of 0 tokens when the weights do not fit."""
    compute, memory = part.compute / _COMPUTE_SLICES, part.memory / _MEMORY_SLICES
    room = memory_bytes * memory - weights_bytes
    idle = cost.idle_power_w
    return replace(
        cost,
        decode_s=tuple(s / memory for s in cost.decode_s),
        context_s=cost.context_s / memory,
        prefill_token_s=cost.prefill_token_s / compute,
        prefill_square_s=cost.prefill_square_s / compute,
        decode_power_w=tuple(idle + (w - idle) * memory for w in cost.decode_power_w),
        prefill_power_w=idle + (cost.prefill_power_w - idle) * max(memory, compute),
        cache_tokens=max(int(room / token_bytes), 0),
    )


def _place(slices: Sequence[Slice], taken: frozenset[int]) -> bool:
    if not slices:
        return True
    first, rest = slices[0], slices[1:]
    for start in first.starts:
        cells = frozenset(range(start, start + first.memory))
        if not cells & taken and _place(rest, taken | cells):
            return True
    return False
