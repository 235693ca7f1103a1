"""CompilerService over gRPC: checks what is asked, starts operations, answers from the catalog, streams artifacts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from services.compiler.building import Order, failed_variant
from services.compiler.catalog import Catalog
from services.compiler.importing import StoredModel
from services.compiler.requests import check_build, check_import, orders
from services.compiler.targets import choose_targets
from services.compiler.workshop import Workshop
from tradewind.domain.errors import InvalidField, NotFound
from tradewind.rpc.operations import Operations, Progress
from tradewind.store.requests import content_digest
from tradewind.v1 import compiler_pb2, compiler_pb2_grpc

SERVICE: Final = "tradewind.v1.CompilerService"
# The contract's limit of a piece.
PIECE_BYTES: Final = 1 << 20
# What a build may take when the caller does not say: four recipes of a 1 B model on two cores.
DEFAULT_BUDGET_S: Final = 3600


class CompilerServicer(compiler_pb2_grpc.CompilerServiceServicer):
    """Serves one workshop."""

    def __init__(self, workshop: Workshop, catalog: Catalog, operations: Operations) -> None:
        """Over the parts that the composition root made."""
        self._workshop, self._catalog, self._operations = workshop, catalog, operations

    async def ImportModel(
        self, request: compiler_pb2.ImportModelRequest, context: Any
    ) -> compiler_pb2.ImportModelResponse:
        """Starts an import. Idempotent by request_id."""
        source, form = check_import(request)

        async def work(progress: Progress) -> Sequence[str]:
            stored = await self._workshop.importer.import_model(source, progress.update, form, request.trust)
            model = compiler_pb2.Model()
            model.CopyFrom(stored.model)
            model.name = request.name
            await self._catalog.add_model(model)
            return [model.model_id]

        operation = await self._operations.start("ImportModel", request.request_id, content_digest(request), work)
        return compiler_pb2.ImportModelResponse(operation=operation)

    async def GetModel(self, request: compiler_pb2.GetModelRequest, context: Any) -> compiler_pb2.GetModelResponse:
        """One model."""
        return compiler_pb2.GetModelResponse(model=await self._catalog.model(request.model))

    async def ListModels(
        self, request: compiler_pb2.ListModelsRequest, context: Any
    ) -> compiler_pb2.ListModelsResponse:
        """Models, newest first."""
        models, more = await self._catalog.models(request.page_size, request.page_token)
        return compiler_pb2.ListModelsResponse(models=models, next_page_token=more)

    async def BuildVariants(
        self, request: compiler_pb2.BuildVariantsRequest, context: Any
    ) -> compiler_pb2.BuildVariantsResponse:
        """Starts a build. Idempotent by request_id."""
        check_build(request)
        choose_targets(tuple(request.targets), self._workshop.targets)
        wanted = orders(request, await self._stored(request.model), self._workshop.targets)

        async def work(progress: Progress) -> Sequence[str]:
            deadline = time.monotonic() + (request.budget_s or DEFAULT_BUDGET_S)
            shares = dict.fromkeys((order.key for order in wanted), 0.0)
            return await asyncio.gather(*(self._build(order, progress, shares, deadline) for order in wanted))

        operation = await self._operations.start("BuildVariants", request.request_id, content_digest(request), work)
        return compiler_pb2.BuildVariantsResponse(operation=operation)

    async def GetVariant(
        self, request: compiler_pb2.GetVariantRequest, context: Any
    ) -> compiler_pb2.GetVariantResponse:
        """One variant."""
        if not request.variant_id:
            raise InvalidField("variant_id", "a variant id is needed; `tradewind variant list` shows them")
        return compiler_pb2.GetVariantResponse(variant=await self._catalog.variant(request.variant_id))

    async def ListVariants(
        self, request: compiler_pb2.ListVariantsRequest, context: Any
    ) -> compiler_pb2.ListVariantsResponse:
        """Variants, admitted ones first."""
        model_id = (await self._catalog.model(request.model)).model_id if request.model else ""
        variants, more = await self._catalog.variants(model_id, request.state, request.page_size, request.page_token)
        return compiler_pb2.ListVariantsResponse(variants=variants, next_page_token=more)

    async def FetchArtifact(
        self, request: compiler_pb2.FetchArtifactRequest, context: Any
    ) -> AsyncIterator[compiler_pb2.FetchArtifactResponse]:
        """The bytes of an artifact from an offset on; at its very end one piece without bytes."""
        blobs = self._workshop.blobs
        total_bytes = blobs.existing(request.digest).stat().st_size
        pieces = blobs.read(request.digest, request.offset_bytes, PIECE_BYTES)
        if request.offset_bytes == total_bytes:
            yield compiler_pb2.FetchArtifactResponse(total_bytes=total_bytes)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield compiler_pb2.FetchArtifactResponse(data=piece, total_bytes=total_bytes)

    async def ListTargets(
        self, request: compiler_pb2.ListTargetsRequest, context: Any
    ) -> compiler_pb2.ListTargetsResponse:
        """What can be compiled for."""
        targets = [
            compiler_pb2.Target(name=t.name, resolved=t.resolved, runnable_here=t.runnable_here, note=t.note)
            for t in self._workshop.targets
        ]
        return compiler_pb2.ListTargetsResponse(targets=targets)

    async def _stored(self, name_or_id: str) -> StoredModel:
        model = await self._catalog.model(name_or_id)
        stored = self._workshop.importer.find(model.model_id)
        if stored is None:
            raise NotFound("files of model", model.name, "they are gone from the compiler's store; import it again")
        return stored

    async def _build(self, order: Order, progress: Progress, shares: dict[str, float], deadline: float) -> str:
        def report(stage: str, share: float) -> None:
            shares[order.key] = share
            progress.update(f"{order.name}: {stage}", sum(shares.values()) / len(shares))

        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
                variant = await self._workshop.builder.build(order, report)
        except TimeoutError:
            variant = failed_variant(order, "the time of the whole build was over; give it more with budget_s")
        await self._catalog.add_variant(variant, order.key)
        return variant.variant_id
