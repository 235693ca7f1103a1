"""A gateway with everything around it: real uvicorn, gRPC and Redis; fake nodes and control plane at their edges."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import openai
import pytest

from services.gateway import app
from services.gateway.settings import GatewaySettings
from services.gateway.text.tokenizer import TextModel
from tests.gateway.fake_control_plane import FakeCompiler, FakeOrchestrator
from tests.gateway.fake_node import FakeNode, Script
from tests.gateway.tokenizers_made import byte_level
from tests.tiny_model import CHAT_TEMPLATE
from tradewind.domain.routes import DeploymentRoute, ReplicaRoute
from tradewind.rpc.service import Lifecycle
from tradewind.store.live import LiveState

CONTEXT_TOKENS = 200
WAIT_S = 10.0
VARIANT_ID = "sha256:" + "ab" * 32


async def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition, with a limit."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


@dataclass
class World:
    """A gateway and its surroundings.

    Attributes:
        node: edge of a node agent.
        routes: the routing table as last published.
    """

    settings: GatewaySettings
    node: FakeNode
    node_address: str
    compiler: FakeCompiler
    orchestrator: FakeOrchestrator
    live: LiveState
    model: TextModel
    life: Lifecycle
    gateway: app.Gateway
    routes: dict[str, DeploymentRoute] = field(default_factory=dict)

    @property
    def key(self) -> dict[str, str]:
        """Headers with a valid key, when keys are configured."""
        return {"Authorization": f"Bearer {self.settings.api_keys[0]}"} if self.settings.api_keys else {}

    @property
    def url(self) -> str:
        """Of HTTP."""
        return f"http://{self.gateway.http}"

    def ids(self, text: str) -> list[int]:
        """Tokens of a text."""
        return self.model.encode(text, special=False)

    def replica(self, replica_id: str, **changes: object) -> ReplicaRoute:
        """A route to the node."""
        route = ReplicaRoute(replica_id, "node-1", self.node_address, VARIANT_ID, "f32/cpu-host", 4)
        return replace(route, **changes)  # type: ignore[arg-type]

    async def deploy(
        self,
        name: str = "chat",
        *replicas: ReplicaRoute,
        model_id: str = "m-chat",
        context: int = CONTEXT_TOKENS,
        e2e_limit_ms: float = 0.0,
    ) -> None:
        """Publishes a deployment and waits until the gateway sees it."""
        self.routes[name] = DeploymentRoute(f"d-{name}", name, model_id, context, replicas, e2e_limit_ms=e2e_limit_ms)
        await self.publish()

    async def publish(self) -> None:
        """Publishes the routing table and waits until the gateway sees it."""
        await self.live.publish_routes(list(self.routes.values()))
        wanted = {
            name: (sorted({r.variant_name for r in route.replicas}), any(not r.draining for r in route.replicas))
            for name, route in self.routes.items()
        }
        async with asyncio.timeout(WAIT_S), httpx.AsyncClient() as client:
            while True:
                answer = await client.get(f"{self.url}/v1/models", headers=self.key)
                models = answer.json().get("data", [])
                if {m["id"]: (m["variants"], m["ready"]) for m in models} == wanted:
                    break
                await asyncio.sleep(0.02)
        # The table is read every 0.2 s; what is not in /v1/models (ids, addresses) comes with the same read.

    async def serve(self, text: str, name: str = "chat", **script: object) -> Script:
        """Deploys with one replica that answers with this text."""
        made = Script(ids=self.ids(text), **script)  # type: ignore[arg-type]
        self.node.scripts[f"r-{name}"] = made
        await self.deploy(name, self.replica(f"r-{name}"))
        return made

    def client(self, **options: object) -> openai.AsyncOpenAI:
        """The stock client."""
        settings = {"api_key": "unused", "max_retries": 0, "timeout": 30.0} | options
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", **settings)  # type: ignore[arg-type]


@pytest.fixture
def gateway_settings() -> dict[str, object]:
    """Settings that differ from the usual; tests parametrise it."""
    return {}


@pytest.fixture
async def world(redis_url: str, tmp_path: Path, gateway_settings: dict[str, object]) -> AsyncIterator[World]:
    """Everything running; nothing deployed."""
    async with AsyncExitStack() as stack:
        node, compiler, orchestrator = FakeNode(), FakeCompiler(), FakeOrchestrator()
        address = await node.start()
        stack.push_async_callback(node.server.stop, 0)
        for edge in (compiler, orchestrator):
            await edge.server.start()
            await edge.server.ready()
            stack.push_async_callback(edge.server.stop, 0)
        tokenizer = byte_level().to_str()
        compiler.add("m-chat", {"tokenizer.json": tokenizer, "chat_template.jinja": CHAT_TEMPLATE}, (2,))
        compiler.add("m-plain", {"tokenizer.json": tokenizer}, (2,))
        live = LiveState(redis_url)
        stack.push_async_callback(live.close)
        values: dict[str, object] = {
            "listen": "127.0.0.1:0",
            "http_listen": "127.0.0.1:0",
            "redis_url": redis_url,
            "compiler_address": compiler.server.address,
            "orchestrator_address": orchestrator.server.address,
            "state_dir": tmp_path,
            "wait_ready_s": 5.0,
            "drain_s": 1.0,
        }
        settings = GatewaySettings(**(values | gateway_settings))  # type: ignore[arg-type]
        life = Lifecycle()
        stack.push_async_callback(life.close)
        gateway = await app.start(life, settings)
        model = TextModel(tokenizer, CHAT_TEMPLATE, (2,))
        yield World(settings, node, address, compiler, orchestrator, live, model, life, gateway)
