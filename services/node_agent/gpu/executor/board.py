"""One board's layout: takes wishes, and at each turn does the one thing that comes next.

Nothing is held in memory that a crash would lose: a turn reads the board, adds up the journal, decides, and makes at
most one call between two synced records. Whoever kills the process between any two of them, the next one's first turn
continues. Turns block for as long as the driver does: run them off the event loop, never two at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from services.node_agent.core.board_wish import WHOLE_KIND, whole_id
from services.node_agent.core.mig.execution import Await, decide, degraded, drift, rebuild, resolve
from services.node_agent.core.mig.goal import Order, Wish
from services.node_agent.core.mig.ledger import (
    Adopted,
    Booted,
    Call,
    Done,
    Ended,
    Failed,
    Intended,
    ModeStep,
    Operation,
    Outcome,
    TurnedBack,
)
from services.node_agent.core.mig.model import DeviceTable
from services.node_agent.core.mig.planner import Planner
from services.node_agent.core.mig.retries import Fault, patience, verdict
from services.node_agent.gpu.executor.calls import fault_of, has_effect, make, misplaced
from services.node_agent.gpu.executor.journal import Journal
from services.node_agent.gpu.executor.look import Held, Look, look
from services.node_agent.gpu.executor.state import BoardState, Doing, StandingPartition, Turn, state_of
from services.node_agent.gpu.faults import GpuError
from services.node_agent.gpu.port import BoardFacts, GpuAdmin, GpuReader
from tradewind.domain.errors import GenerationConflict, StaleGeneration

# The board is read again this often when nothing is to be done: what others change is seen this soon.
POLL_S: Final = 5.0
# Between two looks while something that holds a slice has to leave, and after a call that went well.
HOLDER_POLL_S: Final = 0.5
AWAY_POLL_S: Final = 1.0
AT_ONCE_S: Final = 0.0


class Planners:
    """Planners by table: boards of one kind share one, since building it enumerates all layouts."""

    def __init__(self) -> None:
        self._built: dict[DeviceTable, Planner] = {}

    def of(self, table: DeviceTable) -> Planner:
        """The planner of a table."""
        if table not in self._built:
            self._built[table] = Planner(table)
        return self._built[table]


@dataclass(frozen=True, slots=True)
class Access:
    """How a board is reached.

    Attributes:
        reader: looks.
        admin: changes.
        held: what the agent itself has running on slices.
        boot_id: of the machine.
        planners: of this node, shared by its boards.
        adopt: whether slices that nobody knows become ours; else they are left alone.
    """

    reader: GpuReader
    admin: GpuAdmin
    held: Held
    boot_id: str
    planners: Planners
    adopt: bool = False


class BoardExecutor:
    """See the module.

    Args:
        board: which.
        access: how it is reached.
        journal: of this board, opened by nobody else.
    """

    def __init__(self, board: BoardFacts, access: Access, journal: Journal) -> None:
        self._board, self._access, self._journal = board, access, journal
        self._whole = StandingPartition(whole_id(board.uuid), WHOLE_KIND, board.uuid, board.memory_bytes)
        self._newest: Wish | None = None
        self._planner: Planner | None = None
        self._failed: tuple[Call, int] | None = None
        self.state = BoardState(board.uuid)
        self._log = structlog.get_logger("layout").bind(board=board.uuid)

    def want(self, wish: Wish) -> None:
        """Takes a wish, to be followed from the next turn on; a repeat changes nothing.

        Raises:
            StaleGeneration: an older one than the newest taken.
            GenerationConflict: of the same order, with another content.
        """
        order, content = self._obeyed()
        if order is not None and wish.order < order:
            raise StaleGeneration(
                f"layout {wish.order} of {self._board.uuid} is older than {order}, which is obeyed",
                {"offered": str(wish.order), "newest": str(order)},
            )
        if wish.order == order and wish.content != content:
            raise GenerationConflict(
                f"two layouts {wish.order} of {self._board.uuid} differ; the first one is obeyed",
                {"expected": content, "actual": wish.content},
            )
        self._newest = wish

    @property
    def table(self) -> DeviceTable | None:
        """Profiles; None before the first turn, and for a board that cannot be cut."""
        return self._planner.space.table if self._planner else None

    def turn(self) -> Turn:
        """Does what comes next. Never raises GpuError: a board that does not answer is looked at again later."""
        try:
            seen = self._look()
            if self._planner is None:
                self._read_table()
            self._settle_in(seen)
            self._take_wish(seen)
            return self._step(seen)
        except GpuError as error:
            fault = fault_of(error)
            self._tell(None, Doing.AWAY, f"{fault}: {error.message}", AT_ONCE_S)
            return Turn(AWAY_POLL_S)

    def close(self) -> None:
        """Gives the journal back. Idempotent."""
        self._journal.close()

    def _obeyed(self) -> tuple[Order | None, str]:
        """The newest wish taken, followed already or not yet."""
        ledger, newest = self._journal.ledger, self._newest
        if newest is not None and (ledger.order is None or newest.order > ledger.order):
            return newest.order, newest.content
        return ledger.order, ledger.content

    def _look(self) -> Look:
        return look(self._access.reader, self._board, self._access.held)

    def _read_table(self) -> None:
        """Reads the profiles, and takes the planner for them."""
        if self._board.mig_capable:
            self._planner = self._access.planners.of(self._access.reader.table(self._board.uuid))

    def _settle_in(self, seen: Look) -> None:
        """The first turn of a boot, and the first one ever."""
        ledger = self._journal.ledger
        if ledger.boot_id != self._access.boot_id:
            self._journal.append(Booted(self._access.boot_id))
            if began := rebuild(self._journal.ledger, seen.sight):
                self._log.info("rebuild after a start of the machine", slices=len(began.goal.layout))
                self._journal.append(began)
        unknown = set(seen.sight.layout) - self._journal.ledger.ours
        if self._access.adopt and unknown and self._journal.ledger.operation is None:
            self._journal.append(Adopted(tuple(sorted(unknown))))

    def _take_wish(self, seen: Look) -> None:
        wish, ledger = self._newest, self._journal.ledger
        if wish is None or (ledger.order is not None and wish.order <= ledger.order):
            return
        self._read_table()
        record = resolve(ledger, seen.sight, self._planner, wish)
        self._log.info("layout wished", order=str(wish.order), content=wish.content, becomes=type(record).__name__)
        self._journal.append(record)
        self._failed = None

    def _step(self, seen: Look) -> Turn:
        ledger = self._journal.ledger
        if ledger.operation is None:
            return self._tell(seen, Doing.NOTHING, "; ".join(drift(ledger, seen.sight)), POLL_S)
        match what := decide(ledger, ledger.operation, seen.sight, self._planner):
            case Await(holders):
                self._failed = None
                return self._tell(seen, Doing.WAITING, f"waits for {', '.join(holders)}", HOLDER_POLL_S)
            case TurnedBack():
                return self._turn_back(seen, what)
            case Ended():
                return self._end(seen, what)
            case call:
                return self._act(seen, call)

    def _act(self, before: Look, call: Call) -> Turn:
        self._journal.append(Intended(call))
        made: int | None = None
        error: GpuError | None = None
        try:
            made = make(self._access.admin, self._board, call, before)
        except GpuError as refused:
            error = refused
        after = self._look()
        if stray := misplaced(made, call, after):
            self._journal.append(Adopted((stray,)))
        if has_effect(call, before, after):
            # A mode that is set again and again by us and somebody else does not make a failed call the first one.
            self._failed = self._failed if isinstance(call, ModeStep) else None
            self._journal.append(Done(call))
            return self._tell(after, Doing.CHANGING, "", AT_ONCE_S)
        self._journal.append(Failed(call))
        return self._judge(after, call, error, overtaken=after.sight.mig is not before.sight.mig)

    def _judge(self, seen: Look, call: Call, error: GpuError | None, *, overtaken: bool) -> Turn:
        """A call without effect: once more, or back, or the end."""
        fault, message = _fault_without_effect(error)
        tries = self._failed[1] + 1 if self._failed and self._failed[0] == call else 1
        self._failed = (call, tries)
        allowed = patience(fault, overtaken=overtaken)
        self._log.warning("layout call failed", call=str(call), fault=fault, tries=tries, error=message)
        if allowed.tries is None or tries < allowed.tries:
            return self._tell(seen, Doing.CHANGING, f"try {tries}: {message}", allowed.pause_s)
        self._failed = None
        outcome, code, words = verdict(fault, message)
        if self._operation.back is None:
            return self._turn_back(seen, TurnedBack(outcome, code, words))
        return self._end(seen, degraded(self._journal.ledger, seen.sight, code, words))

    @property
    def _operation(self) -> Operation:
        operation = self._journal.ledger.operation
        assert operation is not None, "calls are made for a change under way"
        return operation

    def _turn_back(self, seen: Look, back: TurnedBack) -> Turn:
        self._log.warning("layout goes back", code=back.code, why=back.words)
        self._journal.append(back)
        return self._tell(seen, Doing.GOING_BACK, back.words, AT_ONCE_S)

    def _end(self, seen: Look, ended: Ended) -> Turn:
        level = self._log.info if ended.outcome is Outcome.REACHED else self._log.error
        level("layout ended", outcome=ended.outcome, code=ended.code, why=ended.words)
        self._journal.append(ended)
        self._journal.compact()
        return self._tell(seen, Doing.NOTHING, "", POLL_S)

    def _tell(self, seen: Look | None, doing: Doing, words: str, pause_s: float) -> Turn:
        self.state = state_of(self.state, self._whole, self._journal.ledger, doing, words, self.table, seen)
        return Turn(pause_s)


def _fault_without_effect(error: GpuError | None) -> tuple[Fault, str]:
    if error is None:
        return Fault.DRIVER_TROUBLE, "the driver said that it was done, and the board does not show it"
    return fault_of(error), error.message
