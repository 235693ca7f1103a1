"""What the last look saw of the fleet and worked out of it, so that a look at the same fleet need not. Pure.

Most reports say what the ones before said. Equal nodes stay one object from look to look, so that telling whether
anything changed costs an identity for each node; what is worked out of nodes and blueprint alone is kept with them. It
is no part of the state: without it, or with that of another state, results are the same, only later.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.adaptation.relief import NO_RELIEF, Relief
from services.orchestrator.core.effects import Publish
from services.orchestrator.core.facts.blueprint import EMPTY, Blueprint
from services.orchestrator.core.facts.catalog import Quarantine
from services.orchestrator.core.facts.fleet import Node
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.rollout.bars import LayoutMemory
from services.orchestrator.core.rollout.rollout import Rollout, RolloutMemory
from services.orchestrator.core.state import Observation, State

NO_ROLLOUT: Final = Rollout((), (), RolloutMemory())
NOTHING_PUBLISHED: Final = Publish(())


@dataclass(frozen=True, slots=True)
class Looked:
    """One look's view of the fleet.

    Attributes:
        nodes: with the states that liveness gave them.
        remembered: parts of the state that the look left behind and that follow from nodes and blueprint.
        relief: what `rollout` was made with; `published_of` what `published` was made of besides the rollout.
    """

    nodes: tuple[Node, ...] = ()
    remembered: tuple[object, ...] = ()
    blueprint: Blueprint = EMPTY
    deployments: tuple[Deployment, ...] = ()
    relief: Relief = NO_RELIEF
    rollout: Rollout = NO_ROLLOUT
    published_of: object = None
    published: Publish = NOTHING_PUBLISHED

    def same_nodes(self, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        """The nodes, those that are as they were as the same objects, and all of them as one when nothing changed."""
        known = {node.node_id: node for node in self.nodes}
        kept = tuple(_same(known.get(node.node_id), node) for node in nodes)
        unchanged = len(kept) == len(self.nodes) and all(a is b for a, b in zip(kept, self.nodes, strict=True))
        return self.nodes if unchanged else kept

    def is_still(self, state: State, nodes: tuple[Node, ...], seen: Observation) -> bool:
        """Whether the last look saw the very same, and left this state behind."""
        same = nodes is self.nodes and seen.blueprint is self.blueprint and seen.deployments == self.deployments
        return same and all(map(operator.is_, remembered(state), self.remembered))

    def rolled_out(self, relief: Relief) -> Rollout | None:
        """The rollout of the same nodes and blueprint, unless time moves it: what leaves waits for moments."""
        kept = self.rollout is not NO_ROLLOUT and relief == self.relief and not self.blueprint.leaving
        return self.rollout if kept else None


NOTHING_YET: Final = Looked()


class Looks:
    """Keeps the last look for the next one; its caller hands it from step to step."""

    def __init__(self) -> None:
        self.last = NOTHING_YET


def remembered(state: State) -> tuple[object, ...]:
    """What of a state follows from nodes and blueprint alone, as long as time moves nothing in it."""
    return (state.nodes, state.quarantined, state.layouts)


def stays_quarantined(entries: tuple[Quarantine, ...], now_s: float) -> bool:
    """Whether a look at the same nodes gives up the same: nothing has been given up for long enough."""
    return all(entry.until_s > now_s for entry in entries)


def stays_laid_out(memory: LayoutMemory) -> bool:
    """Whether a look at the same nodes remembers the same of layouts: nothing waits and no pause runs."""
    return not memory.bars and not memory.waits


def _same(before: Node | None, node: Node) -> Node:
    return before if before is not None and (before is node or before == node) else node
