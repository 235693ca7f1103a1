"""The orchestrator as a process: starts, says so, stops on a signal; refuses to start with a reason and a code."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.orchestrator.stand import until

LIMIT_S = 40.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def begin(database_url: str, redis_url: str, **settings: str) -> Process:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRADEWIND_")}
    environment |= {"TRADEWIND_DATABASE_URL": database_url, "TRADEWIND_REDIS_URL": redis_url}
    environment |= {f"TRADEWIND_ORCHESTRATOR_{key.upper()}": value for key, value in settings.items()}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.orchestrator", env=environment, stdout=PIPE, stderr=PIPE
    )


async def finish(process: Process) -> tuple[int | None, str]:
    _, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
    return process.returncode, err.decode()


async def test_it_starts_says_so_and_stops_on_a_signal(database_url: str, redis_url: str) -> None:
    address, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    process = await begin(database_url, redis_url, listen=address, metrics_listen=metrics)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def serving() -> bool:
            request = health_pb2.HealthCheckRequest(service="tradewind.v1.OrchestratorService")
            try:
                answer = await stub.Check(request, timeout=2)
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        await until(serving, "the orchestrator to serve", limit_s=LIMIT_S)
    reader, writer = await asyncio.open_connection(*metrics.split(":"))
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    assert "tradewind_blueprint_generation" in text
    process.send_signal(signal.SIGTERM)
    code, err = await finish(process)
    assert (code, "Traceback" in err) == (0, False), err


async def test_it_says_why_it_cannot_start(database_url: str, redis_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        cases = [
            (await begin(database_url, redis_url, listen=listen), 1, "it is taken"),
            (await begin(database_url, redis_url, lissten=listen), 2, "did you mean TRADEWIND_ORCHESTRATOR_LISTEN?"),
            (await begin("postgresql:///none?host=/nowhere", redis_url), 1, "PostgreSQL does not answer"),
            (await begin(database_url, redis_url, lost_after_s="-1"), 2, "LOST_AFTER_S"),
            (await begin(database_url, redis_url, policy="oracle"), 2, "'oracle' is none of energy, latency, static"),
        ]
        for process, code, words in cases:
            got, err = await finish(process)
            assert got == code, err
            assert words in err
            assert "Traceback" not in err
