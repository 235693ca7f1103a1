"""A whole embedded Tradewind for tests: started and stopped by the command line, driven over the real wire."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import openai
import psutil

from tradewind.rpc.errors import from_rpc_error
from tradewind.v1 import (
    compiler_pb2,
    compiler_pb2_grpc,
    operation_pb2,
    operation_pb2_grpc,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
    profiler_pb2,
    profiler_pb2_grpc,
)

CALL_S: Final = 30
# Compiling and measuring a tiny model takes seconds; a loaded machine may take minutes.
WORK_S: Final = 600
TRADEWIND: Final = str(Path(sys.executable).parent / "tradewind")


class Stack:
    """An instance that is up.

    Args:
        state: its state folder.
    """

    def __init__(self, state: Path) -> None:
        self.state = state
        self.endpoints: dict[str, str] = json.loads((state / "endpoints.json").read_text())
        self._channels = {
            name: grpc.insecure_channel(self.endpoints[name]) for name in ("compiler", "profiler", "orchestrator")
        }
        self.compiler = compiler_pb2_grpc.CompilerServiceStub(self._channels["compiler"])
        self.profiler = profiler_pb2_grpc.ProfilerServiceStub(self._channels["profiler"])
        self.orchestrator = orchestrator_pb2_grpc.OrchestratorServiceStub(self._channels["orchestrator"])

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def run(self, *arguments: str, code: int = 0, timeout_s: float = WORK_S) -> subprocess.CompletedProcess[str]:
        """Runs the command line against this instance and expects an exit code."""
        done = subprocess.run(
            [TRADEWIND, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**os.environ, "TRADEWIND_STATE_DIR": str(self.state)},
        )
        assert done.returncode == code, f"{arguments} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def openai(self) -> openai.OpenAI:
        """A stock client of the gateway."""
        return openai.OpenAI(base_url=self.endpoints["gateway"] + "/v1", api_key="none", timeout=60, max_retries=0)

    def finish(self, service: str, operation: operation_pb2.Operation) -> list[str]:
        """Watches an operation to its end; returns its results or raises its error."""
        stub = operation_pb2_grpc.OperationServiceStub(self._channels[service])
        request = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
        last = operation
        for answer in stub.WatchOperation(request, timeout=WORK_S):
            last = answer.operation
        assert last.state == operation_pb2.OPERATION_STATE_DONE, last
        return list(last.result_ids)

    def import_model(self, source: Path, name: str) -> str:
        """Imports a model; returns its id."""
        request = compiler_pb2.ImportModelRequest(request_id=uuid.uuid4().hex, name=name, source_path=str(source))
        (model_id,) = self.finish("compiler", self.compiler.ImportModel(request, timeout=CALL_S).operation)
        return model_id

    def build(self, model: str, *recipes: str, **sizes: Any) -> list[compiler_pb2.Variant]:
        """Builds variants; returns them."""
        request = compiler_pb2.BuildVariantsRequest(request_id=uuid.uuid4().hex, model=model, recipes=recipes, **sizes)
        ids = self.finish("compiler", self.compiler.BuildVariants(request, timeout=CALL_S).operation)
        get = self.compiler.GetVariant
        return [get(compiler_pb2.GetVariantRequest(variant_id=i), timeout=CALL_S).variant for i in ids]

    def profile(self, model: str) -> list[str]:
        """Measures a model's admitted variants with small loads; returns profile ids."""
        request = profiler_pb2.RunProfileRequest(
            request_id=uuid.uuid4().hex, model=model, prompt_tokens=[16, 64], concurrencies=[1, 2]
        )
        return self.finish("profiler", self.profiler.RunProfile(request, timeout=CALL_S).operation)

    def create(self, name: str, spec: orchestrator_pb2.DeploymentSpec) -> orchestrator_pb2.Deployment:
        """Creates a deployment and waits until it is ready."""
        request = orchestrator_pb2.CreateDeploymentRequest(request_id=uuid.uuid4().hex, name=name, spec=spec)
        with refusals():
            self.orchestrator.CreateDeployment(request, timeout=CALL_S)
        return self.until_ready(name)

    def update(self, name: str, spec: orchestrator_pb2.DeploymentSpec) -> orchestrator_pb2.Deployment:
        """Changes a deployment and waits until it is ready as changed."""
        request = orchestrator_pb2.UpdateDeploymentRequest(request_id=uuid.uuid4().hex, deployment=name, spec=spec)
        changed = self.orchestrator.UpdateDeployment(request, timeout=CALL_S).deployment
        return self.until_ready(name, changed.generation)

    def deployment(self, name: str) -> orchestrator_pb2.Deployment:
        """A deployment as it is."""
        request = orchestrator_pb2.GetDeploymentRequest(deployment=name)
        return self.orchestrator.GetDeployment(request, timeout=CALL_S).deployment

    def until_ready(self, name: str, generation: int = 1) -> orchestrator_pb2.Deployment:
        """Waits until a deployment is READY at a generation, with its own variants only."""

        def ready() -> orchestrator_pb2.Deployment | None:
            now = self.deployment(name)
            settled = all(r.variant_id in now.variant_ids for r in now.replicas)
            good = now.state == orchestrator_pb2.DEPLOYMENT_STATE_READY and now.observed_generation >= generation
            return now if good and settled else None

        return until(ready, f"{name} ready")

    def processes(self, word: str = "") -> list[psutil.Process]:
        """Processes of this instance; `word` is what their command line must have in it."""
        return processes_of(self.state, word)


def processes_of(state: Path, word: str = "") -> list[psutil.Process]:
    """Processes of an instance, found by its state folder in their command line or environment.

    Args:
        word: what their command line must have in it.
    """
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            words = command + " ".join(f"{k}={v}" for k, v in process.environ().items())
            ended = process.status() == psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if str(state) in words and word in command and process.pid != os.getpid() and not ended:
            found.append(process)
    return found


def start(state: Path, *options: str) -> Stack:
    """Starts an instance on free ports and waits until it is healthy."""
    subprocess.run(
        [TRADEWIND, "up", "--detach", "--free-ports", "--state-dir", str(state), *options],
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    return Stack(state)


def stop(state: Path) -> None:
    """Stops an instance and waits for its end."""
    subprocess.run([TRADEWIND, "down", "--state-dir", str(state)], check=True, timeout=120, capture_output=True)


@contextmanager
def running(state: Path) -> Iterator[Stack]:
    """An instance that is up inside the block; after it no process of it is left."""
    stack = start(state)
    try:
        yield stack
    finally:
        stack.close()
        stop(state)
        until(lambda: not stack.processes(), "no process left", 20)


def until(condition: Callable[[], Any], what: str, limit_s: float = 90) -> Any:
    """Waits for a condition; returns what it gave."""
    deadline = time.monotonic() + limit_s
    while True:
        if result := condition():
            return result
        assert time.monotonic() < deadline, f"not within {limit_s:.0f} s: {what}"
        time.sleep(0.05)  # noqa: TID251  polls another process, with a limit


@contextmanager
def refusals() -> Iterator[None]:
    """Turns failed calls of synchronous stubs into TradewindError."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error, "service") from error  # type: ignore[arg-type]  same methods, other class
