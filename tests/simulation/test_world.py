"""Whole runs: equal seeds, no request lost, faults survived; and checks that can fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.node_agent.core.replica_states import ReplicaState
from services.node_agent.core.target import ReplicaSpec, Target
from services.orchestrator.core.facts.blueprint import EMPTY, Replica, child_of
from services.orchestrator.core.facts.fleet import Partition
from services.orchestrator.core.facts.policy import POLICIES
from services.orchestrator.core.facts.variant import Artifact
from services.simulator.checks import Checks
from services.simulator.devices.slices import legal
from services.simulator.engine.device import SimDevice
from services.simulator.engine.node import Held, SimNode
from services.simulator.engine.request import Request
from services.simulator.engine.spent import ACTIVE, Part
from services.simulator.engine.timeline import Timeline
from services.simulator.run import run
from services.simulator.scenario import Fault, FaultKind, Scenario
from tests.simulation.house import case, faulty, menu, stated
from tradewind.domain.manifest import FileRef


def test_equal_runs_have_equal_digests_and_lose_nothing() -> None:
    quiet = case()
    one, two = (run(quiet, POLICIES["energy"], stated(quiet)) for _ in range(2))
    assert one == two
    assert not one.findings
    assert (one.lost, one.cut, one.requests) == (0, 0, 300)
    assert one.attainment > 0.9
    assert 0.0 < one.energy.active_j < one.energy.total_j
    assert one.energy.active_j == pytest.approx(sum(one.energy.of(*ACTIVE, board=board) for board in one.energy.boards))
    assert one.energy.of(Part.LOADING) > 0.0 or one.energy.of(Part.READY) > 0.0


FAULTS = {
    FaultKind.CRASH: Fault(10.0, FaultKind.CRASH, "h100-sxm-a0000", for_s=30.0),
    FaultKind.PAUSE: Fault(10.0, FaultKind.PAUSE, "h100-sxm-a0000", for_s=8.0),
    FaultKind.PARTITION: Fault(10.0, FaultKind.PARTITION, "h100-sxm-a0000", for_s=12.0),
    FaultKind.SLOW_LINK: Fault(5.0, FaultKind.SLOW_LINK, "h100-sxm-a0000", for_s=30.0, delay_s=3.0),
    FaultKind.LOST_ANSWER: Fault(10.0, FaultKind.LOST_ANSWER, "h100-sxm-a0000", for_s=4.0),
    FaultKind.CLOCK_STEP: Fault(10.0, FaultKind.CLOCK_STEP, "h100-sxm-a0000", delay_s=-3600.0),
}


@pytest.mark.parametrize("kind", list(FaultKind))
def test_faults_are_survived(kind: FaultKind) -> None:
    hurt = faulty(Scenario((FAULTS[kind],)))
    outcome = run(hurt, POLICIES["energy"], stated(hurt))
    assert not outcome.findings
    assert outcome.lost == 0
    if kind is FaultKind.CRASH:
        # Streams with a first token break with their replica; all others are answered elsewhere or later.
        assert 0 < outcome.cut < 80
    else:
        assert outcome.cut == 0
    if kind in (FaultKind.PARTITION, FaultKind.CLOCK_STEP, FaultKind.LOST_ANSWER):
        # Nobody waits for the control plane: what was routed goes on.
        assert outcome.attainment > 0.9


def node() -> SimNode:
    cluster, _ = menu()
    seen = cluster.nodes()[0]
    devices = [SimDevice(cluster.boards[0], d) for d in seen.devices]
    return SimNode(seen, devices, Timeline(), lambda *_: pytest.fail("nothing is loaded here"))


def spec(replica_id: str, deployment_id: str) -> ReplicaSpec:
    file = FileRef("manifest.json", "sha256:x", 1)
    return ReplicaSpec(replica_id, deployment_id, "v", file, "gpu0:whole", "gpu0", "gpu/whole", (), 8)


def test_two_writers_on_one_partition_are_found() -> None:
    sim, checks = node(), Checks()
    device = sim.devices["gpu0"]
    sim.held = {name: Held(spec(name, name), ReplicaState.READY, device) for name in ("a", "b")}
    checks.node(sim, 1.0, EMPTY)
    assert "a and b hold gpu0:whole together" in checks.findings[0]


def test_old_and_new_of_a_swap_may_share_a_partition_and_two_that_stay_may_not() -> None:
    sim, checks = node(), Checks()
    device = sim.devices["gpu0"]
    sim.held = {name: Held(spec(name, "d"), ReplicaState.READY, device) for name in ("old", "new")}
    old, new = (planned(held.spec) for held in sim.held.values())
    checks.node(sim, 1.0, child_of(EMPTY, (new,), (replace(old, hold=True),)))
    checks.node(sim, 2.0, child_of(EMPTY, (new,), ()))
    assert not checks.findings
    checks.node(sim, 3.0, child_of(EMPTY, (old, new), ()))
    assert "old and new hold gpu0:whole together" in checks.findings[0]


def planned(of: ReplicaSpec) -> Replica:
    place = Partition(of.partition_id, of.device_id, of.partition_kind)
    manifest = Artifact(of.manifest.name, of.manifest.digest, of.manifest.size_bytes)
    return Replica(of.replica_id, of.deployment_id, "n", "m", of.variant_id, manifest, place, of.batch_limit)


def test_an_older_target_is_refused_and_would_be_found() -> None:
    sim, checks = node(), Checks()
    newer = Target(sim.node_id, 2, 5, 1, (), "n")
    sim.receive(newer, None, 0.0)
    sim.receive(replace(newer, fencing=1, generation=9, content="o"), None, 0.0)
    assert (sim.newest, sim.refused) == (newer, 1)
    checks.node(sim, 1.0, EMPTY)
    assert not checks.findings
    sim.newest = replace(newer, generation=4)
    checks.node(sim, 2.0, EMPTY)
    assert "obeys (2, 4, 1) after (2, 5, 1)" in checks.findings[0]


def test_an_illegal_layout_is_found() -> None:
    sim, checks = node(), Checks()
    kinds = ("mig/4g.40gb", "mig/3g.40gb", "mig/1g.10gb")
    sim.devices["gpu0"].cut(tuple(Partition(f"p{i}", "gpu0", kind) for i, kind in enumerate(kinds)))
    checks.node(sim, 0.0, EMPTY)
    assert "no legal layout" in checks.findings[0]


def test_layouts_of_the_user_guide() -> None:
    for kinds in (["7g"], ["4g", "3g"], ["3g", "3g"], ["2g", "2g", "2g", "1g"], ["1g"] * 7, ["4g", "2g", "1g"]):
        assert legal([f"mig/{k}.x" for k in kinds]), kinds
    for kinds in (["7g", "1g"], ["4g", "4g"], ["3g", "3g", "1g"], ["2g"] * 4, ["1g"] * 8):
        assert not legal([f"mig/{k}.x" for k in kinds]), kinds


def test_a_lost_request_is_found() -> None:
    answered, lost = Request(0, 0.0, 1, 1), Request(1, 0.0, 1, 1)
    answered.first_s = answered.done_s = 1.0
    checks = Checks()
    checks.requests([answered, lost], cut_allowed=False)
    assert checks.findings == ["1 requests were lost, the first is 1"]
