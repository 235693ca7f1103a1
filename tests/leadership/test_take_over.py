"""Two orchestrators: one leads, kill -9 and pauses at several points of a rollout, and nobody at work notices."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.orchestrator.app import reached_at
from tests.leadership.orchestrators import Orchestrator, environment
from tests.orchestrator.fake_agent import FakeAgent
from tests.orchestrator.neighbours import Shelf, serve
from tests.orchestrator.stand import make_spec, new_id, until
from tradewind.v1 import node_pb2, orchestrator_pb2

READY = orchestrator_pb2.DEPLOYMENT_STATE_READY
ACTIVE = orchestrator_pb2.NODE_STATE_ACTIVE
TAKE_OVER_S = 10.0


class Pair:
    """Two orchestrators and an agent that knows both."""

    def __init__(self, one: Orchestrator, two: Orchestrator, agent: FakeAgent) -> None:
        self.one, self.two, self.agent = one, two, agent

    @property
    def fencing(self) -> int:
        """Number of the leader that the agent obeys."""
        return self.agent.target.fencing if self.agent.target else 0

    async def until_ready(self, at: Orchestrator, variant: str) -> None:
        """Waits until the deployment is served by a variant, and by nothing else."""

        async def there() -> bool:
            chat = await at.chat()
            done = chat.state == READY and list(chat.variant_ids) == [f"sha256:{variant}"]
            return bool(done and len(self.agent.replicas) == 1 and list(self.agent.states().values()) == ["ready"])

        await until(there, f"{variant} to serve alone", self.agent.states, limit_s=30.0)

    async def until_followed(self, fencing: int, began_s: float) -> float:
        """Seconds from a kill to the new leader's first target."""
        await until(lambda: self.fencing > fencing, "a new leader's target", limit_s=TAKE_OVER_S)
        return time.monotonic() - began_s


@pytest.fixture
async def pair(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Pair]:
    shelf = Shelf()  # type: ignore[abstract]
    shelf.put("fast", ttft_ms=100, tpot_ms=20, energy_mj=400, kinds=("cpu/1",))
    shelf.put("lean", ttft_ms=200, tpot_ms=40, energy_mj=250, kinds=("cpu/1",))
    server, address = await serve(shelf)
    around = environment(database_url, redis_url, address)
    one, two = Orchestrator(around, tmp_path / "one.log"), Orchestrator(around, tmp_path / "two.log")
    try:
        await one.start()
        await two.start()
        async with FakeAgent(f"{two.address},{one.address}") as agent:
            pair = Pair(one, two, agent)
            await until(lambda: agent.target is not None, "the agent to find the leader", limit_s=TAKE_OVER_S)
            create = orchestrator_pb2.CreateDeploymentRequest(
                request_id=new_id(), name="chat", spec=make_spec(ttft=300)
            )
            # Asked of the follower, which hands it on.
            await two.call("CreateDeployment", create)
            await pair.until_ready(one, "lean")
            yield pair
    finally:
        await one.close()
        await two.close()
        await server.stop(0)


def test_an_address_of_every_interface_is_nobody_s_own() -> None:
    assert reached_at("0.0.0.0:7401", "a") == "a:7401"
    assert reached_at("[::]:7401", "b") == "b:7401"
    assert reached_at("10.0.0.1:7401", "a") == "10.0.0.1:7401"


def moments(agent: FakeAgent) -> list[tuple[str, Callable[[], bool]]]:
    """Points of a swap, told by what the agent was sent."""

    def intents() -> list[int]:
        return [spec.intent for spec in agent.target.replicas] if agent.target else []

    drain = node_pb2.REPLICA_INTENT_DRAIN
    return [
        ("the new replica was asked for", lambda: len(intents()) == 2),
        ("both serve", lambda: list(agent.states().values()) == ["ready", "ready"]),
        ("the old one was told to drain", lambda: drain in intents()),
    ]


async def test_a_leader_killed_at_any_point_of_a_rollout_is_followed_and_it_ends_the_same(pair: Pair) -> None:
    leader, other = pair.one, pair.two
    for number, (what, reached) in enumerate(moments(pair.agent)):
        variant, ttft = ("fast", 150) if number % 2 == 0 else ("lean", 300)
        starts, fencing = len(pair.agent.starts), pair.fencing
        pair.agent.hold_drains = True
        await leader.update(make_spec(ttft=ttft))
        await until(reached, what, pair.agent.states)
        began_s = time.monotonic()
        await leader.kill()
        took_s = await pair.until_followed(fencing, began_s)
        pair.agent.hold_drains = False
        await pair.until_ready(other, variant)
        assert took_s <= TAKE_OVER_S
        # The agent was connected to the follower, which handed its stream on, then served it.
        assert number or pair.agent.connections == 1
        assert len(pair.agent.starts) == starts + 1, "one start for each swap, whoever leads"
        assert not pair.agent.stale
        await leader.start()
        leader, other = other, leader


async def test_a_paused_leader_is_followed_and_obeyed_no_more(pair: Pair) -> None:
    fencing = pair.fencing
    began_s = time.monotonic()
    pair.one.send(signal.SIGSTOP)
    # The agent's pings go unanswered and the lease runs out at about the same time.
    await until(lambda: pair.fencing > fencing, "the agent to be told by the other", limit_s=2 * TAKE_OVER_S)
    await pair.two.update(make_spec(ttft=150))
    await pair.until_ready(pair.two, "fast")
    newest = pair.fencing
    pair.one.send(signal.SIGCONT)

    async def follows() -> bool:
        return list((await pair.one.chat()).variant_ids) == ["sha256:fast"]

    await until(follows, "the old leader to follow", limit_s=TAKE_OVER_S)
    await pair.one.update(make_spec(ttft=300))
    await pair.until_ready(pair.one, "lean")
    assert pair.fencing == newest, "the resumed one took nothing"
    assert time.monotonic() - began_s < 60.0
