"""What the orchestrator sees at one moment, and what it remembers between looks. Values, no decisions."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.orchestrator.core.adaptation.adapt import Memory
from services.orchestrator.core.adaptation.pace import Place, Touch
from services.orchestrator.core.facts.blueprint import EMPTY, Blueprint
from services.orchestrator.core.facts.catalog import EMPTY_CATALOG, Catalog, Quarantine
from services.orchestrator.core.facts.explanation import Explanation
from services.orchestrator.core.facts.fleet import Budget, Node, NodeState
from services.orchestrator.core.facts.policy import ENERGY, Policy
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.traffic import DeploymentTraffic, PowerReading, Speed
from services.orchestrator.core.facts.wish import Demand, Deployment
from services.orchestrator.core.liveness import Patience
from services.orchestrator.core.rollout.bars import LayoutMemory
from services.orchestrator.core.rollout.rollout import RolloutMemory


@dataclass(frozen=True, slots=True)
class NodeSight:
    """A node as last heard. The state inside `node` is ignored; liveness decides it."""

    node: Node
    last_seen_s: float
    connected: bool


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that can be seen at one moment.

    Attributes:
        catalog_known: False until the catalog was read once; nothing is planned before that.
        traffic: newest windows of each deployment; none means that no gateway tells, and demand stays as wished.
        power: of each device; only shown and judged, never needed.
        speeds: of replicas.
        foreseen: what is to come, by deployment id; only a policy that foresees looks at it.
    """

    deployments: tuple[Deployment, ...] = ()
    nodes: tuple[NodeSight, ...] = ()
    catalog: Catalog = EMPTY_CATALOG
    blueprint: Blueprint = EMPTY
    budgets: tuple[Budget, ...] = ()
    draining: tuple[str, ...] = ()
    catalog_known: bool = True
    traffic: tuple[DeploymentTraffic, ...] = ()
    power: tuple[PowerReading, ...] = ()
    speeds: tuple[Speed, ...] = ()
    foreseen: tuple[tuple[str, Demand], ...] = ()


@dataclass(frozen=True, slots=True)
class Swap:
    """When a deployment's variant or partition was last changed, for which generation of the wish."""

    deployment_id: str
    generation: int
    at_s: float


@dataclass(frozen=True, slots=True)
class State:
    """What the orchestrator remembers.

    Attributes:
        learnt: from traffic, speed and power; empty with a policy that does not adapt.
        blueprint: in force at the last look.
        planned: the situation that was planned last; `acted` the last one whose plan was not put off.
        deferred_s: when a plan that only saves may be made, because devices it would change are cool again.
        asked: whether the last plan was asked for by people, nodes or faults; what is, starts no cool-down.
        touches: when devices were changed last without being asked for.
        layouts: those that boards would not take.
        saving: devices that the last plan changes for savings; `savings` when such devices were changed last.
    """

    started_s: float
    patience: Patience = field(default_factory=Patience)
    policy: Policy = ENERGY
    nodes: tuple[tuple[str, NodeState], ...] = ()
    rollout: RolloutMemory = field(default_factory=RolloutMemory)
    quarantined: tuple[Quarantine, ...] = ()
    swaps: tuple[Swap, ...] = ()
    blueprint: Blueprint = EMPTY
    planned: Situation | None = None
    acted: Situation | None = None
    explanations: tuple[Explanation, ...] = ()
    learnt: Memory = field(default_factory=Memory)
    deferred_s: float | None = None
    asked: bool = True
    touches: tuple[Touch, ...] = ()
    saving: tuple[Place, ...] = ()
    savings: tuple[Touch, ...] = ()
    layouts: LayoutMemory = field(default_factory=LayoutMemory)
