"""The probe of container health checks, run as it is run there: a process, against a real server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from tradewind.rpc.server import GrpcServer

LIMIT_S = 20


@pytest.fixture
async def server() -> AsyncIterator[GrpcServer]:
    server = GrpcServer("probed", "127.0.0.1:0")
    await server.start()
    yield server
    await server.stop(0)


async def probe(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tradewind.rpc.health_probe", *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), LIMIT_S)
    return process.returncode, said.decode()


async def test_a_ready_server_is_healthy_and_one_that_is_not_ready_is_not(server: GrpcServer) -> None:
    code, said = await probe(server.address)
    assert code == 1
    assert "NOT_SERVING" in said
    await server.ready()
    assert await probe(server.address) == (0, "")


async def test_nobody_there_is_one_line_and_no_traceback(unused_tcp_port: int) -> None:
    for address in (f"127.0.0.1:{unused_tcp_port}", f"http://127.0.0.1:{unused_tcp_port}/healthz"):
        code, said = await probe(address)
        assert code == 1
        assert said.startswith(address)
        assert "refused" in said
        assert "Traceback" not in said


@pytest.mark.parametrize(("status", "code"), [("200 OK", 0), ("503 Service Unavailable", 1)])
async def test_an_http_page_must_answer_200(status: str, code: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as page:
        port = page.sockets[0].getsockname()[1]
        found, said = await probe(f"http://127.0.0.1:{port}/healthz")
    assert found == code
    assert ("503" in said) == (code == 1)


async def test_no_address_is_misuse() -> None:
    code, said = await probe()
    assert code == 2
    assert "address" in said
