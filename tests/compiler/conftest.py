"""A whole compiler on a real PostgreSQL, and the parts of one without."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.compiler.app import start
from services.compiler.jobs.limits import JobLimits
from services.compiler.settings import CompilerSettings
from services.compiler.workshop import Workshop
from tests.once import made_once
from tests.tiny_model import write_tiny_model
from tests.tiny_variant import TinyVariant, build_tiny_variant
from tradewind.rpc.client import open_channel
from tradewind.rpc.errors import translated
from tradewind.rpc.service import Lifecycle
from tradewind.v1 import compiler_pb2, compiler_pb2_grpc, operation_pb2, operation_pb2_grpc

LIMIT_S = 240
LIMITS = JobLimits(time_s=LIMIT_S, memory_bytes=6 << 30)


def silent(_stage: str, _share: float) -> None:
    """Hears nothing of a job's progress."""


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a Hugging Face folder; not to be changed."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def tiny_variant() -> TinyVariant:
    """An admitted variant of the tiny model."""
    return build_tiny_variant()


@pytest.fixture(scope="session")
def imported_state(tiny_folder: Path, shared_folder: Path) -> Path:
    """A state folder that has imported the tiny model; not to be changed."""

    def make(folder: Path) -> None:
        workshop = Workshop(folder, LIMITS)
        asyncio.run(workshop.importer.import_model(tiny_folder, silent))
        workshop.close()

    return made_once(shared_folder / "imported", make)


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    """An empty workshop."""
    workshop = Workshop(tmp_path / "state", LIMITS)
    yield workshop
    workshop.close()


@dataclass
class Service:
    """A running compiler's stubs."""

    compiler: Any
    operations: Any
    state_dir: Path

    async def end_of(self, operation: operation_pb2.Operation) -> operation_pb2.Operation:
        """Watches an operation to its end; progress must never fall."""
        request = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
        seen = [m.operation async for m in self.operations.WatchOperation(request, timeout=LIMIT_S)]
        shares = [o.progress for o in seen]
        assert shares == sorted(shares)
        return seen[-1]

    async def begin_import(self, source: Path | str, name: str = "tiny", **wanted: Any) -> operation_pb2.Operation:
        """Starts an import."""
        request = compiler_pb2.ImportModelRequest(
            request_id=wanted.pop("request_id", uuid.uuid4().hex), name=name, source_path=str(source), **wanted
        )
        with translated("compiler"):
            return (await self.compiler.ImportModel(request, timeout=10)).operation  # type: ignore[no-any-return]

    async def begin_build(self, model: str = "tiny", **wanted: Any) -> operation_pb2.Operation:
        """Starts a build."""
        request = compiler_pb2.BuildVariantsRequest(
            request_id=wanted.pop("request_id", uuid.uuid4().hex), model=model, **wanted
        )
        with translated("compiler"):
            return (await self.compiler.BuildVariants(request, timeout=10)).operation  # type: ignore[no-any-return]

    async def variants(self, **wanted: Any) -> list[compiler_pb2.Variant]:
        """Variants listed."""
        with translated("compiler"):
            response = await self.compiler.ListVariants(compiler_pb2.ListVariantsRequest(**wanted), timeout=10)
        return list(response.variants)


@pytest.fixture
async def service(database_url: str, tmp_path: Path, imported_state: Path) -> AsyncIterator[Service]:
    """A compiler whose catalog is empty and whose store knows the tiny model, so that importing it is quick."""
    shutil.copytree(imported_state, tmp_path / "state")
    settings = CompilerSettings(listen="127.0.0.1:0", state_dir=tmp_path / "state", database_url=database_url)
    life = Lifecycle()
    server = await start(life, settings)
    async with open_channel(server.address) as channel:
        yield Service(
            compiler_pb2_grpc.CompilerServiceStub(channel),
            operation_pb2_grpc.OperationServiceStub(channel),
            settings.state_dir,
        )
    await life.close()
