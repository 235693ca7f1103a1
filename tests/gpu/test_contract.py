"""The contract of `GpuReader` and `GpuAdmin`, over every back-end (see rigs.py)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.node_agent.core.mig.model import Placement
from services.node_agent.gpu.faults import (
    BoardLost,
    DriverTrouble,
    GpuError,
    InUse,
    InvalidRequest,
    NoPermission,
    NoRoom,
    NotSupported,
    NotThere,
)
from services.node_agent.gpu.known_boards import known_board
from services.node_agent.gpu.port import Activation, EventKind, GpuInstance, MigMode
from services.node_agent.gpu.simulated import Fault, FaultKind
from services.node_agent.gpu.simulated.products import PRODUCTS
from services.node_agent.gpu.simulated.slices import SimulatedProcess

from .rigs import MACHINES, Rig

MakeRig = Callable[..., Rig]
ONE_G, ONE_G_ME, ONE_G_DOUBLE, TWO_G, THREE_G, FOUR_G, SEVEN_G = 19, 20, 15, 14, 9, 5, 0


def on(rig: Rig, number: int = 0) -> str:
    """A board with MIG on; its UUID."""
    uuid = rig.reader.boards()[number].uuid
    assert rig.admin.set_mig_mode(uuid, True) is Activation.ACTIVE
    return uuid


def make(rig: Rig, uuid: str, profile_id: int, start: int, size: int) -> GpuInstance:
    """A slice with its compute instance."""
    gi_id = rig.admin.create_gpu_instance(uuid, profile_id, Placement(start, size))
    made = rig.admin.create_compute_instance(uuid, gi_id)
    found = next(one for one in rig.reader.instances(uuid) if one.gi_id == gi_id)
    assert found.compute == (made,)
    return found


def remove(rig: Rig, uuid: str, one: GpuInstance) -> None:
    """A slice with its compute instances, away."""
    for compute in one.compute:
        rig.admin.destroy_compute_instance(uuid, one.gi_id, compute.ci_id)
    rig.admin.destroy_gpu_instance(uuid, one.gi_id)


def test_every_known_board_tells_what_it_is_and_offers(make_rig: MakeRig) -> None:
    rig = make_rig(*MACHINES)
    boards = rig.reader.boards()
    assert [b.device_class for b in boards] == [f"gpu:{name}" for name in (*MACHINES[:-1], "a30-24")]
    assert rig.reader.lost() == ()
    assert rig.reader.system().driver_version
    for facts, product in zip(boards, PRODUCTS.values(), strict=True):
        assert facts.uuid.startswith("GPU-") and facts.mig_capable and not facts.exclusive and facts.peers == ()
        assert (facts.compute_capability, facts.memory_bytes) == (product.compute_capability, product.memory_bytes)
        assert facts.multiprocessor_count == product.multiprocessor_count
        assert (facts.power, facts.sm_clocks_mhz) == (product.power, product.sm_clocks_mhz)
        assert (facts.resetless_mode, facts.query_while_off) == (product.hopper_or_later,) * 2
        known = known_board(facts.device_class)
        assert known is not None
        table = rig.reader.table(facts.uuid)
        assert {(p.name, p.profile_id, p.placements) for p in table.profiles} == {
            (p.name, p.profile_id, p.placements) for p in known.table.profiles
        }, "the same profiles with MIG off as with MIG on, by name"
        assert rig.admin.set_mig_mode(facts.uuid, True) is Activation.ACTIVE
        assert rig.reader.table(facts.uuid) == table


def test_linked_boards_name_each_other(make_rig: MakeRig) -> None:
    first, second, other = make_rig("h100-80", "h100-80", "a30").reader.boards()
    assert (first.peers, second.peers, other.peers) == ((second.uuid,), (first.uuid,), ())


def test_slices_are_made_where_asked_and_end(make_rig: MakeRig) -> None:
    rig = make_rig("h100-80")
    uuid = on(rig)
    assert rig.reader.instances(uuid) == ()
    large, small = make(rig, uuid, THREE_G, 4, 4), make(rig, uuid, ONE_G, 0, 1)
    assert [(i.profile_id, i.placement) for i in rig.reader.instances(uuid)] == [
        (ONE_G, Placement(0, 1)),
        (THREE_G, Placement(4, 4)),
    ]
    uuids = {large.compute[0].uuid, small.compute[0].uuid}
    assert len(uuids) == 2 and all(u.startswith("MIG-") for u in uuids)
    remove(rig, uuid, large)
    again = make(rig, uuid, THREE_G, 4, 4)
    assert again.gi_id == large.gi_id, "ids come back"
    assert again.compute[0].uuid not in uuids, "UUIDs do not"


def test_one_without_a_compute_instance_is_seen(make_rig: MakeRig) -> None:
    rig = make_rig("a100-40")
    uuid = on(rig)
    gi_id = rig.admin.create_gpu_instance(uuid, TWO_G, Placement(2, 2))
    assert rig.reader.instances(uuid) == (GpuInstance(gi_id, TWO_G, Placement(2, 2)),)
    assert rig.reader.read_slices(uuid) == ()
    rig.admin.destroy_gpu_instance(uuid, gi_id)
    assert rig.reader.instances(uuid) == ()


def test_what_does_not_fit_is_refused(make_rig: MakeRig) -> None:
    rig = make_rig("a100-80", "a30")
    uuid = on(rig)
    make(rig, uuid, FOUR_G, 0, 4)
    make(rig, uuid, TWO_G, 4, 2)
    for profile_id, start, size, error in (
        (FOUR_G, 0, 4, NoRoom),  # the very same exists
        (ONE_G, 3, 1, NoRoom),  # overlap
        (TWO_G, 4, 2, NoRoom),
        (ONE_G, 7, 1, InvalidRequest),  # no such start
        (99, 0, 1, InvalidRequest),  # no such profile
    ):
        with pytest.raises(error):
            rig.admin.create_gpu_instance(uuid, profile_id, Placement(start, size))
    make(rig, uuid, ONE_G_ME, 6, 1)
    small = on(rig, 1)
    make(rig, small, 21, 0, 1)
    with pytest.raises(NoRoom):
        rig.admin.create_gpu_instance(small, 6, Placement(2, 2))  # one media extension in all


def test_compute_slices_are_limited(make_rig: MakeRig) -> None:
    rig = make_rig("h200-141")
    uuid = on(rig)
    for start in (0, 4):
        make(rig, uuid, THREE_G, start, 4)
    assert len(rig.reader.instances(uuid)) == 2
    for one in rig.reader.instances(uuid):
        remove(rig, uuid, one)
    for start in (0, 2, 4, 6):
        make(rig, uuid, ONE_G_DOUBLE, start, 2)
    with pytest.raises(NoRoom):
        rig.admin.create_gpu_instance(uuid, SEVEN_G, Placement(0, 8))


def test_nothing_in_use_is_destroyed(make_rig: MakeRig) -> None:
    rig = make_rig("h100-80")
    uuid = on(rig)
    one = make(rig, uuid, ONE_G, 0, 1)
    with pytest.raises(InUse):
        rig.admin.destroy_gpu_instance(uuid, one.gi_id)
    rig.machine.start_process(uuid, SimulatedProcess(77, one.gi_id, 5 << 20))
    seen = rig.reader.processes(uuid)
    assert [(p.pid, p.gi_id, p.used_memory_bytes) for p in seen] == [(77, one.gi_id, 5 << 20)]
    with pytest.raises(InUse):
        rig.admin.destroy_compute_instance(uuid, one.gi_id, 0)
    rig.machine.end_process(uuid, 77)
    rig.machine.start_process(uuid, SimulatedProcess(78, one.gi_id, hidden=True))
    assert rig.reader.processes(uuid) == ()
    with pytest.raises(InUse):
        rig.admin.destroy_compute_instance(uuid, one.gi_id, 0)
    rig.machine.end_process(uuid, 78)
    remove(rig, uuid, one)
    for call in (
        lambda: rig.admin.destroy_gpu_instance(uuid, one.gi_id),
        lambda: rig.admin.destroy_compute_instance(uuid, one.gi_id, 0),
        lambda: rig.admin.create_compute_instance(uuid, one.gi_id),
    ):
        with pytest.raises(NotThere):
            call()


def test_without_the_mode_there_are_no_slices(make_rig: MakeRig) -> None:
    rig = make_rig("a100-40")
    uuid = rig.reader.boards()[0].uuid
    assert rig.reader.mig_mode(uuid) == MigMode(False, False)
    assert rig.reader.instances(uuid) == () == rig.reader.read_slices(uuid)
    with pytest.raises(NotSupported):
        rig.admin.create_gpu_instance(uuid, ONE_G, Placement(0, 1))


@pytest.mark.parametrize("status", [Activation.IN_USE, Activation.RESET_REQUIRED, Activation.NOT_SUPPORTED])
def test_a_mode_that_is_not_active_is_told(make_rig: MakeRig, status: Activation) -> None:
    rig = make_rig("h100-80")
    uuid = rig.reader.boards()[0].uuid
    rig.machine.inject(Fault(FaultKind.NOT_ACTIVE, "set_mig_mode", number=status))
    assert rig.admin.set_mig_mode(uuid, True) is status
    assert rig.reader.mig_mode(uuid) == MigMode(False, status is not Activation.NOT_SUPPORTED)


def test_a_process_keeps_the_mode_as_it_is(make_rig: MakeRig) -> None:
    rig = make_rig("a100-40")
    uuid = rig.reader.boards()[0].uuid
    rig.machine.start_process(uuid, SimulatedProcess(5, None))
    assert rig.reader.processes(uuid)[0].gi_id is None
    assert rig.admin.set_mig_mode(uuid, True) is Activation.IN_USE
    rig.machine.end_process(uuid, 5)
    rig.machine.reset(uuid)
    assert rig.reader.mig_mode(uuid) == MigMode(True, True), "the pending mode comes with a reset"


def test_a_reboot_takes_slices_and_hoppers_mode(make_rig: MakeRig) -> None:
    rig = make_rig("h100-80", "a100-80")
    hopper, ampere = on(rig, 0), on(rig, 1)
    for uuid in (hopper, ampere):
        make(rig, uuid, ONE_G, 0, 1)
    boot = rig.machine.boot_id
    rig.machine.reboot()
    assert rig.machine.boot_id != boot
    fresh = rig.reopen()
    assert not fresh.reader.mig_mode(hopper).current and fresh.reader.mig_mode(ampere).current
    assert fresh.reader.instances(ampere) == ()


def test_energy_grows_with_power_and_load(make_rig: MakeRig) -> None:
    rig = make_rig("h100-80")
    uuid = on(rig)
    one = make(rig, uuid, SEVEN_G, 0, 8)
    rig.machine.set_load(uuid, one.gi_id, 0.5, 0.25)
    rig.advance(1.0)
    before = rig.reader.read(uuid)
    assert rig.reader.read_slices(uuid)[0].memory_total_bytes == rig.reader.table(uuid).named("7g.80gb").memory_bytes
    rig.advance(10.0)
    now = rig.reader.read(uuid)
    assert before.energy_mj is not None and now.energy_mj is not None and now.power_mw is not None
    assert now.energy_mj - before.energy_mj == pytest.approx(now.power_mw * 10, rel=1e-3)
    product = PRODUCTS["h100-80"]
    assert product.idle_mw < now.power_mw < product.power.most_mw
    assert now.utilization is None, "not told while MIG is on"
    reading = rig.reader.read_slices(uuid)[0]
    assert (reading.sm_activity, reading.dram_activity) == (pytest.approx(0.5), pytest.approx(0.25))
    assert now.sm_clock_mhz == product.most_clock_mhz and "gpu_idle" not in now.clock_reasons


def test_activity_of_slices_is_not_told_before_hopper(make_rig: MakeRig) -> None:
    rig = make_rig("a30")
    uuid = on(rig)
    make(rig, uuid, 14, 0, 1)
    reading = rig.reader.read_slices(uuid)[0]
    assert (reading.sm_activity, reading.dram_activity) == (None, None)


def test_caps_and_clocks_hold_within_the_devices_limits(make_rig: MakeRig) -> None:
    rig = make_rig("a100-40")
    facts = rig.reader.boards()[0]
    uuid, limits = facts.uuid, facts.power
    assert limits is not None
    rig.admin.set_power_cap(uuid, 250_000)
    rig.admin.lock_sm_clock(uuid, 1005)
    reading = rig.reader.read(uuid)
    assert (reading.power_cap_mw, reading.sm_clock_mhz) == (250_000, 1005)
    for cap_mw in (limits.least_mw - 1, limits.most_mw + 1):
        with pytest.raises(InvalidRequest):
            rig.admin.set_power_cap(uuid, cap_mw)
    with pytest.raises(InvalidRequest):
        rig.admin.lock_sm_clock(uuid, facts.sm_clocks_mhz[-1] + 15)
    assert rig.reader.read(uuid).power_cap_mw == 250_000
    rig.machine.inject(Fault(FaultKind.CAP_CLIPPED, "read", uuid, number=200_000))
    rig.reader.read(uuid)
    assert rig.reader.read(uuid).power_cap_mw == 200_000, "another limiter is lower"
    rig.admin.set_power_cap(uuid, None)
    rig.admin.lock_sm_clock(uuid, None)
    assert rig.reader.read(uuid).sm_clock_mhz == facts.sm_clocks_mhz[0]


def test_a_lost_board_is_named_and_others_go_on(make_rig: MakeRig) -> None:
    rig = make_rig("h100-80", "h100-80")
    first, second = (b.uuid for b in rig.reader.boards())
    rig.machine.lose(first)
    with pytest.raises(BoardLost) as raised:
        rig.reader.read(first)
    assert raised.value.uuid == first
    assert rig.reader.lost() == (first,)
    assert [b.uuid for b in rig.reader.boards()] == [second]
    assert rig.reader.lost() == (first,)
    assert rig.reader.read(second).power_mw
    with pytest.raises(NotThere):
        rig.reader.read("GPU-nobody")


def test_events_tell_of_changes_and_faults(make_rig: MakeRig) -> None:
    rig = make_rig("h100-80", "a30")
    uuid = on(rig)
    rig.reader.events(0.0)
    make(rig, uuid, ONE_G, 0, 1)
    rig.xid(uuid, 48)
    events = rig.reader.events(0.0)
    assert {(e.uuid, e.kind) for e in events} == {(uuid, EventKind.MIG_CHANGED), (uuid, EventKind.XID)}
    assert [e.number for e in events if e.kind is EventKind.XID] == [48]
    assert rig.reader.events(0.0) == ()


@pytest.mark.parametrize(
    ("kind", "error", "done"),
    [
        (FaultKind.IN_USE, InUse, False),
        (FaultKind.NO_ROOM, NoRoom, False),
        (FaultKind.NO_PERMISSION, NoPermission, False),
        (FaultKind.TROUBLE, DriverTrouble, False),
        (FaultKind.MISSING_SYMBOL, NotSupported, False),
        (FaultKind.BOARD_LOST, BoardLost, False),
        (FaultKind.LOST_REPLY, DriverTrouble, True),
    ],
)
def test_faults_are_typed(make_rig: MakeRig, kind: FaultKind, error: type[GpuError], done: bool) -> None:
    rig = make_rig("h100-80", "h100-80")
    uuid, other = on(rig, 0), on(rig, 1)
    rig.machine.inject(Fault(kind, "create_gpu_instance", uuid, after=1))
    rig.admin.create_gpu_instance(uuid, ONE_G, Placement(0, 1))
    with pytest.raises(error) as raised:
        rig.admin.create_gpu_instance(uuid, ONE_G, Placement(1, 1))
    assert raised.value.uuid == uuid and raised.value.code > 0
    rig.admin.create_gpu_instance(other, ONE_G, Placement(1, 1))
    if kind is not FaultKind.BOARD_LOST:
        assert len(rig.reader.instances(uuid)) == 1 + done
        rig.admin.create_gpu_instance(uuid, ONE_G, Placement(2, 1))


def test_others_change_slices_between_calls(make_rig: MakeRig) -> None:
    rig = make_rig("a100-80")
    uuid = on(rig)
    make(rig, uuid, ONE_G, 0, 1)
    place = Placement(4, 4)
    rig.machine.inject(Fault(FaultKind.FOREIGN_CREATE, "instances", uuid, profile_id=THREE_G, placement=place))
    assert [i.placement for i in rig.reader.instances(uuid)] == [Placement(0, 1), place]
    rig.machine.inject(Fault(FaultKind.FOREIGN_DESTROY, "instances", uuid, placement=Placement(0, 1)))
    assert [i.placement for i in rig.reader.instances(uuid)] == [place]


@pytest.mark.parametrize("kind", [FaultKind.COUNTER_RESET, FaultKind.COUNTER_FROZEN, FaultKind.COUNTER_ABSENT])
def test_counters_may_fail(make_rig: MakeRig, kind: FaultKind) -> None:
    rig = make_rig("h100-80")
    uuid = rig.reader.boards()[0].uuid
    rig.advance(10)
    before = rig.reader.read(uuid).energy_mj
    rig.machine.inject(Fault(kind, "read", uuid))
    rig.reader.read(uuid)
    rig.advance(1)
    now = rig.reader.read(uuid).energy_mj
    assert before is not None
    if kind is FaultKind.COUNTER_RESET:
        assert now is not None and 0 < now < before
    else:
        assert now == (before if kind is FaultKind.COUNTER_FROZEN else None)
