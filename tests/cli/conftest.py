"""The command line as a real process against fakes over real gRPC and HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvicorn
from typer.testing import CliRunner

from tests.cli import world as fakes
from tradewind.cli.main import build, with_latency_options
from tradewind.rpc.server import GrpcServer
from tradewind.v1 import compiler_pb2_grpc, operation_pb2_grpc, orchestrator_pb2_grpc, profiler_pb2_grpc

LIMIT_S = 60
COMMAND = shutil.which("tradewind", path=str(Path(sys.executable).parent))


@dataclass
class Ran:
    """What a run of the command line left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """stdout as JSON: all of it, or this fails."""
        return json.loads(self.out)


@dataclass
class Cli:
    """Runs `tradewind` as a process of its own."""

    environment: dict[str, str]
    folder: Path

    async def __call__(self, *arguments: str, stdin: bytes = b"") -> Ran:
        process = await self.start(*arguments)
        out, err = await asyncio.wait_for(process.communicate(stdin), LIMIT_S)
        assert process.returncode is not None
        ran = Ran(process.returncode, out.decode(), err.decode())
        assert "Traceback" not in ran.out + ran.err
        return ran

    async def inside(self, *arguments: str) -> Ran:
        """The same command line within this process: for the many that need no process of their own."""
        runner = CliRunner(env={key: None for key in os.environ if key.startswith("TRADEWIND_")} | self.environment)
        result = await asyncio.to_thread(runner.invoke, build(), with_latency_options(arguments))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        assert COMMAND is not None
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            COMMAND, *arguments, stdin=pipe, stdout=pipe, stderr=pipe, cwd=self.folder, env=self.environment
        )


@dataclass
class Stage:
    """The fakes and a command line that finds them."""

    cli: Cli
    world: fakes.World
    compiler_jobs: fakes.Jobs
    profiler_jobs: fakes.Jobs
    servers: dict[str, GrpcServer]


@pytest.fixture
def bare_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A command line with nothing to talk to: every address is a port that refuses."""
    monkeypatch.chdir(tmp_path)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TRADEWIND_")}
    nowhere = {f"TRADEWIND_{name}": "127.0.0.1:1" for name in ("COMPILER", "PROFILER", "ORCHESTRATOR", "GATEWAY")}
    return Cli({**kept, **nowhere, "HOME": str(tmp_path), "COLUMNS": "100"}, tmp_path)


@pytest.fixture
async def stage(bare_cli: Cli) -> AsyncIterator[Stage]:
    """Every service as a fake; the command line finds them through endpoints.json of a state folder."""
    world = fakes.World()
    compiler_jobs, profiler_jobs = fakes.Jobs("compiler"), fakes.Jobs("profiler")
    servers = {
        "compiler": await _serve(
            "tradewind.v1.CompilerService",
            compiler_pb2_grpc.add_CompilerServiceServicer_to_server,
            fakes.Compiler(world, compiler_jobs),
            compiler_jobs,
        ),
        "profiler": await _serve(
            "tradewind.v1.ProfilerService",
            profiler_pb2_grpc.add_ProfilerServiceServicer_to_server,
            fakes.Profiler(world, profiler_jobs),
            profiler_jobs,
        ),
        "orchestrator": await _serve(
            "tradewind.v1.OrchestratorService",
            orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server,
            fakes.Orchestrator(world),
        ),
    }
    http = uvicorn.Server(uvicorn.Config(fakes.gateway, log_level="error", lifespan="off"))
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(http.serve(sockets=[listening]))
    state = bare_cli.folder / ".tradewind"
    state.mkdir()
    addresses = {name: server.address for name, server in servers.items()}
    addresses["gateway"] = f"http://127.0.0.1:{listening.getsockname()[1]}"
    (state / "endpoints.json").write_text(json.dumps(addresses))
    environment = {k: v for k, v in bare_cli.environment.items() if not k.startswith("TRADEWIND_")}
    # The servers' own log lines would mix with what the command line prints when it runs inside this process.
    with structlog.testing.capture_logs():
        yield Stage(Cli(environment, bare_cli.folder), world, compiler_jobs, profiler_jobs, servers)
    http.should_exit = True
    await serving
    await asyncio.gather(*(s.stop(0) for s in servers.values()))


async def _serve(name: str, register: Any, servicer: object, jobs: fakes.Jobs | None = None) -> GrpcServer:
    server = GrpcServer(name, "127.0.0.1:0", reflection_on=False)
    server.add(register, servicer, name)
    if jobs is not None:
        server.add(operation_pb2_grpc.add_OperationServiceServicer_to_server, jobs, "tradewind.v1.OperationService")
    await server.start()
    await server.ready()
    return server
