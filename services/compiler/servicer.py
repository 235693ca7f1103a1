"""CompilerService over gRPC: checks what is asked, starts operations, answers from the catalog, streams artifacts."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.compiler.catalog import Catalog
from services.compiler.importing import StoredModel
from services.compiler.jobs.runner import Report
from services.compiler.order import Order
from services.compiler.requests import check_build, check_import, floor_of_request, orders, search_orders
from services.compiler.search.records import SearchRecords
from services.compiler.search.searching import DEFAULT_BUDGET_S as SEARCH_BUDGET_S
from services.compiler.search.searching import Searcher, SearchOrder
from services.compiler.search.verdict_words import with_floor
from services.compiler.targets import choose_targets
from services.compiler.variant_record import failed_variant
from services.compiler.workshop import Workshop
from tradewind.domain.errors import InvalidField, NotFound
from tradewind.domain.quality_floor import QualityFloor
from tradewind.rpc.operations import Operations, Progress, Work
from tradewind.store.requests import content_digest
from tradewind.v1 import compiler_pb2, compiler_pb2_grpc

SERVICE: Final = "tradewind.v1.CompilerService"
# The contract's limit of a piece.
PIECE_BYTES: Final = 1 << 20
# What a build may take when the caller does not say: four recipes of a 1 B model on two cores.
DEFAULT_BUDGET_S: Final = 3600


class CompilerServicer(compiler_pb2_grpc.CompilerServiceServicer):
    """Serves one workshop."""

    def __init__(
        self, workshop: Workshop, catalog: Catalog, operations: Operations, searcher: Searcher, records: SearchRecords
    ) -> None:
        """Over the parts that the composition root made."""
        self._workshop, self._catalog, self._operations = workshop, catalog, operations
        self._searcher, self._records = searcher, records

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
        stored = await self._stored(request.model)
        work = self._search_of(request, stored) if request.search else self._builds_of(request, stored)
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

    async def GetSearch(self, request: compiler_pb2.GetSearchRequest, context: Any) -> compiler_pb2.GetSearchResponse:
        """The newest search of a model."""
        model = await self._catalog.model(request.model)
        return compiler_pb2.GetSearchResponse(search=await self._records.of_model(model.model_id, model.name))

    async def ListTargets(
        self, request: compiler_pb2.ListTargetsRequest, context: Any
    ) -> compiler_pb2.ListTargetsResponse:
        """What can be compiled for."""
        targets = [
            compiler_pb2.Target(name=t.name, resolved=t.resolved, runnable_here=t.runnable_here, note=t.note)
            for t in self._workshop.targets
        ]
        return compiler_pb2.ListTargetsResponse(targets=targets)

    def _search_of(self, request: compiler_pb2.BuildVariantsRequest, stored: StoredModel) -> Work:
        candidates = search_orders(request, stored, self._workshop.targets)
        floor = floor_of_request(request, stored)
        budget_s = request.budget_s or SEARCH_BUDGET_S
        wanted = SearchOrder(f"search-{uuid.uuid4().hex}", candidates, budget_s, floor, request.chain)

        async def work(progress: Progress) -> Sequence[str]:
            return await self._searcher.search(wanted, progress)

        return work

    def _builds_of(self, request: compiler_pb2.BuildVariantsRequest, stored: StoredModel) -> Work:
        wanted, floor = orders(request, stored, self._workshop.targets), floor_of_request(request, stored)

        async def work(progress: Progress) -> Sequence[str]:
            batch = _Batch(uuid.uuid4().hex, progress, dict.fromkeys((order.key for order in wanted), 0.0), floor)
            deadline = time.monotonic() + (request.budget_s or DEFAULT_BUDGET_S)
            return await asyncio.gather(*(self._build(order, batch, deadline) for order in wanted))

        return work

    async def _stored(self, name_or_id: str) -> StoredModel:
        model = await self._catalog.model(name_or_id)
        stored = self._workshop.importer.find(model.model_id)
        if stored is None:
            raise NotFound("files of model", model.name, "they are gone from the compiler's store; import it again")
        return stored

    async def _build(self, order: Order, batch: _Batch, deadline: float) -> str:
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
                variant = await self._workshop.builder.build(order, batch.report_of(order), batch.owner)
        except TimeoutError:
            variant = failed_variant(order, "the time of the whole build was over; give it more with budget_s")
        variant = with_floor(variant, batch.floor)
        await self._catalog.add_variant(variant, order.key)
        return variant.variant_id


@dataclass(frozen=True, slots=True)
class _Batch:
    """Variants that are built together: whose turn they take, what they report, and what they must reach."""

    owner: str
    progress: Progress
    shares: dict[str, float]
    floor: QualityFloor

    def report_of(self, order: Order) -> Report:
        """A listener for one of them."""

        def report(stage: str, share: float) -> None:
            self.shares[order.key] = share
            self.progress.update(f"{order.name}: {stage}", sum(self.shares.values()) / len(self.shares))

        return report
