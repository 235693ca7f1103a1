"""Orchestrators as processes of their own on one database, to be killed, paused and asked."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from pathlib import Path
from typing import Any

from tests.orchestrator.stand import CALL_S, new_id, until
from tradewind.domain.errors import TradewindError
from tradewind.rpc.client import open_channel
from tradewind.rpc.errors import translated
from tradewind.v1 import orchestrator_pb2, orchestrator_pb2_grpc

START_LIMIT_S = 40.0


class Orchestrator:
    """One process at one address."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._environment = environment | {"TRADEWIND_ORCHESTRATOR_LISTEN": self.address}
        self._log = log
        self._process: Process | None = None
        self._channel = open_channel(self.address)

    async def start(self) -> None:
        """Starts it and waits until it answers."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.orchestrator", env=self._environment, stdout=log, stderr=log
            )

        async def answers() -> bool:
            try:
                await self.call("ListNodes", orchestrator_pb2.ListNodesRequest())
            except TradewindError:
                return False
            return True

        await until(answers, f"{self.address} to answer", self._log.read_text, START_LIMIT_S)

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self._process
        self._process.send_signal(number)

    async def kill(self) -> None:
        """kill -9."""
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def close(self) -> None:
        """Ends it and what speaks to it."""
        await self.kill()
        await self._channel.close(None)

    async def call(self, method: str, request: Any, timeout_s: float = CALL_S) -> Any:
        """One call; errors come as TradewindError."""
        with translated("orchestrator"):
            stub = orchestrator_pb2_grpc.OrchestratorServiceStub(self._channel)
            return await getattr(stub, method)(request, timeout=timeout_s)

    async def update(self, spec: Any) -> Any:
        """Changes the deployment "chat"."""
        request = orchestrator_pb2.UpdateDeploymentRequest(request_id=new_id(), deployment="chat", spec=spec)
        return await self.call("UpdateDeployment", request)

    async def chat(self) -> Any:
        """The deployment "chat" as this one sees it."""
        answer = await self.call("GetDeployment", orchestrator_pb2.GetDeploymentRequest(deployment="chat"))
        return answer.deployment


def environment(database_url: str, redis_url: str, neighbours: str) -> dict[str, str]:
    """Of a process in a test."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TRADEWIND_")}
    return kept | {
        "TRADEWIND_DATABASE_URL": database_url,
        "TRADEWIND_REDIS_URL": redis_url,
        "TRADEWIND_ORCHESTRATOR_COMPILER_ADDRESS": neighbours,
        "TRADEWIND_ORCHESTRATOR_PROFILER_ADDRESS": neighbours,
        "TRADEWIND_ORCHESTRATOR_CATALOG_POLL_S": "0.5",
    }
