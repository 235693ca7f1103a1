"""Slices of a board and what goes on with its layout, for the status page. Pure."""

from __future__ import annotations

from typing import Any

from tradewind.v1 import node_pb2


def slices(report: node_pb2.NodeReport, device_id: str) -> list[dict[str, Any]]:
    """Partitions that stand on a device, with the replicas on each; none for a CPU, whose cores are cut as needed."""
    standing = [one for one in report.partitions if one.device_id == device_id and not one.cpu_ids]
    return [
        {
            "partition_id": one.partition_id,
            "kind": one.kind,
            "uuid": one.uuid or None,
            "memory_bytes": one.memory_bytes or None,
            "replicas": [r.replica_id for r in report.replicas if r.partition_id == one.partition_id],
        }
        for one in standing
    ]


def layout(report: node_pb2.NodeReport, device_id: str) -> dict[str, Any] | None:
    """How the layout of a board stands; null where its agent does not cut it."""
    status = next((one for one in report.layouts if one.device_id == device_id), None)
    if status is None:
        return None
    activity = node_pb2.LayoutActivity.Name(status.activity).removeprefix("LAYOUT_ACTIVITY_").lower()
    outcome = node_pb2.LayoutOutcome.Name(status.outcome).removeprefix("LAYOUT_OUTCOME_").lower()
    return {
        "activity": activity.replace("_", " "),
        "outcome": None if status.outcome == node_pb2.LAYOUT_OUTCOME_UNSPECIFIED else outcome,
        "words": status.words or status.outcome_words or None,
        "foreign_slices": list(status.foreign_slices),
    }
