"""Which waiting tensor requests go into the next call: dynamic batching as a pure decision.

A call starts as soon as the device is free, with whatever waits then; nobody waits for company. Under load the queue
fills while a call runs, so that batches grow by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tradewind.domain.infer_manifest import InferFunction
from tradewind.domain.padding import Extent


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request in line."""

    request_id: int
    extent: Extent


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the function, and the requests whose rows it takes, in order."""

    function: InferFunction
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batching:
    """What calls there are.

    Attributes:
        functions: of the module.
        padded: whether samples may be shorter than a function's length.
        batch_limit: most rows of a call; 0 for as many as the widest function takes.
    """

    functions: tuple[InferFunction, ...]
    padded: bool
    batch_limit: int = 0

    @property
    def most_rows(self) -> int:
        """Rows of the widest call."""
        widest = max(function.batch for function in self.functions)
        return min(widest, self.batch_limit or widest) if widest else 1

    def length_for(self, length: int) -> int | None:
        """The function length that samples of a length take: the shortest that holds them; None when none does."""
        lengths = sorted({f.length for f in self.functions})
        fitting = [size for size in lengths if size == length or (self.padded and size > length)]
        return fitting[0] if fitting else None

    def next_call(self, queue: Sequence[Waiting]) -> Call:
        """The next call: the oldest request, and those behind it that fit beside it.

        Args:
            queue: oldest first, at least one; each admitted by `length_for` and `most_rows`.
        """
        first = queue[0]
        length = self.length_for(first.extent.length)
        members, rows = [first.request_id], first.extent.rows
        for other in queue[1:]:
            if rows + other.extent.rows <= self.most_rows and self.length_for(other.extent.length) == length:
                members.append(other.request_id)
                rows += other.extent.rows
        batches = sorted((f for f in self.functions if f.length == length), key=lambda f: f.batch)
        function = next((f for f in batches if f.batch >= rows), batches[-1])
        return Call(function, tuple(members))
