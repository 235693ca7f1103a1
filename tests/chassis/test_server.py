"""The chassis over the real wire: deadlines, typed errors, health, occupied ports, message limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tradewind.domain.errors import InUse, MessageTooLarge, NotFound, RemoteError, ServiceUnavailable, TradewindError
from tradewind.rpc.client import open_channel
from tradewind.rpc.errors import translated
from tradewind.rpc.limits import MAX_MESSAGE_BYTES
from tradewind.rpc.server import GrpcServer
from tradewind.v1 import compiler_pb2, compiler_pb2_grpc

NAME = "tradewind.v1.CompilerService"


class Models(compiler_pb2_grpc.CompilerServiceServicer):
    """Answers in each way a servicer can."""

    async def GetModel(self, request: compiler_pb2.GetModelRequest, context: Any) -> compiler_pb2.GetModelResponse:
        if request.model == "fault":
            raise KeyError("secret detail")
        if request.model == "missing":
            raise NotFound("model", "missing", "import it first")
        return compiler_pb2.GetModelResponse(model=compiler_pb2.Model(name=request.model))

    async def FetchArtifact(
        self, request: compiler_pb2.FetchArtifactRequest, context: Any
    ) -> AsyncIterator[compiler_pb2.FetchArtifactResponse]:
        yield compiler_pb2.FetchArtifactResponse(data=b"x", total_bytes=2)
        raise NotFound("artifact", request.digest)


@pytest.fixture
async def server() -> AsyncIterator[GrpcServer]:
    server = GrpcServer("compiler", "127.0.0.1:0")
    server.add(compiler_pb2_grpc.add_CompilerServiceServicer_to_server, Models(), NAME)
    await server.start()
    yield server
    await server.stop(0)


@pytest.fixture
async def stub(server: GrpcServer) -> AsyncIterator[compiler_pb2_grpc.CompilerServiceAsyncStub]:
    async with open_channel(server.address) as channel:
        yield compiler_pb2_grpc.CompilerServiceStub(channel)  # type: ignore[misc]


async def test_a_call_without_a_deadline_is_refused(stub: Any) -> None:
    with pytest.raises(RemoteError) as caught, translated("compiler"):
        await stub.GetModel(compiler_pb2.GetModelRequest(model="a"))
    assert (caught.value.remote_reason, caught.value.status) == ("DEADLINE_REQUIRED", "INVALID_ARGUMENT")


async def test_a_refusal_keeps_reason_message_and_metadata(stub: Any) -> None:
    with pytest.raises(RemoteError) as caught, translated("compiler"):
        await stub.GetModel(compiler_pb2.GetModelRequest(model="missing"), timeout=5)
    assert caught.value.remote_reason == "NOT_FOUND"
    assert caught.value.metadata == {"kind": "model", "name": "missing"}
    assert "import it first" in caught.value.message


async def test_a_fault_of_ours_tells_an_incident_and_no_detail(stub: Any) -> None:
    with pytest.raises(RemoteError) as caught, translated("compiler"):
        await stub.GetModel(compiler_pb2.GetModelRequest(model="fault"), timeout=5)
    assert caught.value.remote_reason == "INTERNAL"
    assert len(caught.value.metadata["incident"]) == 12
    assert "secret" not in caught.value.message


async def test_a_stream_that_fails_midway_gives_what_it_had_and_then_the_reason(stub: Any) -> None:
    pieces = []
    with pytest.raises(TradewindError), translated("compiler"):
        async for piece in stub.FetchArtifact(compiler_pb2.FetchArtifactRequest(digest="d"), timeout=5):
            pieces.append(piece.data)
    assert pieces == [b"x"]


async def test_an_unimplemented_method_says_so(stub: Any) -> None:
    with pytest.raises(RemoteError) as caught, translated("compiler"):
        await stub.ListTargets(compiler_pb2.ListTargetsRequest(), timeout=5)
    assert caught.value.status == "UNIMPLEMENTED"


@pytest.mark.parametrize(("size", "fits"), [(MAX_MESSAGE_BYTES - 64, True), (MAX_MESSAGE_BYTES + 1, False)])
async def test_the_message_limit_is_where_it_is_said_to_be(stub: Any, size: int, fits: bool) -> None:
    request = compiler_pb2.GetModelRequest(model="m" * size)
    if fits:
        with translated("compiler"):
            assert (await stub.GetModel(request, timeout=10)).model.name == request.model
    else:
        with pytest.raises(MessageTooLarge), translated("compiler"):
            await stub.GetModel(request, timeout=10)


async def test_health_says_serving_only_between_ready_and_not_ready(server: GrpcServer) -> None:
    async with open_channel(server.address) as channel:
        check = health_pb2_grpc.HealthStub(channel)

        async def state(name: str) -> int:
            return (await check.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status

        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        assert [await state(""), await state(NAME)] == [not_serving] * 2
        await server.ready()
        assert [await state(""), await state(NAME)] == [serving] * 2
        await server.not_ready()
        assert [await state(""), await state(NAME)] == [not_serving] * 2


async def test_an_occupied_port_is_refused_and_its_holder_named(server: GrpcServer) -> None:
    second = GrpcServer("second", server.address)
    with pytest.raises(InUse) as caught:
        await second.start()
    assert str(server.port) in caught.value.message
    assert "pid" in caught.value.metadata["holder"]


async def test_a_server_that_is_not_there_is_unavailable_and_named() -> None:
    async with open_channel("127.0.0.1:1") as channel:
        stub = compiler_pb2_grpc.CompilerServiceStub(channel)
        with pytest.raises(ServiceUnavailable, match="compiler"), translated("compiler"):
            await stub.ListModels(compiler_pb2.ListModelsRequest(), timeout=5)


async def test_a_hung_server_costs_no_more_than_the_deadline(server: GrpcServer) -> None:
    async def hang(reader: Any, writer: Any) -> None:
        await reader.read()

    import asyncio
    import time

    deaf = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = deaf.sockets[0].getsockname()[1]
    async with open_channel(f"127.0.0.1:{port}") as channel:
        stub = compiler_pb2_grpc.CompilerServiceStub(channel)
        began = time.monotonic()
        with pytest.raises(ServiceUnavailable), translated("compiler"):
            await stub.ListModels(compiler_pb2.ListModelsRequest(), timeout=0.5)
        assert time.monotonic() - began < 5
    deaf.close()


def test_every_reason_of_the_contract_has_one_class_and_one_status() -> None:
    from tradewind.domain import errors
    from tradewind.v1 import common_pb2

    reasons = {name.removeprefix("ERROR_REASON_") for name in common_pb2.ErrorReason.keys()}  # noqa: SIM118  no dict
    reasons.remove("UNSPECIFIED")
    classes = [c for c in errors.TradewindError.__subclasses__() if c is not errors.RemoteError]
    assert {c.reason for c in classes} == reasons == set(errors.STATUS)
    assert len(classes) == len(reasons)
    assert all(hasattr(grpc.StatusCode, status) for status in errors.STATUS.values())
