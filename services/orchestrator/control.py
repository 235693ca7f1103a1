"""The control loop: looks at everything, lets the core decide, acts. All state of the orchestrator in memory is here.

One lock serialises looks and writes, so that each plan is made from, and committed onto, what is in force. Acting on
nodes needs no database: when PostgreSQL is away only commits fail, and are tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator.catalogue import Catalogue
from services.orchestrator.core.adaptation.adapt import Memory
from services.orchestrator.core.adaptation.provision import inherited
from services.orchestrator.core.checking.check import check
from services.orchestrator.core.effects import Broken, Commit, Note, Publish, Push
from services.orchestrator.core.facts.blueprint import Blueprint
from services.orchestrator.core.facts.fleet import Budget, Node, NodeState
from services.orchestrator.core.facts.policy import ENERGY, Policy
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.liveness import Patience
from services.orchestrator.core.planning.offer import Known
from services.orchestrator.core.planning.plan import Plan, make_plan
from services.orchestrator.core.planning.report import differences
from services.orchestrator.core.replay import Asked, Inputs, Look
from services.orchestrator.core.state import Observation, State
from services.orchestrator.core.step import again, can_plan, nodes_now, situation_of, step, watch
from services.orchestrator.gauges import Gauges
from services.orchestrator.journal import kept_inputs
from services.orchestrator.links import Links
from services.orchestrator.listener import TrafficListener
from services.orchestrator.publisher import Publisher
from services.orchestrator.records import (
    DeploymentRecord,
    Mark,
    Records,
    add_decision,
    commit_blueprint,
    forget_deployments,
)
from services.orchestrator.routing import routing_table
from services.orchestrator.standing import Heard, deployment_message
from services.orchestrator.translate.blueprints import blueprint_message, blueprint_of, explanation_message
from services.orchestrator.translate.wishes import wish_of
from services.orchestrator.translate.work import power_of, queued_at, speeds_of
from tradewind.domain.errors import (
    GenerationConflict,
    Internal,
    NotFound,
    NotLeader,
    ServiceUnavailable,
    StaleGeneration,
    TradewindError,
)
from tradewind.v1 import node_pb2, orchestrator_pb2

# Something is looked at at least so often, for what no event tells: silence, ended pauses, the settle time of routes.
PERIOD_S: Final = 0.5
# Reports of many nodes within this time are looked at together.
GATHER_S: Final = 0.02
# A commit that failed is tried again after this time.
RETRY_S: Final = 2.0
# How often nodes and deployments that are gone are forgotten.
TIDY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A checked plan, not committed yet, and what it was made from."""

    plan: Plan
    changes: tuple[str, ...]
    inputs: Inputs


class Control:
    """Keeps wishes and blueprint; drives nodes towards it while it leads, only shows them while it follows.

    Args:
        records: PostgreSQL.
        links: nodes.
        catalogue: what can be chosen from.
        publisher: Redis.
        now_s: monotonic clock.
        patience: how long nodes may be silent.
        gauges: metrics.
        listener: traffic as gateways tell it.
        policy: how to go about it.
    """

    def __init__(
        self,
        records: Records,
        links: Links,
        catalogue: Catalogue,
        publisher: Publisher,
        now_s: Callable[[], float],
        patience: Patience,
        gauges: Gauges,
        listener: TrafficListener,
        policy: Policy = ENERGY,
    ) -> None:
        self.records, self.links, self.catalogue = records, links, catalogue
        self._publisher, self._now_s, self._gauges, self._listener = publisher, now_s, gauges, listener
        self._state = State(started_s=now_s(), patience=patience, policy=policy)
        self._known = Known()
        self._mark: Mark | None = None
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._shown: list[orchestrator_pb2.Deployment] = []
        self._retry_at_s: float | None = None
        self._tidy_at_s = now_s() + TIDY_S
        self._log = structlog.get_logger("control")
        self.leading = self.loaded = False
        # Where the leader answers; "" when not known.
        self.leader = ""
        self.blueprint = Blueprint("", 0, "")
        self.deployments: dict[str, DeploymentRecord] = {}
        self.draining: tuple[str, ...] = ()
        self.budgets: dict[str, int] = {}
        self.explanations: dict[str, orchestrator_pb2.Explanation] = {}

    async def lead(self) -> None:
        """Takes the lead: reads what is stored, and waits for nodes to connect here.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer; it does not lead then.
        """
        async with self._lock:
            self._mark = None
            await self._load()
            self.links.clear()
            learnt = self._state.learnt
            if not learnt.provisions:
                # We never followed: what the last leader provisioned for is in its last decision.
                learnt = Memory(provisions=inherited(await self.records.provisions(), self._now_s()))
            self._state = State(
                started_s=self._now_s(), patience=self._state.patience, policy=self._state.policy, learnt=learnt
            )
            self._retry_at_s = None
            self.leading, self.leader = True, self.records.holder
        self._log.info(
            "leading",
            fencing=self.records.fencing,
            generation=self.blueprint.generation,
            deployments=len(self.deployments),
        )
        self.wake()

    async def follow(self, leader: str, reports: Sequence[node_pb2.NodeReport]) -> None:
        """Reads what the leader has written, for readers here.

        Args:
            leader: its address.
            reports: of nodes, as Redis has them.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        async with self._lock:
            mark = await self.records.mark()
            if mark != self._mark:
                await self._load()
                self._mark = mark
            if self.leader != leader:
                self._log.info("following", leader=leader, generation=self.blueprint.generation)
            self.leader = leader
            self.links.overhear(reports)
            self._state = await asyncio.to_thread(watch, self._state, self._observe(), self._now_s())
        await self._tell_watchers()

    async def _load(self) -> None:
        stored = await self.records.load()
        self.deployments = {record.deployment_id: record for record in stored.deployments}
        self.blueprint = blueprint_of(stored.blueprint)
        self.draining, self.budgets = stored.draining, dict(stored.budgets)
        self.explanations = stored.explanations
        self.loaded = True

    def require_loaded(self) -> None:
        """Refuses while nothing was read yet.

        Raises:
            ServiceUnavailable: it just started.
        """
        if not self.loaded:
            raise ServiceUnavailable("the orchestrator just started and reads what is stored; retry in a second")

    def depose(self, error: TradewindError) -> None:
        """Another orchestrator leads: stops acting, sends node agents away."""
        self._log.warning("another orchestrator leads, this one follows", error=error.message)
        self.leading, self.leader = False, ""
        self.links.clear()
        self._publisher.stand_down()

    def wake(self) -> None:
        """Something may have changed; carries no data."""
        self._wake.set()

    async def run(self) -> None:
        """Looks again and again until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await self._wake.wait()
                await asyncio.sleep(GATHER_S)
            self._wake.clear()
            try:
                await self.look()
            except TradewindError as error:
                self._log.warning("a look was cut short, the next one goes on", error=error.message)

    async def look(self) -> None:
        """Looks once at everything and acts."""
        async with self._lock:
            await self._look()
        await self._tell_watchers()

    # --- for writers -----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Nothing is planned or committed by others meanwhile; wakes the loop afterwards.

        Raises:
            NotLeader: another orchestrator leads.
        """
        async with self._lock:
            if not self.leading:
                raise NotLeader(self.leader)
            yield
        self.wake()

    async def until_plannable(self, limit_s: float) -> None:
        """Waits until every node of the blueprint was heard or given up.

        Raises:
            ServiceUnavailable: that takes longer than `limit_s`.
        """
        deadline = self._now_s() + limit_s
        while not can_plan(self._state, self._observe(), self._now_s()):
            if self._now_s() > deadline:
                raise ServiceUnavailable("just started, nodes and models are being read in; retry in some seconds")
            await asyncio.sleep(PERIOD_S / 5)

    async def propose(self, wishes: tuple[Deployment, ...], draining: tuple[str, ...] | None = None) -> Proposal:
        """A checked plan for these wishes, nothing committed.

        Raises:
            Internal: the independent check refused it; a fault of ours.
        """
        now_s = self._now_s()
        seen = replace(self._observe(), deployments=wishes)
        if draining is not None:
            seen = replace(seen, draining=draining)
        nodes = nodes_now(self._state, seen, now_s)
        situation = situation_of(self._state, seen, nodes, now_s)
        began_s = self._now_s()
        plan = await asyncio.to_thread(make_plan, situation, self._known)
        self._gauges.planned(self._now_s() - began_s)
        if findings := check(situation, plan.blueprint, plan.explanations):
            self._log.error("the check refused a plan", findings=findings)
            raise Internal(f"the plan is wrong and was not committed: {'; '.join(findings)}", {"finding": findings[0]})
        return Proposal(plan, differences(self.blueprint, plan.blueprint, self.variant_names()), Asked(situation))

    async def commit(self, session: AsyncSession, trigger: str, proposal: Proposal) -> None:
        """Writes a proposal within the caller's transaction; `adopt` it once that is committed."""
        message = blueprint_message(proposal.plan.blueprint)
        changed = proposal.plan.blueprint != self.blueprint
        if changed:
            await commit_blueprint(session, message)
        explanations = [explanation_message(e) for e in proposal.plan.explanations]
        words = [e.summary for e in proposal.plan.explanations]
        summary = "\n".join([*words, *(proposal.changes if changed else ())])
        kept = await asyncio.to_thread(kept_inputs, proposal.inputs, proposal.plan)
        await add_decision(session, trigger, summary, message if changed else None, explanations, kept)

    def adopt(self, plan: Plan, *, asked: bool = True) -> None:
        """A committed plan is in force; `asked` when people asked for it, not the loop itself."""
        if plan.blueprint != self.blueprint:
            self._log.info("blueprint committed", generation=plan.blueprint.generation, id=plan.blueprint.blueprint_id)
        self.blueprint = plan.blueprint
        # The next look finds the same and has no news to write down again.
        self._state = replace(self._state, explanations=plan.explanations, asked=asked)
        self.explanations.update({e.deployment_id: explanation_message(e) for e in plan.explanations})
        self._gauges.generation(plan.blueprint.generation)

    def wishes(self, *, without: str = "") -> tuple[Deployment, ...]:
        """Wishes in force, oldest first; `without` leaves one deployment out."""
        return tuple(
            self.wish(record)
            for record in self.deployments.values()
            if not record.deleting and record.deployment_id != without
        )

    def wish(self, record: DeploymentRecord) -> Deployment:
        """A record as a wish. A model that is not known (any more) has no variants: the wish keeps what runs."""
        model_id = self._model_id(record)
        return wish_of(record.deployment_id, record.name, record.generation, record.spec, model_id)

    # --- for readers -----------------------------------------------------------------------------------------------

    def find(self, name: str) -> DeploymentRecord:
        """A deployment by name or id.

        Raises:
            NotFound: there is none.
        """
        self.require_loaded()
        for record in self.deployments.values():
            if name in (record.deployment_id, record.name):
                return record
        names = ", ".join(sorted(r.name for r in self.deployments.values()))
        raise NotFound("deployment", name, f"there are: {names}" if names else "there are none")

    def show(
        self,
        record: DeploymentRecord,
        blueprint: Blueprint | None = None,
        explanation: orchestrator_pb2.Explanation | None = None,
    ) -> orchestrator_pb2.Deployment:
        """A deployment as it stands, or as it will stand under another blueprint."""
        explanation = explanation or self.explanations.get(record.deployment_id)
        return deployment_message(record, blueprint or self.blueprint, self._heard(), explanation)

    def show_all(self) -> list[orchestrator_pb2.Deployment]:
        """All deployments as they stand, by name."""
        heard = self._heard()
        records = sorted(self.deployments.values(), key=lambda r: r.name)
        return [deployment_message(r, self.blueprint, heard, self.explanations.get(r.deployment_id)) for r in records]

    def nodes(self, draining: tuple[str, ...] | None = None) -> tuple[Node, ...]:
        """Nodes with their states, as they are or with other drains."""
        seen = self._observe()
        if draining is not None:
            seen = replace(seen, draining=draining)
        return nodes_now(self._state, seen, self._now_s())

    def variant_names(self) -> dict[str, str]:
        """Names of variants by id."""
        return {v.variant_id: v.name for v in self.catalogue.catalog.variants}

    async def changes(self) -> AsyncIterator[None]:
        """Yields at once and whenever a deployment changed."""
        while True:
            yield
            async with self._changed:
                await self._changed.wait()

    # --- one look --------------------------------------------------------------------------------------------------

    def _observe(self) -> Observation:
        wishes = self.wishes()
        queued = queued_at(self.links.all())
        return Observation(
            deployments=wishes,
            nodes=self.links.sights(),
            traffic=self._listener.traffic({w.name: w.deployment_id for w in wishes}, queued),
            power=power_of(self.links.all()),
            speeds=speeds_of(self.links.all()),
            catalog=self.catalogue.catalog,
            blueprint=self.blueprint,
            budgets=tuple(Budget(scope, float(limit)) for scope, limit in sorted(self.budgets.items())),
            draining=self.draining,
            catalog_known=self.catalogue.known,
        )

    async def _look(self) -> None:
        if not self.leading:
            return
        now_s = self._now_s()
        if self._retry_at_s is not None and now_s >= self._retry_at_s:
            self._retry_at_s, self._state = None, again(self._state)
        seen, before = self._observe(), self._state
        state, effects = await asyncio.to_thread(step, before, seen, now_s, self._known)
        self._state = state
        self._gauges.nodes([node_state for _, node_state in state.nodes])
        for effect in sorted(effects, key=lambda e: isinstance(e, Commit)):
            if isinstance(effect, Push):
                self.links.push(effect.targets, effect.generation, self.records.fencing)
            elif isinstance(effect, Publish):
                addresses = {link.node.node_id: link.node.address for link in self.links.all()}
                wishes = self.wishes()
                self._publisher.routes(routing_table(wishes, addresses, self.catalogue.catalog, effect))
            elif isinstance(effect, Broken):
                self._log.error("the check refused a plan, nothing was committed", findings=effect.findings)
                self._gauges.refused()
            elif isinstance(effect, Note):
                self._log.info("learnt", words=effect.words)
            else:
                await self._commit(effect, Look(before, seen, now_s))
        await self._tidy(now_s)

    async def _commit(self, effect: Commit, inputs: Look) -> None:
        changes = differences(effect.parent, effect.plan.blueprint, self.variant_names())
        proposal = Proposal(effect.plan, changes, inputs)
        try:
            async with self.records.begin() as session:
                await self.commit(session, effect.trigger, proposal)
        except StaleGeneration as error:
            self.depose(error)
            return
        except (TradewindError, GenerationConflict) as error:
            self._log.warning("not committed, trying again", trigger=effect.trigger, error=error.message)
            self._retry_at_s = self._now_s() + RETRY_S
            return
        self._log.info("decided", trigger=effect.trigger, changes=[line for line in proposal.changes if line[0] != "="])
        self.adopt(effect.plan, asked=self._state.asked)
        self.wake()

    async def _tidy(self, now_s: float) -> None:
        """Forgets deployments that are gone and long lost nodes. Waits for nothing that is away."""
        ended = [
            record.deployment_id
            for record in self.deployments.values()
            if record.deleting and self._has_ended(record.deployment_id)
        ]
        if not ended and now_s < self._tidy_at_s:
            return
        self._tidy_at_s = now_s + TIDY_S
        self.links.forget(frozenset({r.node_id for r in (*self.blueprint.replicas, *self.blueprint.leaving)}))
        if not ended:
            return
        try:
            async with self.records.begin() as session:
                await forget_deployments(session, ended)
        except StaleGeneration as error:
            self.depose(error)
            return
        for deployment_id in ended:
            del self.deployments[deployment_id]
            self.explanations.pop(deployment_id, None)

    def _has_ended(self, deployment_id: str) -> bool:
        gone = self._state.rollout.gone
        leaving = [r for r in self.blueprint.leaving_of(deployment_id) if r.replica_id not in gone]
        return not self.blueprint.of(deployment_id) and not leaving

    def _model_id(self, record: DeploymentRecord) -> str:
        with contextlib.suppress(NotFound, ServiceUnavailable):
            return self.catalogue.model(record.spec.model).model_id
        running = (*self.blueprint.of(record.deployment_id), *self.blueprint.leaving_of(record.deployment_id))
        return running[0].model_id if running else record.spec.model

    def _heard(self) -> dict[str, Heard]:
        lost = [name for name, state in self._state.nodes if state is NodeState.LOST]
        return {
            status.replica_id: Heard(
                link.node.node_id, status, link.node.node_id not in lost, self._publisher.knows(status.replica_id)
            )
            for link in self.links.all()
            for status in link.report.replicas
        }

    async def _tell_watchers(self) -> None:
        shown = self.show_all()
        self._gauges.deployments([d.state for d in shown])
        if shown != self._shown:
            self._shown = shown
            async with self._changed:
                self._changed.notify_all()
