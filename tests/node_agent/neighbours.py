"""The services a node agent talks to, in a few lines, over the real wire: a compiler with files, an orchestrator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.node_agent.wait import until
from tests.tiny_variant import TinyVariant
from tradewind.domain.errors import NotFound, ServiceUnavailable
from tradewind.rpc.server import GrpcServer
from tradewind.v1 import common_pb2, compiler_pb2, compiler_pb2_grpc, node_pb2, node_pb2_grpc

PIECE_BYTES = 1 << 16


class FileCompiler(compiler_pb2_grpc.CompilerServiceServicer):
    """Serves artifacts out of a dictionary of digests.

    Attributes:
        calls: (digest, offset) of each call.
        break_after_pieces: digest → pieces after which the next call for it breaks off, once.
    """

    def __init__(self) -> None:
        self.files: dict[str, Path | bytes] = {}
        self.calls: list[tuple[str, int]] = []
        self.break_after_pieces: dict[str, int] = {}

    def offer(self, tiny: TinyVariant) -> None:
        for file in tiny.manifest.files:
            self.files[file.digest] = tiny.path_of(file.digest)
        self.files[tiny.variant.manifest.digest] = tiny.envelope

    async def FetchArtifact(
        self, request: compiler_pb2.FetchArtifactRequest, context: Any
    ) -> AsyncIterator[compiler_pb2.FetchArtifactResponse]:
        self.calls.append((request.digest, request.offset_bytes))
        try:
            found = self.files[request.digest]
        except KeyError:
            raise NotFound("artifact", request.digest) from None
        data = found if isinstance(found, bytes) else found.read_bytes()
        pieces_left = self.break_after_pieces.pop(request.digest, -1)
        for offset in range(request.offset_bytes, len(data), PIECE_BYTES):
            if pieces_left == 0:
                raise ServiceUnavailable("the disk went away")
            pieces_left -= 1
            yield compiler_pb2.FetchArtifactResponse(data=data[offset : offset + PIECE_BYTES], total_bytes=len(data))


class Orchestrator(node_pb2_grpc.NodeLinkServiceServicer):
    """Holds one target and sends it to whoever connects, and again whenever it changes."""

    def __init__(self) -> None:
        self.reports: list[node_pb2.NodeReport] = []
        self.connections = 0
        self._target: node_pb2.NodeTarget | None = None
        self._news = asyncio.Event()

    def push(self, target: node_pb2.NodeTarget) -> None:
        self._target = target
        self._news.set()
        self._news = asyncio.Event()

    @property
    def report(self) -> node_pb2.NodeReport:
        return self.reports[-1]

    def replica(self, replica_id: str) -> node_pb2.ReplicaStatus | None:
        if not self.reports:
            return None
        return next((r for r in self.report.replicas if r.replica_id == replica_id), None)

    async def state(self, replica_id: str, *wanted: int, limit_s: float = 40) -> node_pb2.ReplicaStatus:
        def there() -> bool:
            replica = self.replica(replica_id)
            return replica is not None and replica.state in wanted

        await until(there, limit_s, lambda: f"{replica_id}: {self.replica(replica_id)}")
        replica = self.replica(replica_id)
        assert replica is not None
        return replica

    async def gone(self, replica_id: str) -> None:
        seen = len(self.reports)
        await until(lambda: len(self.reports) > seen and self.replica(replica_id) is None)

    async def Connect(
        self, requests: AsyncIterator[node_pb2.ConnectRequest], context: Any
    ) -> AsyncIterator[node_pb2.ConnectResponse]:
        self.connections += 1

        async def read() -> None:
            async for request in requests:
                self.reports.append(request.report)

        reader = asyncio.create_task(read())
        try:
            while not reader.done():
                news = asyncio.create_task(self._news.wait())
                if self._target is not None:
                    yield node_pb2.ConnectResponse(target=self._target)
                await asyncio.wait({reader, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        finally:
            reader.cancel()


async def serve_compiler(compiler: FileCompiler, listen: str = "127.0.0.1:0") -> GrpcServer:
    server = GrpcServer("compiler", listen)
    server.add(compiler_pb2_grpc.add_CompilerServiceServicer_to_server, compiler, "tradewind.v1.CompilerService")
    await server.start()
    return server


async def serve_orchestrator(orchestrator: Orchestrator, listen: str = "127.0.0.1:0") -> GrpcServer:
    server = GrpcServer("orchestrator", listen)
    name = "tradewind.v1.NodeLinkService"
    server.add(
        node_pb2_grpc.add_NodeLinkServiceServicer_to_server,
        orchestrator,
        name,
        no_deadline=frozenset({"Connect"}),
    )
    await server.start()
    return server


def spec(
    tiny: TinyVariant,
    replica_id: str,
    *,
    drain: bool = False,
    cpu_ids: tuple[int, ...] = (0,),
    batch_limit: int = 4,
    pace_ms: float = 0.0,
) -> node_pb2.ReplicaSpec:
    intent = node_pb2.REPLICA_INTENT_DRAIN if drain else node_pb2.REPLICA_INTENT_SERVE
    named = ",".join(map(str, cpu_ids))
    return node_pb2.ReplicaSpec(
        replica_id=replica_id,
        deployment_id="d1",
        variant_id=tiny.variant.variant_id,
        manifest=tiny.variant.manifest,
        partition=common_pb2.Partition(
            partition_id=f"cpu0:cores={named}", device_id="cpu0", kind=f"cpu/{len(cpu_ids)}", cpu_ids=cpu_ids
        ),
        batch_limit=batch_limit,
        intent=intent,
        model_id=tiny.model.model_id,
        pace_ms=pace_ms,
    )


def target(
    node_id: str, generation: int, *replicas: node_pb2.ReplicaSpec, fencing: int = 1, step: int = 0
) -> node_pb2.NodeTarget:
    return node_pb2.NodeTarget(node_id=node_id, generation=generation, fencing=fencing, step=step, replicas=replicas)
