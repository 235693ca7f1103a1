"""One step of the orchestrator: (state, observation, now) → (state, effects). The live service and a simulator call it.

It looks at the whole observation every time; what it remembers is only what cannot be seen (since when, what failed).
A `Commit` is a proposal: it is in force when a later observation's blueprint says so. Repeating or dropping effects
does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from services.orchestrator.core.blueprint import EMPTY, Blueprint, Replica
from services.orchestrator.core.catalog import EMPTY_CATALOG, Catalog, Quarantine
from services.orchestrator.core.check import check
from services.orchestrator.core.explanation import Explanation
from services.orchestrator.core.fleet import Budget, Node, NodeState, ReplicaState
from services.orchestrator.core.liveness import Patience, next_state
from services.orchestrator.core.plan import Plan, make_plan
from services.orchestrator.core.policy import ENERGY, Policy
from services.orchestrator.core.rollout import RolloutMemory, Target, roll_out
from services.orchestrator.core.scores import key_of
from services.orchestrator.core.situation import Situation
from services.orchestrator.core.traffic import DeploymentTraffic, PowerReading, Speed
from services.orchestrator.core.trigger import trigger_words
from services.orchestrator.core.wish import Demand, Deployment

# A replica that could not start so often is given up for `QUARANTINE_S`; the agent's pauses grow, so the third failure
# comes well within a minute.
STARTS_BEFORE_QUARANTINE: Final = 3
QUARANTINE_S: Final = 600.0
# After a swap that nobody asked for, the next one for savings comes no sooner.
COOL_DOWN_S: Final = 600.0


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
    """What the orchestrator remembers. `planned` is the situation that was planned last."""

    started_s: float
    patience: Patience = field(default_factory=Patience)
    policy: Policy = ENERGY
    nodes: tuple[tuple[str, NodeState], ...] = ()
    rollout: RolloutMemory = field(default_factory=RolloutMemory)
    quarantined: tuple[Quarantine, ...] = ()
    swaps: tuple[Swap, ...] = ()
    blueprint_id: str = ""
    planned: Situation | None = None
    explanations: tuple[Explanation, ...] = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """A checked plan to be committed by compare-and-set. Its blueprint is the parent when only reports changed."""

    plan: Plan
    parent: Blueprint
    trigger: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A plan that the independent check refused; a fault of ours, never committed."""

    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Push:
    """Whole targets of all nodes, from this generation."""

    generation: int
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Publish:
    """The whole routing table."""

    routes: tuple[tuple[str, tuple[Replica, ...]], ...]


Effect = Commit | Broken | Push | Publish


def step(state: State, seen: Observation, now_s: float) -> tuple[State, tuple[Effect, ...]]:
    """One look at everything."""
    nodes = _nodes(state, seen, now_s)
    state = replace(state, nodes=tuple((n.node_id, n.state) for n in nodes))
    state = _remember(state, seen, nodes, now_s)
    situation = situation_of(state, seen, nodes, now_s)
    effects: list[Effect] = []
    if seen.catalog_known and _settled_in(seen.blueprint, nodes) and _outline(situation) != _outline(state.planned):
        plan = make_plan(situation)
        findings = check(situation, plan.blueprint, plan.explanations)
        trigger = trigger_words(state.planned, situation)
        news = plan.blueprint != seen.blueprint or _verdicts(plan.explanations) != _verdicts(state.explanations)
        state = replace(state, planned=situation, explanations=plan.explanations)
        if findings:
            effects.append(Broken(findings))
        elif news:
            effects.append(Commit(plan, seen.blueprint, trigger))
    rollout = roll_out(seen.blueprint, nodes, state.rollout, now_s)
    state = replace(state, rollout=rollout.memory)
    effects += [Push(seen.blueprint.generation, rollout.targets), Publish(rollout.routes)]
    return state, tuple(effects)


def again(state: State) -> State:
    """After a commit that did not go through: the next step plans anew."""
    return replace(state, planned=None)


def nodes_now(state: State, seen: Observation, now_s: float) -> tuple[Node, ...]:
    """Nodes with the states that the next step would give them."""
    return _nodes(state, seen, now_s)


def can_plan(state: State, seen: Observation, now_s: float) -> bool:
    """Whether every node of the blueprint was heard or given up; before that a plan would move work needlessly."""
    return seen.catalog_known and _settled_in(seen.blueprint, _nodes(state, seen, now_s))


def situation_of(state: State, seen: Observation, nodes: tuple[Node, ...], now_s: float) -> Situation:
    """What a plan would be made from now."""
    generations = {d.deployment_id: d.generation for d in seen.deployments}
    settled = [
        s.deployment_id
        for s in state.swaps
        if now_s - s.at_s < COOL_DOWN_S and generations.get(s.deployment_id) == s.generation
    ]
    return Situation(
        deployments=seen.deployments,
        nodes=nodes,
        catalog=seen.catalog,
        parent=seen.blueprint,
        budgets=seen.budgets,
        settled=tuple(sorted(settled)),
        quarantined=tuple(q for q in state.quarantined if q.until_s > now_s),
        gone=state.rollout.gone,
    )


def _nodes(state: State, seen: Observation, now_s: float) -> tuple[Node, ...]:
    before, sights = dict(state.nodes), {s.node.node_id: s for s in seen.nodes}
    expected = {r.node_id for r in (*seen.blueprint.replicas, *seen.blueprint.leaving)}
    nodes: list[Node] = []
    for name in sorted({*expected, *sights}):
        sight = sights.get(name)
        after = next_state(
            before.get(name, NodeState.JOINING),
            age_s=now_s - (sight.last_seen_s if sight else state.started_s),
            reported=sight is not None,
            connected=bool(sight and sight.connected),
            drain=name in seen.draining,
            busy=bool(sight and sight.node.replicas),
            patience=state.patience,
        )
        nodes.append(replace(sight.node, state=after) if sight else Node(name, after))
    return tuple(nodes)


def _settled_in(blueprint: Blueprint, nodes: tuple[Node, ...]) -> bool:
    waited_for = [r.node_id for r in (*blueprint.replicas, *blueprint.leaving)]
    return not any(n.state is NodeState.JOINING and n.node_id in waited_for for n in nodes)


def _remember(state: State, seen: Observation, nodes: tuple[Node, ...], now_s: float) -> State:
    quarantined = [q for q in state.quarantined if q.until_s > now_s]
    reports = {(n.node_id, r.replica_id): r for n in nodes for r in n.replicas}
    for replica in seen.blueprint.replicas:
        report = reports.get((replica.node_id, replica.replica_id))
        if report and report.state is ReplicaState.FAILED and report.starts >= STARTS_BEFORE_QUARANTINE:
            key = (replica.deployment_id, replica.variant_id, replica.device_class)
            if all((q.deployment_id, q.variant_id, q.device_class) != key for q in quarantined):
                quarantined.append(Quarantine(*key, report.reason, now_s + QUARANTINE_S))
    swaps = state.swaps
    if state.planned and seen.blueprint.blueprint_id != state.blueprint_id:
        swaps = _swaps(state, seen, now_s)
    return replace(state, quarantined=tuple(quarantined), swaps=swaps, blueprint_id=seen.blueprint.blueprint_id)


def _swaps(state: State, seen: Observation, now_s: float) -> tuple[Swap, ...]:
    """A new blueprint is in force: note which deployments it gave another operating point without being asked to."""
    assert state.planned is not None
    before = state.planned.parent
    asked = {d.deployment_id: d.generation for d in state.planned.deployments}
    swaps = {
        s.deployment_id: s for s in state.swaps if any(d.deployment_id == s.deployment_id for d in seen.deployments)
    }
    for wish in seen.deployments:
        old = [key_of(r) for r in before.of(wish.deployment_id)]
        new = [key_of(r) for r in seen.blueprint.of(wish.deployment_id)]
        if asked.get(wish.deployment_id) == wish.generation and old and any(key not in old for key in new):
            swaps[wish.deployment_id] = Swap(wish.deployment_id, wish.generation, now_s)
    return tuple(swaps[name] for name in sorted(swaps))


def _outline(situation: Situation | None) -> object:
    """What a plan depends on; reports of progress are left out, they change all the time and change no plan."""
    if situation is None:
        return None
    return (
        tuple((n.node_id, n.state, n.devices, n.labels) for n in situation.nodes),
        (situation.deployments, situation.catalog, situation.parent.blueprint_id),
        (situation.budgets, situation.settled, situation.gone),
        tuple((q.deployment_id, q.variant_id, q.device_class) for q in situation.quarantined),
    )


def _verdicts(explanations: tuple[Explanation, ...]) -> object:
    """What makes an explanation news."""

    def verdict(explanation: Explanation) -> object:
        options = [
            (c.variant_id, c.device_class, c.partition_kind, c.batch_limit, c.refusal, c.chosen)
            for c in explanation.candidates
        ]
        return (explanation.deployment_id, explanation.binding_limit, explanation.nearest_slo, sorted(options))

    return [verdict(explanation) for explanation in explanations]
