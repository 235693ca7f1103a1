"""A node as sent."""

from __future__ import annotations

from services.orchestrator.core.facts.fleet import Node
from services.orchestrator.link import Link
from services.orchestrator.translate.nodes import NODE_STATES
from tradewind.v1 import node_pb2, orchestrator_pb2

_NS = 1_000_000_000


def gone_message(link: Link) -> orchestrator_pb2.Node:
    """A node that is gone: its name and labels. Devices and readings of the past would be taken for the present."""
    report = node_pb2.NodeReport(node_id=link.node.node_id, labels=link.report.labels)
    message = orchestrator_pb2.Node(report=report, state=orchestrator_pb2.NODE_STATE_GONE)
    message.last_seen_time.FromNanoseconds(int(link.last_seen_unix_s * _NS))
    return message


def node_message(node: Node, link: Link | None) -> orchestrator_pb2.Node:
    """The node with its newest report; one that never reported has only its id and state."""
    if link is None:
        report = node_pb2.NodeReport(node_id=node.node_id)
        return orchestrator_pb2.Node(report=report, state=NODE_STATES[node.state])
    message = orchestrator_pb2.Node(report=link.report, state=NODE_STATES[node.state])
    message.last_seen_time.FromNanoseconds(int(link.last_seen_unix_s * _NS))
    if link.target is not None:
        message.pushed_generation = link.target.generation
    return message
