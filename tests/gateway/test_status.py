"""Probes, metrics, and the status page with and without its sources."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import httpx
import pytest

from services.gateway.http.probes import Probes
from services.gateway.metrics import GatewayMetrics
from services.gateway.routing.table import RouteTable
from services.gateway.traffic import TrafficCount
from tests.gateway.conftest import VARIANT_ID, WAIT_S, World
from tests.gateway.fake_node import ENERGY_PER_TOKEN_MJ, Script
from tradewind.domain.traffic import WINDOW_S, Window, summed
from tradewind.metrics import Registry
from tradewind.store.live import LiveState
from tradewind.v1 import common_pb2, node_pb2, orchestrator_pb2, profiler_pb2

ASK: list[Any] = [{"role": "user", "content": "hi"}]


async def get(world: World, path: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.get(world.url + path)


def fill(world: World) -> node_pb2.NodeReport:
    """A deployment with a serving and a failed replica on a node with one CPU."""
    report = node_pb2.NodeReport(node_id="node-1", address="10.0.0.1:7410", labels={"rack": "r1"})
    report.devices.add(
        device_id="cpu0",
        kind=node_pb2.DEVICE_KIND_CPU,
        device_class="cpu:zen3",
        product_name="AMD EPYC",
        memory_bytes=2**34,
        energy_source=common_pb2.FIGURE_SOURCE_MODELLED,
        energy_method="cpu-linear@1",
        idle_power_mw=9_000,
    )
    energy = common_pb2.Energy(energy_mj=5e6, source=common_pb2.FIGURE_SOURCE_MODELLED, method="cpu-linear@1")
    report.readings.add(device_id="cpu0", energy=energy, power_mw=21_500, utilization=0.5, memory_used_bytes=2**32)
    report.devices.add(device_id="GPU-1", kind=node_pb2.DEVICE_KIND_NVIDIA_GPU, device_class="gpu:h100-80")
    report.partitions.add(partition_id="GPU-1:mig:9@4", device_id="GPU-1", kind="mig/3g.40gb", uuid="MIG-1")
    report.layouts.add(
        device_id="GPU-1",
        activity=node_pb2.LAYOUT_ACTIVITY_NOTHING,
        outcome=node_pb2.LAYOUT_OUTCOME_REFUSED,
        outcome_words="3g.40gb@0 is somebody else's",
        foreign_slices=["mig/3g.40gb"],
    )
    stats = profiler_pb2.LatencyStats(p50_ms=80, p95_ms=120, samples=9)
    report.replicas.add(
        replica_id="r-chat",
        state=node_pb2.REPLICA_STATE_READY,
        variant_id=VARIANT_ID,
        deployment_id="d-chat",
        ttft=stats,
        active_sequences=1,
    )
    report.replicas.add(
        replica_id="r-broken", state=node_pb2.REPLICA_STATE_FAILED, reason="it crashed", deployment_id="d-chat"
    )
    slo = common_pb2.Slo(energy_per_token_mj=50)
    slo.latency.add(metric=common_pb2.LATENCY_METRIC_TTFT, percentile=95, limit_ms=300)
    deployment = orchestrator_pb2.Deployment(
        deployment_id="d-chat",
        name="chat",
        spec=orchestrator_pb2.DeploymentSpec(model="smollm2", slo=slo),
        state=orchestrator_pb2.DEPLOYMENT_STATE_DEGRADED,
        state_reason="1 of 2 replicas ready",
    )
    world.orchestrator.deployments.append(deployment)
    world.orchestrator.nodes.append(orchestrator_pb2.Node(report=report, state=orchestrator_pb2.NODE_STATE_ACTIVE))
    return report


async def test_probes(world: World) -> None:
    assert (await get(world, "/healthz")).json() == {"status": "alive"}
    ready = await get(world, "/readyz")
    assert (ready.status_code, ready.json()["ready"], ready.json()["missing"]) == (200, True, [])


async def test_not_ready_says_what_is_missing() -> None:
    live = LiveState("unix:///nowhere/redis.sock")
    table = RouteTable(live, 1)
    await table.refresh()
    probes = Probes(table)
    assert not probes.ready
    assert "never read: Redis does not answer" in probes.report()["missing"][0]
    await live.close()


async def test_metrics_count_requests_tokens_and_energy(world: World) -> None:
    script = await world.serve("one two")
    client = world.client()
    await client.chat.completions.create(model="chat", messages=ASK)
    for name in ("made-up-1", "made-up-2"):
        with pytest.raises(Exception, match="no deployment named"):
            await client.chat.completions.create(model=name, messages=ASK)
    text = (await get(world, "/metrics")).text
    assert 'gateway_requests_total{code="OK",deployment="chat",interface="chat"} 1.0' in text
    assert 'gateway_requests_total{code="NOT_FOUND",deployment="(other)",interface="chat"} 2.0' in text
    assert "made-up" not in text, "clients make no labels up"
    assert f'gateway_tokens_total{{deployment="chat",kind="output"}} {len(script.ids)}.0' in text
    energy = ENERGY_PER_TOKEN_MJ * len(script.ids)
    assert f'energy_millijoules_total{{deployment="chat",source="modelled"}} {energy}' in text
    assert 'gateway_ttft_seconds_count{deployment="chat"} 1.0' in text
    assert 'gateway_tpot_seconds_count{deployment="chat"} 1.0' in text
    assert 'gateway_e2e_seconds_count{deployment="chat"} 1.0' in text
    assert 'gateway_requests_in_flight{deployment="chat"} 0.0' in text


def test_labels_are_bounded() -> None:
    registry = Registry()
    metrics = GatewayMetrics(registry, lambda _: True, TrafficCount(time.time, dict))
    for number in range(1_000):
        metrics.begun(f"d{number}")
        metrics.ended("chat", f"d{number}", "OK")
    text = registry.text().decode()
    assert len(set(re.findall(r'in_flight\{deployment="([^"]+)"', text))) == 201


async def test_the_orchestrator_is_told_who_kept_an_end_to_end_limit(world: World) -> None:
    for name, limit_ms in (("late", 0.001), ("chat", 60_000.0)):
        world.node.scripts[f"r-{name}"] = Script(ids=world.ids("one two"))
        await world.deploy(name, world.replica(f"r-{name}"), e2e_limit_ms=limit_ms)
        await world.client().chat.completions.create(model=name, messages=ASK)
    seen = await closed_windows(world, "late", "chat")
    assert [(w.judged, w.within, w.e2e_within, w.ttft_within) for w in seen] == [(1, 0, 0, 1), (1, 1, 1, 1)]


async def closed_windows(world: World, *names: str) -> list[Window]:
    """The sums of what the gateway told of these deployments, once each has a judged request."""
    async with asyncio.timeout(2 * WINDOW_S + WAIT_S):
        while True:
            told = {c.name: summed(c.windows) for count in await world.live.traffic() for c in count.deployments}
            found = [told.get(name) for name in names]
            if all(w and w.judged for w in found):
                return [w for w in found if w]
            await asyncio.sleep(0.1)


async def test_status_shows_everything(world: World) -> None:
    fill(world)
    await world.serve("one two")
    await world.client().chat.completions.create(model="chat", messages=ASK)
    status = (await get(world, "/status.json")).json()
    assert status["trouble"] == []
    assert status["power_mw"] == {"power_mw": 21_500, "source": "modelled", "devices": 2, "devices_with_power": 1}
    (node,) = status["nodes"]
    assert (node["node_id"], node["state"], node["labels"]) == ("node-1", "active", {"rack": "r1"})
    device, board = node["devices"]
    assert (device["slices"], device["layout"]) == ([], None)
    assert [(one["kind"], one["uuid"]) for one in board["slices"]] == [("mig/3g.40gb", "MIG-1")]
    assert board["layout"]["outcome"] == "refused" and "somebody else's" in board["layout"]["words"]
    assert (device["product"], device["energy_source"], device["energy_method"]) == (
        "AMD EPYC",
        "modelled",
        "cpu-linear@1",
    )
    (deployment,) = status["deployments"]
    assert (deployment["model"], deployment["state"], deployment["objective"]) == ("smollm2", "degraded", "energy")
    assert deployment["slo"] == ["TTFT p95 ≤ 300 ms", "energy ≤ 50 mJ per token"]
    last = deployment["last_minute"]
    assert (last["requests"], last["energy_source"]) == (1, "modelled")
    assert last["energy_per_token_mj"] == ENERGY_PER_TOKEN_MJ
    assert last["e2e_p95_ms"] >= last["ttft_p95_ms"] > 0
    broken, serving = deployment["replicas"]
    assert (broken["state"], broken["reason"], broken["routed"]) == ("failed", "it crashed", False)
    assert (serving["state"], serving["variant"], serving["routed"]) == ("ready", "f32/cpu-host", True)
    assert serving["ttft"] == {"p50_ms": 80, "p95_ms": 120, "samples": 9}


async def test_states_newer_than_this_software_are_shown_as_numbers(world: World) -> None:
    report = fill(world)
    report.replicas[0].state = 77  # type: ignore[assignment]
    report.devices[0].energy_source = 88  # type: ignore[assignment]
    report.readings[0].energy.source = 88  # type: ignore[assignment]
    world.orchestrator.nodes[0].report.CopyFrom(report)
    world.orchestrator.deployments[0].state = 99  # type: ignore[assignment]
    status = (await get(world, "/status.json")).json()
    (deployment,) = status["deployments"]
    assert deployment["state"] == "99"
    assert {replica["state"] for replica in deployment["replicas"]} == {"77", "failed"}
    assert status["nodes"][0]["devices"][0]["energy_source"] == "unavailable"


async def test_status_without_the_orchestrator_explains_itself(world: World) -> None:
    report = fill(world)
    await world.live.put_node(report)
    await world.serve("x")
    await world.orchestrator.server.stop(0)
    status = (await get(world, "/status.json")).json()
    assert "Orchestrator" in status["trouble"][0]
    assert [node["node_id"] for node in status["nodes"]] == ["node-1"]
    (deployment,) = status["deployments"]
    assert (deployment["name"], deployment["state"]) == ("chat", None)
    assert {replica["replica_id"] for replica in deployment["replicas"]} == {"r-chat", "r-broken"}


async def test_the_page_loads_nothing_from_elsewhere(world: World) -> None:
    page = await get(world, "/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page.text)
    assert "innerHTML" not in page.text, "names come from users"


async def test_openapi_names_bodies_that_resolve(world: World) -> None:
    schema = (await get(world, "/openapi.json")).json()
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/readyz", "/status.json"} <= set(schema["paths"])
    body = schema["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ChatRequest"}
    references = set(re.findall(r"#/components/schemas/(\w+)", str(schema)))
    assert references <= set(schema["components"]["schemas"])
