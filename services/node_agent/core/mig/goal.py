"""What a board is wished to be, in which order wishes count, and the exact goal that a wish became. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field

from .model import Layout, Slice


@dataclass(frozen=True, slots=True, order=True)
class Order:
    """What wishes are compared by: a new leader beats an old one, a new blueprint an old one, a later step wins."""

    fencing: int
    generation: int
    step: int = 0

    def __str__(self) -> str:
        return f"({self.fencing}, {self.generation}, {self.step})"


@dataclass(frozen=True, slots=True)
class Wish:
    """The slices that a board shall have, and no others of ours.

    Attributes:
        order: where it stands among wishes.
        mig: False for the whole board, uncut.
        counts: (profile id, how many), ascending, with those of `fixed`.
        fixed: slices that are named with their place; the others go where they disturb least.
    """

    order: Order
    mig: bool
    counts: tuple[tuple[int, int], ...] = ()
    fixed: tuple[Slice, ...] = ()

    def __post_init__(self) -> None:
        if not self.mig and (self.counts or self.fixed):
            raise ValueError("a whole board has no slices")

    @property
    def content(self) -> str:
        """Everything but the order, as text: two wishes of one order must not differ in it."""
        return f"{'mig' if self.mig else 'whole'} {self.counts} {[str(one) for one in self.fixed]}"


@dataclass(frozen=True, slots=True)
class Goal:
    """Mode and slices of ours, each at its place. Slices of others are not in it."""

    mig: bool
    layout: Layout = field(default_factory=Layout)
