"""Everything a plan is made from. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

from services.orchestrator.core.facts.blueprint import EMPTY, Blueprint, Replica
from services.orchestrator.core.facts.catalog import EMPTY_CATALOG, Catalog, Quarantine
from services.orchestrator.core.facts.fleet import Budget, Node, NodeState, ReplicaReport
from services.orchestrator.core.facts.levers import ALL_LEVERS, Levers
from services.orchestrator.core.facts.wish import Deployment


@dataclass(frozen=True, slots=True)
class Situation:
    """Wishes, nodes, choices, what is in force, and what people decided.

    Attributes:
        deployments: oldest first: of wishes that do not fit together, the older ones win.
        settled: deployments whose variant was swapped lately; they keep it while it meets their SLO and the budgets.
        quarantined: variants that failed to start.
        gone: leaving replicas that have ended.
        levers: which means may be used.
    """

    deployments: tuple[Deployment, ...] = ()
    nodes: tuple[Node, ...] = ()
    catalog: Catalog = EMPTY_CATALOG
    parent: Blueprint = EMPTY
    budgets: tuple[Budget, ...] = ()
    settled: tuple[str, ...] = ()
    quarantined: tuple[Quarantine, ...] = ()
    gone: tuple[str, ...] = ()
    levers: Levers = ALL_LEVERS

    def node(self, node_id: str) -> Node | None:
        """A node by id, None when it was never seen."""
        return next((n for n in self.nodes if n.node_id == node_id), None)

    def report_of(self, replica: Replica) -> ReplicaReport | None:
        """What its node last said of a replica."""
        node = self.node(replica.node_id)
        return next((r for r in node.replicas if r.replica_id == replica.replica_id), None) if node else None

    def silent(self, replica: Replica) -> bool:
        """Whether nothing newer can be known of a replica: its node is lost, late or not seen."""
        node = self.node(replica.node_id)
        return node is None or node.state in (NodeState.LOST, NodeState.SUSPECT, NodeState.JOINING)
