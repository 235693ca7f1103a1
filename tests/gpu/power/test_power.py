"""Caps and clocks: never outside the board's limits or a budget, read back, and gone with whoever asked for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.node_agent.core.power import Bounds, Observed, OutOfBounds, Setting, admit, not_in_force
from services.node_agent.core.power_budget import Budget, grant, share
from services.node_agent.gpu.faults import GpuError, InvalidRequest
from services.node_agent.gpu.helper.leases import Leases
from services.node_agent.gpu.power_keeper import OwnHolder, PowerKeeper, kept_board
from services.node_agent.gpu.simulated import Fault, FaultKind, SimulatedGpus, SimulatedMachine, simulated_machine

CLOCKS = tuple(range(210, 1981, 15))
BOUNDS = Bounds((200_000, 700_000, 700_000), CLOCKS)
caps = st.none() | st.integers(1, 1_000_000)
clocks = st.none() | st.integers(1, 3000)


@given(cap_mw=caps, clock_mhz=clocks, safety_mw=st.none() | st.integers(200_000, 700_000))
def test_what_is_admitted_is_within_limits_and_below_the_safety_cap(
    cap_mw: int | None, clock_mhz: int | None, safety_mw: int | None
) -> None:
    answer = admit(Setting(cap_mw, clock_mhz), BOUNDS, safety_mw)
    outside = cap_mw is not None and not 200_000 <= cap_mw <= 700_000
    outside |= clock_mhz is not None and not 210 <= clock_mhz <= 1980
    assert isinstance(answer, OutOfBounds) is outside
    if isinstance(answer, OutOfBounds):
        assert all(str(figure) in answer.words for figure in answer.figures.values())
        return
    assert answer.cap_mw is None or 200_000 <= answer.cap_mw <= min(cap_mw or 700_000, safety_mw or 700_000)
    assert (answer.cap_mw is None) is (cap_mw is None and safety_mw is None)
    assert answer.clock_mhz in (None, *CLOCKS)
    assert clock_mhz is None or (answer.clock_mhz is not None and 0 <= clock_mhz - answer.clock_mhz < 15)


def test_a_board_that_offers_nothing_is_not_asked_for_it() -> None:
    for setting in (Setting(300_000, None), Setting(None, 1200)):
        answer = admit(setting, Bounds(None, ()))
        assert isinstance(answer, OutOfBounds)
        assert "leave it unset" in answer.words
    assert admit(Setting(), Bounds(None, ())) == Setting()


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Observed(300_000, 250_000, 1200), ""),
        (Observed(300_500, 250_000, 345), ""),
        (Observed(700_000, 250_000, 1200), "cap 300000 mW is not in force, the board enforces 700000 mW"),
        (Observed(250_000, 250_000, 1200), "another limiter holds the board at 250000 mW"),
        (Observed(300_000, 250_000, 1980), "clock 1200 MHz is not in force, the board runs at 1980 MHz"),
        (Observed(None, None, None), ""),
    ],
)
def test_what_is_not_in_force_is_said(seen: Observed, words: str) -> None:
    told = not_in_force(Setting(300_000, 1200), BOUNDS, seen)
    assert (words in told) if words else told == ""


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_boards_never_may_draw_more_than_a_budget_whatever_fails_or_comes_late(data: st.DataObject) -> None:
    """Each grant takes effect now, later, or never; what boards enforce stays within every budget at every moment."""
    boards = ["a", "b", "c", "d"]
    enforced = {board: data.draw(st.integers(200, 700)) for board in boards}
    total = sum(enforced.values())
    budgets = [
        Budget("node", data.draw(st.integers(total, total + 500)), frozenset(boards)),
        Budget("rack", enforced["a"] + enforced["b"] + data.draw(st.integers(0, 200)), frozenset("ab")),
    ]
    for _ in range(8):
        asked = {board: data.draw(st.integers(200, 700)) for board in data.draw(st.sets(st.sampled_from(boards)))}
        answer = grant(budgets, enforced, asked)
        assert set(answer.now_mw) | set(answer.waiting) | set(answer.refused) == set(asked)
        for board, cap in answer.now_mw.items():
            assert cap == asked[board]
            if data.draw(st.booleans()):
                enforced[board] = cap
            for budget in budgets:
                assert sum(enforced[one] for one in budget.boards) <= budget.limit_mw


@given(budget=st.integers(400, 3000), asked=st.dictionaries(st.sampled_from("abcd"), st.integers(100, 700), min_size=1))
def test_a_budget_is_shared_out_to_the_last(budget: int, asked: dict[str, int]) -> None:
    shares = share(budget, asked, dict.fromkeys(asked, 100))
    assert sum(shares.values()) <= max(budget, 100 * len(asked))
    assert all(shares[board] <= asked[board] for board in asked)
    level = max(shares.values())
    cut = [board for board in asked if shares[board] < asked[board]]
    assert all(level - shares[board] <= len(asked) for board in cut), "only the largest are cut, to one level"


class World:
    """A simulated machine, and what a helper needs around its leases."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 0.0
        self.machine: SimulatedMachine = simulated_machine("h100-80x2", 1, lambda: self.now_s)
        self.gpus = SimulatedGpus(self.machine)
        self.file = folder / "leases.json"
        self.told: list[str] = []

    async def ask(self, verb: str, **arguments: Any) -> Any:
        return getattr(self.gpus, verb)(**arguments)

    def leases(self) -> Leases:
        return Leases(self.ask, self.file, "boot", lambda: self.now_s, lambda verb, *_: self.told.append(verb))

    def cap(self, board: int = 0) -> int | None:
        return self.gpus.read(self.machine.boards[board].uuid).power_cap_mw


async def test_a_lease_survives_the_helper_and_ends_all_the_same(tmp_path: Path) -> None:
    """The helper is killed: the one that follows knows what was set, and ends it when it would have ended."""
    world = World(tmp_path)
    uuid, other = (board.uuid for board in world.machine.boards)
    killed = world.leases()
    await killed.hold(uuid, Setting(300_000, 1200), 30.0)
    await killed.hold(other, Setting(250_000), 30.0, safety_cap_mw=400_000)
    world.now_s = 29.0
    again = world.leases()
    await again.look()
    assert (world.cap(0), world.cap(1)) == (300_000, 250_000)
    world.now_s = 30.0
    world.machine.inject(Fault(FaultKind.TROUBLE, verb="set_power_cap"))
    await again.look()
    await again.look()
    assert (world.cap(0), world.cap(1)) == (700_000, 400_000), "the safety cap stays"
    assert world.told == ["end_lease", "end_lease"]
    assert json.loads(world.file.read_bytes())["leases"] == []


async def test_a_helper_that_is_stopped_leaves_defaults(tmp_path: Path) -> None:
    world = World(tmp_path)
    leases = world.leases()
    await leases.hold(world.machine.boards[0].uuid, Setting(300_000))
    await leases.stop()
    assert world.cap() == 700_000


async def test_a_refused_setting_leaves_the_lease_before(tmp_path: Path) -> None:
    world = World(tmp_path)
    leases = world.leases()
    uuid = world.machine.boards[0].uuid
    await leases.hold(uuid, Setting(300_000), 30.0)
    with pytest.raises(InvalidRequest):
        await leases.hold(uuid, Setting(300), 30.0)
    with pytest.raises(GpuError):
        await leases.hold("GPU-9", Setting(300_000), 30.0)
    assert world.cap() == 300_000


def test_a_clipped_cap_is_reported_and_what_the_target_drops_is_given_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    first, second = (board.uuid for board in world.machine.boards)
    boards = [kept_board(facts, lambda: 3) for facts in world.gpus.boards()]
    keeper = PowerKeeper(world.gpus, OwnHolder(world.gpus), boards, None)
    world.machine.inject(Fault(FaultKind.CAP_CLIPPED, verb="set_power_cap", uuid=first, number=250_000))
    keeper.want({first: Setting(300_000), second: Setting(100, None)})
    keeper.look()
    state = keeper.states[first]
    assert (state.requested.cap_mw, state.admitted.cap_mw) == (300_000, 300_000)
    assert state.observed.enforced_cap_mw == 250_000
    assert "another limiter" in state.not_in_force
    assert state.slices == 3
    assert "200000 to 700000 mW" in keeper.states[second].refusal
    assert world.cap(1) == 700_000
    keeper.want({second: Setting(400_000)})
    keeper.look()
    assert world.cap(1) == 400_000
    keeper.want({})
    keeper.look()
    assert world.cap(1) == 700_000


def test_a_node_budget_holds_at_every_look(tmp_path: Path) -> None:
    """Both ask for all; then one gives way, and the other gets it only after that was read back."""
    world = World(tmp_path)
    first, second = (board.uuid for board in world.machine.boards)
    keeper = PowerKeeper(
        world.gpus, OwnHolder(world.gpus), [kept_board(f, lambda: 0) for f in world.gpus.boards()], 1_000_000
    )
    keeper.look()
    assert (world.cap(0), world.cap(1)) == (500_000, 500_000)
    keeper.want({second: Setting(300_000)})
    caps = []
    for _ in range(3):
        keeper.look()
        caps.append((world.cap(0) or 0, world.cap(1) or 0))
    assert max(map(sum, caps)) <= 1_000_000
    assert caps[-1] == (700_000, 300_000)
    assert keeper.states[first].refusal == ""
