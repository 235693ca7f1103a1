"""One node and its stream: what it said last, what it was told last."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from services.orchestrator.core.facts.fleet import Node
from tradewind.v1 import node_pb2


@dataclass(slots=True)
class Link:
    """What a node said last, what it was told last."""

    report: node_pb2.NodeReport
    node: Node
    last_seen_s: float
    last_seen_unix_s: float
    stream: int = 0
    connected: bool = False
    target: node_pb2.NodeTarget | None = None
    sent_at_s: float = 0.0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def is_older_than(self, report: node_pb2.NodeReport) -> bool:
        """Whether a report says something newer than what was heard."""
        return (self.report.agent_epoch, self.report.sequence) < (report.agent_epoch, report.sequence)
