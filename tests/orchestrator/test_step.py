"""The step function: what sets off a plan, what does not, and what it remembers."""

from __future__ import annotations

from dataclasses import replace

from services.orchestrator.core.effects import Commit, Effect, Publish, Push
from services.orchestrator.core.facts.blueprint import Blueprint, Replica
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.fleet import NodeState, ReplicaReport, ReplicaState
from services.orchestrator.core.looked import Looks
from services.orchestrator.core.quarantine import QUARANTINE_S
from services.orchestrator.core.state import NodeSight, Observation, State
from services.orchestrator.core.step import COOL_DOWN_S, again, can_plan, step
from tests.orchestrator.worlds import node, profile, ready, slo, two_variants, variant, wish


class House:
    """Commits what is proposed and lets replicas be as told."""

    def __init__(self, **changes: object) -> None:
        self.now_s = 0.0
        self.state, self.looks = State(started_s=0.0), Looks()
        self.seen = Observation(deployments=(wish(),), catalog=two_variants(), **changes)  # type: ignore[arg-type]
        self.nodes = [node()]
        self.broken: tuple[str, ...] = ()
        self.triggers: list[str] = []
        self.effects: tuple[Effect, ...] = ()

    def look(self, passed_s: float = 1.0, *, heard: bool = True) -> None:
        self.now_s += passed_s
        last = self.now_s if heard else self.now_s - 1000.0
        seen = replace(self.seen, nodes=tuple(NodeSight(n, last, heard) for n in self.nodes))
        afresh = step(self.state, seen, self.now_s)
        self.state, self.effects = step(self.state, seen, self.now_s, looks=self.looks)
        assert (self.state, self.effects) == afresh, "what the last look worked out changes nothing"
        for effect in self.effects:
            if isinstance(effect, Commit):
                self.seen = replace(self.seen, blueprint=effect.plan.blueprint)
                self.triggers.append(effect.trigger)
            elif isinstance(effect, Push):
                told = {t.node_id: t for t in effect.targets}
                self.nodes = [
                    replace(n, replicas=tuple(self._report(r) for r, _ in told[n.node_id].replicas)) for n in self.nodes
                ]

    def _report(self, replica: Replica) -> ReplicaReport:
        if replica.variant_id in self.broken:
            return ReplicaReport(replica.replica_id, ReplicaState.FAILED, reason="canary", starts=3)
        return ready(replica.replica_id)

    def variants(self) -> list[str]:
        return sorted({r.variant_id for r in self.seen.blueprint.replicas})


def test_one_plan_and_then_quiet() -> None:
    house = House()
    for _ in range(20):
        house.look()
    assert house.triggers == ["start"]
    assert [type(e) for e in house.effects] == [Push, Publish]
    assert house.seen.blueprint.generation == 1


def test_a_look_at_an_unchanged_fleet_works_nothing_out_again() -> None:
    house = House()
    for _ in range(5):
        house.look()
    pushed, published = (effect for effect in house.effects)
    house.look()
    assert isinstance(pushed, Push)
    assert isinstance(house.effects[0], Push)
    assert house.effects[0].targets is pushed.targets
    assert house.effects[1] is published
    house.nodes = [replace(n, labels=(("zone", "b"),)) for n in house.nodes]
    house.look()
    assert house.effects[0].targets is not pushed.targets


def test_nothing_is_planned_before_the_nodes_of_the_blueprint_are_heard() -> None:
    house = House()
    house.look()
    house.look()
    fresh = State(started_s=house.now_s)
    seen = replace(house.seen, nodes=())
    assert not can_plan(fresh, seen, house.now_s + 1)
    _, effects = step(fresh, seen, house.now_s + 1)
    assert not any(isinstance(e, Commit) for e in effects)
    assert can_plan(fresh, seen, house.now_s + 21), "given up at last"
    known = NodeSight(replace(house.nodes[0]), house.now_s + 1, True)
    _, effects = step(fresh, replace(seen, nodes=(known,)), house.now_s + 1)
    commits = [e for e in effects if isinstance(e, Commit)]
    assert all(c.plan.blueprint == house.seen.blueprint for c in commits), "a restart changes nothing"


def test_nothing_is_planned_before_the_catalog_is_known() -> None:
    house = House(catalog_known=False)
    house.look()
    assert house.triggers == []


def test_a_commit_that_failed_is_proposed_again() -> None:
    house = House()
    house.look()
    house.seen = replace(house.seen, blueprint=Blueprint("", 0, ""))
    house.state = again(house.state)
    house.look()
    assert house.triggers == ["start", "start"]


def better(house: House, name: str, energy_mj: float) -> None:
    made = variant(name)
    catalog = house.seen.catalog
    house.seen = replace(
        house.seen,
        catalog=Catalog(
            (*catalog.variants, made), (*catalog.profiles, profile(made.variant_id, energy_mj=energy_mj, ttft_ms=90))
        ),
    )


def test_savings_wait_for_the_cool_down_and_wishes_do_not() -> None:
    house = House()
    house.look()
    better(house, "b", 150.0)
    for _ in range(10):
        house.look()
    assert house.variants() == ["sha256:b"]
    better(house, "c", 5.0)
    for _ in range(10):
        house.look()
    assert house.variants() == ["sha256:b"], "it was swapped just now"
    house.look(COOL_DOWN_S)
    house.look()
    assert house.variants() == ["sha256:c"]
    house.seen = replace(house.seen, deployments=(wish(slo=slo(ttft=80), generation=2),))
    house.look()
    assert house.variants() == ["sha256:fast"], "a wish is met at once"


def test_a_variant_that_fails_is_left_and_tried_again_later() -> None:
    house = House()
    house.look()
    house.look()
    house.broken = ("sha256:bad",)
    better(house, "bad", 20.0)
    for _ in range(10):
        house.look()
    assert house.variants() == ["sha256:lean"]
    assert any("failed to start: canary" in t for t in house.triggers), house.triggers
    house.broken = ()
    house.look(QUARANTINE_S + COOL_DOWN_S)
    house.look()
    assert house.variants() == ["sha256:bad"]


def test_silence_is_noticed_without_any_event() -> None:
    house = House()
    house.look()
    house.look(30.0, heard=False)
    assert dict(house.state.nodes) == {"n1": NodeState.LOST}
    assert house.seen.blueprint.replicas == ()
    assert [r.hold for r in house.seen.blueprint.leaving] == [True], "it waits for its node"
    house.look()
    house.look()
    assert len(house.seen.blueprint.replicas) == 1
    assert house.seen.blueprint.replicas[0].replica_id == "chat-g1-0", "and is the same when that returns"
