"""Dispatch times of a real variant on a real agent, and what is refused."""

from __future__ import annotations

import json

import pytest

from services.node_agent.core.dispatch_times import read_statistics
from tests.node_agent.conftest import StartAgent
from tests.tiny_variant import TinyVariant
from tradewind.domain.errors import RemoteError
from tradewind.rpc.errors import translated
from tradewind.v1 import node_pb2


def request(tiny: TinyVariant, **changes: str) -> node_pb2.TimeDispatchesRequest:
    fields = {"variant_id": tiny.variant.variant_id, "function": "decode_b4_c128", **changes}
    return node_pb2.TimeDispatchesRequest(manifest=tiny.variant.manifest, **fields)


async def test_every_dispatch_of_a_function_is_timed_and_nothing_stays(
    start_agent: StartAgent, tiny: TinyVariant
) -> None:
    agent = await start_agent()
    answer = await agent.node.TimeDispatches(request(tiny, partition_kind="cpu/1"), timeout=120)
    assert {d.function for d in answer.dispatches} == {"decode_b4_c128"}
    times = [d.total_us for d in answer.dispatches]
    assert times == sorted(times, reverse=True) and times[-1] > 0
    assert sum(d.share for d in answer.dispatches) == pytest.approx(1)
    # Every layer has its products: what is repeated is counted.
    assert max(d.count for d in answer.dispatches) >= 2
    assert not agent.children()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"variant_id": ""}, "INVALID_FIELD"),
        ({"function": "decode_b9_c1"}, "INVALID_FIELD"),
        ({"partition_kind": "cpu/77"}, "INVALID_FIELD"),
        ({"device_id": "gpu9"}, "INVALID_FIELD"),
    ],
)
async def test_what_cannot_be_timed_is_refused(
    start_agent: StartAgent, tiny: TinyVariant, changes: dict[str, str], reason: str
) -> None:
    agent = await start_agent()
    with pytest.raises(RemoteError) as caught, translated("agent"):
        await agent.node.TimeDispatches(request(tiny, **changes), timeout=60)
    assert caught.value.remote_reason == reason


def test_statistics_are_of_one_call_and_garbage_is_refused() -> None:
    row = {"row_type": "host_execution_function", "has_timing": True, "function_name": "f$d_1", "sample_count": 60}
    text = json.dumps({**row, "total_duration_ns": 9e6}) + "\n" + json.dumps({"type": "statistics_summary"})
    (found,) = read_statistics(text, "f", calls=3)
    assert (found.count, found.total_us) == (20, 3000)
    for broken in ("{", "[]", json.dumps(row)):
        with pytest.raises(ValueError, match="cannot be read"):
            read_statistics(broken, "f", calls=3)
