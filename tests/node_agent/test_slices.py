"""Replicas on slices of a simulated board while the board is cut anew beside them, and after a change that failed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from services.node_agent.gpu.simulated import Fault, FaultKind
from tests.gpu.serving import Load, failing_board, serving_board
from tests.tiny_variant import TinyVariant
from tradewind.v1 import node_pb2

REACHED, RESTORED = node_pb2.LAYOUT_OUTCOME_REACHED, node_pb2.LAYOUT_OUTCOME_RESTORED
READY = node_pb2.REPLICA_STATE_READY
KEPT = "19@0"
# What is cut beside the kept slice, one after the other.
OTHERS = (("9@4",), ("14@4", "19@6"), ("14@2", "9@4"))
ROUNDS = 5
# Promise 6.
BACK_LIMIT_S = 30.0


async def test_what_serves_on_a_slice_does_not_notice_changes_beside_it(tiny: TinyVariant, tmp_path: Path) -> None:
    """Promise 4, without its figure: `bench.gpu.traffic` compares percentiles on a quiet machine."""
    async with serving_board(tiny, tmp_path) as board:
        board.tell([KEPT])
        await board.ended(REACHED, KEPT)
        uuid = board.slices()[KEPT].uuid
        board.tell([KEPT], steady=KEPT)
        await board.orchestrator.state("steady", READY)
        process = {one.pid for one in board.agent.children()}
        load, changing = Load(), asyncio.Event()

        async def change() -> None:
            for others in OTHERS * ROUNDS:
                board.tell([KEPT, *others], steady=KEPT)
                await board.ended(REACHED, KEPT, *others)
            changing.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(change())
            while not changing.is_set():
                await load.run(board.agent, "steady", 20.0, time.monotonic() + 0.2)
        assert (load.failures, len(load.latencies_s) >= 10) == ([], True)
        assert board.slices()[KEPT].uuid == uuid
        assert process <= {one.pid for one in board.agent.children()}
        replica = board.orchestrator.replica("steady")
        assert replica is not None and (replica.starts, replica.state) == (1, READY)


async def test_servers_are_back_after_a_change_that_failed(tiny: TinyVariant, tmp_path: Path) -> None:
    """Promise 6: the slice of a server was taken away for a layout that could not be made; it serves again in time."""
    async with failing_board(tiny, tmp_path) as (board, machine):
        board.tell([KEPT, "9@4"])
        await board.ended(REACHED, KEPT, "9@4")
        before = board.slices()["9@4"].uuid
        board.tell([KEPT, "9@4"], steady=KEPT, moved="9@4")
        for name in ("steady", "moved"):
            await board.orchestrator.state(name, READY)
        machine.inject(Fault(FaultKind.NO_PERMISSION, verb="create_gpu_instance", times=1))
        begun_s = time.monotonic()
        board.tell([KEPT, "14@4"], steady=KEPT)
        await board.ended(RESTORED, KEPT, "9@4")
        assert board.slices()["9@4"].uuid != before, "made anew at its old place"
        board.tell([KEPT, "9@4"], steady=KEPT, moved2="9@4")
        await board.orchestrator.state("moved2", READY)
        assert time.monotonic() - begun_s < BACK_LIMIT_S
        load = Load()
        for name in ("steady", "moved2"):
            await load.run(board.agent, name, 20.0, time.monotonic() + 0.3)
        assert load.failures == []
