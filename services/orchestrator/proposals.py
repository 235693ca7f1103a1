"""Plans made for somebody who asks, and how a plan is written down. None is in force before it is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator.catalogue import Catalogue
from services.orchestrator.core.adaptation.pace import Place
from services.orchestrator.core.asking import Asked, granted
from services.orchestrator.core.checking.check import check
from services.orchestrator.core.effects import Commit
from services.orchestrator.core.planning.offer import Known
from services.orchestrator.core.planning.plan import Plan, make_plan
from services.orchestrator.core.planning.report import differences
from services.orchestrator.core.replay import Inputs, Look
from services.orchestrator.gauges import Gauges
from services.orchestrator.journal import kept_inputs
from services.orchestrator.records import add_decision, commit_blueprint
from services.orchestrator.register import Register
from services.orchestrator.translate.blueprints import blueprint_message, explanation_message
from tradewind.domain.errors import Internal


@dataclass(frozen=True, slots=True)
class Proposal:
    """A checked plan, not committed yet, and what it was made from.

    Attributes:
        saving: devices that it changes for savings.
    """

    plan: Plan
    changes: tuple[str, ...]
    inputs: Inputs
    saving: tuple[Place, ...] = ()


class Proposals:
    """Makes and writes proposals.

    Args:
        register: what they change.
        catalogue: for names of variants.
        now_s: monotonic clock.
        gauges: metrics.
    """

    def __init__(self, register: Register, catalogue: Catalogue, now_s: Callable[[], float], gauges: Gauges) -> None:
        self._register, self._catalogue = register, catalogue
        self._now_s, self._gauges = now_s, gauges
        # Plans are made in threads, and what they know of each other stands no two at a time.
        self._known, self._planning = Known(), asyncio.Lock()
        self._log = structlog.get_logger("proposals")

    async def made(self, asked: Asked) -> Proposal:
        """A checked plan for what is asked, nothing committed.

        Raises:
            Internal: the independent check refused it; a fault of ours.
        """
        began_s, situation = self._now_s(), asked.situation
        async with self._planning:
            plan, saving = await asyncio.to_thread(lambda: granted(asked, make_plan(situation, self._known)))
        self._gauges.planned(self._now_s() - began_s)
        if findings := check(situation, plan.blueprint, plan.explanations):
            self._log.error("the check refused a plan", findings=findings)
            raise Internal(f"the plan is wrong and was not committed: {'; '.join(findings)}", {"finding": findings[0]})
        changes = differences(self._register.blueprint, plan.blueprint, self._variant_names())
        return Proposal(plan, changes, asked, saving)

    def of(self, effect: Commit, inputs: Look) -> Proposal:
        """What a look of the control loop wants to commit."""
        changes = differences(effect.parent, effect.plan.blueprint, self._variant_names())
        return Proposal(effect.plan, changes, inputs)

    async def write(self, session: AsyncSession, trigger: str, proposal: Proposal) -> None:
        """Writes a proposal within the caller's transaction; `Control.adopt` it once that is committed.

        Raises:
            StaleGeneration: another orchestrator leads.
            GenerationConflict: another blueprint came in between.
        """
        message = blueprint_message(proposal.plan.blueprint)
        changed = proposal.plan.blueprint != self._register.blueprint
        if changed:
            await commit_blueprint(session, message)
        explanations = [explanation_message(e) for e in proposal.plan.explanations]
        words = [e.summary for e in proposal.plan.explanations]
        summary = "\n".join([*words, *(proposal.changes if changed else ())])
        kept = await asyncio.to_thread(kept_inputs, proposal.inputs, proposal.plan)
        await add_decision(session, trigger, summary, message if changed else None, explanations, kept)

    def _variant_names(self) -> dict[str, str]:
        return {v.variant_id: v.name for v in self._catalogue.catalog.variants}
