"""Bounded change: in any ten minutes savings touch few devices of a fleet, dangers as many as they need."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from services.orchestrator.core.adaptation.pace import changed_places
from services.orchestrator.core.adaptation.portion import Change, Figures, changes_of, portion_of
from services.orchestrator.core.asking import after_asked, asked_of, granted
from services.orchestrator.core.checking.check import check
from services.orchestrator.core.effects import Broken, Commit, Note, Push
from services.orchestrator.core.facts.blueprint import Blueprint, Replica, child_of
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.change_bound import ChangeBound
from services.orchestrator.core.facts.fleet import Budget, ReplicaReport, ReplicaState
from services.orchestrator.core.facts.policy import POLICIES
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Demand, Deployment
from services.orchestrator.core.looked import Looks
from services.orchestrator.core.planning.plan import make_plan
from services.orchestrator.core.replay import Look, answer_of, decide_again, read, written
from services.orchestrator.core.rollout.rollout import Intent
from services.orchestrator.core.state import NodeSight, Observation, State
from services.orchestrator.core.step import step
from tests.adaptation.house import one_point_each
from tests.orchestrator.worlds import node, ready, slo, wish, world

LIMITS = slo(ttft=400)
BOUND = ChangeBound(share=0.2, least=2, window_s=600.0)


class Fleet:
    """Many deployments on many nodes, with demands that the test sets; replicas are ready as soon as they are told."""

    def __init__(self, deployments: int, nodes: int, rate: float, catalog: Catalog | None = None) -> None:
        self.now_s = 0.0
        wishes = tuple(wish(f"w{n}", rate=rate, slo=LIMITS) for n in range(deployments))
        self.rates = {w.deployment_id: rate for w in wishes}
        self.nodes = [node(f"n{n:02}") for n in range(nodes)]
        self.seen = Observation(deployments=wishes, catalog=catalog or one_point_each("fast"))
        self.state = State(started_s=0.0, policy=replace(POLICIES["oracle"], bound=BOUND))
        self.looks = Looks()
        self.changes: list[tuple[float, tuple[Change, ...]]] = []
        self.kept: list[tuple[Look, Commit]] = []
        self.notes: list[str] = []

    @property
    def blueprint(self) -> Blueprint:
        return self.seen.blueprint

    def look(self, passed_s: float) -> None:
        """Time passes; looks until nothing is committed any more."""
        self.now_s += passed_s
        for _ in range(6):
            if not self._look():
                return

    def run(self, seconds: float, every_s: float = 10.0) -> None:
        for _ in range(int(seconds / every_s)):
            self.look(every_s)

    def ask(self, wishes: tuple[Deployment, ...]) -> None:
        """Somebody changes wishes, as `control` goes about it."""
        self.rates = {w.deployment_id: self.rates.get(w.deployment_id, 0.5) for w in wishes}
        asked = asked_of(self.state, self._seen(), replace(self._seen(), deployments=wishes), "", self.now_s)
        plan, saving = granted(asked, make_plan(asked.situation))
        assert not check(asked.situation, plan.blueprint, plan.explanations)
        again = decide_again(read(*written(asked)))
        assert again.plan is not None and answer_of(again.plan) == answer_of(plan)
        self.changes.append((self.now_s, changes_of(self.blueprint, plan.blueprint)))
        self.state = after_asked(self.state, self.blueprint, plan, saving, self.now_s)
        self.seen = replace(self.seen, deployments=wishes, blueprint=plan.blueprint)

    def _seen(self) -> Observation:
        return replace(
            self.seen,
            nodes=tuple(NodeSight(n, self.now_s, True) for n in self.nodes),
            foreseen=tuple((name, Demand(rate, 128, 32)) for name, rate in self.rates.items()),
        )

    def _look(self) -> bool:
        seen = self._seen()
        before = self.state
        self.state, effects = step(before, seen, self.now_s, looks=self.looks)
        committed = False
        for effect in effects:
            if isinstance(effect, Broken):
                raise AssertionError(effect.findings)
            if isinstance(effect, Note):
                self.notes.append(effect.words)
            if isinstance(effect, Commit):
                self.kept.append((Look(before, seen, self.now_s), effect))
                after = effect.plan.blueprint
                if self.blueprint.generation:
                    self.changes.append((self.now_s, changes_of(self.blueprint, after)))
                committed = after != self.blueprint
                self.seen = replace(self.seen, blueprint=after)
            if isinstance(effect, Push):
                told = {t.node_id: t.replicas for t in effect.targets}
                self.nodes = [
                    replace(n, replicas=tuple(_report(r, intent) for r, intent in told.get(n.node_id, ())))
                    for n in self.nodes
                ]
        return committed

    def most_in_a_window(self, names: frozenset[str] | None = None) -> int:
        """Devices changed in the busiest window; only those where nobody but `names` changed."""
        counted = [
            (at_s, {place for _, place in changes} - {p for name, p in changes if names and name not in names})
            for at_s, changes in self.changes
        ]
        windows = (
            set().union(*(places for at_s, places in counted if start_s <= at_s < start_s + BOUND.window_s))
            for start_s, _ in counted
        )
        return max(map(len, windows), default=0)


def _report(replica: Replica, intent: Intent) -> ReplicaReport:
    if intent is Intent.DRAIN:
        return ReplicaReport(replica.replica_id, ReplicaState.DRAINED, starts=1)
    return ready(replica.replica_id)


def test_a_share_of_the_fleet_with_a_floor() -> None:
    assert [BOUND.admits(devices) for devices in (1, 10, 14, 15, 100)] == [2, 2, 2, 3, 20]


def two_plans() -> tuple[Situation, Blueprint, Figures, tuple[object, ...]]:
    """Six deployments on "fast", and a plan that moves them all to "lean"."""
    wishes = tuple(wish(f"w{n}", rate=0.5, slo=LIMITS) for n in range(6))
    nodes = tuple(node(f"n{n}", cores=1) for n in range(6))
    start = world(*wishes, nodes=nodes, catalog=one_point_each("fast"))
    parent = make_plan(start).blueprint
    running = tuple(
        replace(n, replicas=tuple(ready(r.replica_id) for r in parent.replicas if r.node_id == n.node_id))
        for n in nodes
    )
    situation = replace(start, parent=parent, nodes=running, catalog=one_point_each("fast", "lean"))
    plan = make_plan(situation)
    return situation, plan.blueprint, Figures(plan.explanations), plan.explanations


def test_a_plan_is_cut_to_what_there_is_room_for_and_stays_sound() -> None:
    situation, wanted, figures, explanations = two_plans()

    def is_sound(blueprint: Blueprint) -> bool:
        return not check(situation, blueprint, explanations)  # type: ignore[arg-type]

    assert len(changed_places(situation.parent, wanted)) == 6
    for room in range(7):
        portion = portion_of(situation.parent, wanted, figures, frozenset(), room, is_sound)
        changed = changed_places(situation.parent, portion.blueprint)
        assert changed == portion.savings and len(changed) == room
        assert len(portion.waiting) == 6 - room and is_sound(portion.blueprint)
        assert (portion.blueprint is situation.parent) == (room == 0)
        assert (portion.waiting_mw > 0.0) == (room < 6)


def test_what_somebody_waits_for_is_done_and_what_is_there_does_not_do_is_left() -> None:
    situation, wanted, figures, _ = two_plans()
    pressed = portion_of(situation.parent, wanted, figures, frozenset({"d-w1", "d-w4"}), 0, lambda _: True)
    changed = changes_of(situation.parent, pressed.blueprint)
    assert {name for name, _ in changed} == {"d-w1", "d-w4"} and pressed.savings == ()
    whole = portion_of(situation.parent, wanted, figures, frozenset(), 0, lambda b: b is wanted)
    assert (whole.blueprint, whole.savings, whole.waiting) == (wanted, (), ())


def test_one_that_leaves_and_is_not_taken_back_yet_goes_on_leaving() -> None:
    situation, _, figures, explanations = two_plans()
    old, *others = situation.parent.replicas
    parent = child_of(situation.parent, tuple(others), (replace(old, hold=True),))
    wanted = child_of(parent, (old, *others), ())
    portion = portion_of(parent, wanted, figures, frozenset(), 0, lambda _: True)
    assert [r.replica_id for r in portion.blueprint.leaving] == [old.replica_id]
    draining = tuple(
        replace(n, replicas=tuple(replace(r, state=ReplicaState.DRAINING) for r in n.replicas)) for n in situation.nodes
    )
    lost = child_of(parent, tuple(others), ())
    found = check(replace(situation, parent=parent, nodes=draining), lost, explanations)  # type: ignore[arg-type]
    assert f"{old.replica_id} leaves, is still at work and is forgotten" in found


def test_a_saving_of_a_whole_fleet_comes_in_portions_with_a_reason_and_replays() -> None:
    fleet = Fleet(20, 20, 0.5)
    fleet.run(60)
    fleet.seen = replace(fleet.seen, catalog=one_point_each("fast", "lean"))
    fleet.run(50)
    lean = [r for r in fleet.blueprint.replicas if r.variant_id == "sha256:lean"]
    assert 0 < len(lean) < 20
    assert fleet.most_in_a_window() <= BOUND.admits(20)
    waiting = fleet.state.explanations
    told = [e.summary for e in waiting if "Not all of it is in force" in e.summary]
    assert told and "at most 4 of 20 change for savings in 600 s" in told[0]
    assert any(words.startswith("a saving waits: ") for words in fleet.notes)
    fleet.run(10 * BOUND.window_s, every_s=60.0)
    assert {r.variant_id for r in fleet.blueprint.replicas} == {"sha256:lean"}, "none waits for ever"
    assert fleet.most_in_a_window() <= BOUND.admits(20)
    assert any(commit.trigger.endswith("a saving that waited") for _, commit in fleet.kept)
    for look, commit in fleet.kept:
        kind, text = written(look)
        again = decide_again(read(kind, text))
        assert again.plan is not None and again.trigger == commit.trigger
        assert answer_of(again.plan) == answer_of(commit.plan)


def test_what_people_ask_for_is_done_at_once_and_counts_and_brings_few_savings() -> None:
    fleet = Fleet(20, 30, 0.5)
    fleet.run(60)
    fleet.seen = replace(fleet.seen, catalog=one_point_each("fast", "lean"))
    asked = tuple(replace(w, generation=2) if w.name in ("w0", "w1", "w2") else w for w in fleet.seen.deployments)
    fleet.ask((*asked, wish("new", rate=0.5, slo=LIMITS)))
    (_, changed) = fleet.changes[-1]
    assert {"d-w0", "d-w1", "d-w2", "d-new"} <= {name for name, _ in changed}
    assert len({place for _, place in changed}) <= BOUND.admits(30)
    told = [e.summary for e in fleet.state.explanations if "Not all of it is in force" in e.summary]
    assert told and "did or were asked to" in told[0] and "more may in 600 s" in told[0]
    fleet.run(BOUND.window_s - 50.0)
    assert fleet.most_in_a_window() <= BOUND.admits(30), "savings right after do not add to it"
    fleet.run(10 * BOUND.window_s, every_s=60.0)
    assert {r.variant_id for r in fleet.blueprint.replicas} == {"sha256:lean"}, "none waits for ever"
    assert fleet.most_in_a_window() <= BOUND.admits(30)


def test_more_than_the_bound_is_done_at_once_when_people_ask_and_then_nothing_is_saved() -> None:
    fleet = Fleet(20, 40, 0.5)
    fleet.run(60)
    fleet.seen = replace(fleet.seen, catalog=one_point_each("fast", "lean"))
    fleet.ask(tuple(replace(w, generation=2) if n < 12 else w for n, w in enumerate(fleet.seen.deployments)))
    (_, changed) = fleet.changes[-1]
    needed = {place for name, place in changed if name in {f"d-w{n}" for n in range(12)}}
    assert len(needed) > BOUND.admits(40) and {place for _, place in changed} == needed
    assert any("0 do now; more may in 600 s" in e.summary for e in fleet.state.explanations)
    fleet.run(BOUND.window_s - 20.0)
    assert [at_s for at_s, changes in fleet.changes if changes] == [60.0]
    fleet.run(60.0)
    assert len([at_s for at_s, changes in fleet.changes if changes]) > 1


def test_a_budget_is_kept_at_once_and_what_it_changes_counts() -> None:
    fleet = Fleet(20, 40, 0.5)
    fleet.run(60)
    fleet.seen = replace(fleet.seen, catalog=one_point_each("fast", "lean"), budgets=(Budget("site", 1e9),))
    fleet.look(10.0)
    ((_, changed),) = fleet.changes
    places = {place for _, place in changed}
    assert len(places) > BOUND.admits(40)
    assert {t.place for t in fleet.state.savings} == places


@pytest.mark.parametrize("seed", range(6))
def test_loads_that_only_fall_never_touch_more(seed: int) -> None:
    dice = random.Random(seed)
    fleet = Fleet(8, 16, 3.0)
    fleet.run(30)
    for _ in range(25):
        for name in fleet.rates:
            if dice.random() < 0.3:
                fleet.rates[name] *= dice.uniform(0.5, 1.0)
        fleet.look(dice.uniform(20.0, 300.0))
    assert fleet.most_in_a_window() <= BOUND.admits(16)
    assert fleet.changes


@pytest.mark.parametrize("seed", range(6))
def test_noise_touches_no_more_of_those_that_do_not_rise_and_serves_the_others_at_once(seed: int) -> None:
    dice = random.Random(seed)
    fleet = Fleet(8, 24, 1.5)
    fleet.run(30)
    calm = frozenset(list(fleet.rates)[:5])
    for _ in range(25):
        for name in fleet.rates:
            if name in calm:
                fleet.rates[name] *= dice.uniform(0.85, 1.0)
            else:
                fleet.rates[name] = dice.uniform(0.5, 4.0)
        fleet.look(dice.uniform(20.0, 300.0))
        for name in fleet.rates.keys() - calm:
            served = len(fleet.blueprint.of(name))
            assert served * 2.0 > fleet.rates[name], "a rise is not held up"
    assert fleet.most_in_a_window(calm) <= BOUND.admits(24)
