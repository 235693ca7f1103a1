"""Traffic from a gateway's counts through Redis into a plan, and out again as a routing table; over real stores."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
import redis

from services.gateway.traffic import TrafficCount
from services.orchestrator.listener import TrafficListener
from tests.orchestrator.fake_agent import FakeAgent
from tests.orchestrator.stand import Stand, standing, until
from tradewind.domain.routes import DeploymentRoute
from tradewind.domain.traffic import WINDOW_S, DeploymentCount, GatewayCount, Window
from tradewind.store.live import LiveState
from tradewind.v1 import common_pb2, orchestrator_pb2

ACTIVE = orchestrator_pb2.NODE_STATE_ACTIVE
READY = orchestrator_pb2.DEPLOYMENT_STATE_READY
NOW_S = 1_000_000.0


@pytest.fixture
async def live(redis_url: str) -> AsyncIterator[LiveState]:
    live = LiveState(redis_url)
    yield live
    await live.close()


def chat(**changes: object) -> DeploymentRoute:
    return DeploymentRoute("d", "chat", "m", 512, (), **changes)  # type: ignore[arg-type]


def test_a_gateway_counts_by_windows_and_judges_by_the_route_s_limits() -> None:
    clock = [NOW_S]
    limits = {"ttft_limit_ms": 300.0, "tpot_limit_ms": 40.0, "e2e_limit_ms": 500.0}
    traffic = TrafficCount(lambda: clock[0], lambda: {"chat": chat(**limits)})
    traffic.arrived("chat", 100)
    traffic.arrived("nobody", 100)
    traffic.finished("chat", 0.2, 0.05, 0.65, 10)
    traffic.finished("chat", 0.4, None, 0.4, 1)
    traffic.finished("chat", 0.2, 0.03, 0.6, 13)
    traffic.finished("chat", 0.2, 0.03, 0.5, 11)
    traffic.ended("chat", "REPLICA_LOST")
    traffic.ended("chat", "CANCELLED")
    clock[0] += 3 * WINDOW_S
    count = traffic.count("g", {"chat": 2}, {"chat": 3})
    (one,) = count.deployments
    assert (one.queued, one.at_work, len(one.windows)) == (2, 3, 3), "pauses leave empty windows"
    first = one.windows[0]
    assert (first.arrivals, first.prompt_tokens, first.finished, first.output_tokens) == (1, 100, 4, 35)
    assert (first.judged, first.within, first.lost) == (4, 1, 1), "within is who kept each of the limits"
    assert (first.ttft_within, first.tpot_within, first.e2e_within) == (3, 3, 2)
    assert GatewayCount.from_json(count.to_json()) == count
    with pytest.raises(ValueError, match="not a gateway's count"):
        GatewayCount.from_json('{"gateway_id": 1}')


def test_a_gateway_that_does_not_judge_end_to_end_reports_no_miss_of_it() -> None:
    counts = GatewayCount("g", NOW_S, (DeploymentCount("chat", (Window(NOW_S, judged=7, within=7),)),))
    told = json.loads(counts.to_json())
    del told["deployments"][0]["windows"][0]["e2e_within"]
    (one,) = GatewayCount.from_json(json.dumps(told)).deployments
    assert one.windows[0].e2e_within == 7


async def test_counts_of_gateways_add_up_and_a_wrong_clock_does_no_harm(live: LiveState) -> None:
    heard: list[bool] = []
    listener = TrafficListener(live, lambda: NOW_S + 1.0, NOW_S - 500.0, lambda: heard.append(True))
    windows = (Window(NOW_S - 10.0, arrivals=3), Window(NOW_S - 5.0, arrivals=4))
    await live.put_traffic(GatewayCount("a", NOW_S, (DeploymentCount("chat", windows, 1, 2),)))
    ahead = tuple(Window(w.start_s + 3600.0, arrivals=1) for w in windows)
    await live.put_traffic(GatewayCount("b", NOW_S + 3600.0, (DeploymentCount("chat", ahead, 0, 1),)))
    await listener.read()
    (found,) = listener.traffic({"chat": "d-1"}, {"d-1": 5})
    assert [(w.start_s, w.arrivals) for w in found.windows] == [(490.0, 4), (495.0, 5)], "on our own clock"
    assert (found.queued, found.at_work) == (6, 3)
    assert heard, "who waits is noticed"
    assert listener.traffic({"other": "d-2"}, {}) == ()


async def test_load_seen_by_gateways_changes_the_plan_and_every_decision_replays(
    database_url: str, redis_url: str, live: LiveState
) -> None:
    async with standing(database_url, redis_url) as stand, FakeAgent(stand.address, cores=8) as agent:
        await stand.until_node("n1", ACTIVE)
        await stand.deploy(ttft=300, max_replicas=6)
        await stand.until_state(READY)
        few = len(agent.replicas)
        telling = asyncio.ensure_future(tell_load(live, per_s=4.0))
        try:
            await until(lambda: len(agent.replicas) > few, "more replicas", agent.states)
            redis.Redis(unix_socket_path=redis_url.removeprefix("unix://")).flushall()
            await until(lambda: told(live, "chat"), "routes and traffic to be back")
            await stand.until_state(READY)
            await replays_are_the_same(stand)
            # A new leader that never followed goes on with what was provisioned.
            await stand.down()
            await stand.up()
            await stand.until_node("n1", ACTIVE)
            await stand.until_state(READY)
            assert len(agent.replicas) > few
        finally:
            telling.cancel()


async def test_limits_that_gateways_judge_by_are_in_the_routing_table(
    database_url: str, redis_url: str, live: LiveState
) -> None:
    limits = common_pb2.Slo()
    for percentile, limit_ms in ((50.0, 4000.0), (95.0, 9000.0)):
        limits.latency.add(metric=common_pb2.LATENCY_METRIC_E2E, percentile=percentile, limit_ms=limit_ms)
    async with standing(database_url, redis_url) as stand, FakeAgent(stand.address):
        await stand.until_node("n1", ACTIVE)
        await stand.deploy(slo=limits)
        await stand.until_state(READY)
        await until(lambda: routed(live, "chat"), "the route")
        route = (await live.routes())["chat"]
        assert (route.e2e_limit_ms, route.ttft_limit_ms, route.tpot_limit_ms) == (9000.0, 0.0, 0.0)
        assert not (await stand.deployment()).HasField("e2e_attainment"), "nothing was judged yet"
        windows = (Window(time.time() // WINDOW_S * WINDOW_S - WINDOW_S, finished=9, lost=1, judged=9, e2e_within=8),)
        counts = tuple(DeploymentCount(name, windows) for name in ("chat", "free"))
        await live.put_traffic(GatewayCount("g", time.time(), counts))
        await stand.deploy("free", ttft=300)

        async def attained() -> bool:
            told = (await stand.deployment()).e2e_attainment
            return bool((told.requests, told.kept) == (10, 0.8))

        await until(attained, "what gateways judged")
        assert not (await stand.deployment("free")).HasField("e2e_attainment"), "it has no such limit"


async def tell_load(live: LiveState, per_s: float) -> None:
    """A gateway of a few lines: the same steady load in every window."""
    while True:
        begin_s = time.time() // WINDOW_S * WINDOW_S
        windows = tuple(
            Window(begin_s - n * WINDOW_S, arrivals=int(per_s * WINDOW_S), prompt_tokens=128 * per_s * WINDOW_S)
            for n in range(24, 0, -1)
        )
        await live.put_traffic(GatewayCount("g", time.time(), (DeploymentCount("chat", windows, 0, 2),)))
        await asyncio.sleep(0.2)


async def routed(live: LiveState, name: str) -> bool:
    routes = await live.routes()
    return name in routes and bool(routes[name].replicas)


async def told(live: LiveState, name: str) -> bool:
    return await routed(live, name) and bool(await live.traffic())


async def replays_are_the_same(stand: Stand) -> None:
    answer = await stand.call("ReplayDecisions", orchestrator_pb2.ReplayDecisionsRequest(deployment="chat"))
    assert len(answer.replays) >= 2
    for replay in answer.replays:
        assert replay.outcome == orchestrator_pb2.REPLAY_OUTCOME_SAME, (replay.trigger, replay.differences)
