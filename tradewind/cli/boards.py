"""Boards that are cut, in words: which slices stand, and what goes on with their layout."""

from __future__ import annotations

from collections import Counter

from rich.text import Text

from tradewind.v1 import node_pb2

_FINE = (node_pb2.LAYOUT_OUTCOME_UNSPECIFIED, node_pb2.LAYOUT_OUTCOME_REACHED)


def slices(report: node_pb2.NodeReport, device_id: str) -> str:
    """Slices that stand on a device, "2 × 3g.40gb"; empty for a CPU."""
    kinds = Counter(
        one.kind.rpartition("/")[2] for one in report.partitions if one.device_id == device_id and not one.cpu_ids
    )
    return ", ".join(f"{count} × {kind}" if count > 1 else kind for kind, count in sorted(kinds.items()))


def trouble(report: node_pb2.NodeReport, device_id: str) -> Text:
    """Why a board is not, or not yet, cut as it is wished; empty when it is."""
    status = next((one for one in report.layouts if one.device_id == device_id), None)
    if status is None:
        return Text()
    if status.activity not in (node_pb2.LAYOUT_ACTIVITY_UNSPECIFIED, node_pb2.LAYOUT_ACTIVITY_NOTHING):
        activity = node_pb2.LayoutActivity.Name(status.activity).removeprefix("LAYOUT_ACTIVITY_").lower()
        return Text(": ".join(filter(None, (f"layout {activity.replace('_', ' ')}", status.words))), style="yellow")
    if status.outcome in _FINE:
        return Text()
    outcome = node_pb2.LayoutOutcome.Name(status.outcome).removeprefix("LAYOUT_OUTCOME_").lower()
    return Text(f"layout {outcome}: {status.outcome_words}", style="red")
