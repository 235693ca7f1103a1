"""Every failure at every call: the earlier layout stands again, or the wished one; nobody's slice is harmed."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.node_agent.core.board_wish import partition_id
from services.node_agent.core.mig.ledger import Outcome
from services.node_agent.core.mig.model import Layout, Placement
from services.node_agent.gpu.executor.board import Planners
from services.node_agent.gpu.executor.state import Doing
from services.node_agent.gpu.port import Activation
from services.node_agent.gpu.simulated import Fault, FaultKind
from services.node_agent.gpu.simulated.slices import SimulatedProcess
from tests.gpu.executor.bench import Bench
from tests.mig.fixtures import layout, slice_at

BEFORE, AFTER = "3g.40gb@4 1g.10gb@0 1g.10gb@2", "4g.40gb@0 2g.20gb@4 1g.10gb@6"
CHANGES = ("create_gpu_instance", "create_compute_instance", "destroy_compute_instance", "destroy_gpu_instance")
# Promise 8.
BLOCKED_LIMIT_S = 15.0


@pytest.fixture(scope="module")
def planners() -> Planners:
    return Planners()


@pytest.fixture
def bench(tmp_path: Path, planners: Planners) -> Bench:
    bench = Bench(tmp_path, planners=planners)
    assert bench.reach(bench.wish(layout(bench.table, BEFORE))) is Outcome.REACHED
    return bench


def change(bench: Bench, text: str = AFTER, generation: int = 2) -> Outcome | None:
    return bench.reach(bench.wish(layout(bench.table, text), generation))


@pytest.mark.parametrize("kind", ["NO_ROOM", "NO_PERMISSION", "NOT_FOUND", "TROUBLE", "MISSING_SYMBOL", "IN_USE"])
def test_a_failure_that_stays_leads_back_whatever_the_step(tmp_path: Path, planners: Planners, kind: str) -> None:
    """The fault strikes the n-th call of a verb and its repeats, as often as the executor is patient, then is over."""
    struck = 0
    for verb in CHANGES:
        for after in range(3):
            folder = tmp_path / f"{verb}-{after}"
            folder.mkdir()
            bench = Bench(folder, planners=planners)
            before = layout(bench.table, BEFORE)
            bench.reach(bench.wish(before))
            fault = FaultKind[kind]
            tries = {"IN_USE": 5, "NO_ROOM": 2, "TROUBLE": 2, "NOT_FOUND": 2}.get(kind, 1)
            bench.machine.inject(Fault(fault, verb=verb, after=after, times=tries))
            outcome = change(bench)
            struck += 1
            assert outcome is (Outcome.BLOCKED if kind == "IN_USE" else Outcome.RESTORED), (verb, after)
            assert bench.layout == before
            assert bench.orphans == []
            last = bench.executor.state.last
            assert last is not None
            assert "injected" in last.words
            bench.executor.close()
    assert struck == len(CHANGES) * 3


@pytest.mark.parametrize("kind", ["IN_USE", "TROUBLE", "LOST_REPLY"])
def test_a_failure_that_passes_is_only_a_delay(bench: Bench, kind: str) -> None:
    for verb in CHANGES:
        bench.machine.inject(Fault(FaultKind[kind], verb=verb, after=1))
    assert change(bench) is Outcome.REACHED
    assert bench.layout == layout(bench.table, AFTER)
    assert bench.orphans == []


def test_kept_slices_keep_their_uuid(bench: Bench) -> None:
    kept = slice_at(bench.table, "3g.40gb@4")
    uuid = bench.uuids[kept]
    assert change(bench, "3g.40gb@4 2g.20gb@0 1g.10gb@2") is Outcome.REACHED
    assert bench.uuids[kept] == uuid
    assert {one.uuid for one in bench.executor.state.partitions} == set(bench.uuids.values())


def test_a_way_back_that_fails_too_is_degraded_and_a_new_wish_heals_it(bench: Bench) -> None:
    bench.machine.inject(Fault(FaultKind.TROUBLE, verb="create_gpu_instance", after=0, times=4))
    assert change(bench, "7g.80gb@0") is Outcome.DEGRADED
    last = bench.executor.state.last
    assert last is not None
    assert "could not be restored" in last.words
    assert change(bench, BEFORE, 3) is Outcome.REACHED


def test_a_slice_with_work_is_never_destroyed_and_its_holder_named(bench: Bench) -> None:
    busy = slice_at(bench.table, "1g.10gb@0")
    bench.machine.start_process(bench.uuid, SimulatedProcess(77, bench.gi_id(busy)))
    uuid = bench.uuids[busy]
    bench.executor.want(bench.wish(layout(bench.table, AFTER), 2))
    bench.run(limit_s=60)
    assert bench.executor.state.doing is Doing.WAITING
    assert "pid 77" in bench.executor.state.words
    assert bench.uuids[busy] == uuid
    bench.machine.end_process(bench.uuid, 77)
    bench.run()
    assert bench.outcome is Outcome.REACHED


def test_replicas_of_the_agent_hold_their_slice_before_they_open_it(bench: Bench) -> None:
    busy = slice_at(bench.table, "1g.10gb@0")
    bench.held[partition_id(bench.uuid, busy)] = ("replica r1",)
    bench.executor.want(bench.wish(layout(bench.table, AFTER), 2))
    bench.run(limit_s=60)
    assert "replica r1" in bench.executor.state.words
    assert busy in bench.layout


def test_a_process_that_comes_after_the_check_is_named(bench: Bench) -> None:
    """The driver refuses, the board is read again, and the wait has a name; no try is counted against the change."""
    busy = slice_at(bench.table, "1g.10gb@0")
    gi_id = bench.gi_id(busy)

    def race(call: object) -> None:
        bench.machine.after_call = None
        bench.machine.start_process(bench.uuid, SimulatedProcess(78, gi_id))

    bench.executor.want(bench.wish(layout(bench.table, AFTER), 2))
    for _ in range(50):
        if bench.executor.state.words:
            break
        bench.machine.after_call = lambda call: race(call) if call.verb == "processes" else None
        bench.executor.turn()
    bench.run(limit_s=60)
    assert bench.executor.state.doing is Doing.WAITING
    assert "pid 78" in bench.executor.state.words
    assert busy in bench.layout


def test_a_hidden_holder_ends_blocked_in_time_with_advice(bench: Bench) -> None:
    busy = slice_at(bench.table, "1g.10gb@0")
    bench.machine.start_process(bench.uuid, SimulatedProcess(79, bench.gi_id(busy), hidden=True))
    begun_s = bench.clock.now_s
    assert change(bench) is Outcome.BLOCKED
    assert bench.clock.now_s - begun_s <= BLOCKED_LIMIT_S
    last = bench.executor.state.last
    assert last is not None
    assert last.code == "holder_unknown"
    assert "DCGM" in last.words
    assert bench.layout == layout(bench.table, BEFORE)
    # The next step of the same blueprint is no reason to try again; the next blueprint is.
    calls = bench.machine.calls
    bench.reach(bench.wish(layout(bench.table, AFTER), 2, step=1))
    assert bench.machine.calls - calls < 15
    bench.machine.end_process(bench.uuid, 79)
    assert change(bench, AFTER, 3) is Outcome.REACHED


def test_a_foreign_slice_that_comes_in_the_way_is_left_alone(bench: Bench) -> None:
    """Somebody makes a slice where ours was to come, in the middle of the change."""
    foreign = slice_at(bench.table, "1g.10gb@1")
    taken = Fault(FaultKind.FOREIGN_CREATE, verb="create_gpu_instance", profile_id=19, placement=Placement(1, 1))
    bench.machine.inject(taken)
    assert change(bench, "3g.40gb@4 2g.20gb@0 1g.10gb@2") is Outcome.RESTORED
    assert set(bench.layout) == {*layout(bench.table, BEFORE), foreign}
    assert bench.executor.state.foreign == ("mig/1g.10gb",)
    assert all(one.uuid != bench.uuids[foreign] for one in bench.executor.state.partitions)


def test_what_others_do_between_changes_is_told_within_one_poll_and_not_undone(bench: Bench) -> None:
    gone, stranger = slice_at(bench.table, "1g.10gb@0"), slice_at(bench.table, "1g.10gb@1")
    board = bench.machine.board(bench.uuid)
    board.slices.destroy_compute(bench.gi_id(gone), 0)
    board.slices.destroy(bench.gi_id(gone))
    board.slices.create_compute(board.slices.create(stranger.profile_id, Placement(1, 1)))
    bench.executor.turn()
    assert f"{gone} was removed by somebody else" in bench.executor.state.words
    assert f"{stranger} is somebody else's" in bench.executor.state.words
    bench.run()
    assert gone not in bench.layout
    assert stranger in bench.layout
    assert change(bench, "3g.40gb@4 2g.20gb@0 1g.10gb@2") is Outcome.REFUSED
    assert stranger in bench.layout


def test_unknown_slices_are_quarantined_or_adopted_by_setting(tmp_path: Path, planners: Planners) -> None:
    for adopt in (False, True):
        folder = tmp_path / str(adopt)
        folder.mkdir()
        bench = Bench(folder, adopt=adopt, planners=planners)
        board = bench.machine.board(bench.uuid)
        board.set_mode(True)
        board.slices.create_compute(board.slices.create(9, Placement(0, 4)))
        bench.run()
        assert bool(bench.executor.state.partitions) is adopt
        assert bool(bench.executor.state.foreign) is not adopt
        assert change(bench, "7g.80gb@0") is (Outcome.REACHED if adopt else Outcome.REFUSED)


@pytest.mark.parametrize("status", [Activation.IN_USE, Activation.RESET_REQUIRED, Activation.NOT_SUPPORTED])
def test_a_mode_is_believed_only_when_active(tmp_path: Path, planners: Planners, status: Activation) -> None:
    bench = Bench(tmp_path, planners=planners)
    bench.machine.inject(Fault(FaultKind.NOT_ACTIVE, verb="set_mig_mode", times=5, number=status))
    outcome = bench.reach(bench.wish(layout(bench.table, "3g.40gb@4")))
    assert outcome is (Outcome.RESTORED if status is Activation.NOT_SUPPORTED else Outcome.BLOCKED)
    assert bench.layout == Layout()
    last = bench.executor.state.last
    assert last is not None
    assert "not in force" in last.words


@pytest.mark.parametrize(("times", "outcome"), [(1, Outcome.REACHED), (2, Outcome.RESTORED)])
def test_a_mode_that_goes_off_under_a_call_is_set_once_more(
    tmp_path: Path, planners: Planners, times: int, outcome: Outcome
) -> None:
    """A simulated board whose worker dies comes back like this; on a real one somebody else would have to do it."""
    bench = Bench(tmp_path, planners=planners)
    bench.machine.inject(Fault(FaultKind.FOREIGN_MODE_OFF, verb="create_gpu_instance", times=times))
    wanted = layout(bench.table, "3g.40gb@4")
    assert bench.reach(bench.wish(wanted)) is outcome
    assert bench.layout == (wanted if outcome is Outcome.REACHED else Layout())
    assert bench.orphans == []


def test_a_board_that_changes_mode_only_by_reset_is_told_how(tmp_path: Path, planners: Planners) -> None:
    bench = Bench(tmp_path, "a100-40", planners=planners)
    calls = bench.machine.calls
    assert bench.reach(bench.wish(layout(bench.table, "3g.20gb@4"))) is Outcome.REFUSED
    last = bench.executor.state.last
    assert last is not None
    assert "nvidia-smi -mig 1" in last.words
    assert bench.machine.calls - calls < 15


def test_a_lost_board_is_waited_for_and_a_hang_is_only_slow(bench: Bench) -> None:
    bench.machine.inject(Fault(FaultKind.HANG, verb="create_gpu_instance", number=10))
    bench.machine.inject(Fault(FaultKind.BOARD_LOST, verb="create_compute_instance", after=1))
    bench.executor.want(bench.wish(layout(bench.table, AFTER), 2))
    bench.run(limit_s=40)
    assert bench.executor.state.doing is Doing.AWAY
    assert "board_lost" in bench.executor.state.words
    bench.machine.reset(bench.uuid)
    bench.run()
    assert bench.outcome is Outcome.REACHED
    assert bench.layout == layout(bench.table, AFTER)
