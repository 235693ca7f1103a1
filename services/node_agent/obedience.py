"""Takes targets: checks the rule of generations, keeps what was accepted on disk, then has the fleet follow."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from services.node_agent.core.target import Target, accept
from services.node_agent.state_folder import StateFolder
from services.node_agent.wire import target_of
from tradewind.domain.errors import InvalidField
from tradewind.v1 import node_pb2


class Obedience:
    """Obeys the newest target and no older one.

    Args:
        node_id: of this node.
        folder: where the accepted target is kept.
        follow: told of each new target.
    """

    def __init__(self, node_id: str, folder: StateFolder, follow: Callable[[Target], None]) -> None:
        self._node_id, self._folder, self._follow = node_id, folder, follow
        self.newest: Target | None = None
        self._log = structlog.get_logger("target")

    def recover(self) -> None:
        """Follows the target that was kept, so that replicas come back without the orchestrator."""
        kept = self._folder.load_target()
        if kept is None or kept.node_id != self._node_id:
            return
        try:
            self.newest = target_of(kept)
        except InvalidField as error:
            self._log.warning("the kept target cannot be read and is ignored", error=error.message)
            return
        self._log.info("kept target", generation=kept.generation, fencing=kept.fencing, replicas=len(kept.replicas))
        self._follow(self.newest)

    def obey(self, message: node_pb2.NodeTarget) -> None:
        """Takes a target; repeats change nothing.

        Raises:
            InvalidField: another node's, or malformed.
            StaleGeneration: older than the newest seen.
            GenerationConflict: the same numbers with another content.
        """
        offered = target_of(message)
        if not accept(self.newest, offered, self._node_id):
            return
        self._folder.save_target(message)
        self.newest = offered
        self._log.info(
            "new target",
            generation=offered.generation,
            fencing=offered.fencing,
            step=offered.step,
            replicas=len(offered.replicas),
        )
        self._follow(offered)
