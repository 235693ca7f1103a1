"""What the planner answers: a plan with ordered steps, or a refusal with a reason and figures. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from .model import Layout, Slice


class Action(StrEnum):
    """One verb of a step; each is one call (or one per compute instance) of the device."""

    DESTROY_COMPUTE = "destroy compute instances of"
    DESTROY_GPU = "destroy GPU instance"
    CREATE_GPU = "create GPU instance"
    CREATE_COMPUTE = "create compute instance in"


@dataclass(frozen=True, slots=True)
class Step:
    """One action on one slice. The board is legal before and after it."""

    action: Action
    slice: Slice


class Order(StrEnum):
    """How creates and destroys are mixed."""

    # A new slice comes as early as the board allows, so that work can move before its old slice goes.
    MAKE_BEFORE_BREAK = "make before break"
    # Everything that goes, goes first: fewest states in between, for an empty or drained board.
    DESTROY_FIRST = "destroy first"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a plan may do.

    Attributes:
        max_live_destroyed: most live slices that may be destroyed; None means as many as it takes.
        order: how creates and destroys are mixed.
    """

    max_live_destroyed: int | None = None
    order: Order = Order.MAKE_BEFORE_BREAK


@dataclass(frozen=True, slots=True)
class Move:
    """A live slice goes and another of its profile comes in its place.

    Attributes:
        source: the live slice that goes.
        destination: the new slice of the same profile.
        made_before_break: the destination exists before the source is destroyed: its work need not stop.
    """

    source: Slice
    destination: Slice
    made_before_break: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A complete change of one board's layout.

    Attributes:
        before: the layout it starts from; an executor must find exactly this one.
        after: the layout it ends in, with explicit placements.
        kept: slices that stay, untouched.
        destroyed: slices that go.
        created: slices that come.
        live_destroyed: those of `destroyed` that carry work.
        moves: where work of `live_destroyed` can go on this board; a live slice without a move leaves it.
        steps: the actions, in an order that is legal after each.
        open_starts_after: ways to place one more slice in `after`, over all profiles: the higher, the less fragmented.
    """

    before: Layout
    after: Layout
    kept: tuple[Slice, ...]
    destroyed: tuple[Slice, ...]
    created: tuple[Slice, ...]
    live_destroyed: tuple[Slice, ...]
    moves: tuple[Move, ...]
    steps: tuple[Step, ...]
    open_starts_after: int


class RefusalReason(StrEnum):
    """Why there is no plan. Closed list."""

    # A wanted profile is not one of this device.
    UNKNOWN_PROFILE = "unknown_profile"
    # What stands on the board cannot stand there by the device's own table: the table or the observation is stale.
    IMPOSSIBLE_STATE = "impossible_state"
    # No layout of an empty board has all these slices.
    DOES_NOT_FIT = "does_not_fit"
    # It fits the board, but not beside the pinned slices.
    PINNED_IN_THE_WAY = "pinned_in_the_way"
    # Admission only: it fits the board, but not beside the slices that stay, wherever they are moved.
    OCCUPIED = "occupied"
    # There is a way, and it destroys more live slices than the policy allows.
    DISTURBS_TOO_MUCH = "disturbs_too_much"


@dataclass(frozen=True, slots=True)
class Refusal:
    """No plan, and why.

    Attributes:
        reason: of the closed list.
        message: one sentence for a person, with the figures and what would help.
        unplaced: DOES_NOT_FIT: fewest slices, by profile id, without which the rest fits.
        in_the_way: fewest slices of the board that would have to go or become free to move.
        figures: amounts behind the reason, unit in the name.
    """

    reason: RefusalReason
    message: str
    unplaced: Mapping[int, int] = field(default_factory=dict)
    in_the_way: tuple[Slice, ...] = ()
    figures: Mapping[str, int] = field(default_factory=dict)
