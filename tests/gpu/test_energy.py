"""Energy of boards and slices: counters that fail, windows, conservation; when a board is taken out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.node_agent.core import board_health
from services.node_agent.core.attribution import BY_ACTIVITY, BY_OCCUPANCY, SliceUse, attribute
from services.node_agent.core.board_energy import EnergyAccount, MeterReading, count, window_source
from services.node_agent.core.board_health import BoardHealth, after_failure, after_look, after_xid
from services.node_agent.core.meter_window import MeterPoint, step_rate
from services.node_agent.core.slice_accounts import SliceAccounts, charge
from tradewind.domain.figures import EnergyFigure, FigureSource

MOST_MW = 400_000
COUNTER, INTEGRAL = FigureSource.MEASURED_COUNTER, FigureSource.MEASURED_INTEGRAL


def run(readings: list[tuple[float, int | None, int | None]]) -> EnergyAccount:
    account = EnergyAccount()
    for at_s, counter_mj, power_mw in readings:
        account = count(account, MeterReading(at_s, counter_mj, power_mw), MOST_MW)
    return account


@pytest.mark.parametrize(
    ("readings", "total_mj", "source"),
    [
        ([(0, 7, 100), (1, 107, 100), (2, 207, 100)], 200, COUNTER),
        ([(0, 7, 100), (0, 9, 100), (1, 107, 100)], 100, COUNTER),  # not later: nothing
        ([(0, None, 100), (1, None, 300), (2, None, 300)], 500, INTEGRAL),  # absent
        ([(0, 900, 100), (1, 1000, 100), (2, 30, 100)], 200, INTEGRAL),  # reset: the window by power
        ([(0, 900, 100), (1, None, 100), (2, 1100, 100)], 200, INTEGRAL),  # away for a while
        ([(0, 0, 100), (1, 0, 100), (2, 0, 100), (3, 0, 100), (4, 400, 100)], 400, INTEGRAL),  # frozen, catches up
        ([(0, 0, 100), (1, 0, 100), (2, 0, 100), (3, 0, 100), (4, 5, 100)], 300, INTEGRAL),  # frozen, goes on
        ([(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)], 0, COUNTER),  # nothing drawn
        ([(0, 0, 100), (1, 10**12, 100), (2, 10**12 + 100, 100)], 200, INTEGRAL),  # a jump no board can make
        ([(0, None, None), (1, None, None)], 0, FigureSource.UNAVAILABLE),
        ([(0, None, 100), (60, None, 100)], 6000, FigureSource.MODELLED),  # a guess over a gap
    ],
)
def test_accounts(readings: list[tuple[float, int | None, int | None]], total_mj: float, source: FigureSource) -> None:
    account = run(readings)
    assert account.total_mj == pytest.approx(total_mj)
    assert account.source is source


@settings(max_examples=150, deadline=None)
@given(
    powers=st.lists(st.integers(1_000, MOST_MW), min_size=5, max_size=40),
    faults=st.lists(st.sampled_from(["", "", "", "reset", "absent", "frozen"]), min_size=40, max_size=40),
)
def test_whatever_a_counter_does_energy_neither_falls_nor_doubles(powers: list[int], faults: list[str]) -> None:
    true_mj, offset_mj, shown = 0.0, 0.0, 0
    account = count(EnergyAccount(), MeterReading(0.0, 0, powers[0]), MOST_MW)
    for second, (power, fault) in enumerate(zip(powers, faults, strict=False), 1):
        true_mj += power
        offset_mj = true_mj if fault == "reset" else offset_mj
        shown = shown if fault == "frozen" else round(true_mj - offset_mj)
        before_mj = account.total_mj
        counter = None if fault == "absent" else shown
        account = count(account, MeterReading(float(second), counter, power), MOST_MW)
        assert account.total_mj >= before_mj
        # A window without a true counter is known by its power to within one step of it.
        assert account.total_mj <= true_mj + MOST_MW * (1 + sum(f != "" for f in faults[:second]))
    if not any(faults[: len(powers)]):
        assert account.source is COUNTER and account.total_mj == pytest.approx(true_mj, abs=1)
    elif "reset" in faults[1 : len(powers)] or "absent" in faults[: len(powers)]:
        assert account.source is INTEGRAL


def test_short_windows_are_no_measurement() -> None:
    assert window_source(0.5, COUNTER) is FigureSource.UNAVAILABLE
    assert window_source(2.0, COUNTER) is FigureSource.MODELLED
    assert window_source(5.0, COUNTER) is COUNTER


shares = st.floats(0, 1)


@st.composite
def uses(draw: st.DrawFn) -> list[SliceUse]:
    free, found = 8, []
    while free and draw(st.booleans()):
        size = draw(st.integers(1, free))
        told = draw(st.booleans())
        activity = (draw(shares), draw(shares)) if told else (None, None)
        found.append(SliceUse(str(len(found)), size, size * 16, *activity, draw(st.booleans())))
        free -= size
    return found


@settings(max_examples=200, deadline=None)
@given(energy_mj=st.floats(0, 1e9), idle_mj=st.floats(-1, 1e9), slices=uses())
def test_parts_sum_to_the_board(energy_mj: float, idle_mj: float, slices: list[SliceUse]) -> None:
    split = attribute(energy_mj, idle_mj, 8, slices)
    assert all(part >= 0 for part in split.slices.values()) and split.unallocated_mj >= 0
    assert sum(split.slices.values()) + split.unallocated_mj == pytest.approx(energy_mj, rel=1e-3, abs=1e-6)


def test_idle_goes_by_memory_and_work_by_activity() -> None:
    busy = SliceUse("busy", 4, 60, 0.5, 0.0, True)
    idle = SliceUse("idle", 2, 32, 0.0, 0.0, True)
    split = attribute(1000, 400, 8, [busy, idle])
    assert split.slices == pytest.approx({"busy": 200 + 600, "idle": 100})
    assert split.unallocated_mj == pytest.approx(100) and split.rule == BY_ACTIVITY
    small = SliceUse("small", 1, 16, 1.0, 0.0, True)
    both = attribute(1000, 0, 8, [busy, small]).slices
    assert both["busy"] / both["small"] == pytest.approx(60 * 0.5 / 16), "size counts, not activity alone"
    unknown = [SliceUse("a", 4, 56, None, None, True), SliceUse("b", 4, 42, None, None, False)]
    split = attribute(1000, 400, 8, unknown)
    assert split.slices == pytest.approx({"a": 200 + 600, "b": 200}) and split.rule == BY_OCCUPANCY
    assert attribute(1000, 400, 8, [idle]).unallocated_mj == pytest.approx(900), "work that nothing explains"


@settings(max_examples=60, deadline=None)
@given(windows=st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), uses()), min_size=1, max_size=12))
def test_accounts_keep_the_sum_when_slices_come_and_go(windows: list[tuple[float, float, list[SliceUse]]]) -> None:
    accounts, total_mj = SliceAccounts(), 0.0
    for energy_mj, idle_mj, slices in windows:
        accounts = charge(accounts, energy_mj, idle_mj, 8, slices)
        total_mj += energy_mj
        assert set(accounts.slices) == {use.key for use in slices}
    assert accounts.total_mj == pytest.approx(total_mj, rel=1e-3, abs=1e-6)


def test_health_follows_xids_errors_and_silence() -> None:
    well = after_look(BoardHealth(), 3)
    assert board_health.fault(well, 1.0) == ""
    assert "not answered" in board_health.fault(well, 4.0)
    assert board_health.fault(after_xid(well, 31), 1.0) == "", "an application's fault is not the board's"
    assert "XID 79" in board_health.fault(after_look(after_xid(well, 79), 3), 1.0), "it stays"
    assert "2 uncorrected" in board_health.fault(after_look(well, 5), 1.0)
    once = after_failure(well, "trouble", lost=False)
    assert board_health.fault(once, 1.0) == "", "one failure may pass"
    twice = after_failure(once, "trouble", lost=False)
    assert board_health.fault(twice, 1.0) == "trouble"
    assert board_health.fault(after_look(twice, 3), 1.0) == ""
    lost = after_failure(well, "off the bus", lost=True)
    assert board_health.fault(after_look(lost, 3), 1.0) == "off the bus"


def test_steps_cost_what_was_drawn_above_idle() -> None:
    def point(at_s: float, energy_mj: float, source: FigureSource = COUNTER) -> MeterPoint:
        return MeterPoint(at_s, EnergyFigure(energy_mj, source, "m@1"), 100.0, 0)

    rate = step_rate(point(0, 0), point(10, 5000), 2.0)
    assert rate is not None and rate.mj_per_core_s == 2000 and rate.source is FigureSource.ATTRIBUTED
    assert step_rate(point(0, 0), point(10, 5000), 0.0) is None, "no steps"
    assert step_rate(point(0, 0), point(10, 900), 1.0) is None, "nothing above idle"
    short = step_rate(point(0, 0), point(2, 5000), 1.0)
    assert short is not None and short.source is FigureSource.MODELLED
    pretended = step_rate(point(0, 0), point(10, 5000, FigureSource.SIMULATED), 1.0)
    assert pretended is not None and pretended.source is FigureSource.SIMULATED
