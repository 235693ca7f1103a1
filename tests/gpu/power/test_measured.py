"""A board has its measurement's setting, exactly, in place of the target's and until a replica needs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.node_agent.core.power import Bounds, OutOfBounds, Setting, exactly
from services.node_agent.gpu.power_keeper import OwnHolder, PowerKeeper, kept_board
from tests.gpu.power.test_power import BOUNDS, World


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Setting(), ""),
        (Setting(None, 1200), ""),
        (Setting(300_000, 1980), ""),
        (Setting(None, 1207), "those next to it are 1200 and 1215 MHz"),
        (Setting(None, 2000), "210 to 1980 MHz"),
        (Setting(100, None), "200000 to 700000 mW"),
        (Setting(None, None, 1200), "one clock"),
    ],
)
def test_a_measurement_has_the_very_clock_it_asks_for_or_none(asked: Setting, words: str) -> None:
    answer = exactly(asked, BOUNDS)
    assert (words in answer.words) if isinstance(answer, OutOfBounds) else (answer, words) == (asked, "")


def test_a_board_without_clocks_is_measured_at_its_default_only() -> None:
    assert exactly(Setting(), Bounds(None, ())) == Setting()
    assert isinstance(exactly(Setting(None, 1200), Bounds(None, ())), OutOfBounds)


class Bench:
    """A keeper of two simulated boards."""

    def __init__(self, folder: Path, *left: int) -> None:
        self.world, self.serving = World(folder), set[str]()
        self.uuid, self.other = (board.uuid for board in self.world.machine.boards)
        boards = [
            kept_board(facts, lambda: 0, lambda: True, lambda uuid=facts.uuid: uuid in self.serving)  # type: ignore[misc]
            for facts in self.world.gpus.boards()
        ]
        uuids = (self.uuid, self.other)
        self.keeper = PowerKeeper(
            self.world.gpus, OwnHolder(self.world.gpus), boards, None, frozenset(uuids[one] for one in left)
        )

    def locked(self) -> tuple[int | None, ...]:
        return tuple(board.rail.locked_mhz for board in self.world.machine.boards)


def test_it_is_in_place_of_the_target_s_and_eases_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.keeper.want({bench.uuid: Setting(None, 1395, 990), bench.other: Setting(None, 1500)})
    bench.keeper.look()
    assert bench.locked() == (1395, 1500)
    bench.keeper.measure_at(bench.uuid, Setting(None, 1080))
    bench.keeper.look()
    assert (bench.locked(), bench.keeper.easings, bench.keeper.measures(bench.uuid)) == ((1080, 1500), {}, True)
    bench.keeper.measured(bench.uuid)
    bench.keeper.measured(bench.uuid)
    bench.keeper.look()
    assert bench.locked() == (1395, 1500) and bench.uuid in bench.keeper.easings
    bench.keeper.measure_at(bench.uuid, Setting())
    bench.keeper.look()
    assert bench.locked() == (None, 1500), "a measurement at the default is at the default"


def test_a_replica_that_comes_has_the_target_s_setting(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.keeper.measure_at(bench.uuid, Setting(None, 1080))
    bench.keeper.look()
    bench.serving.add(bench.uuid)
    bench.keeper.look()
    assert (bench.locked(), bench.keeper.measures(bench.uuid)) == ((None, None), False)
    bench.keeper.measure_at(bench.uuid, Setting())
    bench.keeper.look()
    assert bench.keeper.measures(bench.uuid), "at the setting that it has anyway"


def test_a_clock_that_an_agent_before_left_is_given_back_at_the_first_look(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 0)
    for board in bench.world.machine.boards:
        board.lock_sm_clock(1080)
    bench.keeper.look()
    assert bench.locked() == (None, 1080), "what others set is theirs"
