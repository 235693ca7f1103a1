"""The picture the status page shows, as JSON. Pure: puts together what was read elsewhere.

Figures keep their source label; what is not known is null, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from services.gateway.metrics import RecentFigures, source_label
from services.gateway.status.boards import layout, slices
from tradewind.domain.routes import DeploymentRoute, ReplicaRoute
from tradewind.v1 import common_pb2, node_pb2, orchestrator_pb2, profiler_pb2

_METRICS = {
    common_pb2.LATENCY_METRIC_TTFT: "TTFT",
    common_pb2.LATENCY_METRIC_TPOT: "TPOT",
    common_pb2.LATENCY_METRIC_E2E: "end-to-end",
}


@dataclass(frozen=True, slots=True)
class Observed:
    """What was read.

    Attributes:
        deployments: the orchestrator's; None when it does not answer.
        nodes: the orchestrator's; None when it does not answer.
        reports: node reports from Redis, used when `nodes` is None.
        routes: the gateway's routing table.
        outstanding: requests at work by replica id.
        recent: the last minute of a deployment, as this gateway saw it.
        at_work: requests of a deployment at work.
        now_s: seconds since 1970.
    """

    deployments: Sequence[orchestrator_pb2.Deployment] | None
    nodes: Sequence[orchestrator_pb2.Node] | None
    reports: Sequence[node_pb2.NodeReport]
    routes: Mapping[str, DeploymentRoute]
    outstanding: Mapping[str, int]
    recent: Callable[[str], RecentFigures]
    at_work: Callable[[str], int]
    now_s: float


def picture(seen: Observed) -> dict[str, Any]:
    """Nodes and deployments, replicas within them."""
    if seen.nodes is not None:
        nodes = [_node(node.report, node.state, _age_s(node.last_seen_time, seen.now_s)) for node in seen.nodes]
        reports = [node.report for node in seen.nodes]
    else:
        nodes = [_node(report, None, _age_s(report.report_time, seen.now_s)) for report in seen.reports]
        reports = list(seen.reports)
    places = {replica.replica_id: (report, replica) for report in reports for replica in report.replicas}
    names = dict.fromkeys(sorted({*seen.routes, *(d.name for d in seen.deployments or ())}))
    wishes = {deployment.name: deployment for deployment in seen.deployments or ()}
    return {
        "nodes": nodes,
        "deployments": [_deployment(name, wishes.get(name), places, seen) for name in names],
        "power_mw": _total_power(nodes),
    }


Places = Mapping[str, tuple[node_pb2.NodeReport, node_pb2.ReplicaStatus]]


def _deployment(name: str, wish: orchestrator_pb2.Deployment | None, places: Places, seen: Observed) -> dict[str, Any]:
    route = seen.routes.get(name)
    routed = {replica.replica_id: replica for replica in route.replicas} if route else {}
    statuses = {status.replica_id: status for status in wish.replicas} if wish else {}
    deployment_id = wish.deployment_id if wish else (route.deployment_id if route else "")
    # Newest first hand: a node's own report beats what the orchestrator said of it.
    statuses |= {key: status for key, (_, status) in places.items() if status.deployment_id == deployment_id}
    ids = sorted({*routed, *statuses})
    state = _word(orchestrator_pb2.DeploymentState, wish.state) if wish else None
    return {
        "name": name,
        "deployment_id": deployment_id,
        "model": wish.spec.model if wish else None,
        "state": state,
        "reason": (wish.state_reason or None) if wish else None,
        "objective": _objective(wish) if wish else None,
        "slo": _slo(wish.spec.slo) if wish else None,
        "context_tokens": route.context_tokens if route else None,
        "at_work": seen.at_work(name),
        "last_minute": asdict(seen.recent(name)),
        "replicas": [
            _replica(key, statuses.get(key), routed.get(key), places, seen.outstanding.get(key, 0)) for key in ids
        ],
    }


def _replica(
    replica_id: str,
    status: node_pb2.ReplicaStatus | None,
    route: ReplicaRoute | None,
    places: Places,
    outstanding: int,
) -> dict[str, Any]:
    variant_id = status.variant_id if status and status.variant_id else (route.variant_id if route else "")
    node_id = route.node_id if route else (places[replica_id][0].node_id if replica_id in places else None)
    state = _word(node_pb2.ReplicaState, status.state) if status else None
    return {
        "replica_id": replica_id,
        "node_id": node_id,
        "state": state,
        "reason": (status.reason or None) if status else None,
        "routed": route is not None and not route.draining,
        "variant": route.variant_name if route else None,
        "variant_id": variant_id or None,
        "batch_limit": route.batch_limit if route else None,
        "outstanding": outstanding,
        "active": status.active_sequences if status else None,
        "queued": status.queued_sequences if status else None,
        "memory_bytes": (status.memory_bytes or None) if status else None,
        "generated_tokens": status.generated_tokens if status else None,
        "partition": (status.partition_id or None) if status else None,
        "ttft": _latency(status.ttft) if status else None,
        "tpot": _latency(status.tpot) if status else None,
    }


def _node(
    report: node_pb2.NodeReport, state: orchestrator_pb2.NodeState.ValueType | None, age_s: float | None
) -> dict[str, Any]:
    readings = {reading.device_id: reading for reading in report.readings}
    name = None if state is None else _word(orchestrator_pb2.NodeState, state)
    return {
        "node_id": report.node_id,
        "state": name,
        "address": report.address,
        "agent_version": report.agent_version or None,
        "seen_s_ago": age_s,
        "labels": dict(sorted(report.labels.items())),
        "devices": [
            _device(device, readings.get(device.device_id))
            | {"slices": slices(report, device.device_id), "layout": layout(report, device.device_id)}
            for device in report.devices
        ],
    }


def _device(device: node_pb2.Device, reading: node_pb2.DeviceReading | None) -> dict[str, Any]:
    source = reading.energy.source if reading and reading.energy.source else device.energy_source
    return {
        "device_id": device.device_id,
        "kind": _word(node_pb2.DeviceKind, device.kind),
        "device_class": device.device_class,
        "product": device.product_name,
        "memory_bytes": device.memory_bytes or None,
        "memory_used_bytes": reading.memory_used_bytes if reading else None,
        "utilization": round(reading.utilization, 3) if reading else None,
        "power_mw": round(reading.power_mw, 1) if reading else None,
        "idle_power_mw": round(device.idle_power_mw, 1) or None,
        "energy_mj": round(reading.energy.energy_mj, 1) if reading else None,
        "energy_source": source_label(source),
        "energy_method": (reading.energy.method if reading else "") or device.energy_method or None,
        "fault": (reading.fault or None) if reading else None,
    }


def _total_power(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Power of all devices; its source is the weakest of theirs, the figure null when one has none."""
    devices = [device for node in nodes for device in node["devices"]]
    known = [device for device in devices if device["power_mw"] is not None]
    order = [source_label(value) for value in sorted(common_pb2.FigureSource.values()) if value]
    sources = [device["energy_source"] for device in known]
    return {
        "power_mw": round(sum(device["power_mw"] for device in known), 1) if known else None,
        "source": max(sources, key=order.index) if sources else "unavailable",
        "devices": len(devices),
        "devices_with_power": len(known),
    }


def _slo(slo: common_pb2.Slo) -> list[str]:
    """Each limit in a person's words."""
    limits = [
        f"{_METRICS.get(limit.metric, 'latency')} p{limit.percentile:g} ≤ {limit.limit_ms:g} ms"
        for limit in slo.latency
    ]
    if slo.HasField("energy_per_token_mj"):
        limits.append(f"energy ≤ {slo.energy_per_token_mj:g} mJ per token")
    if slo.HasField("power_mw"):
        limits.append(f"power ≤ {slo.power_mw / 1e3:g} W")
    if slo.HasField("min_top1_agreement"):
        limits.append(f"top-1 agreement ≥ {slo.min_top1_agreement:g}")
    if slo.HasField("max_perplexity_increase"):
        limits.append(f"perplexity increase ≤ {slo.max_perplexity_increase:.2%}")
    if slo.HasField("availability"):
        limits.append(f"availability ≥ {slo.availability:.3%}")
    return limits


def _objective(wish: orchestrator_pb2.Deployment) -> str:
    objective = wish.spec.objective or common_pb2.OBJECTIVE_ENERGY
    return _word(common_pb2.Objective, objective)


def _latency(stats: profiler_pb2.LatencyStats) -> dict[str, float] | None:
    if not stats.samples:
        return None
    return {"p50_ms": round(stats.p50_ms, 2), "p95_ms": round(stats.p95_ms, 2), "samples": stats.samples}


def _age_s(time: Any, now_s: float) -> float | None:
    return round(max(now_s - time.seconds - time.nanos / 1e9, 0.0), 1) if time.seconds else None


def _word(kind: Any, value: int) -> str:
    """An enum's value as people say it; a value newer than this software is its number."""
    name: str = next((name for name, number in kind.items() if number == value), str(value))
    # Values bear the name of their enum in front: DEPLOYMENT_STATE_READY.
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.DESCRIPTOR.name).upper() + "_"
    return name.removeprefix(words).lower()
