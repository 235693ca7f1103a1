"""The planner: a situation in, a whole blueprint and a report on each deployment out. Deterministic.

fold the fleet → weigh every option → score with change and hysteresis → choose for all together → lay out, changing
least. Wishes that do not fit all together are taken oldest first; one that cannot be met gets nothing new, keeps what
it has, and its report names the limit that binds and the nearest that would do. No wish is rewritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.orchestrator.core.facts.blueprint import Blueprint
from services.orchestrator.core.facts.explanation import Candidate, Explanation
from services.orchestrator.core.facts.fleet import Budget
from services.orchestrator.core.facts.loads import Sheaf
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.planning.accept import Accepted, Desk
from services.orchestrator.core.planning.budgets import Budgets, draws_of
from services.orchestrator.core.planning.demands import Wanted
from services.orchestrator.core.planning.descent import blueprint_of_layout
from services.orchestrator.core.planning.drafts import Draft, write_all
from services.orchestrator.core.planning.ground import Ground, base_of, ground_of
from services.orchestrator.core.planning.more import hardware_that_would_do
from services.orchestrator.core.planning.nearest import TRIES, TRIES_OF_MANY, nearest
from services.orchestrator.core.planning.nearest_budget import nearest_budget
from services.orchestrator.core.planning.offer import Known, Offer, offer_of
from services.orchestrator.core.planning.points import Point, points_of
from services.orchestrator.core.planning.report import Verdict, explain_chosen, explain_infeasible
from services.orchestrator.core.planning.scores import items_of
from services.orchestrator.core.planning.weigh import Load, Option, Refused, able_of, judged


@dataclass(frozen=True, slots=True)
class Plan:
    """A blueprint (the parent itself when nothing changes) and why it is so, deployments in order.

    Attributes:
        gap: how far the plan's cost may be from the least, as a share.
        timed_out: the solver's safety net ended the search: made again, the plan may be another one.
    """

    blueprint: Blueprint
    explanations: tuple[Explanation, ...]
    gap: float = 0.0
    timed_out: bool = False

    def explanation_of(self, deployment_id: str) -> Explanation:
        """The report on one deployment."""
        return next(e for e in self.explanations if e.deployment_id == deployment_id)


@dataclass(frozen=True, slots=True)
class _Weighed:
    wanted: Wanted
    points: tuple[Point, ...]
    options: tuple[Option, ...]
    refused: tuple[Refused | Candidate, ...]
    sheaves: tuple[Sheaf, ...]

    @property
    def deployment(self) -> Deployment:
        return self.wanted.deployment


def make_plan(situation: Situation, known: Known | None = None) -> Plan:
    """Plans everything anew, changing least.

    Args:
        known: what earlier plans worked out of the catalogue; saves time and changes nothing.
    """
    known = known or Known()
    ground = ground_of(situation, known.boards)
    offer = offer_of(situation, ground, known)
    weighed = _weigh(situation, ground, offer, known)
    desk = _desk(situation, ground, weighed)
    accepted = desk.accept(tuple(w.wanted for w in weighed))
    free = tuple(name for name in situation.settled if name in accepted.deployments)
    if any(w.deployment.deployment_id in {*situation.settled} - {*free} for w in weighed):
        # What was swapped lately holds savings back, nothing that limits need.
        return make_plan(replace(situation, settled=free), known)
    blueprint = blueprint_of_layout(situation, ground, accepted)
    drafts = [_explain(situation, desk, known, w, weighed, accepted, blueprint) for w in weighed]
    return Plan(blueprint, write_all(drafts), accepted.mix.gap, accepted.mix.timed_out)


def _desk(situation: Situation, ground: Ground, weighed: tuple[_Weighed, ...]) -> Desk:
    draws = [
        draw
        for w in (weighed if situation.budgets else ())
        for draw in draws_of(w.deployment, w.options, w.points, ground.incumbents.get(w.deployment.deployment_id, ()))
    ]
    return Desk(
        ground,
        tuple(d.deployment_id for d in situation.deployments),
        {d.deployment_id: d.trust_level for d in situation.deployments},
        Budgets(situation.budgets, situation.nodes, draws),
        consolidation=situation.levers.consolidation,
    )


def _weigh(situation: Situation, ground: Ground, offer: Offer, known: Known) -> tuple[_Weighed, ...]:
    found = [points_of(wish, offer) for wish in situation.deployments]
    loads = [
        Load(wish, points, offer.sheaves.get(wish.model_id, ()))
        for wish, (points, _) in zip(situation.deployments, found, strict=True)
    ]
    asked = [(load.deployment, tuple(load.points)) for load in loads]

    def weigh(numbers: Sequence[int]) -> list[tuple[Option | Refused, ...]]:
        some = [loads[number] for number in numbers]
        able = known.able([asked[n] for n in numbers], lambda rows: able_of([some[row] for row in rows]))
        return judged(some, able)

    weighed = known.weighed(asked, weigh)
    return tuple(
        _sorted_out(situation, ground, load, refused, results)
        for load, (_, refused), results in zip(loads, found, weighed, strict=True)
    )


def _sorted_out(
    situation: Situation,
    ground: Ground,
    load: Load,
    refused: tuple[Candidate, ...],
    results: tuple[Option | Refused, ...],
) -> _Weighed:
    deployment, points = load.deployment, tuple(load.points)
    options = tuple(r for r in results if isinstance(r, Option))
    unfit = tuple(r for r in results if isinstance(r, Refused))
    bases = frozenset(base_of(r) for r in ground.incumbents.get(deployment.deployment_id, ()))
    if deployment.deployment_id in situation.settled:
        options = tuple(o for o in options if o.base in bases) or options
    return _Weighed(
        Wanted(deployment, items_of(deployment, options, bases, budgeted=bool(situation.budgets))),
        points,
        options,
        (*refused, *unfit),
        load.sheaves,
    )


def _explain(
    situation: Situation,
    desk: Desk,
    known: Known,
    mine: _Weighed,
    weighed: tuple[_Weighed, ...],
    accepted: Accepted,
    blueprint: Blueprint,
) -> Draft:
    deployment = mine.deployment
    if deployment.deployment_id in accepted.deployments:
        verdict = Verdict(
            accepted.mix.of(deployment.deployment_id),
            settled=deployment.deployment_id in situation.settled,
            gap=accepted.mix.gap,
            timed_out=accepted.mix.timed_out,
        )
        return explain_chosen(deployment, verdict, mine.options, mine.refused, blueprint, mine.sheaves)
    others = tuple(w.wanted for w in weighed if w.deployment.deployment_id in accepted.deployments)

    def fits(
        wish: Deployment, options: tuple[Option, ...], *, budgets: bool = True, raised: Budget | None = None
    ) -> bool:
        wanted = Wanted(wish, items_of(wish, options, frozenset(), budgeted=budgets and bool(situation.budgets)))
        return desk.fit((*others, wanted), budgets=budgets, raised=raised) is not None

    over_budget = bool(situation.budgets and mine.options) and fits(deployment, mine.options, budgets=False)
    enough = None
    if over_budget and desk.is_small:
        enough = nearest_budget(situation.budgets, lambda budget: fits(deployment, mine.options, raised=budget))
    tries = TRIES if desk.is_small else TRIES_OF_MANY
    near = nearest(deployment, mine.points, mine.sheaves, fits, tries)
    hardware = () if over_budget else hardware_that_would_do(situation, deployment, others, known, along=desk.is_small)
    draft = explain_infeasible(
        deployment, mine.options, mine.refused, near, mine.sheaves, over_budget=over_budget, enough=enough
    )
    return replace(
        draft,
        write=lambda shown, lines: replace(draft.write(shown, lines), nearest_hardware=hardware, gap=accepted.mix.gap),
    )
