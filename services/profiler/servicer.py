"""ProfilerService over gRPC: checks what was asked, starts campaigns, answers from what is kept."""

from __future__ import annotations

from typing import Any, Final

from services.profiler.campaigns import Campaigns
from services.profiler.core.assembly import newest_by_point
from services.profiler.core.campaign import limits_of
from services.profiler.core.front import pareto_points
from services.profiler.core.loads import MAX_CONCURRENCY, check_request
from services.profiler.core.prediction import CostModel
from services.profiler.core.settings import check_settings, key_of
from services.profiler.explainer import Explainer
from services.profiler.ports import Catalogue, Profiles
from tradewind.domain.errors import ContextExceeded, InvalidField, ProfileMissing
from tradewind.rpc.operations import Operations, Progress
from tradewind.store.requests import content_digest
from tradewind.v1 import common_pb2, profiler_pb2, profiler_pb2_grpc

SERVICE: Final = "tradewind.v1.ProfilerService"
# Output lengths beyond any context are mistakes.
MAX_OUTPUT_TOKENS: Final = 1_000_000


class ProfilerServicer(profiler_pb2_grpc.ProfilerServiceServicer):
    """Serves the profiler.

    Args:
        operations: where campaigns run.
        campaigns: runs them.
        catalogue: knows models and variants.
        profiles: what is kept.
        explainer: has dispatches timed.
    """

    def __init__(
        self,
        operations: Operations,
        campaigns: Campaigns,
        catalogue: Catalogue,
        profiles: Profiles,
        explainer: Explainer,
    ) -> None:
        self._operations, self._campaigns, self._explainer = operations, campaigns, explainer
        self._catalogue, self._profiles = catalogue, profiles

    async def RunProfile(
        self, request: profiler_pb2.RunProfileRequest, context: Any
    ) -> profiler_pb2.RunProfileResponse:
        """Starts a campaign. Idempotent by request_id."""
        _require_model(request.model)
        check_request(request.prompt_tokens, request.concurrencies)
        check_settings(request)

        async def work(progress: Progress) -> Any:
            return await self._campaigns.run(request, progress)

        operation = await self._operations.start("RunProfile", request.request_id, content_digest(request), work)
        return profiler_pb2.RunProfileResponse(operation=operation)

    async def ListProfiles(
        self, request: profiler_pb2.ListProfilesRequest, context: Any
    ) -> profiler_pb2.ListProfilesResponse:
        """Profiles kept, newest first."""
        model_id = (await self._catalogue.model(request.model)).model_id if request.model else ""
        profiles, token = await self._profiles.page(model_id, request.variant_id, request.page_size, request.page_token)
        return profiler_pb2.ListProfilesResponse(profiles=profiles, next_page_token=token)

    async def GetParetoFront(
        self, request: profiler_pb2.GetParetoFrontRequest, context: Any
    ) -> profiler_pb2.GetParetoFrontResponse:
        """The front of a model at one load."""
        _require_model(request.model)
        _check_concurrency(request.concurrency)
        model = await self._catalogue.model(request.model)
        profiles = newest_by_point(await self._profiles.all_of(model.model_id))
        if not profiles:
            raise _missing(model.name)
        variants = {v.variant_id: v for v in await self._catalogue.variants(model.model_id)}
        points = pareto_points(list(profiles.values()), variants, request.prompt_tokens, request.concurrency)
        chosen = [p for p in points if p.on_front or request.include_dominated]
        return profiler_pb2.GetParetoFrontResponse(points=chosen)

    async def Predict(self, request: profiler_pb2.PredictRequest, context: Any) -> profiler_pb2.PredictResponse:
        """What a load would cost at an operating point that has a profile."""
        if request.prompt_tokens < 1:
            raise InvalidField("prompt_tokens", "at least 1 token is needed")
        if request.output_tokens > MAX_OUTPUT_TOKENS:
            raise InvalidField("output_tokens", f"at most {MAX_OUTPUT_TOKENS}")
        _check_concurrency(request.concurrency)
        profile = await self._profile_at(request.point)
        variant = await self._catalogue.variant(request.point.variant_id)
        limits = limits_of(variant)
        _check_room(request, limits.context_tokens)
        concurrency = request.concurrency or 1
        if concurrency > profile.point.batch_limit > 0:
            raise InvalidField(
                "concurrency", f"{concurrency} sequences are more than the batch limit {profile.point.batch_limit}"
            )
        model = CostModel(profile.loads, limits.decode_batches)
        found = model.predict(request.prompt_tokens, request.output_tokens, concurrency)
        return profiler_pb2.PredictResponse(load=found.load, method=found.method, relative_error=found.relative_error)

    async def ExplainVariant(
        self, request: profiler_pb2.ExplainVariantRequest, context: Any
    ) -> profiler_pb2.ExplainVariantResponse:
        """Where a variant's time goes, on a node that runs it."""
        return await self._explainer.explain(request)

    async def _profile_at(self, point: common_pb2.OperatingPoint) -> profiler_pb2.Profile:
        for field in ("variant_id", "device_class", "partition_kind"):
            if not getattr(point, field):
                raise InvalidField(f"point.{field}", "must be set")
        found = await self._profiles.at_point(point.variant_id, point.device_class, point.partition_kind)
        for profile in found:
            same_batch = point.batch_limit in (0, profile.point.batch_limit)
            if same_batch and key_of(profile.point.power) == key_of(point.power):
                return profile
        variant = await self._catalogue.variant(point.variant_id)
        raise _missing(variant.model_id, f" on {point.device_class} {point.partition_kind}")


def _require_model(model: str) -> None:
    if not model:
        raise InvalidField("model", "a model name or id is needed; `tradewind model list` shows them")


def _check_concurrency(concurrency: int) -> None:
    if concurrency > MAX_CONCURRENCY:
        raise InvalidField("concurrency", f"at most {MAX_CONCURRENCY} sequences")


def _check_room(request: profiler_pb2.PredictRequest, context_tokens: int) -> None:
    needed = request.prompt_tokens + request.output_tokens
    if context_tokens and needed > context_tokens:
        raise ContextExceeded(
            f"{request.prompt_tokens} prompt and {request.output_tokens} output tokens do not fit the context of "
            f"{context_tokens}; ask for less",
            {"context": str(context_tokens), "prompt_tokens": str(request.prompt_tokens)},
        )


def _missing(model: str, where: str = "") -> ProfileMissing:
    hint = f"tradewind profile run {model}"
    return ProfileMissing(f"nothing is measured of {model}{where} yet; run `{hint}`", {"hint": hint})
