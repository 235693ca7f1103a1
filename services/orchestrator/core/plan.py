"""The planner: a situation in, a whole blueprint and a report on each deployment out. Deterministic.

weigh every option → score with change and hysteresis → cheapest together that fits → least-change layout. Wishes that
do not fit all together are tried oldest first; one that cannot be met gets nothing new, keeps what it has, and its
report names the limit that binds and the nearest that would do. No wish is rewritten.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.orchestrator.core.blueprint import Blueprint, Replica, child_of
from services.orchestrator.core.choose import Choice, cheapest_together
from services.orchestrator.core.explanation import Candidate, Explanation
from services.orchestrator.core.fleet import Budget, NodeState, ReplicaState
from services.orchestrator.core.layout import Layout, incumbents_of, lay_out
from services.orchestrator.core.nearest import nearest
from services.orchestrator.core.points import Point, points_of
from services.orchestrator.core.report import explain_chosen, explain_infeasible
from services.orchestrator.core.scores import key_of, menu_of
from services.orchestrator.core.situation import Situation
from services.orchestrator.core.weigh import Option, weigh
from services.orchestrator.core.wish import Deployment


@dataclass(frozen=True, slots=True)
class Plan:
    """A blueprint (the parent itself when nothing changes) and why it is so, deployments in order."""

    blueprint: Blueprint
    explanations: tuple[Explanation, ...]

    def explanation_of(self, deployment_id: str) -> Explanation:
        """The report on one deployment."""
        return next(e for e in self.explanations if e.deployment_id == deployment_id)


@dataclass(frozen=True, slots=True)
class _Weighed:
    deployment: Deployment
    points: tuple[Point, ...]
    options: tuple[Option, ...]
    refused: tuple[Candidate, ...]
    menu: tuple[Choice, ...]


def make_plan(situation: Situation) -> Plan:
    """Plans everything anew, changing least."""
    weighed = tuple(_weigh(situation, deployment) for deployment in situation.deployments)
    choices, layout = _choose(situation, weighed)
    blueprint = _blueprint(situation, layout)
    explanations = tuple(_explain(situation, w, choices, blueprint) for w in weighed)
    return Plan(blueprint, explanations)


def _weigh(situation: Situation, deployment: Deployment) -> _Weighed:
    points, refused = points_of(deployment, situation.catalog, situation.nodes, situation.quarantined)
    results = [weigh(deployment, point) for point in points]
    options = tuple(r for r in results if isinstance(r, Option))
    refused = (*refused, *(r for r in results if isinstance(r, Candidate)))
    incumbents = incumbents_of(situation, deployment.deployment_id)
    if deployment.deployment_id in situation.settled:
        keys = [key_of(r) for r in incumbents]
        options = tuple(o for o in options if o.key in keys) or options
    return _Weighed(deployment, points, options, refused, menu_of(deployment, options, incumbents))


def _choose(situation: Situation, weighed: tuple[_Weighed, ...]) -> tuple[tuple[Choice, ...], Layout]:
    able = [w for w in weighed if w.menu]
    if found := _together(situation, able, situation.budgets):
        return found
    # Not all fit: older wishes first, those that run already before all others.
    running = [w for w in able if incumbents_of(situation, w.deployment.deployment_id)]
    accepted: list[_Weighed] = []
    best: tuple[tuple[Choice, ...], Layout] = ((), Layout((), ()))
    if nothing := _together(situation, [], ()):
        best = nothing
    for candidate in [*running, *(w for w in able if w not in running)]:
        if found := _together(situation, [*accepted, candidate], situation.budgets):
            accepted.append(candidate)
            best = found
    return best


def _together(
    situation: Situation, weighed: list[_Weighed], budgets: tuple[Budget, ...]
) -> tuple[tuple[Choice, ...], Layout] | None:
    names = [w.deployment.deployment_id for w in weighed]
    stuck = tuple(d.deployment_id for d in situation.deployments if d.deployment_id not in names)

    def fits(choices: tuple[Choice, ...]) -> Layout | None:
        return lay_out(situation, choices, stuck, budgets)

    return cheapest_together([w.menu for w in weighed], fits)


def _blueprint(situation: Situation, layout: Layout) -> Blueprint:
    parent = situation.parent
    generation = parent.generation + 1
    names = {d.deployment_id: d.name for d in situation.deployments}
    replicas = [replace(r, hold=False) for r in layout.kept]
    for number, (choice, place) in enumerate(layout.places):
        point = choice.option.point
        replicas.append(
            Replica(
                replica_id=f"{names[choice.deployment_id]}-g{generation}-{number}",
                deployment_id=choice.deployment_id,
                node_id=place.node_id,
                model_id=point.variant.model_id,
                variant_id=point.variant.variant_id,
                manifest=point.variant.manifest,
                partition=place.partition,
                batch_limit=point.batch_limit,
                device_class=point.profile.device_class,
                memory_bytes=point.memory_bytes,
            )
        )
    ordered = tuple(sorted(replicas, key=lambda r: (r.deployment_id, r.replica_id)))
    leaving = _leaving(situation, ordered)
    if ordered == parent.replicas and leaving == parent.leaving:
        return parent
    return child_of(parent, ordered, leaving)


def _leaving(situation: Situation, replicas: tuple[Replica, ...]) -> tuple[Replica, ...]:
    """What still has to end: earlier replicas that are not planned any more and are not known to have ended."""
    parent, wishes = situation.parent, [d.deployment_id for d in situation.deployments]
    planned = [r.replica_id for r in replicas]
    leaving: list[Replica] = []
    for replica in (*parent.replicas, *parent.leaving):
        if replica.replica_id in planned or replica.replica_id in situation.gone:
            continue
        wished = replica.deployment_id in wishes
        if _still_there(situation, replica) and not _given_up(situation, replica, replicas, wished=wished):
            leaving.append(replace(replica, hold=wished))
    return tuple(sorted(leaving, key=lambda r: (r.deployment_id, r.replica_id)))


def _still_there(situation: Situation, replica: Replica) -> bool:
    report = situation.report_of(replica)
    if situation.silent(replica):
        return True
    alive = (ReplicaState.STARTING, ReplicaState.READY, ReplicaState.DRAINING)
    return report is not None and report.state in alive


def _given_up(situation: Situation, replica: Replica, replicas: tuple[Replica, ...], *, wished: bool) -> bool:
    """Whether a replica on a lost node is not waited for: its deployment is gone, or is served elsewhere."""
    node = situation.node(replica.node_id)
    if node is not None and node.state is not NodeState.LOST:
        return False
    if not wished:
        return True
    serving = [r for r in replicas if r.deployment_id == replica.deployment_id]
    reports = [situation.report_of(r) for r in serving]
    return bool(reports) and all(r is not None and r.state is ReplicaState.READY for r in reports)


def _explain(situation: Situation, weighed: _Weighed, choices: tuple[Choice, ...], blueprint: Blueprint) -> Explanation:
    deployment = weighed.deployment
    chosen = next((c for c in choices if c.deployment_id == deployment.deployment_id), None)
    if chosen:
        settled = deployment.deployment_id in situation.settled
        return explain_chosen(deployment, chosen, weighed.options, weighed.refused, blueprint, settled=settled)
    others = tuple(choices)
    names = [c.deployment_id for c in others]
    stuck = tuple(
        d.deployment_id
        for d in situation.deployments
        if d.deployment_id not in names and d.deployment_id != deployment.deployment_id
    )

    def fits(wish: Deployment, option: Option) -> bool:
        choice = Choice(wish.deployment_id, option, 0.0)
        return lay_out(situation, (*others, choice), stuck, situation.budgets) is not None

    def fits_without_budgets(option: Option) -> bool:
        choice = Choice(deployment.deployment_id, option, 0.0)
        return lay_out(situation, (*others, choice), stuck, ()) is not None

    over_budget = bool(situation.budgets) and any(fits_without_budgets(o) for o in weighed.options)
    near = nearest(deployment, weighed.points, fits)
    return explain_infeasible(deployment, weighed.options, weighed.refused, near, over_budget=over_budget)
