"""Boards that ease their clocks: what is admitted, what is in force, and what becomes of it when calls fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.node_agent.core.easing import Easing
from services.node_agent.core.governor import DWELL_S, Limits, Work
from services.node_agent.core.power import Bounds, OutOfBounds, Setting, admit, in_force
from services.node_agent.gpu.governor import IDLE_S, PERIOD_S, Governor
from services.node_agent.gpu.power_keeper import OwnHolder, PowerKeeper, kept_board
from services.node_agent.gpu.simulated import Fault, FaultKind
from tests.gpu.power.test_power import BOUNDS, World

LIMITS = Limits(ttft_s=0.2)
PRESSED = Work(prompt_tokens=1000, prefill_token_s=0.001)
CALM = Work(prompt_tokens=10, prefill_token_s=0.001, chunk_tokens=10, step_s=0.001)


@pytest.mark.parametrize(
    ("requested", "admitted"),
    [
        (Setting(None, None, 1000), Setting(None, None, 990)),
        (Setting(300_000, 1400, 1000), Setting(300_000, 1395, 990)),
        (Setting(None, 1000, 1200), "1200 MHz is no clock to ease to from 990 MHz"),
        (Setting(None, 1000, 999), "990 MHz is no clock to ease to from 990 MHz"),
        (Setting(None, None, 1980), "1980 MHz is no clock to ease to from 1980 MHz"),
        (Setting(None, None, 200), "200 MHz is out of range"),
    ],
)
def test_a_clock_to_ease_to_is_one_of_the_board_s_and_lower(requested: Setting, admitted: Setting | str) -> None:
    answer = admit(requested, BOUNDS)
    if isinstance(admitted, Setting):
        assert answer == admitted
        return
    assert isinstance(answer, OutOfBounds)
    assert answer.name == "eased_sm_clock_mhz" and admitted in answer.words


def test_a_board_without_clocks_does_not_ease() -> None:
    answer = admit(Setting(eased_clock_mhz=990), Bounds(None, ()))
    assert isinstance(answer, OutOfBounds) and "leave it unset" in answer.words


def test_one_clock_is_in_force() -> None:
    both = Setting(300_000, 1395, 990)
    assert (in_force(both, eased=True), in_force(both, eased=False)) == (Setting(300_000, 990), Setting(300_000, 1395))
    assert in_force(Setting(None, 1395), eased=True) == Setting(None, 1395)


@dataclass
class Replica:
    """What a replica's process would say."""

    told: Work | None

    async def work(self, limit_s: float) -> Work | None:
        assert limit_s < PERIOD_S
        return self.told


class Bench:
    """A keeper and a governor on two simulated boards; time is the world's."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.uuid, self.other = (board.uuid for board in self.world.machine.boards)
        boards = [kept_board(facts, lambda: 0) for facts in self.world.gpus.boards()]
        self.keeper = PowerKeeper(self.world.gpus, OwnHolder(self.world.gpus), boards, None)
        self.replicas: dict[str, list[Replica]] = {}
        self.measuring = False
        self.governor = Governor(
            self.keeper,
            lambda uuid: [(LIMITS, one) for one in self.replicas.get(uuid, [])],
            lambda: self.measuring,
            _here,
            lambda: self.world.now_s,
        )

    def want(self, setting: Setting) -> None:
        self.keeper.want({self.uuid: setting})
        self.keeper.look()

    async def run(self, seconds: float) -> None:
        for _ in range(round(seconds / PERIOD_S)):
            await self.governor.turn()
            self.world.now_s += PERIOD_S

    @property
    def locked_mhz(self) -> int | None:
        return self.world.machine.board(self.uuid).rail.locked_mhz


async def _here(work: Callable[[], None]) -> None:
    work()


async def test_a_board_eases_when_idle_and_is_up_at_the_first_look_at_a_prompt_that_would_be_late(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    bench.want(Setting(eased_clock_mhz=990))
    await bench.run(DWELL_S)
    assert bench.locked_mhz is None, "not before it was idle for a while"
    await bench.run(0.2)
    assert bench.locked_mhz == 990
    bench.replicas[bench.uuid] = [Replica(CALM), Replica(CALM)]
    await bench.run(1.0)
    assert bench.locked_mhz == 990
    bench.replicas[bench.uuid][1].told = PRESSED
    await bench.run(PERIOD_S)
    assert bench.locked_mhz is None
    bench.replicas[bench.uuid][1].told = CALM
    await bench.run(DWELL_S)
    assert bench.locked_mhz is None
    await bench.run(0.2)
    assert bench.locked_mhz == 990
    assert bench.keeper.easings == {bench.uuid: Easing(1980, 990, eased=True, changes=3)}


async def test_looks_renew_the_clock_in_force_and_call_none_of_it_a_fault(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.want(Setting(300_000, 1395, 990))
    assert bench.locked_mhz == 1395
    await bench.run(1.0)
    for _ in range(3):
        bench.keeper.look()
        assert (bench.locked_mhz, bench.world.cap()) == (990, 300_000)
        assert bench.keeper.states[bench.uuid].admitted == Setting(300_000, 1395, 990)
        assert bench.keeper.states[bench.uuid].not_in_force == ""
    bench.replicas[bench.uuid] = [Replica(PRESSED)]
    await bench.run(PERIOD_S)
    bench.keeper.look()
    assert (bench.locked_mhz, bench.world.cap()) == (1395, 300_000), "the cap stays held"
    assert bench.keeper.states[bench.uuid].not_in_force == ""


async def test_a_lock_that_does_not_take_is_told_once_it_should_have(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.want(Setting(eased_clock_mhz=990))
    await bench.run(1.0)
    bench.keeper.look()
    board = bench.world.machine.board(bench.uuid)
    bench.world.machine.after_call = lambda _: setattr(board.rail, "locked_mhz", 1980)
    bench.keeper.look()
    assert "clock 990 MHz is not in force" in bench.keeper.states[bench.uuid].not_in_force


async def test_a_replica_that_does_not_answer_and_a_measurement_have_the_full_clock(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.want(Setting(eased_clock_mhz=990))
    await bench.run(1.0)
    bench.replicas[bench.uuid] = [Replica(CALM), Replica(None)]
    await bench.run(PERIOD_S)
    assert bench.locked_mhz is None
    bench.replicas = {}
    await bench.run(1.0)
    assert bench.locked_mhz == 990
    bench.measuring = True
    await bench.run(PERIOD_S)
    assert bench.locked_mhz is None


async def test_a_change_that_fails_is_tried_again_at_the_next_turn(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.want(Setting(eased_clock_mhz=990))
    await bench.run(1.0)
    bench.replicas[bench.uuid] = [Replica(PRESSED)]
    bench.world.machine.inject(Fault(FaultKind.TROUBLE, verb="lock_sm_clock"))
    await bench.run(PERIOD_S)
    assert bench.locked_mhz == 990
    await bench.run(PERIOD_S)
    assert bench.locked_mhz is None
    assert bench.keeper.easings[bench.uuid].changes == 2


async def test_without_a_clock_to_ease_to_nobody_is_asked(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.want(Setting(eased_clock_mhz=990))
    await bench.run(1.0)
    bench.want(Setting(None, 1395))
    assert bench.locked_mhz == 1395 and bench.keeper.easings == {}
    assert await asyncio.wait_for(bench.governor.turn(), 1) == IDLE_S
    bench.want(Setting(None, 1395, 990))
    assert bench.locked_mhz == 1395, "it begins at the full clock"
