"""A small Tradewind for the command line's tests: every service a fake, reached over real gRPC and real HTTP.

State is kept as a real one would: what is imported, built, measured and deployed is there afterwards.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from tests.cli.specimens import MODELLED, TTFT, explanation, profile_of, rejected_of, unchecked_of, variant_of
from tradewind.domain.errors import BadModelSource, CompileFailed, InvalidField, NotFound, ProfileMissing, SloInfeasible
from tradewind.rpc.errors import to_operation_error
from tradewind.v1 import (
    compiler_pb2,
    compiler_pb2_grpc,
    node_pb2,
    operation_pb2,
    operation_pb2_grpc,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
    profiler_pb2,
    profiler_pb2_grpc,
)

RUNNING, DONE = operation_pb2.OPERATION_STATE_RUNNING, operation_pb2.OPERATION_STATE_DONE
FAILED, CANCELLED = operation_pb2.OPERATION_STATE_FAILED, operation_pb2.OPERATION_STATE_CANCELLED
# Below this TTFT nothing in this world can serve.
FASTEST_TTFT_MS = 50.0


class Jobs(operation_pb2_grpc.OperationServiceServicer):
    """Operations of one service. `stuck` ones stay at half until cancelled; `drop` breaks the first watch of each."""

    def __init__(self, service: str) -> None:
        self.service, self.stuck, self.drop = service, False, False
        self.all: dict[str, operation_pb2.Operation] = {}
        self.cancelled = asyncio.Event()
        self.watches = 0

    def add(self, kind: str, results: list[str], error: Any = None) -> operation_pb2.Operation:
        """A running operation whose end is known."""
        operation = operation_pb2.Operation(
            operation_id=f"operations/{self.service}-{len(self.all)}",
            kind=kind,
            state=RUNNING,
            stage="begun",
            version=1,
        )
        operation.create_time.GetCurrentTime()
        self.all[operation.operation_id] = operation
        self._end = (results, error)
        return operation

    async def GetOperation(self, request: Any, context: Any) -> operation_pb2.GetOperationResponse:
        return operation_pb2.GetOperationResponse(operation=self._get(request.operation_id))

    async def WatchOperation(self, request: Any, context: Any) -> AsyncIterator[operation_pb2.WatchOperationResponse]:
        operation = self._get(request.operation_id)
        self.watches += 1
        yield operation_pb2.WatchOperationResponse(operation=operation)
        operation.stage, operation.progress = "halfway there", 0.5
        yield operation_pb2.WatchOperationResponse(operation=operation)
        if self.drop and self.watches == 1:
            # As when a proxy or a restart cuts the stream: ended without a final state.
            return
        if self.stuck:
            await self.cancelled.wait()
            operation.state = CANCELLED
        elif operation.state == RUNNING:
            results, error = self._end
            operation.state, operation.progress = (FAILED if error else DONE), 1.0
            operation.result_ids.extend(results)
            if error:
                operation.error.CopyFrom(to_operation_error(error))
        yield operation_pb2.WatchOperationResponse(operation=operation)

    async def CancelOperation(self, request: Any, context: Any) -> operation_pb2.CancelOperationResponse:
        self.cancelled.set()
        return operation_pb2.CancelOperationResponse(operation=self._get(request.operation_id))

    def _get(self, operation_id: str) -> operation_pb2.Operation:
        if operation_id not in self.all:
            raise NotFound("operation", operation_id)
        return self.all[operation_id]


@dataclass
class World:
    """What there is, shared by the fakes; `calls` counts writes by method."""

    models: dict[str, compiler_pb2.Model] = field(default_factory=dict)
    variants: list[compiler_pb2.Variant] = field(default_factory=list)
    profiles: list[profiler_pb2.Profile] = field(default_factory=list)
    deployments: dict[str, orchestrator_pb2.Deployment] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    compile_fails: bool = False
    chain: compiler_pb2.FallbackChain = field(default_factory=compiler_pb2.FallbackChain)
    draining: set[str] = field(default_factory=set)
    gone: list[str] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)

    def model(self, name: str) -> compiler_pb2.Model:
        for model in self.models.values():
            if name in (model.name, model.model_id):
                return model
        raise NotFound("model", name, "import it first")


class Compiler(compiler_pb2_grpc.CompilerServiceServicer):
    """Imports and builds at once."""

    def __init__(self, world: World, jobs: Jobs) -> None:
        self.world, self.jobs = world, jobs

    async def ImportModel(self, request: Any, context: Any) -> compiler_pb2.ImportModelResponse:
        self.world.calls.append("ImportModel")
        if request.source_path.endswith("truncated.gguf"):
            error = BadModelSource("truncated.gguf ends after 10 bytes of 100; download it again")
            return compiler_pb2.ImportModelResponse(operation=self.jobs.add("ImportModel", [], error))
        model = compiler_pb2.Model(
            model_id=f"sha256:{request.name:0<64}",
            name=request.name,
            format=compiler_pb2.MODEL_FORMAT_GGUF,
            architecture="LlamaForCausalLM",
            parameter_count=134_515_008,
            context_tokens=8192,
            vocabulary_size=49152,
            layer_count=30,
            hidden_size=576,
            files=[compiler_pb2.ArtifactRef(name="tokenizer.json", digest="sha256:ab", size_bytes=2_000_000)],
        )
        model.create_time.GetCurrentTime()
        self.world.models[model.name] = model
        return compiler_pb2.ImportModelResponse(operation=self.jobs.add("ImportModel", [model.model_id]))

    async def GetModel(self, request: Any, context: Any) -> compiler_pb2.GetModelResponse:
        return compiler_pb2.GetModelResponse(model=self.world.model(request.model))

    async def ListModels(self, request: Any, context: Any) -> compiler_pb2.ListModelsResponse:
        return compiler_pb2.ListModelsResponse(models=self.world.models.values())

    async def BuildVariants(self, request: Any, context: Any) -> compiler_pb2.BuildVariantsResponse:
        self.world.calls.append("BuildVariants")
        self.world.requests.append(request)
        model = self.world.model(request.model)
        if self.world.compile_fails:
            error = CompileFailed("iree-compile refused recipe f32: unknown flag")
            return compiler_pb2.BuildVariantsResponse(operation=self.jobs.add("BuildVariants", [], error))
        made = [variant_of(model, "f32-grouped", 1.0), variant_of(model, "bf16-grouped", 0.994), rejected_of(model)]
        if request.chain:
            made = [unchecked_of(model, "f32-gpu", "metal:default"), made[0]]
            self.world.chain = compiler_pb2.FallbackChain(
                targets=[v.target for v in made], variant_ids=[v.variant_id for v in made]
            )
        self.world.variants = made
        ids = [v.variant_id for v in made]
        return compiler_pb2.BuildVariantsResponse(operation=self.jobs.add("BuildVariants", ids))

    async def GetVariant(self, request: Any, context: Any) -> compiler_pb2.GetVariantResponse:
        for variant in self.world.variants:
            if variant.variant_id == request.variant_id:
                return compiler_pb2.GetVariantResponse(variant=variant)
        raise NotFound("variant", request.variant_id)

    async def ListVariants(self, request: Any, context: Any) -> compiler_pb2.ListVariantsResponse:
        if request.model:
            self.world.model(request.model)
        return compiler_pb2.ListVariantsResponse(variants=self.world.variants)

    async def GetSearch(self, request: Any, context: Any) -> compiler_pb2.GetSearchResponse:
        model = self.world.model(request.model)
        cost = compiler_pb2.FunctionCost(function="decode_b1_c1024", time_ms=9.9)
        kept = compiler_pb2.CandidateTrial(costs=[cost], kl_divergence_nats=0.02, measured_on="cpu:znver3")
        fates = (("w4-kernels", "KEPT", "in the Pareto set"), ("f32-gdt", "CRASH", "ended by signal 11"))
        candidates = [
            compiler_pb2.RecipeCandidate(
                target="cpu:host",
                recipe=recipe,
                precision="w4",
                fate=compiler_pb2.CandidateFate.Value(f"CANDIDATE_FATE_{fate}"),
                reason=reason,
                trials=[kept] if fate == "KEPT" else [],
            )
            for recipe, fate, reason in fates
        ]
        search = compiler_pb2.Search(
            search_id="search-1", model_id=model.model_id, budget_s=300, spent_s=12, candidates=candidates
        )
        if self.world.chain.variant_ids:
            search.chain.CopyFrom(self.world.chain)
        return compiler_pb2.GetSearchResponse(search=search)

    async def ListTargets(self, request: Any, context: Any) -> compiler_pb2.ListTargetsResponse:
        target = compiler_pb2.Target(name="cpu:host", resolved="znver3", runnable_here=True, note="this machine's CPU")
        return compiler_pb2.ListTargetsResponse(targets=[target])


class Profiler(profiler_pb2_grpc.ProfilerServiceServicer):
    """Measures at once."""

    def __init__(self, world: World, jobs: Jobs) -> None:
        self.world, self.jobs = world, jobs

    async def RunProfile(self, request: Any, context: Any) -> profiler_pb2.RunProfileResponse:
        self.world.calls.append("RunProfile")
        self.world.requests.append(request)
        self.world.model(request.model)
        admitted = [v for v in self.world.variants if v.state == compiler_pb2.VARIANT_STATE_ADMITTED]
        self.world.profiles = [
            profile_of(v, kind, speed * cores)
            for v, speed in zip(admitted, (1.0, 1.6), strict=False)
            for kind, cores in (("cpu/1", 1.0), ("cpu/2", 1.7))
        ]
        ids = [p.profile_id for p in self.world.profiles]
        return profiler_pb2.RunProfileResponse(operation=self.jobs.add("RunProfile", ids))

    async def ListProfiles(self, request: Any, context: Any) -> profiler_pb2.ListProfilesResponse:
        wanted = [p for p in self.world.profiles if request.variant_id in ("", p.point.variant_id)]
        return profiler_pb2.ListProfilesResponse(profiles=wanted)

    async def GetParetoFront(self, request: Any, context: Any) -> profiler_pb2.GetParetoFrontResponse:
        self.world.model(request.model)
        if not self.world.profiles:
            raise ProfileMissing("nothing is measured yet", {"hint": f"tradewind profile run {request.model}"})
        names = {v.variant_id: v for v in self.world.variants}
        points = [
            profiler_pb2.ParetoPoint(
                point=p.point,
                variant_name=names[p.point.variant_id].name,
                load=p.loads[0],
                memory_bytes=p.memory_bytes,
                top1_agreement=names[p.point.variant_id].quality.top1_agreement,
                on_front=number != 0,
            )
            for number, p in enumerate(self.world.profiles)
        ]
        return profiler_pb2.GetParetoFrontResponse(
            points=[p for p in points if p.on_front or request.include_dominated]
        )


class Orchestrator(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Places at once; a deployment is ready at the second look."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def CreateDeployment(self, request: Any, context: Any) -> orchestrator_pb2.CreateDeploymentResponse:
        self.world.calls.append("CreateDeployment")
        self._check(request)
        deployment = orchestrator_pb2.Deployment(
            deployment_id=f"d-{request.name}",
            name=request.name,
            spec=self._normal(request.spec),
            generation=1,
            state=orchestrator_pb2.DEPLOYMENT_STATE_PROGRESSING,
            state_reason="placing",
        )
        self.world.deployments[request.name] = deployment
        return orchestrator_pb2.CreateDeploymentResponse(deployment=deployment, explanation=explanation())

    async def UpdateDeployment(self, request: Any, context: Any) -> orchestrator_pb2.UpdateDeploymentResponse:
        self.world.calls.append("UpdateDeployment")
        self._check(request)
        deployment = self._get(request.deployment)
        assert request.expected_generation == deployment.generation
        deployment.spec.CopyFrom(self._normal(request.spec))
        deployment.generation += 1
        deployment.state = orchestrator_pb2.DEPLOYMENT_STATE_PROGRESSING
        return orchestrator_pb2.UpdateDeploymentResponse(deployment=deployment, explanation=explanation())

    async def GetDeployment(self, request: Any, context: Any) -> orchestrator_pb2.GetDeploymentResponse:
        return orchestrator_pb2.GetDeploymentResponse(deployment=self._get(request.deployment))

    async def ListDeployments(self, request: Any, context: Any) -> orchestrator_pb2.ListDeploymentsResponse:
        return orchestrator_pb2.ListDeploymentsResponse(deployments=self.world.deployments.values())

    async def DeleteDeployment(self, request: Any, context: Any) -> orchestrator_pb2.DeleteDeploymentResponse:
        deployment = self._get(request.deployment)
        del self.world.deployments[deployment.name]
        return orchestrator_pb2.DeleteDeploymentResponse(deployment=deployment)

    async def WatchDeployments(
        self, request: Any, context: Any
    ) -> AsyncIterator[orchestrator_pb2.WatchDeploymentsResponse]:
        deployment = self._get(request.deployments[0])
        yield orchestrator_pb2.WatchDeploymentsResponse(deployments=[deployment])
        deployment.state = orchestrator_pb2.DEPLOYMENT_STATE_READY
        deployment.observed_generation = deployment.generation
        deployment.state_reason = "1 replica ready"
        del deployment.replicas[:]
        deployment.replicas.add(
            replica_id="r1", state=node_pb2.REPLICA_STATE_READY, variant_id="sha256:bf16", partition_id="cpu0:cores=0-1"
        )
        yield orchestrator_pb2.WatchDeploymentsResponse(deployments=[deployment])
        await asyncio.Event().wait()

    async def PreviewPlan(self, request: Any, context: Any) -> orchestrator_pb2.PreviewPlanResponse:
        return orchestrator_pb2.PreviewPlanResponse(
            changes=[f"+ replica of {request.name} on n1 cpu/2"], explanation=explanation()
        )

    async def ExplainDeployment(self, request: Any, context: Any) -> orchestrator_pb2.ExplainDeploymentResponse:
        self._get(request.deployment)
        return orchestrator_pb2.ExplainDeploymentResponse(explanation=explanation())

    async def ListDecisions(self, request: Any, context: Any) -> orchestrator_pb2.ListDecisionsResponse:
        decision = orchestrator_pb2.Decision(
            decision_id="x1", trigger="deployment chat created", summary="placed chat [1 replica]", generation=3
        )
        decision.create_time.GetCurrentTime()
        return orchestrator_pb2.ListDecisionsResponse(decisions=[decision])

    async def ReplayDecisions(self, request: Any, context: Any) -> orchestrator_pb2.ReplayDecisionsResponse:
        replay = orchestrator_pb2.Replay(decision_id="x1", trigger="deployment chat created")
        replay.outcome = orchestrator_pb2.REPLAY_OUTCOME_SAME
        if request.deployment == "other":
            replay.outcome = orchestrator_pb2.REPLAY_OUTCOME_DIFFERENT
            replay.differences.append("nothing would be decided")
        replay.create_time.GetCurrentTime()
        return orchestrator_pb2.ReplayDecisionsResponse(replays=[replay])

    async def ListNodes(self, request: Any, context: Any) -> orchestrator_pb2.ListNodesResponse:
        gone = [
            orchestrator_pb2.Node(report=node_pb2.NodeReport(node_id=name), state=orchestrator_pb2.NODE_STATE_GONE)
            for name in self.world.gone
        ]
        return orchestrator_pb2.ListNodesResponse(nodes=[*gone, self._node()])

    async def DrainNode(self, request: Any, context: Any) -> orchestrator_pb2.DrainNodeResponse:
        if request.node_id != "n1":
            raise NotFound("node", request.node_id)
        (self.world.draining.discard if request.undo else self.world.draining.add)(request.node_id)
        return orchestrator_pb2.DrainNodeResponse(node=self._node())

    async def SetPowerBudget(self, request: Any, context: Any) -> orchestrator_pb2.SetPowerBudgetResponse:
        if request.scope.split("/")[0] not in ("site", "node", "device"):
            raise InvalidField("scope", f"{request.scope!r} is none of 'site', 'node/NODE_ID'")
        self.world.calls.append("SetPowerBudget")
        return orchestrator_pb2.SetPowerBudgetResponse(scope=request.scope, limit_mw=request.limit_mw)

    def _get(self, name: str) -> orchestrator_pb2.Deployment:
        for deployment in self.world.deployments.values():
            if name in (deployment.name, deployment.deployment_id):
                return deployment
        raise NotFound("deployment", name)

    def _normal(self, spec: orchestrator_pb2.DeploymentSpec) -> orchestrator_pb2.DeploymentSpec:
        """As a server may keep it: ids for names, defaults written out."""
        kept = orchestrator_pb2.DeploymentSpec()
        kept.CopyFrom(spec)
        kept.model = self.world.model(spec.model).model_id
        kept.min_replicas = spec.min_replicas or 1
        return kept

    def _check(self, request: Any) -> None:
        tight = [x for x in request.spec.slo.latency if x.metric == TTFT and x.limit_ms < FASTEST_TTFT_MS]
        if tight and not request.allow_infeasible:
            raise SloInfeasible(
                f"no variant has TTFT p95 ≤ {tight[0].limit_ms:g} ms; the nearest is {FASTEST_TTFT_MS:g} ms",
                {"limit": "TTFT_LIMIT", "nearest_ms": f"{FASTEST_TTFT_MS:g}"},
            )

    def _node(self) -> orchestrator_pb2.Node:
        device = node_pb2.Device(
            device_id="cpu0",
            device_class="cpu:amd-epyc-milan",
            targets=["cpu:host"],
            partition_kinds=["cpu/1", "cpu/2"],
            memory_bytes=24 << 30,
            energy_source=MODELLED,
        )
        reading = node_pb2.DeviceReading(device_id="cpu0", power_mw=31_500, utilization=0.42, memory_used_bytes=3 << 30)
        replicas = [r for d in self.world.deployments.values() for r in d.replicas]
        report = node_pb2.NodeReport(node_id="n1", devices=[device], readings=[reading], replicas=replicas)
        state = (
            orchestrator_pb2.NODE_STATE_DRAINING if "n1" in self.world.draining else orchestrator_pb2.NODE_STATE_ACTIVE
        )
        node = orchestrator_pb2.Node(report=report, state=state)
        node.last_seen_time.GetCurrentTime()
        return node


async def gateway(scope: Any, receive: Any, send: Any) -> None:
    """OpenAI's chat endpoint as an ASGI application: says the capital of France, piece by piece."""
    if scope["type"] != "http":
        return
    if scope["method"] == "GET":
        await _respond(send, 200, b"ok", b"text/plain")
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    asked = json.loads(body)
    if asked["model"] != "chat":
        error = {"message": f"no deployment named {asked['model']!r}", "type": "x", "code": "model_not_found"}
        await _respond(send, 404, json.dumps({"error": error}).encode(), b"application/json")
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    said = "Paris" if "France" in asked["messages"][-1]["content"] else asked["messages"][-1]["content"]
    pieces = [{"choices": [{"delta": {"content": p}}]} for p in ("It is ", said, ".")]
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "energy_mj": 1234.5, "energy_source": "modelled"}
    pieces += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": usage}]
    for piece in pieces:
        await send(
            {"type": "http.response.body", "body": b"data: " + json.dumps(piece).encode() + b"\n\n", "more_body": True}
        )
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _respond(send: Any, status: int, body: bytes, kind: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})
