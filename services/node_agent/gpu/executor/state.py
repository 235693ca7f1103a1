"""What an executor says of its board: what it does, what stands, and how the last change ended. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.node_agent.core.board_wish import kind_of, partition_id
from services.node_agent.core.mig.goal import Order
from services.node_agent.core.mig.ledger import Ended, Ledger
from services.node_agent.core.mig.model import DeviceTable, Slice
from services.node_agent.gpu.executor.look import Look


class Doing(StrEnum):
    """What goes on. Closed list."""

    NOTHING = "nothing"
    # A change is under way.
    CHANGING = "changing"
    # A change waits for work to leave a slice.
    WAITING = "waiting"
    # A change failed and the earlier layout is being restored.
    GOING_BACK = "going back"
    # The board, its driver or the helper does not answer.
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn is over; the next one is due after so long, or at the next wish."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class StandingPartition:
    """A partition that a process can open: `uuid` is what it opens."""

    partition_id: str
    kind: str
    uuid: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class BoardState:
    """See the module.

    Attributes:
        uuid: of the board.
        words: what it waits for, why it goes back, what others changed; "" when there is nothing to say.
        order: of the newest wish taken.
        last: how the last change ended; None before the first.
        partitions: slices of ours that can be opened, or the whole board.
        foreign: slices of others, left alone, in words.
    """

    uuid: str
    doing: Doing = Doing.NOTHING
    words: str = ""
    order: Order | None = None
    last: Ended | None = None
    partitions: tuple[StandingPartition, ...] = ()
    foreign: tuple[str, ...] = ()


def state_of(
    before: BoardState,
    board: StandingPartition,
    ledger: Ledger,
    doing: Doing,
    words: str,
    table: DeviceTable | None,
    seen: Look | None = None,
) -> BoardState:
    """The state after a turn; without a fresh look the partitions of before are still told.

    Args:
        before: the state before.
        board: the whole board as one partition.
        ledger: the journal's sum.
        doing: what goes on.
        words: see `BoardState`.
        table: profiles; None for a board that cannot be cut.
        seen: the board as just read; None when it could not be.
    """
    partitions, foreign = before.partitions, before.foreign
    if seen is not None:
        partitions = _slices(board, ledger, seen, table) if seen.sight.mig else (board,)
        strangers = sorted(set(seen.sight.layout) - ledger.ours)
        foreign = tuple(kind_of(table, one) for one in strangers)
    return BoardState(before.uuid, doing, words, ledger.order, ledger.last, partitions, foreign)


def _slices(
    board: StandingPartition, ledger: Ledger, seen: Look, table: DeviceTable | None
) -> tuple[StandingPartition, ...]:
    return tuple(
        StandingPartition(
            partition_id(board.uuid, place), kind_of(table, place), one.compute[0].uuid, _memory_bytes(table, place)
        )
        for place, one in sorted(seen.instances.items())
        if place in ledger.ours and one.compute
    )


def _memory_bytes(table: DeviceTable | None, place: Slice) -> int:
    profile = table.profile(place.profile_id) if table else None
    return profile.memory_bytes if profile else 0
