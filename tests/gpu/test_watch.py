"""Watching boards: the same over simulator and NVML. Slices' energy, faults, and a driver that hangs."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from services.node_agent.core.measurement import Sample
from services.node_agent.core.meter_window import charge
from services.node_agent.gpu.board_watch import BoardWatch
from services.node_agent.gpu.device import GpuDevice
from services.node_agent.gpu.port import GpuEvent
from services.node_agent.gpu.simulated import Fault, FaultKind, SimulatedGpus, simulated_machine
from services.node_agent.gpu.simulated.products import PRODUCTS
from services.node_agent.gpu.simulated.slices import SimulatedProcess
from services.node_agent.gpu.telemetry import Telemetry
from tradewind.domain.errors import InvalidField
from tradewind.domain.figures import FigureSource

from .rigs import Rig
from .test_contract import MakeRig, make, on, remove


class Watched:
    """A rig with a watch on each board, stepped by hand."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.now_s = rig, 0.0
        self.watches = [
            BoardWatch(rig.reader, facts, rig.reader.table(facts.uuid), lambda: self.now_s)
            for facts in rig.reader.boards()
        ]
        self.look(0)

    def look(self, seconds: float) -> None:
        """Time passes; events are heard; every board is looked at."""
        self.now_s += seconds
        self.rig.advance(seconds)
        for event in self.rig.reader.events(0.0):
            self.hear(event)
        for watch in self.watches:
            watch.look()

    def hear(self, event: GpuEvent) -> None:
        next(watch for watch in self.watches if watch.facts.uuid == event.uuid).on_event(event)


def test_slices_sum_to_the_board_while_they_come_and_go(make_rig: MakeRig) -> None:
    rig = make_rig("h100-80")
    uuid = on(rig)
    large, small = make(rig, uuid, 9, 4, 4), make(rig, uuid, 19, 0, 1)
    watched = Watched(rig)
    watch = watched.watches[0]
    # The two begin to work at different times; one leaves.
    for second in range(12):
        if second == 2:
            rig.machine.set_load(uuid, large.gi_id, 0.8, 0.3)
        if second == 5:
            rig.machine.set_load(uuid, small.gi_id, 0.4)
        if second == 9:
            remove(rig, uuid, small)
        watched.look(1.0)
        state = watch.state
        parts = sum(one.energy.energy_mj for one in state.slices) + state.unallocated.energy_mj
        assert parts + state.former_mj == pytest.approx(state.energy.energy_mj, rel=1e-3)
    assert state.energy.source is FigureSource.MEASURED_COUNTER
    assert [(one.kind, one.energy.source) for one in state.slices] == [("mig/3g.40gb", FigureSource.ATTRIBUTED)]
    assert state.slices[0].energy.energy_mj > state.former_mj > 0, "the large one worked more"
    assert state.power_source is FigureSource.MEASURED_COUNTER and state.power_mw > state.idle_mw
    assert watch.fault == ""


def test_before_hopper_energy_goes_to_slices_with_a_process(make_rig: MakeRig) -> None:
    rig = make_rig("a100-40")
    uuid = on(rig)
    used, empty = make(rig, uuid, 9, 4, 4), make(rig, uuid, 9, 0, 4)
    watched = Watched(rig)
    rig.machine.start_process(uuid, SimulatedProcess(4, used.gi_id, 1 << 30))
    for _ in range(3):
        rig.machine.set_load(uuid, used.gi_id, 0.7)
        watched.look(1.0)
    by_id = {one.instance.gi_id: one.energy for one in watched.watches[0].state.slices}
    assert by_id[used.gi_id].energy_mj > 3 * by_id[empty.gi_id].energy_mj > 0
    assert "occupied" in by_id[used.gi_id].method


@pytest.mark.parametrize(
    ("break_it", "words", "lasts"),
    [
        (lambda rig, uuid: rig.machine.lose(uuid), "bus|answer", True),
        (lambda rig, uuid: rig.xid(uuid, 48), "XID 48", True),
        (lambda rig, uuid: rig.machine.inject(Fault(FaultKind.BOARD_LOST, "read", uuid)), "bus|answer", True),
        (lambda rig, uuid: rig.machine.inject(Fault(FaultKind.TROUBLE, "read", uuid, times=4)), "driver|error", False),
    ],
)
def test_a_faulty_board_is_out_within_five_seconds_and_others_go_on(
    make_rig: MakeRig, break_it: Callable[[Rig, str], None], words: str, lasts: bool
) -> None:
    watched = Watched(make_rig("h100-80", "h100-80"))
    bad, good = watched.watches
    watched.look(1.0)
    break_it(watched.rig, bad.facts.uuid)
    began_s = watched.now_s
    while not bad.fault:
        watched.look(1.0)
        assert watched.now_s - began_s <= 5
    assert re.search(words, bad.fault) and bad.fault_lasts is lasts
    before_mj = good.state.energy.energy_mj
    for _ in range(4):
        watched.look(1.0)
        assert good.fault == ""
    assert good.state.energy.energy_mj > before_mj
    assert bool(bad.fault) is lasts, "trouble that is gone is none"


def test_a_counter_that_is_reset_never_makes_energy_fall(make_rig: MakeRig) -> None:
    watched = Watched(make_rig("a30"))
    watch = watched.watches[0]
    for second in range(6):
        if second == 3:
            watched.rig.machine.inject(Fault(FaultKind.COUNTER_RESET, "read", watch.facts.uuid))
        before = watch.state.energy
        watched.look(1.0)
        assert watch.state.energy.energy_mj > before.energy_mj
    assert watch.state.energy.source is FigureSource.MEASURED_INTEGRAL and "resets=1" in watch.state.energy.method


def test_slices_that_may_not_be_listed_are_a_fault_in_words(make_rig: MakeRig) -> None:
    rig = make_rig("h100-80")
    uuid = on(rig)
    watched = Watched(rig)
    one = make(rig, uuid, 19, 0, 1)
    watched.look(1.0)
    watch = watched.watches[0]
    rig.machine.inject(Fault(FaultKind.NO_PERMISSION, "instances", uuid, times=3))
    for words in ("", "", "cannot be listed"):
        watched.look(11.0)
        assert words in watch.fault and (words or not watch.fault)
        assert [s.uuid for s in watch.state.slices] == [one.compute[0].uuid], "what was listed before stands"
        assert watch.state.seen_at_s == watched.now_s and not watch.fault_lasts, "the board itself is still metered"
    watched.look(1.0)
    assert watch.fault == ""
    fresh = BoardWatch(rig.reader, watch.facts, watch.table, lambda: watched.now_s)
    rig.machine.inject(Fault(FaultKind.NO_PERMISSION, "instances", uuid))
    fresh.look()
    assert "cannot be listed" in fresh.fault, "never listed: at once"


def test_a_load_is_charged_by_the_meter_of_its_partition(make_rig: MakeRig) -> None:
    rig = make_rig("h100-80")
    uuid = on(rig)
    one = make(rig, uuid, 9, 4, 4)
    watched = Watched(rig)
    device = GpuDevice(watched.watches[0])
    watched.look(1.0)
    slice_uuid = one.compute[0].uuid
    before = device.meter(slice_uuid)
    rig.machine.set_load(uuid, one.gi_id, 0.6)
    for _ in range(6):
        watched.look(1.0)
    after = device.meter(slice_uuid)
    assert before is not None and after is not None
    board = PRODUCTS["h100-80"]
    active_mj = (board.power.most_mw - board.idle_mw) * 0.6 * 60 / 132 * 6
    samples = [Sample(1, 1, 10, 1.0, 2.0, FigureSource.UNAVAILABLE, "")]
    samples.append(replace(samples[0], decode_mj=0.0))
    charged = charge(samples, before, after)
    assert sum(s.prefill_mj + s.decode_mj for s in charged) == pytest.approx(active_mj, rel=0.02)
    assert charged[0].decode_mj == pytest.approx(active_mj / 2, rel=0.02)
    assert charged[0].source is FigureSource.ATTRIBUTED and "above-idle" in charged[0].method
    short = charge(samples, before, replace(before, at_s=before.at_s + 0.4))
    assert short[0].source is FigureSource.UNAVAILABLE, "too short to say"
    with pytest.raises(InvalidField):
        device.meter("MIG-gone")


def test_a_driver_that_hangs_on_one_board_holds_up_no_other() -> None:
    hung = threading.Event()
    machine = simulated_machine("h100-80x2", 1, time.monotonic, lambda seconds: _hang(hung, seconds))
    gpus = SimulatedGpus(machine)
    watches = [BoardWatch(gpus, b, gpus.table(b.uuid), time.monotonic) for b in gpus.boards()]
    for watch in watches:
        watch.look()
    machine.inject(Fault(FaultKind.HANG, "read", watches[0].facts.uuid, number=60))
    telemetry = Telemetry(gpus, watches, period_s=0.05)
    telemetry.start()
    try:
        until_s = time.monotonic() + 5
        while not watches[0].fault:
            assert time.monotonic() < until_s
            hung.wait(0.02)
            seen_s = watches[1].state.seen_at_s
        assert "not answered" in watches[0].fault and watches[1].fault == ""
        assert time.monotonic() - seen_s < 1
    finally:
        hung.set()
        telemetry.stop()


def _hang(hung: threading.Event, seconds: float) -> None:
    hung.wait(seconds)
