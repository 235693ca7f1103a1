"""The gateway over gRPC: InferenceService and the Open Inference Protocol."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.gateway.conftest import VARIANT_ID, World
from tests.gateway.fake_node import ENERGY_PER_TOKEN_MJ
from tradewind.domain.errors import RemoteError
from tradewind.open_inference import open_inference_pb2 as oip
from tradewind.open_inference import open_inference_pb2_grpc
from tradewind.rpc.client import open_channel
from tradewind.rpc.errors import translated
from tradewind.v1 import inference_pb2, inference_pb2_grpc


@pytest.fixture
async def channel(world: World) -> AsyncIterator[grpc.aio.Channel]:
    made = open_channel(world.gateway.grpc)
    yield made
    await made.close(None)


async def generate(channel: grpc.aio.Channel, request: inference_pb2.GenerateRequest) -> list[Any]:
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    with translated("gateway"):
        return [response async for response in stub.Generate(request, timeout=20)]


async def test_text_in_text_and_tokens_out(world: World, channel: grpc.aio.Channel) -> None:
    script = await world.serve("Paris 🎉!")
    out = await generate(channel, inference_pb2.GenerateRequest(deployment="chat", text="capital?"))
    assert "".join(response.text for response in out) == "Paris 🎉!"
    assert [i for response in out for i in response.token_ids] == script.ids
    assert (out[0].replica_id, out[0].variant_id) == ("r-chat", VARIANT_ID)
    assert out[-1].finish_reason == inference_pb2.FINISH_REASON_STOP
    assert out[-1].usage.energy.energy_mj == ENERGY_PER_TOKEN_MJ * len(script.ids)
    assert list(script.requests[0].token_ids.ids) == world.ids("capital?")


async def test_stop_texts_are_matched_at_the_gateway(world: World, channel: grpc.aio.Channel) -> None:
    script = await world.serve("one two three")
    sampling = inference_pb2.Sampling(stop=["two"], logprobs=True)
    request = inference_pb2.GenerateRequest(
        deployment="chat", token_ids=inference_pb2.TokenIds(ids=[7]), sampling=sampling
    )
    out = await generate(channel, request)
    assert "".join(response.text for response in out) == "one "
    ids = [i for response in out for i in response.token_ids]
    assert ids == script.ids[: len(ids)]
    assert "one ".startswith(world.model.decode(ids)), "no token tells of the stop text"
    assert list(script.requests[0].sampling.stop) == []


REFUSED = [
    (inference_pb2.GenerateRequest(text="x"), "INVALID_FIELD"),
    (inference_pb2.GenerateRequest(deployment="chat"), "INVALID_FIELD"),
    (inference_pb2.GenerateRequest(deployment="nope", text="x"), "NOT_FOUND"),
    (
        inference_pb2.GenerateRequest(deployment="chat", text="x", sampling=inference_pb2.Sampling(temperature=-1)),
        "INVALID_FIELD",
    ),
    (
        inference_pb2.GenerateRequest(
            deployment="chat", text="x", sampling=inference_pb2.Sampling(temperature=float("nan"))
        ),
        "INVALID_FIELD",
    ),
    (
        inference_pb2.GenerateRequest(deployment="chat", text="x", sampling=inference_pb2.Sampling(stop=["a"] * 5)),
        "INVALID_FIELD",
    ),
    (
        inference_pb2.GenerateRequest(deployment="chat", token_ids=inference_pb2.TokenIds(ids=[5] * 201)),
        "CONTEXT_EXCEEDED",
    ),
]


async def test_refusals(world: World, channel: grpc.aio.Channel) -> None:
    script = await world.serve("x")
    for request, reason in REFUSED:
        with pytest.raises(RemoteError) as caught:
            await generate(channel, request)
        assert caught.value.remote_reason == reason, request
    assert not script.requests


async def test_infer_of_a_text_model_says_how_to_ask_it(world: World, channel: grpc.aio.Channel) -> None:
    await world.serve("x")
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    with pytest.raises(RemoteError, match="'chat' generates text; ask it by Generate") as caught, translated("gateway"):
        await stub.Infer(inference_pb2.InferRequest(deployment="chat"), timeout=5)
    assert caught.value.remote_reason == "INVALID_FIELD"


async def test_cancelling_the_call_frees_the_replica(world: World, channel: grpc.aio.Channel) -> None:
    script = await world.serve("one two", hold_at=1)
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    call = stub.Generate(inference_pb2.GenerateRequest(deployment="chat", text="x"), timeout=20)
    await call.read()
    call.cancel()
    await asyncio.wait_for(script.cancelled.wait(), 5)


@pytest.mark.parametrize("gateway_settings", [{"api_keys": ("secret-one",)}])
async def test_api_keys_hold_for_grpc_too(
    world: World, channel: grpc.aio.Channel, gateway_settings: dict[str, object]
) -> None:
    await world.serve("hello")
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    request = inference_pb2.GenerateRequest(deployment="chat", text="x")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(request, timeout=5).read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    call = stub.Generate(request, timeout=5, metadata=(("authorization", "Bearer secret-one"),))
    assert "".join([response.text async for response in call]) == "hello"


def infer_request(text: str, **options: Any) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="chat", id="my-id")
    tensor = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(text.encode())
    for name, value in options.items():
        kind = "int64_param" if isinstance(value, int) else "double_param"
        setattr(request.parameters[name], kind, value)
    return request


async def test_open_inference_without_a_deadline(world: World, channel: grpc.aio.Channel) -> None:
    script = await world.serve("Paris 🎉 and more words")
    stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    assert (await stub.ServerLive(oip.ServerLiveRequest())).live
    assert (await stub.ServerReady(oip.ServerReadyRequest())).ready
    assert (await stub.ServerMetadata(oip.ServerMetadataRequest())).name == "tradewind"
    assert (await stub.ModelReady(oip.ModelReadyRequest(name="chat"))).ready
    assert not (await stub.ModelReady(oip.ModelReadyRequest(name="chat", version="other"))).ready
    assert not (await stub.ModelReady(oip.ModelReadyRequest(name="nope"))).ready
    metadata = await stub.ModelMetadata(oip.ModelMetadataRequest(name="chat"))
    assert list(metadata.versions) == ["f32/cpu-host"]
    assert [(t.name, t.datatype) for t in metadata.outputs] == [("text_output", "BYTES")]
    answer = await stub.ModelInfer(infer_request("capital?", max_tokens=4, temperature=0.5, seed=3))
    assert (answer.id, answer.model_name, answer.model_version) == ("my-id", "chat", "f32/cpu-host")
    text = answer.outputs[0].contents.bytes_contents[0].decode()
    assert text == world.model.decode(script.ids[:4])
    sampling = script.requests[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.seed) == (4, 0.5, 3)
    assert answer.parameters["output_tokens"].int64_param == 4
    assert answer.parameters["energy_source"].string_param == "modelled"
    assert answer.parameters["energy_mj"].double_param == 4 * ENERGY_PER_TOKEN_MJ


async def test_open_inference_with_raw_contents(world: World, channel: grpc.aio.Channel) -> None:
    script = await world.serve("é ok")
    request = oip.ModelInferRequest(model_name="chat")
    prompt = "Grüße".encode()
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1, 1])
    request.inputs.add(name="max_tokens", datatype="INT32", shape=[1])
    request.raw_input_contents.extend([struct.pack("<I", len(prompt)) + prompt, struct.pack("<i", 50)])
    stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    answer = await stub.ModelInfer(request)
    raw = answer.raw_output_contents[0]
    assert (struct.unpack_from("<I", raw)[0], raw[4:].decode()) == (len(raw) - 4, "é ok")
    assert list(script.requests[0].token_ids.ids) == world.ids("Grüße")


async def test_open_inference_refusals(world: World, channel: grpc.aio.Channel) -> None:
    script = await world.serve("x")
    stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)

    async def refused(request: oip.ModelInferRequest) -> tuple[str, str]:
        with pytest.raises(RemoteError) as caught, translated("gateway"):
            await stub.ModelInfer(request)
        return caught.value.remote_reason, caught.value.message

    unknown = infer_request("x")
    unknown.model_name = "nope"
    assert (await refused(unknown))[0] == "NOT_FOUND"
    pinned = infer_request("x")
    pinned.model_version = "f32/cpu-host"
    assert (await refused(pinned))[0] == "NOT_IMPLEMENTED"
    image = infer_request("x")
    image.inputs.add(name="image", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)
    assert (await refused(image))[0] == "NOT_IMPLEMENTED"
    assert "text_input" in (await refused(oip.ModelInferRequest(model_name="chat")))[1]
    wide = infer_request("x")
    wide.inputs[0].shape[0] = 2
    assert "one value is taken" in (await refused(wide))[1]
    broken = infer_request("x")
    broken.inputs[0].contents.bytes_contents[0] = b"\xff"
    assert "not UTF-8" in (await refused(broken))[1]
    short = infer_request("x")
    short.raw_input_contents.append(b"\x05\x00\x00\x00ab")
    assert "four-byte length" in (await refused(short))[1]
    assert "temperature" in (await refused(infer_request("x", temperature=9.0)))[1]
    assert "max_tokens" in (await refused(infer_request("x", max_tokens=-5)))[1]
    assert not script.requests
