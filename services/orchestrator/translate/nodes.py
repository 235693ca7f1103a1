"""Nodes and replicas: contract ⇄ core."""

from __future__ import annotations

from typing import Final

from services.orchestrator.core.fleet import Device, Node, NodeState, Partition, ReplicaReport, ReplicaState
from tradewind.v1 import common_pb2, node_pb2, orchestrator_pb2

_REPLICA_STATES: Final = {
    node_pb2.REPLICA_STATE_FETCHING: ReplicaState.FETCHING,
    node_pb2.REPLICA_STATE_STARTING: ReplicaState.STARTING,
    node_pb2.REPLICA_STATE_READY: ReplicaState.READY,
    node_pb2.REPLICA_STATE_DRAINING: ReplicaState.DRAINING,
    node_pb2.REPLICA_STATE_DRAINED: ReplicaState.DRAINED,
    node_pb2.REPLICA_STATE_FAILED: ReplicaState.FAILED,
    node_pb2.REPLICA_STATE_STOPPING: ReplicaState.STOPPING,
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
    )
