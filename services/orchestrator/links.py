"""Nodes and their streams: newest reports, and targets on their way down. Knows no plan; `control` fills it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Final

import structlog

from services.orchestrator.core.rollout.rollout import Target
from services.orchestrator.core.state import NodeSight
from services.orchestrator.departed import Departed
from services.orchestrator.link import Link
from services.orchestrator.translate.blueprints import target_message
from services.orchestrator.translate.nodes import node_of
from tradewind.domain.errors import InvalidField, Overloaded, StaleGeneration
from tradewind.v1 import node_pb2

# A node whose reports stay behind what it was sent is sent it again after this time.
RESEND_AFTER_S: Final = 3.0
# More nodes than this one leader does not take.
MOST_NODES: Final = 2_000
# A node that is silent so long and has no work in the blueprint is gone; one that was drained is sooner.
FORGET_AFTER_S: Final = 3_600.0
_MAX_ID: Final = 128


class Links:
    """All nodes.

    Args:
        now_s: monotonic clock.
        unix_s: wall clock, only shown.
        heard: called after each report.

    Attributes:
        departed: nodes that are gone.
    """

    def __init__(
        self, now_s: Callable[[], float], unix_s: Callable[[], float], heard: Callable[[node_pb2.NodeReport], None]
    ) -> None:
        self._now_s, self._unix_s, self._heard = now_s, unix_s, heard
        self._links: dict[str, Link] = {}
        self.departed = Departed(now_s)
        self._streams = 0
        # Grows with every target that differs from the last one: targets of one (fencing, generation) stay in order
        # also over streams that break.
        self._steps = 0
        self._log = structlog.get_logger("links")

    def all(self) -> tuple[Link, ...]:
        """Every node heard of, by id."""
        return tuple(self._links[name] for name in sorted(self._links))

    def get(self, node_id: str) -> Link | None:
        """A node heard of."""
        return self._links.get(node_id)

    def sights(self) -> tuple[NodeSight, ...]:
        """What the core looks at."""
        return tuple(NodeSight(link.node, link.last_seen_s, link.connected) for link in self.all())

    def open(self) -> int:
        """A new stream's number."""
        self._streams += 1
        return self._streams

    def hear(self, stream: int, report: node_pb2.NodeReport) -> Link:
        """Takes in a report. The newest stream of the newest agent speaks for a node.

        Raises:
            InvalidField: it names no node.
            StaleGeneration: an older agent process speaks, or an older stream of the same one.
            Overloaded: too many nodes.
        """
        if not report.node_id or len(report.node_id) > _MAX_ID:
            raise InvalidField("report.node_id", f"1 to {_MAX_ID} characters are needed")
        link = self._links.get(report.node_id)
        if link is None:
            if len(self._links) >= MOST_NODES:
                raise Overloaded(f"{MOST_NODES} nodes are connected, which is the most")
            link = Link(report, node_of(report), self._now_s(), self._unix_s())
            self._links[report.node_id] = link
            self.departed.back(report.node_id)
            self._log.info("node connected", node=report.node_id, address=report.address)
        newest = link.report
        older = report.agent_epoch < newest.agent_epoch and (link.connected or report.boot_id == newest.boot_id)
        repeated = report.agent_epoch == newest.agent_epoch and report.sequence < newest.sequence
        # A report that was on its way through another orchestrator opens no stream over the one that is newer.
        late = link.connected and (stream < link.stream or (stream != link.stream and repeated))
        if older or late:
            raise StaleGeneration(
                f"another agent speaks for node {report.node_id!r} (epoch {newest.agent_epoch}, this one has "
                f"{report.agent_epoch}); give each node an id of its own",
                {"expected": str(newest.agent_epoch), "actual": str(report.agent_epoch)},
            )
        if not repeated:
            link.report, link.node = report, node_of(report)
        if link.stream != stream:
            link.stream, link.target = stream, None
            link.news.set()
        link.connected, link.last_seen_s, link.last_seen_unix_s = True, self._now_s(), self._unix_s()
        self._send_again_if_behind(link)
        self._heard(report)
        return link

    def closed(self, stream: int, node_id: str) -> None:
        """A stream ended."""
        link = self._links.get(node_id)
        if link and link.stream == stream and link.connected:
            link.connected = False
            link.news.set()
            self._log.warning("node disconnected", node=node_id)

    def overhear(self, reports: Sequence[node_pb2.NodeReport]) -> None:
        """Takes in what others heard of nodes, for showing; a report that is not newer counts for nothing."""
        for report in reports:
            link = self._links.get(report.node_id)
            if self.departed.said(report) or (link and not link.is_older_than(report)):
                continue
            self.departed.back(report.node_id)
            self._links[report.node_id] = Link(report, node_of(report), self._now_s(), self._unix_s(), connected=True)

    def clear(self) -> None:
        """Forgets every node and ends its stream: who leads has changed, agents shall connect anew."""
        for link in self._links.values():
            link.connected = False
            link.news.set()
        self._links = {}

    def push(self, targets: tuple[Target, ...], generation: int, fencing: int) -> None:
        """Tells every connected node its target, when it differs from what it was told last."""
        for target in targets:
            link = self._links.get(target.node_id)
            if link is None or not link.connected:
                continue
            last = link.target
            message = target_message(target, generation, fencing, last.step if last else 0)
            if message == last:
                continue
            self._steps += 1
            message.step = self._steps
            self._tell(link, message)

    async def targets(self, link: Link, stream: int) -> AsyncIterator[node_pb2.NodeTarget]:
        """Targets for one stream, newest only, until it is replaced or ends."""
        sent: node_pb2.NodeTarget | None = None
        while link.stream == stream and link.connected:
            link.news.clear()
            if link.target is not None and link.target is not sent:
                sent = link.target
                yield sent
                continue
            await link.news.wait()

    def forget(self, needed: Callable[[], Collection[str]], draining: Collection[str], late_s: float) -> None:
        """Nodes that are silent and not needed are gone: drained ones when they are late, others after an hour.

        Args:
            needed: nodes with work in the blueprint; asked only when a node is silent.
            draining: nodes that people want drained.
            late_s: silence after which a report is late.
        """
        now_s = self._now_s()

        def left(link: Link) -> bool:
            drained = link.node.node_id in draining and not link.node.replicas
            return now_s - link.last_seen_s > (late_s if drained else FORGET_AFTER_S)

        silent = [name for name, link in self._links.items() if left(link)]
        for name in sorted(set(silent) - set(needed())) if silent else ():
            link = self._links.pop(name)
            link.connected = False
            link.news.set()
            self.departed.add(link)
            self._log.info("node is gone", node=name)

    def _tell(self, link: Link, message: node_pb2.NodeTarget) -> None:
        link.target, link.sent_at_s = message, self._now_s()
        link.news.set()

    def _send_again_if_behind(self, link: Link) -> None:
        told, report = link.target, link.report
        if told is None or self._now_s() - link.sent_at_s < RESEND_AFTER_S:
            return
        if (report.observed_fencing, report.observed_generation) < (told.fencing, told.generation):
            again = node_pb2.NodeTarget()
            again.CopyFrom(told)
            self._tell(link, again)
