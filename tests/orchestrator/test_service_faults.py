"""What may fail around the orchestrator, and that nodes and their work do not notice."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from tests.orchestrator.fake_agent import FakeAgent
from tests.orchestrator.stand import Stand, make_spec, new_id, standing, until
from tradewind.domain.errors import RemoteError
from tradewind.store.live import LiveState
from tradewind.v1 import orchestrator_pb2

READY = orchestrator_pb2.DEPLOYMENT_STATE_READY
ACTIVE = orchestrator_pb2.NODE_STATE_ACTIVE
LOST = orchestrator_pb2.NODE_STATE_LOST
GONE = orchestrator_pb2.NODE_STATE_GONE


@pytest.fixture
async def stand(database_url: str, redis_url: str) -> AsyncIterator[Stand]:
    async with standing(database_url, redis_url) as stand:
        yield stand


class OwnPostgres:
    """A PostgreSQL of one test. Started by a process of its own: gRPC's threads do not survive a fork in ours."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def start(self) -> str:
        """Starts it; its URL."""
        code = (
            "import sys; from tradewind.embedded.pgserver import load_get_server; "
            "server = load_get_server()(sys.argv[1], cleanup_mode=None, start=False); "
            "server.start(); print(server.get_uri())"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(self._folder), stdout=PIPE, stderr=PIPE
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, err.decode()
        return out.decode().strip()

    async def stop(self) -> None:
        """Ends it at once, as a fast shutdown does. Idempotent."""
        file = self._folder / "postmaster.pid"
        if file.exists():
            os.kill(int(file.read_text().split()[0]), signal.SIGINT)
            await until(lambda: not file.exists(), "PostgreSQL to end")


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[OwnPostgres]:
    own = OwnPostgres(tmp_path / "pg")
    yield own
    await own.stop()


async def test_a_restart_keeps_everything_and_restarts_nothing(stand: Stand) -> None:
    async with FakeAgent(stand.address) as agent:
        await stand.until_node("n1", ACTIVE)
        await stand.deploy(ttft=300)
        await stand.until_state(READY)
        before, starts = dict(agent.specs), list(agent.starts)
        assert agent.target
        fencing, generation = agent.target.fencing, agent.target.generation
        await stand.down()
        await stand.up()
        await until(lambda: agent.target and agent.target.fencing > fencing, "the agent to hear the new leader")
        await stand.until_state(READY)
        assert (agent.specs, agent.starts) == (before, starts)
        assert agent.target.generation >= generation
        assert not agent.stale
        explained = await stand.call("ExplainDeployment", orchestrator_pb2.ExplainDeploymentRequest(deployment="chat"))
        assert explained.explanation.candidates[0].chosen
        # It plans on: another deployment goes beside the first.
        await stand.deploy("second")
        await stand.until_state(READY, "second")
        assert agent.starts[: len(starts)] == starts


async def test_redis_flushed_is_filled_again(stand: Stand, redis_url: str) -> None:
    live = LiveState(redis_url)
    async with FakeAgent(stand.address):
        await stand.until_node("n1", ACTIVE)
        await stand.deploy()
        await stand.until_state(READY)

        async def full() -> bool:
            routes = await live.routes()
            return "chat" in routes and bool(routes["chat"].replicas) and len(await live.nodes()) == 1

        await until(full, "live state")
        redis.Redis(unix_socket_path=redis_url.removeprefix("unix://")).flushall()
        assert not await live.routes()
        await until(full, "live state to be rebuilt", limit_s=7.0)
    await live.close()


async def test_without_redis_planning_and_pushing_go_on(database_url: str) -> None:
    async with standing(database_url, "redis://127.0.0.1:1/0") as stand, FakeAgent(stand.address):
        await stand.until_node("n1", ACTIVE)
        await stand.deploy()
        await stand.until_state(READY)


async def test_without_postgresql_nodes_are_driven_on_and_writes_say_so(postgres: OwnPostgres, redis_url: str) -> None:
    url = await postgres.start()
    async with standing(url, redis_url) as stand, FakeAgent(stand.address) as agent:
        await stand.until_node("n1", ACTIVE)
        await stand.deploy(ttft=300)
        await stand.until_state(READY)
        targets = len(agent.targets)
        await postgres.stop()
        with pytest.raises(RemoteError) as refused:
            await stand.deploy("second")
        assert (refused.value.remote_reason, refused.value.status) == ("DATABASE_UNAVAILABLE", "UNAVAILABLE")
        agent.crash(next(iter(agent.replicas)))
        await until(lambda: list(agent.states().values()) == ["ready"], "the replica to be back", agent.states)
        assert (await stand.deployment()).name == "chat", "reads go on"
        assert (await stand.nodes())["n1"].state == ACTIVE
        assert len(agent.replicas) == 1, "nothing is taken away"
        # A node that connects anew is told its target as before.
        await agent.disconnect()
        agent.connect()
        await until(lambda: len(agent.targets) > targets, "the target to be told again")
        await postgres.start()

        async def written() -> bool:
            try:
                await stand.deploy("second")
            except RemoteError as error:
                assert error.remote_reason == "DATABASE_UNAVAILABLE", error
                return False
            return True

        await until(written, "writes to go on", limit_s=10.0)


async def test_a_crashed_replica_is_seen_and_recovers(stand: Stand) -> None:
    async with FakeAgent(stand.address) as agent:
        await stand.until_node("n1", ACTIVE)
        await stand.deploy(min_replicas=2)
        await stand.until_state(READY)
        name = next(iter(agent.replicas))
        agent.crash(name)
        await until(lambda: agent.replicas[name].starts == 2, "its second start")
        await stand.until_state(READY)
        assert sorted(agent.starts) == sorted(agent.replicas), "no replica was replaced"


async def test_a_lost_node_s_work_moves_and_one_that_returns_in_time_keeps_it(stand: Stand) -> None:
    async with FakeAgent(stand.address, "n1") as one:
        await stand.until_node("n1", ACTIVE)
        await stand.deploy()
        await stand.until_state(READY)
        async with FakeAgent(stand.address, "n2") as two:
            await stand.until_node("n2", ACTIVE)
            starts = list(one.starts)
            await one.disconnect()
            await stand.until_node("n1", orchestrator_pb2.NODE_STATE_SUSPECT)
            one.connect()
            await stand.until_node("n1", ACTIVE)
            assert (one.starts, two.starts) == (starts, []), "a short absence moves nothing"
            await one.disconnect()
            await stand.until_node("n1", LOST)
            await until(lambda: "ready" in two.states().values(), "its work on the other node", two.states)
            await stand.until_state(READY)
            one.connect()
            await until(lambda: not one.replicas, "the copy that came back to end", one.states)
            assert one.starts == starts, "nothing was started again on the one that came back"
            assert list(two.states().values()) == ["ready"]


async def test_the_only_node_comes_back_with_its_work(stand: Stand) -> None:
    async with FakeAgent(stand.address) as agent:
        await stand.until_node("n1", ACTIVE)
        await stand.deploy()
        await stand.until_state(READY)
        starts = list(agent.starts)
        await agent.disconnect()
        await stand.until_node("n1", LOST)
        await stand.until_state(orchestrator_pb2.DEPLOYMENT_STATE_INFEASIBLE)
        agent.connect()
        await stand.until_state(READY)
        assert agent.starts == starts


async def test_a_variant_that_cannot_start_goes_back_by_itself(stand: Stand) -> None:
    async with FakeAgent(stand.address) as agent:
        await stand.until_node("n1", ACTIVE)
        await stand.deploy(ttft=300)
        await stand.until_state(READY)
        old = next(iter(agent.replicas))
        agent.broken["sha256:leanest"] = "canary answered otherwise"
        stand.shelf.put("leanest", ttft_ms=200, tpot_ms=40, energy_mj=60)
        await until(lambda: any("g2" in name or "g3" in name for name in agent.starts), "the new variant to be tried")
        await until(lambda: list(agent.replicas) == [old], "the new variant to be given up", agent.states)
        deployment = await stand.until_state(READY)
        assert deployment.variant_ids == ["sha256:lean"]
        assert agent.states() == {old: "ready"}
        explained = await stand.call("ExplainDeployment", orchestrator_pb2.ExplainDeploymentRequest(deployment="chat"))
        given_up = [c for c in explained.explanation.candidates if c.refusal == "QUARANTINED"]
        assert given_up and "canary answered otherwise" in given_up[0].reason


async def test_a_drained_node_is_left_make_before_break(stand: Stand) -> None:
    async with FakeAgent(stand.address, "n1") as one:
        await stand.until_node("n1", ACTIVE)
        await stand.deploy()
        await stand.until_state(READY)
        drain = orchestrator_pb2.DrainNodeRequest(request_id=new_id(), node_id="n1")
        answer = await stand.call("DrainNode", drain)
        assert answer.node.state == orchestrator_pb2.NODE_STATE_DRAINING
        assert list(one.states().values()) == ["ready"], "with nowhere to go it goes on serving"
        async with FakeAgent(stand.address, "n2") as two:
            await until(lambda: not one.replicas, "the work to have moved", one.states)
            assert list(two.states().values()) == ["ready"]
            await stand.until_node("n1", orchestrator_pb2.NODE_STATE_DRAINED)
            undo = orchestrator_pb2.DrainNodeRequest(request_id=new_id(), node_id="n1", undo=True)
            assert (await stand.call("DrainNode", undo)).node.state == ACTIVE


async def test_a_drained_node_that_leaves_is_gone_and_may_come_back(stand: Stand) -> None:
    async with FakeAgent(stand.address, "n1", labels={"rack": "r1"}) as one:
        await stand.until_node("n1", ACTIVE)
        await stand.call("DrainNode", orchestrator_pb2.DrainNodeRequest(request_id=new_id(), node_id="n1"))
        await stand.until_node("n1", orchestrator_pb2.NODE_STATE_DRAINED)
        await one.disconnect()
        await stand.until_node("n1", GONE)
        node = (await stand.nodes())["n1"]
        assert (dict(node.report.labels), list(node.report.devices)) == ({"rack": "r1"}, [])
        assert node.last_seen_time.seconds > 0
        await stand.down()
        await stand.up()
        assert (await stand.nodes())["n1"] == node, "a restart does not forget it"
        undo = orchestrator_pb2.DrainNodeRequest(request_id=new_id(), node_id="n1", undo=True)
        assert (await stand.call("DrainNode", undo)).node.state == GONE
        one.connect()
        await stand.until_node("n1", ACTIVE)
        await stand.down()
        await stand.up()
        assert GONE not in {node.state for node in (await stand.nodes()).values()}, "it came back"


async def test_neighbours_away_the_last_known_goes_on(stand: Stand) -> None:
    async with FakeAgent(stand.address) as agent:
        await stand.until_node("n1", ACTIVE)
        await stand.deploy(ttft=300)
        await stand.until_state(READY)
        assert stand.server
        await stand.server.stop(0)
        update = orchestrator_pb2.UpdateDeploymentRequest(
            request_id=new_id(), deployment="chat", spec=make_spec(ttft=80)
        )
        assert (await stand.call("UpdateDeployment", update)).explanation.candidates[0].variant_name == "fast"
        await stand.until_state(READY)
        # A restart without the compiler cannot plan, and takes nothing away either.
        await stand.down()
        await stand.up()
        await stand.until_node("n1", ACTIVE)
        await stand.until_state(READY)
        assert list(agent.states().values()) == ["ready"]
