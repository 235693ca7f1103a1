"""Links of a chain as the orchestrator sees them: one for each device class, given up where devices refuse them."""

from __future__ import annotations

from dataclasses import replace

from services.orchestrator.core.checking.check import check
from services.orchestrator.core.facts.blueprint import Fallback, Replica
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.fleet import Device, Node, ReplicaReport, ReplicaState
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.variant import Admission
from services.orchestrator.core.planning.plan import make_plan
from services.orchestrator.core.step import Publish
from tests.orchestrator.test_step import House
from tests.orchestrator.worlds import GIB, node, profile, ready, variant, wish, world

OTHER = "cpu:other"
FAST = variant("fast", admission=Admission.UNCHECKED, target="cuda:sm_80")
LEAN, PORTABLE, STRANGER = variant("lean"), variant("portable"), variant("stranger")
CHAIN = (FAST.variant_id, LEAN.variant_id, PORTABLE.variant_id)


def catalog(*, fast_on: str = "cpu:test") -> Catalog:
    """Every link cheaper than those before it, and a variant that is cheaper still."""
    return Catalog(
        (FAST, LEAN, PORTABLE, STRANGER),
        (
            profile(FAST.variant_id, energy_mj=900, device_class=fast_on),
            *(profile(LEAN.variant_id, energy_mj=500, device_class=name) for name in ("cpu:test", OTHER)),
            *(profile(PORTABLE.variant_id, energy_mj=300, device_class=name) for name in ("cpu:test", OTHER)),
            profile(STRANGER.variant_id, energy_mj=10),
        ),
    )


def fleet() -> tuple[Node, ...]:
    """A node of each class."""
    return node("n1"), node("n2", devices=(Device("cpu0", OTHER, 16 * GIB, (0, 1, 2, 3), (), 10_000.0),))


def situation() -> Situation:
    return world(wish(chain=CHAIN, min_replicas=2, max_replicas=2), nodes=fleet(), catalog=catalog())


def test_each_device_class_takes_its_first_link_and_nothing_else_is_used() -> None:
    plan = make_plan(situation())
    taken = {(c.variant_id, c.device_class): c.refusal for c in plan.explanations[0].candidates}
    assert plan.explanations[0].feasible and check(situation(), plan.blueprint, plan.explanations) == ()
    assert taken[FAST.variant_id, "cpu:test"] == "" and taken[LEAN.variant_id, OTHER] == ""
    assert taken[LEAN.variant_id, "cpu:test"] == taken[PORTABLE.variant_id, OTHER] == "EARLIER_LINK"
    assert taken[STRANGER.variant_id, ""] == "NOT_PINNED"
    for replica in plan.blueprint.replicas:
        first = FAST if replica.device_class == "cpu:test" else LEAN
        later = CHAIN[CHAIN.index(first.variant_id) + 1 :]
        assert (replica.variant_id, tuple(f.variant_id for f in replica.fallbacks)) == (first.variant_id, later)


def test_the_independent_check_knows_chains() -> None:
    plan = make_plan(situation())
    one = plan.blueprint.replicas[0]
    for wrong, words in (
        (replace(one, fallbacks=(Fallback(STRANGER.variant_id, STRANGER.manifest),)), "no later links"),
        (replace(one, fallbacks=one.fallbacks[::-1] + one.fallbacks), "no later links"),
        (replace(one, fallbacks=(Fallback(PORTABLE.variant_id, LEAN.manifest),)), "may not serve"),
        (replace(one, variant_id=STRANGER.variant_id, manifest=STRANGER.manifest, fallbacks=()), "not of its chain"),
    ):
        changed = replace(plan.blueprint, replicas=(wrong, *plan.blueprint.replicas[1:]))
        assert any(words in f for f in check(situation(), changed, plan.explanations)), words


class Chained(House):
    """Nodes whose driver refuses a variant, and say that they run the next."""

    refusing: tuple[str, ...] = ()

    def _report(self, replica: Replica) -> ReplicaReport:
        if replica.variant_id in self.broken:
            return ReplicaReport(replica.replica_id, ReplicaState.FAILED, reason="DEVICE_FAULT: no driver", starts=1)
        if replica.variant_id == FAST.variant_id and replica.node_id in self.refusing:
            return replace(ready(replica.replica_id), variant_id=replica.fallbacks[0].variant_id, reason="no driver")
        return replace(ready(replica.replica_id), variant_id=replica.variant_id)

    def reasons(self) -> list[str]:
        return [c.reason for c in self.state.explanations[0].candidates if c.refusal == "QUARANTINED"]

    def routed(self) -> list[str]:
        published = next(e for e in self.effects if isinstance(e, Publish))
        return sorted(r.variant_id for _, routes in published.routes for r in routes)


def house(*names: str) -> Chained:
    made = Chained()
    made.nodes = [node(name) for name in names]
    made.seen = replace(made.seen, deployments=(wish(chain=CHAIN, min_replicas=len(names)),), catalog=catalog())
    return made


def test_a_link_that_every_device_refuses_is_given_up_at_once_and_its_fallback_serves_meanwhile() -> None:
    one = house("n1")
    one.refusing = ("n1",)
    one.look()
    one.look()
    assert one.variants() == [FAST.variant_id]
    one.look()
    assert one.routed() == [LEAN.variant_id], "the route names what answers"
    assert one.variants() == [LEAN.variant_id] and "no driver" in one.reasons()[0]
    assert any("failed to start" in words for words in one.triggers)


def test_while_another_device_of_the_class_runs_the_link_it_stays_planned() -> None:
    two = house("n1", "n2")
    two.refusing = ("n2",)
    for _ in range(4):
        two.look()
    assert two.routed() == sorted((FAST.variant_id, LEAN.variant_id))
    assert two.variants() == [FAST.variant_id]


def test_a_device_that_loads_no_link_does_not_loop() -> None:
    lost = house("n1")
    lost.broken = (FAST.variant_id,)
    lost.look()
    lost.look()
    lost.look()
    assert lost.variants() == [LEAN.variant_id], "after one start, not after three"
