"""Nodes and replicas: contract ⇄ core."""

from __future__ import annotations

import math
from typing import Final

from services.orchestrator.core.facts.fleet import (
    DEFAULT_POWER,
    Device,
    DeviceKind,
    LayoutNews,
    LayoutReport,
    Node,
    NodeState,
    Partition,
    PowerSetting,
    ReplicaReport,
    ReplicaState,
    SliceKind,
)
from tradewind.v1 import common_pb2, node_pb2, orchestrator_pb2

# Node label with the price of the whole node by the hour, for operators whose nodes do not report prices of devices.
PRICE_LABEL: Final = "price-per-hour"
_REPLICA_STATES: Final = {
    node_pb2.REPLICA_STATE_FETCHING: ReplicaState.FETCHING,
    node_pb2.REPLICA_STATE_STARTING: ReplicaState.STARTING,
    node_pb2.REPLICA_STATE_READY: ReplicaState.READY,
    node_pb2.REPLICA_STATE_DRAINING: ReplicaState.DRAINING,
    node_pb2.REPLICA_STATE_DRAINED: ReplicaState.DRAINED,
    node_pb2.REPLICA_STATE_FAILED: ReplicaState.FAILED,
    node_pb2.REPLICA_STATE_STOPPING: ReplicaState.STOPPING,
}
_LAYOUT_NEWS: Final = {
    node_pb2.LAYOUT_OUTCOME_REFUSED: LayoutNews.REFUSED,
    node_pb2.LAYOUT_OUTCOME_RESTORED: LayoutNews.RESTORED,
    node_pb2.LAYOUT_OUTCOME_BLOCKED: LayoutNews.BLOCKED,
    node_pb2.LAYOUT_OUTCOME_DEGRADED: LayoutNews.DEGRADED,
}
NODE_STATES: Final = {
    NodeState.JOINING: orchestrator_pb2.NODE_STATE_JOINING,
    NodeState.ACTIVE: orchestrator_pb2.NODE_STATE_ACTIVE,
    NodeState.SUSPECT: orchestrator_pb2.NODE_STATE_SUSPECT,
    NodeState.LOST: orchestrator_pb2.NODE_STATE_LOST,
    NodeState.DRAINING: orchestrator_pb2.NODE_STATE_DRAINING,
    NodeState.DRAINED: orchestrator_pb2.NODE_STATE_DRAINED,
}


def node_of(report: node_pb2.NodeReport) -> Node:
    """A report as a node; its state is left to liveness. Replicas in an unknown state count as starting."""
    # A device that its agent has taken out is no place for anything; what runs there is placed elsewhere.
    out = {reading.device_id for reading in report.readings if reading.fault}
    devices = [device for device in report.devices if device.device_id not in out]
    return Node(
        node_id=report.node_id,
        state=NodeState.JOINING,
        devices=tuple(_device(device, report) for device in sorted(devices, key=lambda d: d.device_id)),
        replicas=tuple(
            ReplicaReport(
                replica_id=status.replica_id,
                state=_REPLICA_STATES.get(status.state, ReplicaState.STARTING),
                deployment_id=status.deployment_id,
                variant_id=status.variant_id,
                reason=status.reason,
                starts=status.starts,
            )
            for status in sorted(report.replicas, key=lambda r: r.replica_id)
        ),
        labels=tuple(sorted(report.labels.items())),
        address=report.address,
        layouts=tuple(_layout(status) for status in sorted(report.layouts, key=lambda one: one.device_id)),
    )


def partition_of(partition: common_pb2.Partition) -> Partition:
    """A partition."""
    return Partition(
        partition.partition_id,
        partition.device_id,
        partition.kind,
        tuple(partition.cpu_ids),
        partition.uuid,
        partition.memory_bytes,
    )


def partition_message(partition: Partition) -> common_pb2.Partition:
    """A partition as sent."""
    return common_pb2.Partition(
        partition_id=partition.partition_id,
        device_id=partition.device_id,
        kind=partition.kind,
        cpu_ids=partition.cpu_ids,
        uuid=partition.uuid,
        memory_bytes=partition.memory_bytes,
    )


def power_of(setting: common_pb2.PowerSetting) -> PowerSetting:
    """A power setting."""
    return PowerSetting(
        setting.sm_clock_mhz if setting.HasField("sm_clock_mhz") else None,
        setting.power_cap_mw if setting.HasField("power_cap_mw") else None,
        setting.eased_sm_clock_mhz if setting.HasField("eased_sm_clock_mhz") else None,
    )


def power_message(setting: PowerSetting) -> common_pb2.PowerSetting:
    """A power setting as sent."""
    return common_pb2.PowerSetting(
        sm_clock_mhz=setting.sm_clock_mhz,
        power_cap_mw=setting.power_cap_mw,
        eased_sm_clock_mhz=setting.eased_sm_clock_mhz,
    )


def _device(device: node_pb2.Device, report: node_pb2.NodeReport) -> Device:
    # A CPU's partitions come and go with replicas; only those of other devices are places to choose from.
    mine = [p for p in report.partitions if p.device_id == device.device_id and not device.cpu_ids]
    return Device(
        device_id=device.device_id,
        device_class=device.device_class,
        memory_bytes=device.memory_bytes,
        cpu_ids=tuple(sorted(set(device.cpu_ids))),
        partitions=tuple(partition_of(p) for p in sorted(mine, key=lambda p: p.partition_id)),
        idle_power_mw=device.idle_power_mw,
        kind=DeviceKind.CPU if device.cpu_ids else DeviceKind.GPU,
        power_settings=tuple(sorted({power_of(s) for s in device.power_settings} - {DEFAULT_POWER}, key=_order)),
        setting=next(
            (power_of(r.power_setting) for r in report.readings if r.device_id == device.device_id), DEFAULT_POWER
        ),
        table=tuple(_slice_kind(kind) for kind in sorted(device.slice_kinds, key=lambda k: k.profile_id)),
        sleep_power_mw=device.sleep_power_mw if device.HasField("sleep_power_mw") else None,
        asleep=device.asleep,
        wake_s=device.wake_s,
        price_per_hour=device.price_per_hour or _labelled_price(report),
    )


def _layout(status: node_pb2.LayoutStatus) -> LayoutReport:
    """A change that goes on has no outcome yet: the one told is the last change's."""
    news, code, words = LayoutNews.WELL, "", ""
    if status.activity == node_pb2.LAYOUT_ACTIVITY_WAITING:
        news, words = LayoutNews.WAITING, status.words
    elif status.activity == node_pb2.LAYOUT_ACTIVITY_NOTHING:
        news = _LAYOUT_NEWS.get(status.outcome, LayoutNews.WELL)
        code, words = (status.code, status.outcome_words) if news is not LayoutNews.WELL else ("", "")
    return LayoutReport(status.device_id, news, status.generation, code, words, tuple(sorted(status.foreign_slices)))


def _in_force(device_id: str, report: node_pb2.NodeReport) -> PowerSetting:
    reading = next((r for r in report.readings if r.device_id == device_id), None)
    return power_of(reading.power_setting) if reading else DEFAULT_POWER


def _order(setting: PowerSetting) -> tuple[int, int, int]:
    return setting.order


def _slice_kind(kind: node_pb2.SliceKind) -> SliceKind:
    return SliceKind(
        kind.profile_id,
        kind.kind,
        kind.memory_bytes,
        kind.compute_slices,
        kind.memory_slices,
        tuple(sorted(set(kind.starts))),
        kind.most,
        kind.extra_engine,
    )


def _labelled_price(report: node_pb2.NodeReport) -> float:
    """The device's part of a price that the operator gave as a label of the node; 0 when it is no price."""
    try:
        price = float(report.labels.get(PRICE_LABEL, "0"))
    except ValueError:
        return 0.0
    return price / len(report.devices) if 0.0 < price < math.inf else 0.0
