"""Where a variant's time goes: names read as work, a node chosen and asked, refusals."""

from __future__ import annotations

import pytest

from services.profiler.core.roofline import work_of
from tests.profiler.conftest import World
from tradewind.domain.errors import RemoteError
from tradewind.rpc.errors import translated
from tradewind.v1 import profiler_pb2


@pytest.mark.parametrize(
    ("name", "operations", "moved_bytes"),
    [
        ("decode_b1_c1024$async_dispatch_17_matvec_like_1536x576_f32", 2 * 1536 * 576, 1536 * 576 * 4),
        ("prefill$async_dispatch_24_matmul_like_64x1536x576_f32", 2 * 64 * 1536 * 576, 1536 * 576 * 4),
        ("d_matmul_like_3x192x1024x64_bf16xf32", 2 * 3 * 192 * 1024 * 64, 3 * 1024 * 64 * 2),
        ("prefill$async_dispatch_15_elementwise_broadcast_196608_i64xf32", 0, 0),
        ("", 0, 0),
    ],
)
def test_a_products_name_tells_its_work(name: str, operations: float, moved_bytes: float) -> None:
    work = work_of(name)
    assert (work.operations, work.moved_bytes) == (operations, moved_bytes)


async def test_a_node_that_runs_it_is_asked_and_its_answer_completed(world: World) -> None:
    agent = await world.add_node("n1")
    answer = await world.stub.ExplainVariant(
        profiler_pb2.ExplainVariantRequest(variant_id="sha256:f32", function="decode_b1_c512"), timeout=30
    )
    assert (answer.node_id, answer.device_class, answer.partition_kind) == ("n1", "cpu:test", "cpu/2")
    (asked,) = agent.timings
    assert (asked.variant_id, asked.device_id, asked.function) == ("sha256:f32", "cpu0", "decode_b1_c512")
    product, other = answer.dispatches
    assert product.operations == product.count * 2 * 1536 * 576
    assert other.operations == 0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "INVALID_FIELD"),
        ({"variant_id": "sha256:nobody"}, "NOT_FOUND"),
        ({"variant_id": "sha256:broken"}, "VARIANT_REJECTED"),
        ({"variant_id": "sha256:f32", "node_id": "n9"}, "NOT_FOUND"),
        ({"variant_id": "sha256:f32"}, "SERVICE_UNAVAILABLE"),
    ],
)
async def test_what_cannot_be_explained_is_refused(world: World, fields: dict[str, str], reason: str) -> None:
    with pytest.raises(RemoteError) as caught, translated("profiler"):
        await world.stub.ExplainVariant(profiler_pb2.ExplainVariantRequest(**fields), timeout=30)
    assert caught.value.remote_reason == reason
