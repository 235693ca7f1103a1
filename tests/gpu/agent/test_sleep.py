"""A board with nothing on it sleeps at its lowest clock, and is awake for work: from plan to helper and back."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from services.node_agent.core.power import Setting, Sleep
from services.node_agent.gpu.power_keeper import OwnHolder, PowerKeeper, kept_board
from tests.gpu.agent.test_planned_layouts import SLICE, one_node
from tests.gpu.power.test_power import World
from tests.node_agent.agent_process import NODE_ID
from tests.orchestrator.stand import Stand, until
from tradewind.v1 import node_pb2


async def test_a_board_without_work_sleeps_and_wakes_for_a_deployment(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    async with one_node(database_url, redis_url, tmp_path) as (stand, helper):
        lowest = helper.client.boards()[0].sm_clocks_mhz[0]

        async def sleeps(*, wanted: bool) -> bool:
            board = await board_of(stand)
            (state,) = (await stand.nodes())[NODE_ID].report.power_states or [node_pb2.PowerStatus()]
            locked = state.admitted.sm_clock_mhz == lowest
            return board is not None and board.asleep is wanted and locked is wanted

        await until(lambda: sleeps(wanted=True), "the board to sleep")
        board = await board_of(stand)
        assert 0.0 < board.sleep_power_mw <= board.idle_power_mw
        await stand.deploy(rate=0.1, pinned_variant_id="sha256:gpu")
        await until(lambda: sleeps(wanted=False), "the board to wake")


async def board_of(stand: Stand) -> Any:
    """The board as the orchestrator was told of it."""
    nodes = await stand.nodes()
    devices = nodes[NODE_ID].report.devices if NODE_ID in nodes else []
    return next((device for device in devices if SLICE in device.partition_kinds), None)


def test_what_is_at_work_stays_awake_whatever_the_target_says(tmp_path: Path) -> None:
    world = World(tmp_path)
    first, second = world.gpus.boards()
    at_work = {first.uuid}
    boards = [kept_board(f, lambda: 0, partial(at_work.__contains__, f.uuid)) for f in (first, second)]
    keeper = PowerKeeper(world.gpus, OwnHolder(world.gpus), boards, None)
    keeper.want({first.uuid: Setting(300_000)}, frozenset({first.uuid, second.uuid}))
    keeper.look()
    assert keeper.states[first.uuid].admitted == Setting(300_000)
    assert keeper.sleeps == {first.uuid: Sleep(False, None), second.uuid: Sleep(True, None)}
    keeper.look()
    slept = keeper.sleeps[second.uuid]
    assert slept.power_mw is not None, "power is told once it has slept for a while"
    at_work.add(second.uuid)
    keeper.look()
    assert keeper.states[second.uuid].admitted == Setting()
    assert keeper.sleeps[second.uuid] == Sleep(False, slept.power_mw), "the figure is remembered"
