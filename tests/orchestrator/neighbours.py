"""A compiler and a profiler of a few lines, served over real gRPC: fixed models, variants and profiles.

Only what the orchestrator calls is served; the rest answers UNIMPLEMENTED.
"""

from __future__ import annotations

from typing import Any

from tradewind.rpc.server import GrpcServer
from tradewind.v1 import (
    common_pb2,
    compiler_pb2,
    compiler_pb2_grpc,
    profiler_pb2,
    profiler_pb2_grpc,
)

MODEL_ID = "sha256:tiny"
CPU = "cpu:test"


class Shelf(compiler_pb2_grpc.CompilerServiceServicer, profiler_pb2_grpc.ProfilerServiceServicer):
    """What both services answer from; tests put things on it."""

    def __init__(self) -> None:
        self.models = [compiler_pb2.Model(model_id=MODEL_ID, name="tiny", context_tokens=512)]
        self.variants: list[compiler_pb2.Variant] = []
        self.profiles: list[profiler_pb2.Profile] = []

    async def ListModels(self, request: Any, context: Any) -> compiler_pb2.ListModelsResponse:
        return compiler_pb2.ListModelsResponse(models=self.models)

    async def ListVariants(self, request: Any, context: Any) -> compiler_pb2.ListVariantsResponse:
        found = [v for v in self.variants if v.model_id == request.model]
        return compiler_pb2.ListVariantsResponse(variants=found)

    async def ListProfiles(self, request: Any, context: Any) -> profiler_pb2.ListProfilesResponse:
        return profiler_pb2.ListProfilesResponse(profiles=self.profiles)

    def put(
        self,
        name: str,
        *,
        ttft_ms: float = 100.0,
        tpot_ms: float = 20.0,
        energy_mj: float = 300.0,
        kinds: tuple[str, ...] = ("cpu/1", "cpu/2"),
        state: int = compiler_pb2.VARIANT_STATE_ADMITTED,
        top1: float = 0.99,
        profiled: bool = True,
    ) -> str:
        """A variant with a profile for each kind; two cores are faster and draw more. Returns its id."""
        variant = compiler_pb2.Variant(
            variant_id=f"sha256:{name}",
            name=name,
            model_id=MODEL_ID,
            target="cpu:host",
            state=state,  # type: ignore[arg-type]
            state_reason="figures" if state == compiler_pb2.VARIANT_STATE_ADMITTED else "KL divergence 9.1 nats",
            quality=compiler_pb2.Quality(top1_agreement=top1, perplexity=10.1, reference_perplexity=10.0),
            manifest=compiler_pb2.ArtifactRef(name="manifest.json", digest=f"sha256:m-{name}", size_bytes=10),
            recipe=compiler_pb2.Recipe(name=name, context_buckets=[512], slots=4),
            memory_bytes=1 << 20,
        )
        self.variants.append(variant)
        for kind in kinds if profiled else ():
            cores = int(kind.removeprefix("cpu/"))
            self.profiles.append(
                _profile(variant.variant_id, kind, ttft_ms / cores**0.8, tpot_ms / cores**0.8, energy_mj * cores**0.1)
            )
        return variant.variant_id


def _profile(variant_id: str, kind: str, ttft_ms: float, tpot_ms: float, energy_mj: float) -> profiler_pb2.Profile:
    loads = [
        profiler_pb2.LoadPoint(
            prompt_tokens=prompt,
            output_tokens=32,
            concurrency=n,
            ttft=_stats(ttft_ms * prompt / 128 * n**0.7),
            tpot=_stats(tpot_ms * n**0.3),
            tokens_per_s=1.0,
            power_mw=20_000,
            energy_per_token=common_pb2.Energy(
                energy_mj=energy_mj / n**0.5, source=common_pb2.FIGURE_SOURCE_MODELLED, method="test@1"
            ),
        )
        for prompt in (32, 128)
        for n in (1, 2, 4)
    ]
    return profiler_pb2.Profile(
        profile_id=f"p-{variant_id}-{kind}",
        point=common_pb2.OperatingPoint(variant_id=variant_id, device_class=CPU, partition_kind=kind, batch_limit=4),
        model_id=MODEL_ID,
        loads=loads,
        memory_bytes=1 << 20,
        load_s=0.1,
        idle_power_mw=1_000,
    )


def _stats(p50_ms: float) -> profiler_pb2.LatencyStats:
    return profiler_pb2.LatencyStats(
        p50_ms=p50_ms, p95_ms=p50_ms * 1.2, p99_ms=p50_ms * 1.3, mean_ms=p50_ms, samples=20
    )


async def serve(shelf: Shelf) -> tuple[GrpcServer, str]:
    """Serves both on one free port."""
    server = GrpcServer("shelf", "127.0.0.1:0")
    server.add(compiler_pb2_grpc.add_CompilerServiceServicer_to_server, shelf, "tradewind.v1.CompilerService")
    server.add(profiler_pb2_grpc.add_ProfilerServiceServicer_to_server, shelf, "tradewind.v1.ProfilerService")
    await server.start()
    await server.ready()
    return server, server.address
