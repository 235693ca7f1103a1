"""Nodes that are gone, as they were last seen: for people who ask where a node went. Nothing is planned with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.orchestrator.link import Link
from tradewind.v1 import node_pb2

# A day: whoever comes in the morning sees what left in the night. Nodes of clusters that grow and shrink bear ever new
# names, so that more than a day of them is only in the way.
SHOWN_S: Final = 86_400.0
# A rack or two. Of more that leave within a day the newest are shown.
MOST_SHOWN: Final = 100


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

    def get(self, node_id: str) -> Link | None:
        """One of them."""
        return next((link for link in self.all() if link.node.node_id == node_id), None)

    def said(self, report: node_pb2.NodeReport) -> bool:
        """Whether a report is no newer than what a node that is gone said last."""
        link = self._links.get(report.node_id)
        return link is not None and not link.is_older_than(report)
