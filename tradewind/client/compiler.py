"""The compiler, as a client sees it: models and variants."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tradewind.client.operations import OperationsClient
from tradewind.client.wire import Wire
from tradewind.domain.quality_floor import QualityFloor
from tradewind.v1 import compiler_pb2, compiler_pb2_grpc, operation_pb2


class CompilerClient:
    """Imports models and builds variants.

    Every method raises RemoteError when the compiler refuses and ServiceUnavailable when it does not answer.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub: Any = compiler_pb2_grpc.CompilerServiceStub(wire.channel)
        self.operations = OperationsClient(wire)

    def import_model(
        self, source: Path, name: str, *, model_format: int = 0, trust: bool = False, request_id: str = ""
    ) -> operation_pb2.Operation:
        """Starts the import of a file or folder that the compiler can read; its result is the model id."""
        request = compiler_pb2.ImportModelRequest(
            request_id=request_id or uuid.uuid4().hex,
            name=name,
            source_path=str(source.absolute()),
            format=compiler_pb2.ModelFormat.ValueType(model_format),
            trust=trust,
        )
        operation: operation_pb2.Operation = self._wire.call(self._stub.ImportModel, request).operation
        return operation

    def model(self, name: str) -> compiler_pb2.Model:
        """A model by name or id."""
        model: compiler_pb2.Model = self._wire.call(self._stub.GetModel, compiler_pb2.GetModelRequest(model=name)).model
        return model

    def models(self) -> list[compiler_pb2.Model]:
        """All models, newest first."""
        return self._wire.pages(self._stub.ListModels, compiler_pb2.ListModelsRequest(), "models")

    def build_variants(
        self,
        model: str,
        *,
        targets: Sequence[str] = (),
        recipes: Sequence[str] = (),
        context_tokens: int = 0,
        budget_s: int = 0,
        search: bool = False,
        chain: bool = False,
        floor: QualityFloor | None = None,
        prefill_chunks: Sequence[int] = (),
        decode_batches: Sequence[int] = (),
        slots: int = 0,
        request_id: str = "",
    ) -> operation_pb2.Operation:
        """Starts the build of variants; its results are variant ids, rejected ones too.

        Args:
            model: name or id.
            targets: none means what runs on the compiler's machine.
            recipes: by name; none means the book's choice, or the search's.
            context_tokens: longest context; 0 for the recipe's choice.
            budget_s: time for all; 0 for the default.
            search: whether recipes are searched for, in place of building the book's choice.
            chain: whether the targets are a fallback chain.
            floor: least quality.
            prefill_chunks: prompt tokens that prefill calls take; none means the recipe's choice.
            decode_batches: sequences that decode calls take; none means the recipe's choice.
            slots: sequences that the cache holds, as many as the widest batch; 0 for that.
            request_id: makes a repeat harmless.
        """
        request = compiler_pb2.BuildVariantsRequest(
            request_id=request_id or uuid.uuid4().hex,
            model=model,
            targets=targets,
            recipes=recipes,
            context_tokens=context_tokens,
            budget_s=budget_s,
            search=search,
            chain=chain,
            min_quality=_message_of(floor) if floor is not None and floor.asks else None,
            prefill_chunks=prefill_chunks,
            decode_batches=decode_batches,
            slots=slots,
        )
        operation: operation_pb2.Operation = self._wire.call(self._stub.BuildVariants, request).operation
        return operation

    def search(self, model: str) -> compiler_pb2.Search:
        """The newest search of a model, with every candidate."""
        response = self._wire.call(self._stub.GetSearch, compiler_pb2.GetSearchRequest(model=model))
        search: compiler_pb2.Search = response.search
        return search

    def variant(self, variant_id: str) -> compiler_pb2.Variant:
        """A variant by id."""
        request = compiler_pb2.GetVariantRequest(variant_id=variant_id)
        variant: compiler_pb2.Variant = self._wire.call(self._stub.GetVariant, request).variant
        return variant

    def variants(self, model: str = "", *, state: int = 0) -> list[compiler_pb2.Variant]:
        """Variants of a model (all models when empty), admitted first."""
        request = compiler_pb2.ListVariantsRequest(model=model, state=compiler_pb2.VariantState.ValueType(state))
        return self._wire.pages(self._stub.ListVariants, request, "variants")

    def targets(self) -> list[compiler_pb2.Target]:
        """Targets the compiler knows."""
        response = self._wire.call(self._stub.ListTargets, compiler_pb2.ListTargetsRequest())
        return list(response.targets)


def _message_of(floor: QualityFloor) -> compiler_pb2.MinQuality:
    return compiler_pb2.MinQuality(
        top1_agreement=floor.top1_least,
        kl_divergence_nats=floor.kl_most_nats,
        perplexity_increase=floor.perplexity_increase_most,
        relative_error=floor.error_most,
    )
