"""The control loop: looks at everything, lets the core decide, acts.

What is wished and in force is in `register`, what can be seen comes from `observer`, plans that people ask for are made
and written by `proposals`, and readers are answered by `showing`.

One lock serialises looks and writes, so that each plan is made from, and committed onto, what is in force. Acting on
nodes needs no database: when PostgreSQL is away only commits fail, and are tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from services.orchestrator.catalogue import Catalogue
from services.orchestrator.core.adaptation.adapt import Memory, handed_down
from services.orchestrator.core.asking import after_asked, asked_of
from services.orchestrator.core.effects import Broken, Commit, Note, Publish, Push
from services.orchestrator.core.facts.fleet import Node, NodeState
from services.orchestrator.core.facts.policy import ENERGY, Policy
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.liveness import Patience
from services.orchestrator.core.looked import Looks
from services.orchestrator.core.planning.offer import Known
from services.orchestrator.core.planning.plan import Plan
from services.orchestrator.core.replay import Look
from services.orchestrator.core.state import Observation, State
from services.orchestrator.core.step import again, can_plan, nodes_now, step, watch
from services.orchestrator.gauges import Gauges
from services.orchestrator.leader_watch import LeaderWatch
from services.orchestrator.links import Links
from services.orchestrator.listener import TrafficListener
from services.orchestrator.observer import Observer
from services.orchestrator.proposals import Proposal, Proposals
from services.orchestrator.publisher import Publisher
from services.orchestrator.records import Mark, Records, forget_deployments, keep_gone
from services.orchestrator.register import Register
from services.orchestrator.routing import routing_table
from services.orchestrator.showing import Showing
from tradewind.domain.errors import (
    GenerationConflict,
    NotLeader,
    ServiceUnavailable,
    StaleGeneration,
    TradewindError,
)
from tradewind.v1 import node_pb2

# Something is looked at at least so often, for what no event tells: silence, ended pauses, the settle time of routes.
PERIOD_S: Final = 0.5
# Reports of many nodes within this time are looked at together.
GATHER_S: Final = 0.02
# A commit that failed is tried again after this time.
RETRY_S: Final = 2.0


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
        self._publisher, self._now_s, self._gauges = publisher, now_s, gauges
        self._state = State(started_s=now_s(), patience=patience, policy=policy)
        self._known, self._looks = Known(), Looks()
        self.register = Register(records, catalogue)
        self.showing = Showing(self.register, links, listener, publisher, gauges, self._lost)
        self.proposals = Proposals(self.register, catalogue, now_s, gauges)
        self._listener = listener
        self._observer = Observer(self.register, links, catalogue, listener)
        self._mark: Mark | None = None
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._retry_at_s: float | None = None
        self._log = structlog.get_logger("control")
        self.leader = LeaderWatch()

    @property
    def leading(self) -> bool:
        """Whether this orchestrator leads."""
        return self.leader.here

    async def lead(self) -> None:
        """Takes the lead: reads what is stored, and waits for nodes to connect here.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer; it does not lead then.
        """
        async with self._lock:
            self._mark = None
            await self.register.load()
            self.links.clear()
            self._restore_gone()
            learnt = self._state.learnt
            if not learnt.provisions:
                # We never followed: what the last leader had learnt is kept with its last decision.
                memory, offset_s = await self.records.memory()
                learnt = handed_down(memory, offset_s - self._listener.offset_s, self._now_s())
            self._state = State(
                started_s=self._now_s(), patience=self._state.patience, policy=self._state.policy, learnt=learnt
            )
            self._retry_at_s = None
            self.leader.tell(here=True, address=self.records.holder)
        self._log.info(
            "leading",
            fencing=self.records.fencing,
            generation=self.register.blueprint.generation,
            deployments=len(self.register.deployments),
            remembered=len(learnt.histories),
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
                await self.register.load()
                self._mark = mark
            if self.leader.address != leader:
                self._log.info("following", leader=leader, generation=self.register.blueprint.generation)
            self.leader.tell(here=False, address=leader)
            self.links.overhear(reports)
            self._restore_gone()
            self._forget_nodes()
            self._state = await asyncio.to_thread(watch, self._state, self._observer.observe(), self._now_s())
        await self.showing.tell()

    async def keep_gone(self) -> None:
        """Writes down which nodes are gone, if that has changed: it outlives the leader.

        Raises:
            StaleGeneration: another orchestrator leads.
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        gone = self.links.departed.kept()
        if gone != self.register.gone:
            async with self.records.begin() as session:
                await keep_gone(session, gone)
            self.register.gone = gone

    def depose(self, error: TradewindError) -> None:
        """Another orchestrator leads: stops acting; streams of node agents are handed on to it."""
        self._log.warning("another orchestrator leads, this one follows", error=error.message)
        self.leader.tell(here=False, address="")
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
        await self.showing.tell()

    # --- for writers -----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Nothing is planned or committed by others meanwhile; wakes the loop afterwards.

        Raises:
            NotLeader: another orchestrator leads.
        """
        async with self._lock:
            if not self.leading:
                raise NotLeader(self.leader.address)
            yield
        self.wake()

    async def until_plannable(self, limit_s: float) -> None:
        """Waits until every node of the blueprint was heard or given up.

        Raises:
            ServiceUnavailable: that takes longer than `limit_s`.
        """
        deadline = self._now_s() + limit_s
        while not can_plan(self._state, self._observer.observe(), self._now_s()):
            if self._now_s() > deadline:
                raise ServiceUnavailable("just started, nodes and models are being read in; retry in some seconds")
            await asyncio.sleep(PERIOD_S / 5)

    async def propose(
        self, wishes: tuple[Deployment, ...], draining: tuple[str, ...] | None = None, *, about: str = ""
    ) -> Proposal:
        """A checked plan for these wishes, nothing committed.

        Args:
            about: the deployment asked about, by id, which is planned for though it sleeps.

        Raises:
            Internal: the independent check refused it; a fault of ours.
        """
        now_s, seen = self._now_s(), self._observer.observe()
        wanted = replace(seen, deployments=wishes, draining=seen.draining if draining is None else draining)
        return await self.proposals.made(asked_of(self._state, seen, wanted, about, now_s))

    def adopt(self, proposal: Proposal) -> None:
        """A plan that people asked for is committed and in force."""
        before = self.register.blueprint
        self._state = after_asked(self._state, before, proposal.plan, proposal.saving, self._now_s())
        self._adopt(proposal.plan)

    def _adopt(self, plan: Plan) -> None:
        if plan.blueprint != self.register.blueprint:
            self._log.info("blueprint committed", generation=plan.blueprint.generation, id=plan.blueprint.blueprint_id)
        self.register.adopt(plan)
        self._gauges.generation(plan.blueprint.generation)

    # --- for readers -----------------------------------------------------------------------------------------------

    @property
    def learnt(self) -> Memory:
        """What was learnt of traffic, speed and power."""
        return self._state.learnt

    def nodes(self, draining: tuple[str, ...] | None = None) -> tuple[Node, ...]:
        """Nodes with their states, as they are or with other drains."""
        return nodes_now(self._state, self._observed(draining), self._now_s())

    def _observed(self, draining: tuple[str, ...] | None) -> Observation:
        seen = self._observer.observe()
        return seen if draining is None else replace(seen, draining=draining)

    def _lost(self) -> list[str]:
        return [name for name, state in self._state.nodes if state is NodeState.LOST]

    # --- one look --------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        if not self.leading:
            return
        now_s = self._now_s()
        if self._retry_at_s is not None and now_s >= self._retry_at_s:
            self._retry_at_s, self._state = None, again(self._state)
        self._forget_nodes()
        seen, before = self._observer.observe(), self._state
        state, effects = await asyncio.to_thread(step, before, seen, now_s, self._known, self._looks)
        if not self.leading:
            return  # deposed meanwhile: what was decided is the new leader's to decide
        self._state = state
        self._gauges.nodes([node_state for _, node_state in state.nodes])
        for effect in sorted(effects, key=lambda e: isinstance(e, Commit)):
            if isinstance(effect, Push):
                self.links.push(effect.targets, effect.generation, self.records.fencing)
            elif isinstance(effect, Publish):
                addresses = {link.node.node_id: link.node.address for link in self.links.all()}
                wishes = self.register.wishes()
                self._publisher.routes(routing_table(wishes, addresses, self.catalogue.catalog, effect))
            elif isinstance(effect, Broken):
                self._log.error("the check refused a plan, nothing was committed", findings=effect.findings)
                self._gauges.refused()
            elif isinstance(effect, Note):
                self._log.info("learnt", words=effect.words)
            else:
                await self._commit(effect, Look(before, seen, now_s))
        await self._tidy()

    def _restore_gone(self) -> None:
        away = (gone for gone in self.register.gone if self.links.get(gone.node_id) is None)
        self.links.departed.restore(away, self._listener.offset_s)

    def _forget_nodes(self) -> None:
        blueprint = self.register.blueprint
        self.links.forget(
            lambda: {r.node_id for r in blueprint.replicas},
            self.register.draining,
            self._state.patience.suspect_after_s,
        )

    async def _commit(self, effect: Commit, inputs: Look) -> None:
        proposal = self.proposals.of(effect, inputs)
        try:
            async with self.records.begin() as session:
                await self.proposals.write(session, effect.trigger, proposal)
        except StaleGeneration as error:
            self.depose(error)
            return
        except (TradewindError, GenerationConflict) as error:
            self._log.warning("not committed, trying again", trigger=effect.trigger, error=error.message)
            self._retry_at_s = self._now_s() + RETRY_S
            return
        self._log.info("decided", trigger=effect.trigger, changes=[line for line in proposal.changes if line[0] != "="])
        # The next look finds the same and has no news to write down again.
        self._state = replace(self._state, explanations=effect.plan.explanations)
        self._adopt(effect.plan)
        self.wake()

    async def _tidy(self) -> None:
        """Forgets deployments that are gone. Waits for nothing that is away."""
        ended = self.register.ended(self._state.rollout.gone)
        if not ended:
            return
        try:
            async with self.records.begin() as session:
                await forget_deployments(session, ended)
        except StaleGeneration as error:
            self.depose(error)
            return
        for deployment_id in ended:
            self.register.forget(deployment_id)
