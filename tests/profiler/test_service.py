"""The profiler as a service: real gRPC, real PostgreSQL, agents behind the wire that misbehave in every way."""

from __future__ import annotations

import asyncio

import pytest

from tests.profiler import worlds
from tests.profiler.conftest import World
from tradewind.domain.errors import RemoteError
from tradewind.rpc.errors import translated
from tradewind.v1 import common_pb2, operation_pb2, profiler_pb2

DONE, FAILED = operation_pb2.OPERATION_STATE_DONE, operation_pb2.OPERATION_STATE_FAILED
CANCELLED = operation_pb2.OPERATION_STATE_CANCELLED


async def test_every_admitted_variant_is_measured_on_every_partition_kind(world: World) -> None:
    agent = await world.add_node("n1")
    end = await world.run()
    assert end.state == DONE, end.error.message
    profiles = await world.profiles(model="tiny")
    points = {(p.point.variant_id, p.point.partition_kind) for p in profiles}
    assert points == {(f"sha256:{v}", k) for v in ("f32", "bf16") for k in ("cpu/1", "cpu/2")}
    assert {p.profile_id for p in profiles} == set(end.result_ids)
    assert all(p.model_id == worlds.MODEL.model_id and p.memory_bytes == 300 << 20 for p in profiles)
    assert {m.prompt_tokens for m in agent.requests[0].loads} == {32, 128, 256}
    one = next(p for p in profiles if p.point.partition_kind == "cpu/1")
    measured = {(p.prompt_tokens, p.concurrency): p.tpot.p50_ms for p in one.loads}
    assert measured[128, 4] == pytest.approx(worlds.tpot_ms(128, 4))


async def test_what_is_known_is_not_measured_again_unless_forced(world: World) -> None:
    agent = await world.add_node("n1")
    first = await world.run()
    again = await world.run()
    assert (len(agent.requests), sorted(again.result_ids)) == (4, sorted(first.result_ids))
    forced = await world.run(force=True)
    assert len(agent.requests) == 8
    assert not set(forced.result_ids) & set(first.result_ids)


async def test_new_loads_are_added_to_what_is_known(world: World) -> None:
    agent = await world.add_node("n1")
    await world.run(variant_ids=["f32"], partition_kinds=["cpu/1"])
    await world.run(variant_ids=["f32"], partition_kinds=["cpu/1"], prompt_tokens=[64, 128], concurrencies=[1])
    assert [m.prompt_tokens for m in agent.requests[-1].loads] == [64]
    newest = (await world.profiles())[0]
    assert {(p.prompt_tokens, p.concurrency) for p in newest.loads} == {
        (64, 1),
        *((p, c) for p in (32, 128, 256) for c in (1, 4)),
    }


async def test_one_node_stands_for_its_device_class_unless_nodes_are_named(world: World) -> None:
    first, second = await world.add_node("n1"), await world.add_node("n2")
    other = await world.add_node("n3", device_class="cpu:other")
    await world.run(variant_ids=["f32"])
    assert [len(a.requests) for a in (first, second, other)] == [2, 0, 2]
    await world.run(variant_ids=["f32"], node_ids=["n2"], force=True)
    assert [len(a.requests) for a in (first, second, other)] == [2, 2, 2]


async def test_the_same_request_is_one_campaign(world: World) -> None:
    agent = await world.add_node("n1")
    one, two = await world.begin(request_id="r1"), await world.begin(request_id="r1")
    assert one.operation_id == two.operation_id
    await world.end_of(one)
    assert len(agent.requests) == 4


async def test_without_a_node_it_says_how_to_start_one(world: World) -> None:
    end = await world.run()
    assert (end.state, end.error.reason) == (FAILED, common_pb2.ERROR_REASON_SERVICE_UNAVAILABLE)
    assert "tradewind up" in end.error.message


async def test_without_an_admitted_variant_it_lists_the_rejected_with_reasons(world: World) -> None:
    await world.add_node("n1")
    del world.compiler.variants[:2]
    end = await world.run()
    assert end.error.reason == common_pb2.ERROR_REASON_VARIANT_REJECTED
    assert "broken: top-1 agreement 12 %" in end.error.message
    world.compiler.variants.clear()
    assert "tradewind variant build tiny" in (await world.run()).error.message


@pytest.mark.parametrize(
    ("wanted", "reason", "words"),
    [
        ({"model": "none"}, common_pb2.ERROR_REASON_NOT_FOUND, "import it first"),
        ({"variant_ids": ["broken"]}, common_pb2.ERROR_REASON_VARIANT_REJECTED, "12 %"),
        ({"variant_ids": ["w8"]}, common_pb2.ERROR_REASON_NOT_FOUND, "bf16, broken, f32"),
        ({"node_ids": ["n9"]}, common_pb2.ERROR_REASON_NOT_FOUND, "n1"),
        ({"partition_kinds": ["cpu/64"]}, common_pb2.ERROR_REASON_INVALID_FIELD, "cpu/1, cpu/2"),
        ({"prompt_tokens": [4096]}, common_pb2.ERROR_REASON_INVALID_FIELD, "context of 512"),
        ({"concurrencies": [5]}, common_pb2.ERROR_REASON_INVALID_FIELD, "the 4 this variant takes"),
    ],
)
async def test_what_cannot_be_measured_fails_with_what_could(
    world: World, wanted: dict[str, object], reason: int, words: str
) -> None:
    await world.add_node("n1")
    end = await world.run(**wanted)
    assert (end.state, end.error.reason) == (FAILED, reason)
    assert words in end.error.message
    assert not await world.profiles()


async def test_a_node_that_runs_no_such_target_is_named_with_what_it_runs(world: World) -> None:
    await world.add_node("n1")
    world.orchestrator.nodes[0].report.devices[0].targets[:] = ["cuda:sm_80"]
    end = await world.run()
    assert end.error.reason == common_pb2.ERROR_REASON_SERVICE_UNAVAILABLE
    assert "cuda:sm_80" in end.error.message


@pytest.mark.parametrize("wanted", [{"model": ""}, {"prompt_tokens": [0]}, {"concurrencies": [0]}, {"request_id": ""}])
async def test_mistakes_are_refused_at_once(world: World, wanted: dict[str, object]) -> None:
    with pytest.raises(RemoteError) as caught:
        await world.begin(**wanted)
    assert caught.value.remote_reason == "INVALID_FIELD"


async def test_an_agent_that_dies_fails_the_operation_and_leaves_nothing_half_written(world: World) -> None:
    agent = await world.add_node("n1")
    agent.misbehave = "hang"
    running = await world.begin()
    await asyncio.wait_for(agent.at_work.wait(), 10)
    await world.servers[-1].stop(0)
    end = await world.end_of(running)
    assert (end.state, end.error.reason) == (FAILED, common_pb2.ERROR_REASON_SERVICE_UNAVAILABLE)
    assert "n1" in end.error.message
    assert not await world.profiles()


@pytest.mark.parametrize(("how", "words"), [("nonsense", "nan ms"), ("stop short", "without a result")])
async def test_an_agent_that_answers_nonsense_is_not_believed(world: World, how: str, words: str) -> None:
    agent = await world.add_node("n1")
    agent.misbehave = how
    end = await world.run()
    assert (end.state, end.error.reason) == (FAILED, common_pb2.ERROR_REASON_INTERNAL)
    assert words in end.error.message
    assert not await world.profiles()


async def test_cancelling_ends_the_measurement_on_the_node(world: World) -> None:
    agent = await world.add_node("n1")
    agent.misbehave = "hang"
    running = await world.begin()
    await asyncio.wait_for(agent.at_work.wait(), 10)
    await world.operations.CancelOperation(
        operation_pb2.CancelOperationRequest(operation_id=running.operation_id), timeout=10
    )
    assert (await world.end_of(running)).state == CANCELLED
    await asyncio.wait_for(agent.ended.wait(), 10)
    assert not await world.profiles()


async def test_profiles_come_in_pages(world: World) -> None:
    await world.add_node("n1")
    await world.run()
    whole = [p.profile_id for p in await world.profiles()]
    pages, token = [], ""
    while True:
        request = profiler_pb2.ListProfilesRequest(page_size=3, page_token=token)
        page = await world.stub.ListProfiles(request, timeout=10)
        pages.append([p.profile_id for p in page.profiles])
        token = page.next_page_token
        if not token:
            break
    assert [len(p) for p in pages] == [3, 1]
    assert [profile_id for page in pages for profile_id in page] == whole
    with pytest.raises(RemoteError, match="page_token"):
        await world.profiles(page_token="nonsense")


async def test_the_front_holds_what_nothing_beats(world: World) -> None:
    await world.add_node("n1")
    await world.run()
    ask = profiler_pb2.GetParetoFrontRequest(model="tiny")
    front = (await world.stub.GetParetoFront(ask, timeout=10)).points
    # Two cores are faster and, by the fake's law, cheaper; both variants are alike and do not beat each other.
    assert {(p.variant_name, p.point.partition_kind) for p in front} == {("f32", "cpu/2"), ("bf16", "cpu/2")}
    assert all(p.load.prompt_tokens == 128 and p.load.energy_per_token.source == worlds.MODELLED for p in front)
    ask.include_dominated = True
    everything = (await world.stub.GetParetoFront(ask, timeout=10)).points
    assert [p.on_front for p in everything].count(False) == 2


async def test_a_front_of_nothing_says_what_to_run(world: World) -> None:
    with pytest.raises(RemoteError) as caught, translated("profiler"):
        await world.stub.GetParetoFront(profiler_pb2.GetParetoFrontRequest(model="tiny"), timeout=10)
    assert (caught.value.remote_reason, caught.value.metadata["hint"]) == (
        "PROFILE_MISSING",
        "tradewind profile run tiny",
    )


async def test_predictions_tell_how_they_were_had(world: World) -> None:
    await world.add_node("n1")
    await world.run()
    point = common_pb2.OperatingPoint(variant_id="sha256:f32", device_class="cpu:test", partition_kind="cpu/1")

    async def predict(prompt: int, concurrency: int) -> profiler_pb2.PredictResponse:
        request = profiler_pb2.PredictRequest(
            point=point, prompt_tokens=prompt, output_tokens=20, concurrency=concurrency
        )
        with translated("profiler"):
            return await world.stub.Predict(request, timeout=10)  # type: ignore[no-any-return]

    known = await predict(128, 1)
    assert (known.method, known.relative_error) == ("measured", 0)
    between = await predict(192, 1)
    assert (between.method, between.load.energy_per_token.source) == ("interpolated", worlds.MODELLED)
    assert between.load.ttft.p50_ms == pytest.approx(worlds.ttft_ms(192, 1), rel=0.02)
    assert 0 <= between.relative_error < 0.5
    with pytest.raises(RemoteError) as caught:
        await predict(500, 1)
    assert caught.value.remote_reason == "CONTEXT_EXCEEDED"
    with pytest.raises(RemoteError, match="batch limit"):
        await predict(128, 5)
    point.partition_kind = "cpu/64"
    with pytest.raises(RemoteError) as caught:
        await predict(128, 1)
    assert caught.value.remote_reason == "PROFILE_MISSING"


async def test_a_compiler_that_is_away_is_named(world: World) -> None:
    await world.add_node("n1")
    await world.servers[0].stop(0)
    end = await world.run()
    assert end.error.reason == common_pb2.ERROR_REASON_SERVICE_UNAVAILABLE
    assert "compiler" in end.error.message
