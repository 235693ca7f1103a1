"""Clocks that boards are measured at: those asked for, those that plans can use, and what is kept of them."""

from __future__ import annotations

import pytest

from services.profiler.core.settings import settings_for
from tests.profiler import worlds
from tests.profiler.conftest import World
from tradewind.domain.errors import RemoteError
from tradewind.rpc.errors import translated
from tradewind.v1 import common_pb2, node_pb2, operation_pb2, profiler_pb2

DONE, FAILED = operation_pb2.OPERATION_STATE_DONE, operation_pb2.OPERATION_STATE_FAILED
Setting = common_pb2.PowerSetting
LOW = Setting(sm_clock_mhz=1080)
PLANNED = profiler_pb2.RunProfileRequest(planned_clocks=True)


async def with_board(world: World, *standing: str) -> worlds.Agent:
    """A node whose only device is a board."""
    agent = await world.add_node("g1")
    device, partitions = worlds.board(*standing)
    report = world.orchestrator.nodes[-1].report
    del report.devices[:]
    report.devices.append(device)
    report.partitions.extend(partitions)
    return agent


async def test_a_board_is_measured_at_both_clocks_that_easing_needs_and_kept_apart(world: World) -> None:
    agent = await with_board(world, "gpu/whole")
    await world.add_node("n1")
    end = await world.run(variant_ids=["f32"], planned_clocks=True)
    assert end.state == DONE, end.error.message
    assert [(r.partition_kind, r.power, r.HasField("power")) for r in agent.requests] == [
        ("gpu/whole", Setting(), False),
        ("gpu/whole", LOW, True),
    ], "only what stands on the board"
    assert len(world.agents[1].requests) == 2, "a CPU has its default only"
    kept = {p.point.power.sm_clock_mhz: p for p in await world.profiles() if p.point.device_class == "gpu:h100-80"}
    assert set(kept) == {0, 1080}
    assert (kept[1080].ran_sm_clock_mhz, kept[0].HasField("ran_sm_clock_mhz")) == (1080, False)
    again = await world.run(variant_ids=["f32"], planned_clocks=True)
    assert sorted(again.result_ids) == sorted(end.result_ids) and len(agent.requests) == 2
    await world.run(variant_ids=["f32"], power_settings=[Setting(sm_clock_mhz=1200), LOW], node_ids=["g1"])
    assert agent.requests[-1].power == Setting(sm_clock_mhz=1200) and len(agent.requests) == 3
    point = common_pb2.OperatingPoint(
        variant_id="sha256:f32", device_class="gpu:h100-80", partition_kind="gpu/whole", power=LOW
    )
    request = profiler_pb2.PredictRequest(point=point, prompt_tokens=128, output_tokens=10, concurrency=1)
    assert (await world.stub.Predict(request, timeout=10)).method == "measured"
    request.point.power.sm_clock_mhz = 900
    with pytest.raises(RemoteError) as caught, translated("profiler"):
        await world.stub.Predict(request, timeout=10)
    assert caught.value.remote_reason == "PROFILE_MISSING"


async def test_of_boards_of_a_class_one_without_replicas_is_measured(world: World) -> None:
    busy, free = await with_board(world, "gpu/whole"), await world.add_node("g2")
    first, second = (node.report for node in world.orchestrator.nodes)
    del second.devices[:]
    second.devices.append(first.devices[0])
    first.replicas.append(node_pb2.ReplicaStatus(replica_id="r1", partition_id="GPU-1:whole"))
    await world.run(variant_ids=["f32"], partition_kinds=["gpu/whole"], planned_clocks=True)
    assert (len(busy.requests), len(free.requests)) == (0, 2)


async def test_clocks_that_no_device_takes_fail_with_what_would(world: World) -> None:
    await world.add_node("n1")
    end = await world.run(power_settings=[LOW, Setting(power_cap_mw=300_000)])
    assert (end.state, end.error.reason) == (FAILED, common_pb2.ERROR_REASON_INVALID_FIELD)
    assert "set to 1080 MHz, 300 W" in end.error.message and "docs/helper.md" in end.error.message
    assert not world.agents[0].requests


async def test_an_agent_that_measured_at_another_clock_is_not_believed(world: World) -> None:
    agent = await with_board(world, "gpu/whole")
    agent.misbehave = "old"
    end = await world.run(variant_ids=["f32"], power_settings=[LOW])
    assert (end.state, end.error.reason) == (FAILED, common_pb2.ERROR_REASON_INTERNAL)
    assert "at 1080 MHz at its default; bring its agent up to date" in end.error.message
    assert not await world.profiles()


@pytest.mark.parametrize(
    "wanted",
    [
        {"power_settings": [LOW], "planned_clocks": True},
        {"power_settings": [Setting(eased_sm_clock_mhz=1080)]},
        {"power_settings": [Setting(sm_clock_mhz=0)]},
        {"power_settings": [Setting(power_cap_mw=0)]},
        {"power_settings": [Setting(sm_clock_mhz=1000 + i) for i in range(17)]},
    ],
)
async def test_settings_that_nothing_is_measured_at_are_refused_at_once(
    world: World, wanted: dict[str, object]
) -> None:
    with pytest.raises(RemoteError) as caught:
        await world.begin(**wanted)
    assert caught.value.remote_reason == "INVALID_FIELD"


def test_what_plans_can_use_is_the_eased_clock_of_a_whole_board_and_each_locked_one_of_a_slice() -> None:
    device, _ = worlds.board()
    assert settings_for(PLANNED, device, "gpu/whole") == [Setting(), LOW]
    locked = [Setting(sm_clock_mhz=clock) for clock in (1680, 1380, 1080)]
    assert settings_for(PLANNED, device, "mig/3g.40gb") == [Setting(), *locked]
    del device.power_settings[0]
    assert settings_for(PLANNED, device, "gpu/whole") == [Setting(), *locked], "where no clock is offered to ease to"


def test_a_device_without_clocks_has_its_default_only() -> None:
    device = worlds.node("n", "a").report.devices[0]
    assert settings_for(PLANNED, device, "cpu/1") == [Setting()]
    both = profiler_pb2.RunProfileRequest(power_settings=[LOW, Setting()])
    assert settings_for(both, device, "cpu/1") == [Setting()]
    assert settings_for(profiler_pb2.RunProfileRequest(power_settings=[LOW]), device, "cpu/1") == []
    assert settings_for(profiler_pb2.RunProfileRequest(), device, "cpu/1") == [Setting()]
