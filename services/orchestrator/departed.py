"""Nodes that are gone, as they were last seen: for people who ask where a node went. Nothing is planned with them.

The leader keeps what is shown in PostgreSQL (`Control.keep_gone`), so that it outlives the leader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from services.orchestrator.link import Link
from services.orchestrator.translate.nodes import node_of
from tradewind.v1 import node_pb2

# A day: whoever comes in the morning sees what left in the night. Nodes of clusters that grow and shrink bear ever new
# names, so that more than a day of them is only in the way.
SHOWN_S: Final = 86_400.0
# A rack or two. Of more that leave within a day the newest are shown.
MOST_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Gone:
    """A node that is gone, as kept.

    Attributes:
        record: the part of its last report that is shown or compared, serialised.
    """

    node_id: str
    last_seen_unix_s: float
    record: bytes


class Departed:
    """The newest nodes that left, until they come back.

    Args:
        now_s: monotonic clock.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        # In the order in which they left.
        self._links: dict[str, Link] = {}

    def add(self, link: Link) -> None:
        """A node left."""
        self._links.pop(link.node.node_id, None)
        self._links[link.node.node_id] = link
        while len(self._links) > MOST_SHOWN:
            del self._links[next(iter(self._links))]

    def back(self, node_id: str) -> None:
        """A node is here again, if it had left."""
        self._links.pop(node_id, None)

    def all(self) -> tuple[Link, ...]:
        """As they were last seen, by id."""
        since_s = self._now_s() - SHOWN_S
        return tuple(self._links[name] for name in sorted(self._links) if self._links[name].last_seen_s > since_s)

    def kept(self) -> tuple[Gone, ...]:
        """What is shown, to be kept."""
        return tuple(Gone(link.node.node_id, link.last_seen_unix_s, _record(link.report)) for link in self.all())

    def restore(self, kept: Iterable[Gone], offset_s: float) -> None:
        """Adds what was kept and is not known here.

        Args:
            kept: nodes that are not here.
            offset_s: wall clock minus monotonic clock.
        """
        for gone in sorted(kept, key=lambda g: g.last_seen_unix_s):
            if gone.node_id not in self._links:
                report = node_pb2.NodeReport.FromString(gone.record)
                last_seen_s = gone.last_seen_unix_s - offset_s
                self.add(Link(report, node_of(report), last_seen_s, gone.last_seen_unix_s))

    def get(self, node_id: str) -> Link | None:
        """One of them."""
        return next((link for link in self.all() if link.node.node_id == node_id), None)

    def said(self, report: node_pb2.NodeReport) -> bool:
        """Whether a report is no newer than what a node that is gone said last."""
        link = self._links.get(report.node_id)
        return link is not None and not link.is_older_than(report)


def _record(report: node_pb2.NodeReport) -> bytes:
    shown = node_pb2.NodeReport(
        node_id=report.node_id, labels=report.labels, agent_epoch=report.agent_epoch, sequence=report.sequence
    )
    return shown.SerializeToString(deterministic=True)
