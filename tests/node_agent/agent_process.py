"""A node agent as a real process."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import psutil

from tests.node_agent.wait import until
from tradewind.rpc.client import open_channel
from tradewind.v1 import inference_pb2, inference_pb2_grpc, node_pb2, node_pb2_grpc

NODE_ID = "node-under-test"


class Agent:
    """Starts, asks, signals; `close` leaves nothing behind."""

    def __init__(self, state_dir: Path, compiler: str, orchestrator: str, keys: Path, **settings: str) -> None:
        own = {
            "listen": "127.0.0.1:0",
            "node_id": NODE_ID,
            "state_dir": str(state_dir),
            "compiler_address": compiler,
            "orchestrator_address": orchestrator,
            "trusted_keys": str(keys),
            "report_period_s": "0.3",
            "drain_limit_s": "10",
            **settings,
        }
        self._environment = {f"TRADEWIND_NODE_AGENT_{key.upper()}": value for key, value in own.items()}
        self.log_file = state_dir.with_name(f"{state_dir.name}.log")
        self.process: asyncio.subprocess.Process | None = None
        self._channel = None

    async def start(self) -> Agent:
        offset = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.node_agent",
                env={**os.environ, **self._environment},
                stderr=log,
                start_new_session=True,
            )
        process = self.process

        def log_now() -> str:
            return self.log_file.read_text()[offset:]

        def up() -> bool:
            assert process.returncode is None, log_now()
            return re.search(r"(?m) ready\s.*(?<!moved)", log_now()) is not None

        await until(up, words=log_now)
        found = re.findall(r"address=(\S+).*server=node-agent", log_now())
        self.address: str = found[-1]
        self._channel = open_channel(self.address)
        return self

    @property
    def inference(self) -> inference_pb2_grpc.InferenceServiceAsyncStub:
        return inference_pb2_grpc.InferenceServiceStub(self._channel)  # type: ignore[return-value]

    @property
    def node(self) -> node_pb2_grpc.NodeAgentServiceAsyncStub:
        return node_pb2_grpc.NodeAgentServiceStub(self._channel)  # type: ignore[return-value]

    async def describe(self) -> node_pb2.NodeReport:
        return (await self.node.DescribeNode(node_pb2.DescribeNodeRequest(), timeout=5)).report

    def children(self) -> list[psutil.Process]:
        assert self.process is not None
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    async def signal(self, number: signal.Signals, limit_s: float = 30) -> int:
        """Sends a signal and waits for the end; the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), limit_s)

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close(None)
        if self.process is not None and self.process.returncode is None:
            await self.signal(signal.SIGKILL)


async def generate(
    stub: inference_pb2_grpc.InferenceServiceAsyncStub,
    replica_id: str,
    prompt: list[int],
    timeout_s: float = 60,
    **sampling: object,
) -> list[inference_pb2.GenerateResponse]:
    """A whole generation."""
    request = inference_pb2.GenerateRequest(
        replica_id=replica_id,
        token_ids=inference_pb2.TokenIds(ids=prompt),
        sampling=inference_pb2.Sampling(**sampling),  # type: ignore[arg-type]
    )
    return [response async for response in stub.Generate(request, timeout=timeout_s)]


def tokens_of(responses: list[inference_pb2.GenerateResponse]) -> list[int]:
    """All tokens of a generation."""
    return [token for response in responses for token in response.token_ids]
