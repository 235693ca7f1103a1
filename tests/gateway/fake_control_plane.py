"""Compiler and orchestrator edges: real gRPC servers with a handful of models, deployments and nodes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

from tradewind.domain.errors import NotFound
from tradewind.rpc.server import GrpcServer
from tradewind.v1 import (
    compiler_pb2,
    compiler_pb2_grpc,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
)

_PIECE_BYTES = 1_000


class FakeCompiler(compiler_pb2_grpc.CompilerServiceServicer):
    """Serves models' files."""

    def __init__(self) -> None:
        self.models: dict[str, compiler_pb2.Model] = {}
        self.artifacts: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.server = GrpcServer("fake compiler", "127.0.0.1:0")
        self.server.add(compiler_pb2_grpc.add_CompilerServiceServicer_to_server, self, "tradewind.v1.CompilerService")

    def add(self, model_id: str, files: dict[str, str], eos_token_ids: tuple[int, ...] = ()) -> None:
        """Adds a model."""
        model = compiler_pb2.Model(model_id=model_id, name=model_id, eos_token_ids=eos_token_ids)
        for name, text in files.items():
            content = text.encode()
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            self.artifacts[digest] = content
            model.files.add(name=name, digest=digest, size_bytes=len(content))
        self.models[model_id] = model

    async def GetModel(self, request: compiler_pb2.GetModelRequest, context: Any) -> compiler_pb2.GetModelResponse:
        """One model."""
        self.calls.append("GetModel")
        if request.model not in self.models:
            raise NotFound("model", request.model)
        return compiler_pb2.GetModelResponse(model=self.models[request.model])

    async def FetchArtifact(
        self, request: compiler_pb2.FetchArtifactRequest, context: Any
    ) -> AsyncIterator[compiler_pb2.FetchArtifactResponse]:
        """A file in small pieces."""
        self.calls.append("FetchArtifact")
        content = self.artifacts[request.digest]
        for start in range(request.offset_bytes, len(content), _PIECE_BYTES):
            yield compiler_pb2.FetchArtifactResponse(
                data=content[start : start + _PIECE_BYTES], total_bytes=len(content)
            )


class FakeOrchestrator(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Lists what it is given."""

    def __init__(self) -> None:
        self.deployments: list[orchestrator_pb2.Deployment] = []
        self.nodes: list[orchestrator_pb2.Node] = []
        self.server = GrpcServer("fake orchestrator", "127.0.0.1:0")
        self.server.add(
            orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server, self, "tradewind.v1.OrchestratorService"
        )

    async def ListDeployments(self, request: Any, context: Any) -> orchestrator_pb2.ListDeploymentsResponse:
        """All."""
        return orchestrator_pb2.ListDeploymentsResponse(deployments=self.deployments)

    async def ListNodes(self, request: Any, context: Any) -> orchestrator_pb2.ListNodesResponse:
        """All."""
        return orchestrator_pb2.ListNodesResponse(nodes=self.nodes)
