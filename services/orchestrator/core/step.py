"""One step of the orchestrator: (state, observation, now) → (state, effects). The live service and a simulator call it.

It looks at the whole observation every time; what it remembers is only what cannot be seen (since when, what failed).
A `Commit` is a proposal: it is in force when a later observation's blueprint says so. Repeating or dropping effects
does no harm.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from services.orchestrator.core.adaptation.adapt import Sense, learn, planned_wishes, watch_changes
from services.orchestrator.core.adaptation.pace import (
    changed_places,
    cool_at_s,
    is_asked,
    is_urgent,
    touched,
)
from services.orchestrator.core.adaptation.provision import AS_WISHED
from services.orchestrator.core.adaptation.relief import NO_RELIEF, relief_for
from services.orchestrator.core.bounding import bounded, counted, portion_now
from services.orchestrator.core.checking.check import check
from services.orchestrator.core.cooling import cooling
from services.orchestrator.core.effects import Broken, Commit, Effect, Note, Publish, Push
from services.orchestrator.core.facts.blueprint import Blueprint
from services.orchestrator.core.facts.fleet import Node, NodeState
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.liveness import next_state
from services.orchestrator.core.looked import Looked, Looks, remembered, stays_laid_out, stays_quarantined
from services.orchestrator.core.news import alike, verdicts
from services.orchestrator.core.planning.offer import Known
from services.orchestrator.core.planning.plan import Plan, make_plan
from services.orchestrator.core.planning.scores import key_of
from services.orchestrator.core.quarantine import quarantined_after
from services.orchestrator.core.rollout.bars import watch_layouts, without_barred
from services.orchestrator.core.rollout.fills import fills_of
from services.orchestrator.core.rollout.rollout import Rollout, roll_out
from services.orchestrator.core.rollout.weights import weights_of
from services.orchestrator.core.state import Observation, State, Swap
from services.orchestrator.core.trigger import trigger_words

# After a swap that nobody asked for, the next one for savings comes no sooner.
COOL_DOWN_S: Final = 600.0
# Of the greatest demand that is possible, which is found to about a hundredth, so much is planned for.
POSSIBLE_SHARE: Final = 0.95


def step(
    state: State, seen: Observation, now_s: float, known: Known | None = None, looks: Looks | None = None
) -> tuple[State, tuple[Effect, ...]]:
    """One look at everything.

    Args:
        known: what earlier plans worked out of the catalogue; saves time and changes nothing.
        looks: what the last look worked out of the fleet; the same.
    """
    looks = looks or Looks()
    nodes = looks.last.same_nodes(_nodes(state, seen, now_s))
    still = looks.last.is_still(state, nodes, seen)
    state = _remember(state, seen, nodes, now_s, still=still)
    effects: list[Effect] = [Note(words) for words in state.learnt.notes]
    situation = situation_of(state, seen, nodes, now_s)
    if seen.catalog_known and _settled_in(seen.blueprint, nodes):
        if _is_due(state, situation, now_s):
            state, proposed = _plan(state, seen, situation, now_s, known)
            effects += proposed
        elif state.planned is not None and state.planned.nodes is not situation.nodes:
            # Alike ones are as good to compare with, and the same objects are compared at once.
            state = replace(state, planned=replace(state.planned, nodes=situation.nodes))
    looked = looks.last = _rolled_out(state, seen, nodes, now_s, looks.last, still=still)
    effects += [Push(seen.blueprint.generation, looked.rollout.targets), looked.published]
    return replace(state, rollout=looked.rollout.memory), tuple(effects)


def _is_due(state: State, situation: Situation, now_s: float) -> bool:
    over = state.deferred_s is not None and now_s >= state.deferred_s
    return over or not alike(situation, state.planned)


def _plan(
    state: State, seen: Observation, situation: Situation, now_s: float, known: Known | None
) -> tuple[State, list[Effect]]:
    plan, planned = _best_effort(state, seen, situation, known)
    findings = check(planned, plan.blueprint, plan.explanations)
    if findings:
        return replace(state, planned=situation, deferred_s=None), [Broken(findings)]
    notes = _lessened(situation, planned)
    if plan.timed_out:
        notes.append(Note(f"the clock ended the search for a plan, {plan.gap:.2%} from the bound; a replay may differ"))
    portion = portion_now(state, situation, planned, plan, now_s)
    urgent = is_urgent(state.acted, situation)
    if state.policy.adaptive and not urgent:
        places = changed_places(seen.blueprint, portion.blueprint)
        cool_s = cool_at_s(state.touches, places, now_s)
        if cool_s is not None:
            words = f"a saving waits {cool_s - now_s:.0f} s: {len(places)} devices would change, some did lately"
            notes.append(Note(words))
            rest = cooling(plan, situation, planned, words)
            waiting = replace(state, planned=replace(situation, parent=rest.blueprint), deferred_s=cool_s)
            if rest.blueprint == seen.blueprint:
                return waiting, notes
            waiting = replace(waiting, explanations=rest.explanations, asked=False, saving=())
            return waiting, [*notes, Commit(rest, seen.blueprint, trigger_words(state.acted, situation, state.learnt))]
    due_s = None
    if portion.waiting:
        plan, due_s, words = bounded(counted(state, now_s), situation, plan, portion)
        notes.append(Note(words))
    waited = state.deferred_s is not None and now_s >= state.deferred_s
    trigger = trigger_words(state.acted, situation, state.learnt, waited=waited)
    news = plan.blueprint != seen.blueprint or verdicts(plan.explanations) != verdicts(state.explanations)
    asked = is_asked(state.acted, situation)
    if state.acted is not None and state.acted.budgets != situation.budgets:
        # People asked; what else they ask for is planned in `asking.py`.
        counts = touched(
            state.savings, changed_places(seen.blueprint, plan.blueprint), now_s, state.policy.bound.window_s
        )
        state = replace(state, savings=counts)
    held = not urgent and bool(portion.waiting) and plan.blueprint == seen.blueprint
    state = replace(
        state,
        planned=replace(situation, parent=plan.blueprint),
        acted=state.acted if held else situation,
        explanations=plan.explanations,
        deferred_s=due_s,
        asked=asked,
        saving=portion.savings,
    )
    return state, [*notes, *([Commit(plan, seen.blueprint, trigger)] if news else [])]


def _best_effort(state: State, seen: Observation, situation: Situation, known: Known | None) -> tuple[Plan, Situation]:
    """The plan, and the situation that it is for.

    What a failed trial holds a deployment to is left out where it cannot be had. A load that was seen and is more than
    the devices take is served as far as they do; a demand that is only stated is left as it is, and its report says
    what is possible.
    """
    learnt, plan = state.learnt, make_plan(situation, known)
    held = {hold.deployment_id for hold in learnt.holds}
    if any(not e.feasible and e.deployment_id in held for e in plan.explanations):
        free = planned_wishes(replace(learnt, holds=()), seen.deployments, state.policy, seen.foreseen)
        situation = replace(situation, deployments=free)
        plan = make_plan(situation, known)
    met = {p.deployment_id for p in learnt.provisions if p.words != AS_WISHED}
    possible = {
        e.deployment_id: e.nearest_demand_requests_per_s * POSSIBLE_SHARE
        for e in plan.explanations
        if not e.feasible and e.nearest_demand_requests_per_s and e.deployment_id in met
    }
    if not possible:
        return plan, situation
    wishes = tuple(
        replace(w, demand=replace(w.demand, requests_per_s=possible[w.deployment_id]))
        if w.deployment_id in possible
        else w
        for w in situation.deployments
    )
    less = replace(situation, deployments=wishes)
    return make_plan(less, known), less


def _lessened(situation: Situation, planned: Situation) -> list[Effect]:
    """Words on deployments that are planned for less than they want."""
    return [
        Note(
            f"{asked.name}: {asked.demand.requests_per_s:.4g} requests/s are more than the devices take; "
            f"planned for {given.demand.requests_per_s:.4g}"
        )
        for asked, given in zip(situation.deployments, planned.deployments, strict=True)
        if asked.demand != given.demand
    ]


def _rolled_out(
    state: State, seen: Observation, nodes: tuple[Node, ...], now_s: float, before: Looked, *, still: bool
) -> Looked:
    """Targets and routes; those of the last look when nothing they are made from has changed."""
    learnt = state.learnt
    relief = relief_for(learnt.alarms, learnt.on_trial) if state.policy.adaptive else NO_RELIEF
    kept = before.rolled_out(relief) if still else None
    rollout = kept or roll_out(seen.blueprint, nodes, state.rollout, now_s, relief)
    wishes = planned_wishes(learnt, seen.deployments, state.policy, seen.foreseen)
    made_of = (seen.blueprint, seen.catalog, wishes, learnt.alarmed, learnt.asleep, seen.speeds)
    published = before.published
    if rollout is not before.rollout or made_of != before.published_of:
        published = _publish(state, seen, rollout, wishes)
    return Looked(nodes, remembered(state), seen.blueprint, seen.deployments, relief, rollout, made_of, published)


def _publish(state: State, seen: Observation, rollout: Rollout, wishes: tuple[Deployment, ...]) -> Publish:
    learnt, policy = state.learnt, state.policy
    packed = rollout.routes if policy.levers.packing else ()
    roomy = learnt.roomy(wishes) if policy.adaptive else frozenset()
    fills = fills_of(packed, wishes, seen.catalog, seen.blueprint, learnt.alarmed, roomy)
    if not policy.adaptive:
        return Publish(rollout.routes, weights_of(rollout.routes, ()), fills=fills)
    return Publish(rollout.routes, weights_of(rollout.routes, seen.speeds), rollout.limits, learnt.asleep, fills)


def watch(state: State, seen: Observation, now_s: float) -> State:
    """One look of a follower: learns and decides nothing, so that it knows the load when it has to lead."""
    nodes = _nodes(state, seen, now_s)
    return _remember(replace(state, blueprint=seen.blueprint), seen, nodes, now_s, still=False)


def again(state: State) -> State:
    """After a commit that did not go through: the next step plans anew."""
    return replace(state, planned=None, acted=None)


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
    learnt, policy = state.learnt, state.policy
    quarantined = (*state.quarantined, *learnt.rolled_back)
    return Situation(
        deployments=planned_wishes(learnt, seen.deployments, policy, seen.foreseen),
        nodes=without_barred(nodes, state.layouts, now_s),
        catalog=learnt.catalog if policy.adaptive and learnt.source == seen.catalog else seen.catalog,
        parent=seen.blueprint,
        budgets=seen.budgets,
        settled=tuple(sorted(settled)),
        quarantined=tuple(q for q in quarantined if q.until_s > now_s),
        gone=state.rollout.gone,
        levers=policy.levers,
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
        nodes.append(_with_state(sight.node, after) if sight else Node(name, after))
    return tuple(nodes)


def _with_state(node: Node, state: NodeState) -> Node:
    """The same object when nothing changes: thousands of nodes are compared at every look."""
    return node if node.state is state else replace(node, state=state)


def _settled_in(blueprint: Blueprint, nodes: tuple[Node, ...]) -> bool:
    joining = {n.node_id for n in nodes if n.state is NodeState.JOINING}
    return not joining or all(r.node_id not in joining for r in (*blueprint.replicas, *blueprint.leaving))


def _remember(state: State, seen: Observation, nodes: tuple[Node, ...], now_s: float, *, still: bool) -> State:
    if not still:
        state = replace(state, nodes=tuple((n.node_id, n.state) for n in nodes))
    if not still or not stays_quarantined(state.quarantined, now_s):
        quarantined = quarantined_after(state.quarantined, seen.blueprint, seen.deployments, nodes, now_s)
        state = replace(state, quarantined=quarantined)
    if not still or not stays_laid_out(state.layouts):
        state = replace(state, layouts=watch_layouts(state.layouts, seen.blueprint, nodes, now_s))
    if seen.blueprint.blueprint_id != state.blueprint.blueprint_id:
        state = _in_force(state, seen, nodes, now_s)
    if state.policy.adaptive:
        sense = Sense(seen.traffic, seen.power, seen.speeds)
        learnt = learn(state.learnt, seen.deployments, sense, seen.blueprint, seen.catalog, nodes, now_s)
        state = replace(state, learnt=learnt)
    return state


def _in_force(state: State, seen: Observation, nodes: tuple[Node, ...], now_s: float) -> State:
    """A new blueprint is in force: notes what it changed, and puts that on trial."""
    before = state.blueprint
    if not state.planned:
        return replace(state, blueprint=seen.blueprint)
    places = () if state.asked else changed_places(before, seen.blueprint)
    touches = touched(state.touches, places, now_s)
    changed = set(changed_places(before, seen.blueprint))
    saved = [place for place in state.saving if place in changed]
    savings = touched(state.savings, saved, now_s, state.policy.bound.window_s)
    learnt = state.learnt
    if state.policy.adaptive:
        wishes, saving = seen.deployments, frozenset(saved)
        learnt = watch_changes(
            learnt, wishes, before, seen.blueprint, saving, state.explanations, nodes, seen.traffic, now_s
        )
    swaps = _swaps(state, seen, now_s)
    return replace(
        state, blueprint=seen.blueprint, swaps=swaps, touches=touches, savings=savings, saving=(), learnt=learnt
    )


def _swaps(state: State, seen: Observation, now_s: float) -> tuple[Swap, ...]:
    """A new blueprint is in force: note which deployments it gave another operating point without being asked to."""
    assert state.planned is not None
    before = state.blueprint
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
