"""One board that this node cuts: takes the partitions of each target, and has the executor follow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import structlog

from services.node_agent.core.board_wish import WantedPartition, wish_of
from services.node_agent.core.mig.goal import Order
from services.node_agent.gpu.executor.board import AWAY_POLL_S, Access, BoardExecutor
from services.node_agent.gpu.executor.journal import Journal
from services.node_agent.gpu.executor.state import BoardState, Doing
from services.node_agent.gpu.port import BoardFacts
from tradewind.domain.errors import TradewindError


class ManagedBoard:
    """See the module. `turn` runs on a thread, `want` on the event loop.

    Args:
        facts: of the board.
        access: how it is reached.
        folder: for its journal.
    """

    def __init__(self, facts: BoardFacts, access: Access, folder: Path) -> None:
        self.facts = facts
        self._access, self._path = access, folder / f"{facts.uuid}.journal"
        self._executor: BoardExecutor | None = None
        self._wanted: tuple[Order, tuple[WantedPartition, ...]] | None = None
        self._taken: Order | None = None
        self._trouble = ""
        self._log = structlog.get_logger("layout").bind(board=facts.uuid)

    def want(self, order: Order, partitions: Sequence[WantedPartition]) -> None:
        """The partitions of a target; followed from the next turn on."""
        self._wanted = order, tuple(partitions)

    @property
    def state(self) -> BoardState:
        """As of the last turn."""
        return self._executor.state if self._executor else BoardState(self.facts.uuid, Doing.AWAY, self._trouble)

    @property
    def refusal(self) -> str:
        """Why the newest target's partitions were not understood, or its journal not opened; "" when all is well."""
        return self._trouble

    @property
    def taken(self) -> Order | None:
        """Order of the newest target whose partitions were read, understood or not."""
        return self._taken

    def turn(self) -> float:
        """One turn of the executor; seconds until the next is due."""
        try:
            executor = self._executor = self._executor or self._open()
            if self._access_known(executor):
                self._take(executor)
        except TradewindError as error:
            if error.message != self._trouble:
                self._log.error("layout refused", error=error.message)
            self._trouble = error.message
        if self._executor is None:
            return AWAY_POLL_S
        return self._executor.turn().pause_s

    def close(self) -> None:
        """Gives the journal back. Idempotent."""
        if self._executor is not None:
            self._executor.close()

    def _open(self) -> BoardExecutor:
        executor = BoardExecutor(self.facts, self._access, Journal(self._path))
        self._trouble = ""
        return executor

    def _access_known(self, executor: BoardExecutor) -> bool:
        """Whether profiles are known: kinds are names of profiles, read in the first turn."""
        return executor.table is not None or not self.facts.mig_capable

    def _take(self, executor: BoardExecutor) -> None:
        if self._wanted is None or self._wanted[0] == self._taken:
            return
        order, partitions = self._wanted
        self._taken = order
        self._trouble = ""
        executor.want(wish_of(order, self.facts.uuid, partitions, executor.table))
