"""inference.GRPCInferenceService: the Open Inference Protocol v2 over deployments of text and tensor models.

Its clients come without deadlines as a rule, so they need none here; the gateway's own request limit holds instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc

from services.gateway.authorization import ApiKeys
from services.gateway.metrics import source_label
from services.gateway.routing.deadline import Deadline
from services.gateway.routing.table import RouteTable
from services.gateway.rpc.inference import check_sampling
from services.gateway.rpc.open_tensors import add_outputs, metadata_of, tensors_of
from services.gateway.rpc.tensors import Value, add_text, input_values, parameter, parameter_value
from services.gateway.tensor_service import TensorService
from services.gateway.text_service import TextService, Wish
from tradewind.domain.errors import InvalidField, NotFound, NotImplementedYet
from tradewind.domain.routes import DeploymentRoute
from tradewind.open_inference import open_inference_pb2 as oip
from tradewind.open_inference import open_inference_pb2_grpc
from tradewind.v1 import compiler_pb2, inference_pb2

Context = grpc.aio.ServicerContext[Any, Any]

METHODS: Final = frozenset({"ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"})
PLATFORM: Final = "tradewind_iree"
PROMPT: Final = "text_input"
ANSWER: Final = "text_output"
# Optional inputs, beside the prompt, that may come as tensors or as request parameters.
_OPTIONS: Final = {"max_tokens": "INT32", "temperature": "FP32", "top_p": "FP32", "top_k": "INT32", "seed": "UINT64"}
_STOP: Final = "stop"


class OpenInferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers Triton's and KServe's clients.

    Args:
        service: starts generations.
        tensors: asks tensor models.
        table: which deployments there are.
        ready: whether the gateway is.
        keys: who may ask.
        version: of this software.
        request_limit_s: most seconds a request may take.
    """

    def __init__(
        self,
        service: TextService,
        tensors: TensorService,
        table: RouteTable,
        ready: Callable[[], bool],
        keys: ApiKeys,
        version: str,
        request_limit_s: float,
    ) -> None:
        self._service, self._tensors, self._table, self._ready = service, tensors, table, ready
        self._keys, self._version, self._request_limit_s = keys, version, request_limit_s

    async def ServerLive(self, request: oip.ServerLiveRequest, context: Context) -> oip.ServerLiveResponse:
        """Alive."""
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(self, request: oip.ServerReadyRequest, context: Context) -> oip.ServerReadyResponse:
        """Same as /readyz."""
        return oip.ServerReadyResponse(ready=self._ready())

    async def ModelReady(self, request: oip.ModelReadyRequest, context: Context) -> oip.ModelReadyResponse:
        """Whether a replica answers now; False for a model that is not there, as Triton does."""
        route = self._table.routes.get(request.name)
        return oip.ModelReadyResponse(ready=route is not None and request.version in ("", *_versions(route)))

    async def ServerMetadata(self, request: oip.ServerMetadataRequest, context: Context) -> oip.ServerMetadataResponse:
        """Name and version."""
        return oip.ServerMetadataResponse(name="tradewind", version=self._version)

    async def ModelMetadata(self, request: oip.ModelMetadataRequest, context: Context) -> oip.ModelMetadataResponse:
        """Tensors it takes and gives."""
        route = self._table.find(request.name)
        if request.version and request.version not in _versions(route):
            raise NotFound("variant", request.version, f"answering now: {', '.join(_versions(route)) or 'none'}")
        model = await self._tensors.model_of(request.name)
        if model.task == compiler_pb2.MODEL_TASK_INFER:
            inputs, outputs = metadata_of(model.inputs), metadata_of(model.outputs)
            return oip.ModelMetadataResponse(
                name=route.name, versions=_versions(route), platform=PLATFORM, inputs=inputs, outputs=outputs
            )
        tensor = oip.ModelMetadataResponse.TensorMetadata
        inputs = [tensor(name=PROMPT, datatype="BYTES", shape=[1])]
        inputs += [tensor(name=name, datatype=kind, shape=[1]) for name, kind in _OPTIONS.items()]
        inputs.append(tensor(name=_STOP, datatype="BYTES", shape=[1]))
        return oip.ModelMetadataResponse(
            name=route.name,
            versions=_versions(route),
            platform=PLATFORM,
            inputs=inputs,
            outputs=[tensor(name=ANSWER, datatype="BYTES", shape=[1])],
        )

    async def ModelInfer(self, request: oip.ModelInferRequest, context: Context) -> oip.ModelInferResponse:
        """Continues a text, or maps tensors to tensors, as the model does."""
        await self._keys.require_grpc(context)
        limit_s = min(context.time_remaining() or self._request_limit_s, self._request_limit_s)
        deadline = Deadline.within(limit_s)
        if (await self._tensors.model_of(request.model_name)).task == compiler_pb2.MODEL_TASK_INFER:
            return await self._infer(request, deadline)
        return await self._generate(request, deadline)

    async def _infer(self, request: oip.ModelInferRequest, deadline: Deadline) -> oip.ModelInferResponse:
        if request.model_version:
            raise NotImplementedYet("the router chooses the variant that meets the SLO; leave model_version empty")
        wanted = frozenset(output.name for output in request.outputs)
        tensors = tensors_of(request)
        replica, answer = await self._tensors.infer(request.model_name, tensors, "open_inference", deadline)
        if unknown := sorted(wanted - {tensor.name for tensor in answer.outputs}):
            names = ", ".join(tensor.name for tensor in answer.outputs)
            raise InvalidField("outputs", f"{', '.join(unknown)}: the outputs are {names}")
        response = oip.ModelInferResponse(
            model_name=request.model_name, model_version=replica.variant_name, id=request.id
        )
        for name, value in _figures(answer.usage).items():
            response.parameters[name].CopyFrom(parameter(value))
        add_outputs(response, answer.outputs, wanted, raw=bool(request.raw_input_contents))
        return response

    async def _generate(self, request: oip.ModelInferRequest, deadline: Deadline) -> oip.ModelInferResponse:
        generation = await self._service.start(wish_of(request), "open_inference", deadline)
        text, usage = "", inference_pb2.Usage()
        try:
            async for delta in generation:
                text += delta.text
                usage = delta.usage or usage
        finally:
            generation.close()
        response = oip.ModelInferResponse(
            model_name=request.model_name, model_version=generation.replica.variant_name, id=request.id
        )
        for name, value in _figures(usage).items():
            response.parameters[name].CopyFrom(parameter(value))
        add_text(response, ANSWER, text, raw=bool(request.raw_input_contents))
        return response


def wish_of(request: oip.ModelInferRequest) -> Wish:
    """What a request wishes for. A tensor beats a parameter of the same name.

    Raises:
        InvalidField: it makes no sense.
        NotImplementedYet: it asks for what only tensor models have.
    """
    if request.model_version:
        raise NotImplementedYet("the router chooses the variant that meets the SLO; leave model_version empty")
    unknown = [output.name for output in request.outputs if output.name != ANSWER]
    if unknown:
        raise InvalidField("outputs", f"{', '.join(unknown)}: the only output is {ANSWER}")
    values = input_values(request)
    allowed = {PROMPT, _STOP, *_OPTIONS}
    if foreign := sorted(set(values) - allowed):
        raise NotImplementedYet(
            f"inputs {', '.join(foreign)}: this model generates text; give {PROMPT} (BYTES) and, if wanted, "
            f"{', '.join([*_OPTIONS, _STOP])}"
        )
    if PROMPT not in values:
        raise InvalidField("inputs", f"{PROMPT} (BYTES, shape [1]) is missing")
    options: dict[str, Value] = {}
    for name, held in request.parameters.items():
        if name in allowed and (value := parameter_value(held)) is not None:
            options[name] = value
    options |= {name: value for name, value in values.items() if name != PROMPT}
    sampling = _sampling(options)
    stops = (_text(_STOP, options[_STOP]),) if _STOP in options else ()
    sampling.stop.extend(stops)
    check_sampling(sampling)
    sampling.ClearField("stop")
    return Wish(request.model_name, _text(PROMPT, values[PROMPT]), sampling, stops)


def _sampling(options: Mapping[str, Value]) -> inference_pb2.Sampling:
    sampling = inference_pb2.Sampling()
    for name, kind in _OPTIONS.items():
        if name not in options:
            continue
        value = options[name]
        if isinstance(value, bytes | str | bool):
            raise InvalidField(name, f"a number ({kind}) is needed")
        try:
            setattr(sampling, name, float(value) if kind == "FP32" else int(value))
        except (ValueError, OverflowError, TypeError) as error:
            raise InvalidField(name, f"{value} is out of range") from error
    return sampling


def _text(name: str, value: Value) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise InvalidField(name, "a text (BYTES) is needed")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidField(name, f"it is not UTF-8 (byte {error.start} is wrong)") from error


def _versions(route: DeploymentRoute) -> list[str]:
    return sorted({replica.variant_name for replica in route.replicas if not replica.draining})


def _figures(usage: inference_pb2.Usage) -> dict[str, str | int | float]:
    figures: dict[str, str | int | float] = {
        "prompt_tokens": usage.prompt_tokens,
        "reused_prompt_tokens": usage.reused_prompt_tokens,
        "output_tokens": usage.output_tokens,
        "ttft_ms": usage.ttft_ms,
        "energy_source": source_label(usage.energy.source),
        "energy_method": usage.energy.method,
    }
    if figures["energy_source"] != "unavailable":
        figures["energy_mj"] = usage.energy.energy_mj
    return figures
