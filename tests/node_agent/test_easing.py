"""A board whose clock eases, end to end: target → agent → what replicas say → helper → simulated board, and back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.gpu.serving import Load, failing_board
from tests.node_agent.wait import until
from tests.tiny_variant import TinyVariant
from tradewind.v1 import common_pb2, node_pb2

KEPT, EASED_MHZ = "19@0", 990
# No replica keeps these: whatever it has in hand needs the full clock.
TIGHT_MS = 1e-3


async def test_a_board_is_eased_but_for_work_that_would_be_late(tiny: TinyVariant, tmp_path: Path) -> None:
    async with failing_board(tiny, tmp_path) as (board, machine):
        rail = machine.boards[0].rail
        board.power = common_pb2.PowerSetting(eased_sm_clock_mhz=EASED_MHZ)
        board.limits_ms = (TIGHT_MS, TIGHT_MS)
        board.tell([KEPT])
        await board.ended(node_pb2.LAYOUT_OUTCOME_REACHED, KEPT)
        board.tell([KEPT], one=KEPT)
        await board.orchestrator.state("one", node_pb2.REPLICA_STATE_READY)
        await until(lambda: rail.locked_mhz == EASED_MHZ)

        load = Load()
        async with asyncio.TaskGroup() as group:
            work = group.create_task(load.run(board.agent, "one", 100.0, time.monotonic() + 5.0))
            await until(lambda: rail.locked_mhz is None or work.done())
            assert rail.locked_mhz is None
        assert not load.failures
        await until(lambda: rail.locked_mhz == EASED_MHZ)
        (power,) = board.orchestrator.report.power_states
        assert power.admitted.eased_sm_clock_mhz == EASED_MHZ
        assert (power.refusal, power.not_in_force) == ("", "")
