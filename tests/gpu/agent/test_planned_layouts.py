"""A wish cuts a board: plan → gRPC → agent process → helper process → slices → report → the replica on its slice.

Variants and profiles are made up, boards are simulated in the helper's worker; the replica itself cannot start here,
for there is no CUDA device. Everything between is what runs in production.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from services.node_agent.core.mig.model import Placement
from services.node_agent.gpu.helper.client import HelperClient
from tests.gpu.helper.process import Helper
from tests.node_agent.agent_process import NODE_ID, Agent
from tests.orchestrator.stand import Stand, standing, until
from tradewind.v1 import common_pb2, node_pb2, orchestrator_pb2, profiler_pb2

SLICE = "mig/3g.40gb"
TARGET = "cuda:sm_80"
LIMIT_S = 30.0


def put_gpu_variant(stand: Stand, device_class: str) -> None:
    """A variant for a GPU that is profiled on one kind of slice only."""
    stand.shelf.put("gpu", profiled=False)
    variant = stand.shelf.variants[-1]
    variant.target = TARGET
    profile = profiler_pb2.Profile()
    profile.CopyFrom(stand.shelf.profiles[0])
    profile.profile_id = "p-gpu"
    profile.point.CopyFrom(
        common_pb2.OperatingPoint(
            variant_id=variant.variant_id, device_class=device_class, partition_kind=SLICE, batch_limit=4
        )
    )
    stand.shelf.profiles.append(profile)


@asynccontextmanager
async def one_node(
    database_url: str, redis_url: str, folder: Path, before: Callable[[HelperClient, str], None] = lambda *_: None
) -> AsyncIterator[tuple[Stand, Helper]]:
    """An orchestrator, an agent and a helper with one board, and a variant for its slices.

    Args:
        before: done to the board before there is an agent, which changes boards alone from its first change on.
    """
    async with standing(database_url, redis_url, suspect_after_s=6.0, lost_after_s=20.0) as stand:
        with tempfile.TemporaryDirectory() as place, Helper(Path(place) / "run", backend="simulated:h100-80") as helper:
            board = helper.client.boards()[0]
            before(helper.client, board.uuid)
            helper.client.close()
            # Figures of simulated boards are never those of real ones: their class says so.
            put_gpu_variant(stand, board.device_class.replace("gpu:", "sim:"))
            settings = {"gpu_helper": str(helper.socket), "cpu_ids": "0"}
            agent = Agent(folder / "state", "127.0.0.1:1", stand.address, folder, **settings)
            await agent.start()
            try:
                await stand.until_node(NODE_ID, orchestrator_pb2.NODE_STATE_ACTIVE)
                yield stand, helper
            finally:
                await agent.close()


async def test_a_wish_cuts_a_board_and_its_replica_gets_the_slice(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    async with one_node(database_url, redis_url, tmp_path) as (stand, _):
        await _follow(stand)


async def test_a_layout_that_the_board_refuses_is_planned_anew_and_explained(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Another tool has made a slice where the planner would put its own."""

    def cut(client: HelperClient, uuid: str) -> None:
        client.set_mig_mode(uuid, True)
        client.create_compute_instance(uuid, client.create_gpu_instance(uuid, 9, Placement(0, 4)))

    async with one_node(database_url, redis_url, tmp_path, cut) as (stand, _):
        seen: list[node_pb2.NodeReport] = []

        async def stands(foreign: list[str], *ours: str) -> None:
            async def there() -> bool:
                seen[:] = [(await stand.nodes())[NODE_ID].report]
                names = [one.partition_id.rpartition(":")[2] for one in seen[0].partitions]
                return [list(one.foreign_slices) for one in seen[0].layouts] == [foreign] and names == list(ours)

            await until(there, f"{ours} beside {foreign}", lambda: (seen[0].layouts, seen[0].partitions), LIMIT_S)

        await stands([SLICE])
        await stand.deploy(rate=0.1, pinned_variant_id="sha256:gpu")
        await stands([SLICE], "9@4")
        decisions = await stand.call("ListDecisions", orchestrator_pb2.ListDecisionsRequest())
        told = [one for one in decisions.decisions if "refused, failure" in one.trigger]
        assert told and all("layout of node-under-test GPU-" in one.trigger for one in told)
        said = [(one.trigger, one.summary) for one in decisions.decisions]
        assert any("9@4" in one.summary for one in decisions.decisions), said


async def _follow(stand: Stand) -> None:
    answer = await stand.deploy(rate=0.1, pinned_variant_id="sha256:gpu")
    assert [c.point.partition_kind for c in answer.explanation.candidates if c.chosen] == [SLICE]
    seen: list[node_pb2.NodeReport] = []

    async def cut() -> bool:
        seen[:] = [(await stand.nodes())[NODE_ID].report]
        made = [one for one in seen[0].partitions if one.kind == SLICE and one.uuid.startswith("MIG-")]
        reached = [o.device_id for o in seen[0].layouts if o.outcome == node_pb2.LAYOUT_OUTCOME_REACHED]
        return [one.device_id for one in made] == reached != []

    await until(cut, "a slice in the report, as wished", lambda: seen[0].layouts, LIMIT_S)
    (made,) = [one for one in seen[0].partitions if one.kind == SLICE]

    async def tried() -> bool:
        seen[:] = [(await stand.nodes())[NODE_ID].report]
        return any(one.partition_id == made.partition_id for one in seen[0].replicas)

    await until(tried, "the replica on its slice", lambda: seen[0].replicas, LIMIT_S)
    assert (await stand.deployment()).variant_ids == ["sha256:gpu"]
