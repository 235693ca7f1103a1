"""Measurements: figures with their source, progress, and a process that is gone afterwards."""

from __future__ import annotations

import pytest

from services.node_agent.core.measurement import LoadSpec, Sample, check_loads, figures_of, prompt
from tests.node_agent.agent_process import Agent
from tests.node_agent.conftest import StartAgent
from tests.node_agent.wait import until
from tests.tiny_variant import TinyVariant
from tradewind.domain.errors import ContextExceeded, InvalidField, RemoteError, TradewindError
from tradewind.domain.figures import FigureSource
from tradewind.rpc.errors import translated
from tradewind.v1 import common_pb2, node_pb2

LOADS = (
    node_pb2.MeasureLoad(prompt_tokens=20, output_tokens=8, concurrency=1, repeats=2),
    node_pb2.MeasureLoad(prompt_tokens=100, output_tokens=4, concurrency=4, repeats=1),
    node_pb2.MeasureLoad(prompt_tokens=5, output_tokens=1, concurrency=1),
)


def request(tiny: TinyVariant, *loads: node_pb2.MeasureLoad, kind: str = "cpu/1") -> node_pb2.MeasureRequest:
    return node_pb2.MeasureRequest(
        variant_id=tiny.variant.variant_id,
        manifest=tiny.variant.manifest,
        partition_kind=kind,
        loads=loads or LOADS,
    )


async def measure(agent: Agent, wish: node_pb2.MeasureRequest) -> list[node_pb2.MeasureResponse]:
    return [response async for response in agent.node.Measure(wish, timeout=120)]


async def test_a_measurement_tells_all_figures_and_leaves_nothing(start_agent: StartAgent, tiny: TinyVariant) -> None:
    agent = await start_agent()
    responses = await measure(agent, request(tiny))
    shares = [r.progress for r in responses]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert all(r.stage for r in responses)
    profile = responses[-1].profile
    assert [r.load for r in responses if r.HasField("load")] == list(profile.loads)
    assert [(p.prompt_tokens, p.output_tokens, p.concurrency) for p in profile.loads] == [
        (20, 8, 1),
        (100, 4, 4),
        (5, 1, 1),
    ]
    assert [p.ttft.samples for p in profile.loads] == [2, 4, 3]
    assert [p.tpot.samples for p in profile.loads] == [2, 4, 0]
    known = (common_pb2.FIGURE_SOURCE_MODELLED, common_pb2.FIGURE_SOURCE_ATTRIBUTED)
    for load in profile.loads:
        assert 0 < load.ttft.p50_ms <= load.ttft.p95_ms <= load.ttft.p99_ms
        assert load.tokens_per_s > 0
        assert load.energy_per_token.source in known and load.energy_per_token.method
        assert 0 < load.energy_per_prefill.energy_mj <= load.energy_per_token.energy_mj * load.output_tokens * 1.001
        assert load.power_mw > profile.idle_power_mw > 0
    assert profile.point.variant_id == tiny.variant.variant_id
    assert (profile.point.partition_kind, profile.point.batch_limit) == ("cpu/1", 4)
    assert profile.point.device_class == (await agent.describe()).devices[0].device_class
    assert profile.memory_bytes > 10 << 20 and profile.load_s > 0
    assert profile.model_id == tiny.model.model_id
    assert profile.idle_power_source == common_pb2.FIGURE_SOURCE_MODELLED
    assert not agent.children()


async def test_a_measurement_that_is_cancelled_ends_its_process_and_lets_the_next_in(
    start_agent: StartAgent, tiny: TinyVariant
) -> None:
    agent = await start_agent()
    long = node_pb2.MeasureLoad(prompt_tokens=100, output_tokens=100, concurrency=4, repeats=1000)
    first = agent.node.Measure(request(tiny, long), timeout=300)
    await until_measuring(first)
    second = agent.node.Measure(request(tiny, LOADS[2]), timeout=120)
    assert len(agent.children()) == 1
    first.cancel()
    last = None
    async for response in second:
        last = response
    assert last is not None and last.HasField("profile")
    await until(lambda: not agent.children())


async def test_a_replica_that_dies_under_measurement_is_said(start_agent: StartAgent, tiny: TinyVariant) -> None:
    agent = await start_agent()
    long = node_pb2.MeasureLoad(prompt_tokens=100, output_tokens=100, concurrency=4, repeats=1000)
    call = agent.node.Measure(request(tiny, long), timeout=60)
    pieces = aiter(call)
    while (await anext(pieces)).progress <= 0.15:
        pass
    agent.children()[0].kill()
    with pytest.raises(RemoteError) as caught, translated("agent"):
        async for _ in pieces:
            pass
    assert caught.value.remote_reason == "SERVICE_UNAVAILABLE"
    await until(lambda: not agent.children())


async def until_measuring(call: object) -> None:
    async for response in call:  # type: ignore[attr-defined]
        if response.progress > 0.15:
            return


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"partition_kind": "cpu/77"}, "INVALID_FIELD"),
        ({"device_id": "gpu9"}, "INVALID_FIELD"),
        ({"loads": []}, "INVALID_FIELD"),
        ({"loads": [node_pb2.MeasureLoad(prompt_tokens=1, output_tokens=1, concurrency=5)]}, "INVALID_FIELD"),
        ({"loads": [node_pb2.MeasureLoad(prompt_tokens=250, output_tokens=7, concurrency=1)]}, "CONTEXT_EXCEEDED"),
    ],
)
async def test_what_cannot_be_measured_is_refused(
    start_agent: StartAgent, tiny: TinyVariant, change: dict, reason: str
) -> None:
    agent = await start_agent()
    wish = request(tiny)
    for field, value in change.items():
        wish.ClearField(field)
        if isinstance(value, list):
            getattr(wish, field).extend(value)
        else:
            setattr(wish, field, value)
    with pytest.raises(RemoteError) as caught, translated("agent"):
        await measure(agent, wish)
    assert caught.value.remote_reason == reason
    assert not agent.children()


async def test_a_cpu_has_no_clock_to_be_measured_at(start_agent: StartAgent, tiny: TinyVariant) -> None:
    agent = await start_agent()
    wish = request(tiny)
    wish.power.sm_clock_mhz = 1200
    with pytest.raises(RemoteError, match=r"cpu0 cannot be set.*leave power unset") as caught, translated("agent"):
        await measure(agent, wish)
    assert caught.value.remote_reason == "INVALID_FIELD"


def test_sums_take_the_weakest_label() -> None:
    samples = [
        Sample(10, 2, 5, 30.0, 20.0, FigureSource.ATTRIBUTED, "a"),
        Sample(10, 2, 5, 10.0, 40.0, FigureSource.MODELLED, "a"),
    ]
    figures = figures_of(samples, 2.0, 1000.0)
    assert figures.tokens_per_s == 5
    assert (figures.energy_per_token.energy_mj, figures.energy_per_prefill.energy_mj) == (10.0, 20.0)
    assert figures.energy_per_token.source is FigureSource.MODELLED
    assert figures.power_mw == 1050.0


@pytest.mark.parametrize(
    ("load", "error"),
    [
        (LoadSpec(0, 1, 1, 1), InvalidField),
        (LoadSpec(1, 0, 1, 1), InvalidField),
        (LoadSpec(1, 1, 5, 1), InvalidField),
        (LoadSpec(1, 1, 1, 0), InvalidField),
        (LoadSpec(60, 5, 1, 1), ContextExceeded),
    ],
)
def test_loads_are_checked_before_any_work(load: LoadSpec, error: type[TradewindError]) -> None:
    with pytest.raises(error):
        check_loads([load], slots=4, context_tokens=64)


def test_prompts_repeat_by_number_and_avoid_end_tokens() -> None:
    load = LoadSpec(200, 1, 1, 1)
    first = prompt(load, 1, 50, {3, 4})
    assert first == prompt(load, 1, 50, {3, 4}) != prompt(load, 2, 50, {3, 4})
    assert not {3, 4} & set(first) and max(first) < 50
