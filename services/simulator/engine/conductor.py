"""The orchestrator of a run: the live `step` over simulated sights, and its effects carried out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from services.node_agent.core.governor import Limits
from services.node_agent.core.target import ReplicaSpec
from services.node_agent.core.target import Target as AgentTarget
from services.orchestrator.core.effects import Broken, Commit, Publish, Push
from services.orchestrator.core.facts.blueprint import EMPTY, Blueprint, Replica
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.policy import Policy
from services.orchestrator.core.facts.traffic import DeploymentTraffic, PowerReading
from services.orchestrator.core.facts.wish import Demand, Deployment
from services.orchestrator.core.looked import Looks
from services.orchestrator.core.planning.offer import Known
from services.orchestrator.core.planning.report import differences
from services.orchestrator.core.rollout.rollout import Intent, Target
from services.orchestrator.core.state import NodeSight, Observation, State
from services.orchestrator.core.step import step
from services.simulator.engine.node import SimNode
from tradewind.domain.manifest import FileRef

# After a commit the live loop looks again at once; it settles within a few looks.
MOST_LOOKS: Final = 4


@dataclass(slots=True)
class Sight:
    """What the orchestrator last heard of a node."""

    node: SimNode
    heard_s: float = 0.0
    deaf_until_s: float = -1.0
    mute_until_s: float = -1.0
    delay_s: float = 0.0
    told: object = None
    steps: int = 0
    cached: Any = None


@dataclass(slots=True)
class Conductor:
    """Owns the orchestrator's state and the blueprint in force.

    Attributes:
        journal: a line for each decision, in order.
        broken: findings of the independent check; none may ever come.
    """

    policy: Policy
    catalog: Catalog
    sights: dict[str, Sight]
    publish: Callable[[Publish], None]
    deliver: Callable[[Sight, AgentTarget, Any], None]
    deployments: tuple[Deployment, ...]
    fencing: int = 1
    blueprint: Blueprint = EMPTY
    state: State = field(default_factory=lambda: State(started_s=0.0))
    known: Known = field(default_factory=Known)
    looks: Looks = field(default_factory=Looks)
    journal: list[dict[str, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    commits: int = 0

    def __post_init__(self) -> None:
        self.state = replace(self.state, policy=self.policy)

    def look(
        self,
        now_s: float,
        traffic: Iterable[DeploymentTraffic],
        foreseen: tuple[tuple[str, Demand], ...] = (),
        power: tuple[PowerReading, ...] = (),
    ) -> None:
        """Looks until nothing more is to be committed."""
        windows = tuple(traffic)
        for _ in range(MOST_LOOKS):
            seen = Observation(
                deployments=self.deployments,
                nodes=self._sights(now_s),
                catalog=self.catalog,
                blueprint=self.blueprint,
                traffic=windows,
                power=power,
                foreseen=foreseen,
            )
            self.state, effects = step(self.state, seen, now_s, self.known, self.looks)
            if not self._carry_out(effects, now_s):
                return

    def _sights(self, now_s: float) -> tuple[NodeSight, ...]:
        sights = []
        for sight in self.sights.values():
            if now_s >= sight.mute_until_s:
                sight.cached, sight.heard_s = sight.node.report(), now_s - sight.delay_s
            if sight.cached is not None:
                sights.append(NodeSight(sight.cached, sight.heard_s, now_s >= sight.mute_until_s))
        return tuple(sights)

    def _carry_out(self, effects: tuple[Any, ...], now_s: float) -> bool:
        """Whether the blueprint changed, so that another look is due."""
        changed = False
        for effect in sorted(effects, key=lambda e: isinstance(e, Commit)):
            if isinstance(effect, Push):
                self._push(effect, now_s)
            elif isinstance(effect, Broken):
                self.broken.extend(effect.findings)
            elif isinstance(effect, Commit):
                changed = effect.plan.blueprint != self.blueprint
                self._commit(effect, now_s)
            elif isinstance(effect, Publish):
                self.publish(effect)
        return changed

    def _commit(self, effect: Commit, now_s: float) -> None:
        assert effect.parent == self.blueprint
        plan = effect.plan
        if plan.blueprint != self.blueprint:
            self.commits += 1
            names = {v.variant_id: v.name for v in self.catalog.variants}
            changes = [line for line in differences(self.blueprint, plan.blueprint, names) if line[0] != "="]
            self.journal.append(
                {
                    "at_s": round(now_s, 3),
                    "trigger": effect.trigger,
                    "generation": plan.blueprint.generation,
                    "blueprint": plan.blueprint.blueprint_id,
                    "summary": [e.summary for e in plan.explanations],
                    "changes": changes,
                }
            )
        self.blueprint = plan.blueprint

    def _push(self, effect: Push, now_s: float) -> None:
        layouts = {layout.node_id: layout for layout in self.blueprint.layouts}
        for target in effect.targets:
            sight = self.sights.get(target.node_id)
            if sight is None or now_s < sight.deaf_until_s:
                continue
            content = (effect.generation, target)
            if content == sight.told:
                continue
            sight.told = content
            sight.steps += 1
            planned = layouts.get(target.node_id)
            layout = replace(planned, power_settings=target.power_settings) if planned else None
            self.deliver(sight, self._message(target, effect.generation, sight.steps), layout)

    def _message(self, target: Target, generation: int, steps: int) -> AgentTarget:
        specs = tuple(_spec(replica, intent) for replica, intent in target.replicas)
        return AgentTarget(target.node_id, self.fencing, generation, steps, specs, repr(specs))


def _spec(replica: Replica, intent: Intent) -> ReplicaSpec:
    part = replica.partition
    return ReplicaSpec(
        replica_id=replica.replica_id,
        deployment_id=replica.deployment_id,
        variant_id=replica.variant_id,
        manifest=FileRef(replica.manifest.name, replica.manifest.digest, replica.manifest.size_bytes),
        partition_id=part.partition_id,
        device_id=part.device_id,
        partition_kind=part.kind,
        cpu_ids=part.cpu_ids,
        batch_limit=replica.batch_limit,
        model_id=replica.model_id,
        draining=intent is Intent.DRAIN,
        limits=Limits(_seconds(replica.ttft_limit_ms), _seconds(replica.tpot_limit_ms), replica.pace_ms / 1000.0),
    )


def _seconds(limit_ms: float | None) -> float:
    return math.inf if limit_ms is None else limit_ms / 1000.0
