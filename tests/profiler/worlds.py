"""Fake neighbours of the profiler, reached over real gRPC: a compiler, an orchestrator, node agents.

The agent follows a known cost law, so that tests can say what a profile and a prediction should hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from tradewind.domain.errors import NotFound
from tradewind.rpc.server import GrpcServer
from tradewind.v1 import (
    common_pb2,
    compiler_pb2,
    compiler_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
    profiler_pb2,
)

MODEL = compiler_pb2.Model(model_id="sha256:model", name="tiny")
MODELLED = common_pb2.FIGURE_SOURCE_MODELLED


def variant(name: str, state: int = compiler_pb2.VARIANT_STATE_ADMITTED, **changes: Any) -> compiler_pb2.Variant:
    """A variant of the tiny model for cpu:host with decode functions for 1 and 4 sequences."""
    made = compiler_pb2.Variant(
        variant_id=f"sha256:{name}",
        name=name,
        model_id=MODEL.model_id,
        target="cpu:host",
        compiled_target="cpu:znver3",
        state=compiler_pb2.VariantState.ValueType(state),
        recipe=compiler_pb2.Recipe(name=name, decode_batches=[1, 4], context_buckets=[128, 512], slots=4),
        manifest=compiler_pb2.ArtifactRef(name="manifest", digest=f"sha256:{name}-manifest", size_bytes=10),
        quality=compiler_pb2.Quality(top1_agreement=0.99, perplexity=10.1, reference_perplexity=10.0),
    )
    made.MergeFrom(compiler_pb2.Variant(**changes))
    return made


def ttft_ms(prompt: int, concurrency: int, speed: float = 1.0) -> float:
    """The fake agent's law of TTFT."""
    return (2.0 + 0.5 * prompt + 0.2 * prompt * (concurrency - 1)) / speed


def tpot_ms(prompt: int, concurrency: int, speed: float = 1.0) -> float:
    """The fake agent's law of TPOT: what the decode function of 1 or 4 sequences costs."""
    batch = 1 if concurrency == 1 else 4
    return (10.0 + 2.0 * batch + 0.001 * batch * prompt) / speed


def load_point(
    prompt: int, concurrency: int, output: int = 12, speed: float = 1.0, energy_mj: float | None = None
) -> profiler_pb2.LoadPoint:
    """A load point by the law; 20 mJ a millisecond of step or of one sequence's prefill, which the tokens share."""
    first, step = ttft_ms(prompt, concurrency, speed), tpot_ms(prompt, concurrency, speed)
    prefill_mj = ttft_ms(prompt, 1, speed) * 20
    energy = step * 20 / concurrency + prefill_mj / output if energy_mj is None else energy_mj
    return profiler_pb2.LoadPoint(
        prompt_tokens=prompt,
        output_tokens=output,
        concurrency=concurrency,
        ttft=profiler_pb2.LatencyStats(p50_ms=first, p95_ms=first * 1.1, p99_ms=first * 1.2, mean_ms=first, samples=3),
        tpot=profiler_pb2.LatencyStats(p50_ms=step, p95_ms=step * 1.1, p99_ms=step * 1.2, mean_ms=step, samples=30),
        tokens_per_s=1e3 * concurrency / step,
        energy_per_token=common_pb2.Energy(energy_mj=energy, source=MODELLED, method="cpu-linear@1"),
        energy_per_prefill=common_pb2.Energy(energy_mj=prefill_mj, source=MODELLED, method="cpu-linear@1"),
        power_mw=20_000,
    )


class Compiler(compiler_pb2_grpc.CompilerServiceServicer):
    """Knows one model and the variants it was given."""

    def __init__(self, variants: Sequence[compiler_pb2.Variant]) -> None:
        self.variants = list(variants)

    async def GetModel(self, request: compiler_pb2.GetModelRequest, context: Any) -> compiler_pb2.GetModelResponse:
        if request.model not in (MODEL.name, MODEL.model_id):
            raise NotFound("model", request.model, "import it first")
        return compiler_pb2.GetModelResponse(model=MODEL)

    async def ListVariants(
        self, request: compiler_pb2.ListVariantsRequest, context: Any
    ) -> compiler_pb2.ListVariantsResponse:
        # One a page, so that paging is really used.
        start = int(request.page_token or 0)
        more = str(start + 1) if start + 1 < len(self.variants) else ""
        return compiler_pb2.ListVariantsResponse(variants=self.variants[start : start + 1], next_page_token=more)

    async def GetVariant(
        self, request: compiler_pb2.GetVariantRequest, context: Any
    ) -> compiler_pb2.GetVariantResponse:
        for found in self.variants:
            if found.variant_id == request.variant_id:
                return compiler_pb2.GetVariantResponse(variant=found)
        raise NotFound("variant", request.variant_id)


class Agent(node_pb2_grpc.NodeAgentServiceServicer):
    """Measures by the law. `misbehave` makes it do otherwise at a load: "nonsense", "stop short", "hang"."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed, self.misbehave = speed, ""
        self.requests: list[node_pb2.MeasureRequest] = []
        self.timings: list[node_pb2.TimeDispatchesRequest] = []
        self.at_work, self.ended = asyncio.Event(), asyncio.Event()

    async def Measure(self, request: node_pb2.MeasureRequest, context: Any) -> AsyncIterator[node_pb2.MeasureResponse]:
        self.requests.append(request)
        speed = self.speed * (2 if request.partition_kind == "cpu/2" else 1)
        loads = [load_point(m.prompt_tokens, m.concurrency, m.output_tokens, speed) for m in request.loads]
        try:
            yield node_pb2.MeasureResponse(stage="loading", progress=0.1)
            for number, load in enumerate(loads):
                if self.misbehave == "hang":
                    self.at_work.set()
                    await asyncio.Event().wait()
                if self.misbehave == "stop short" and number == 1:
                    break
                if self.misbehave == "nonsense":
                    load.ttft.p50_ms = float("nan")
                stage = f"prompt {load.prompt_tokens} × {load.concurrency}"
                yield node_pb2.MeasureResponse(stage=stage, progress=(number + 1) / len(loads), load=load)
            else:
                yield node_pb2.MeasureResponse(stage="done", progress=1, profile=_summary(loads, self._ran(request)))
        finally:
            self.ended.set()

    def _ran(self, request: node_pb2.MeasureRequest) -> common_pb2.PowerSetting:
        """What it says that it measured at: an old agent does not know the field."""
        return common_pb2.PowerSetting() if self.misbehave == "old" else request.power

    async def TimeDispatches(
        self, request: node_pb2.TimeDispatchesRequest, context: Any
    ) -> node_pb2.TimeDispatchesResponse:
        self.timings.append(request)
        names = ("f$async_dispatch_1_matvec_like_1536x576_f32", "f$async_dispatch_2_elementwise_64_f32")
        costs = [profiler_pb2.DispatchCost(name=n, count=3, total_us=9, share=0.5, function="f") for n in names]
        return node_pb2.TimeDispatchesResponse(dispatches=costs)


class Orchestrator(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Knows the nodes it was given."""

    def __init__(self) -> None:
        self.nodes: list[orchestrator_pb2.Node] = []

    async def ListNodes(
        self, request: orchestrator_pb2.ListNodesRequest, context: Any
    ) -> orchestrator_pb2.ListNodesResponse:
        return orchestrator_pb2.ListNodesResponse(nodes=self.nodes)


def node(node_id: str, address: str, device_class: str = "cpu:test") -> orchestrator_pb2.Node:
    """An active node with one CPU that is cut into one or two cores."""
    device = node_pb2.Device(
        device_id="cpu0",
        kind=node_pb2.DEVICE_KIND_CPU,
        device_class=device_class,
        targets=["cpu:host"],
        partition_kinds=["cpu/1", "cpu/2"],
    )
    report = node_pb2.NodeReport(node_id=node_id, address=address, devices=[device])
    return orchestrator_pb2.Node(report=report, state=orchestrator_pb2.NODE_STATE_ACTIVE)


async def serve(register: Any, servicer: object, name: str) -> GrpcServer:
    """A server of one fake on a free port."""
    server = GrpcServer(name, "127.0.0.1:0", reflection_on=False)
    server.add(register, servicer, name)
    await server.start()
    await server.ready()
    return server


async def serve_compiler(compiler: Compiler) -> GrpcServer:
    """The fake compiler on a free port."""
    return await serve(
        compiler_pb2_grpc.add_CompilerServiceServicer_to_server, compiler, "tradewind.v1.CompilerService"
    )


async def serve_orchestrator(orchestrator: Orchestrator) -> GrpcServer:
    """The fake orchestrator on a free port."""
    register = orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server
    return await serve(register, orchestrator, "tradewind.v1.OrchestratorService")


async def serve_agent(agent: Agent) -> GrpcServer:
    """A fake agent on a free port."""
    return await serve(node_pb2_grpc.add_NodeAgentServiceServicer_to_server, agent, "tradewind.v1.NodeAgentService")


def board(*standing: str) -> tuple[node_pb2.Device, list[common_pb2.Partition]]:
    """A board as an agent with a helper reports it: an H100's clocks, and partitions of these kinds that stand."""
    clocks = [common_pb2.PowerSetting(sm_clock_mhz=clock) for clock in (1080, 1380, 1680)]
    device = node_pb2.Device(
        device_id="GPU-1",
        kind=node_pb2.DEVICE_KIND_NVIDIA_GPU,
        device_class="gpu:h100-80",
        targets=["cpu:host"],
        partition_kinds=["gpu/whole", "mig/1g.10gb", "mig/3g.40gb", "mig/7g.80gb"],
        can_set_power=True,
        power_settings=[common_pb2.PowerSetting(eased_sm_clock_mhz=1080), *clocks],
    )
    return device, [common_pb2.Partition(partition_id=f"GPU-1:{k}", device_id="GPU-1", kind=k) for k in standing]


def _summary(loads: Sequence[profiler_pb2.LoadPoint], power: common_pb2.PowerSetting) -> profiler_pb2.Profile:
    return profiler_pb2.Profile(
        point=common_pb2.OperatingPoint(power=power),
        ran_sm_clock_mhz=power.sm_clock_mhz or None,
        loads=loads,
        memory_bytes=300 << 20,
        load_s=1.5,
        idle_power_mw=9000,
        idle_power_source=MODELLED,
    )
