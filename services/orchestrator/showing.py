"""Deployments as readers are shown them, and who waits for a change of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from typing import Final

from services.orchestrator.core.facts.blueprint import Blueprint
from services.orchestrator.gauges import Gauges
from services.orchestrator.links import Links
from services.orchestrator.listener import TrafficListener
from services.orchestrator.publisher import Publisher
from services.orchestrator.records import DeploymentRecord
from services.orchestrator.register import Register
from services.orchestrator.standing import Heard, deployment_message
from services.orchestrator.translate.work import e2e_attainment
from tradewind.v1 import common_pb2, orchestrator_pb2

_E2E: Final = common_pb2.LATENCY_METRIC_E2E


class Showing:
    """Puts together what is wished, what nodes report and what gateways count.

    Args:
        register: wishes and blueprint.
        links: nodes.
        listener: traffic as gateways tell it.
        publisher: knows which replicas gateways were told of.
        gauges: metrics.
        lost: nodes that no longer count as there.
    """

    def __init__(
        self,
        register: Register,
        links: Links,
        listener: TrafficListener,
        publisher: Publisher,
        gauges: Gauges,
        lost: Callable[[], Collection[str]],
    ) -> None:
        self._register, self._links, self._publisher, self._gauges = register, links, publisher, gauges
        self._listener, self._lost = listener, lost
        self._changed = asyncio.Condition()
        self._shown: list[orchestrator_pb2.Deployment] = []

    def one(
        self,
        record: DeploymentRecord,
        blueprint: Blueprint | None = None,
        explanation: orchestrator_pb2.Explanation | None = None,
    ) -> orchestrator_pb2.Deployment:
        """A deployment as it stands, or as it will stand under another blueprint."""
        explanation = explanation or self._register.explanations.get(record.deployment_id)
        attained = self._attained([record])
        return deployment_message(record, blueprint or self._register.blueprint, self._heard(), explanation, attained)

    def all(self) -> list[orchestrator_pb2.Deployment]:
        """All deployments as they stand, by name."""
        heard, register = self._heard(), self._register
        records = sorted(register.deployments.values(), key=lambda r: r.name)
        explained = register.explanations
        attained = self._attained(records)
        return [
            deployment_message(r, register.blueprint, heard, explained.get(r.deployment_id), attained) for r in records
        ]

    async def changes(self) -> AsyncIterator[None]:
        """Yields at once and whenever a deployment changed."""
        while True:
            yield
            async with self._changed:
                await self._changed.wait()

    async def tell(self) -> None:
        """Wakes who waits, if anything is shown otherwise than before."""
        shown = self.all()
        self._gauges.deployments([d.state for d in shown])
        if shown != self._shown:
            self._shown = shown
            async with self._changed:
                self._changed.notify_all()

    def _attained(self, records: Iterable[DeploymentRecord]) -> dict[str, orchestrator_pb2.Attainment]:
        limited = {r.name: r.deployment_id for r in records if any(x.metric == _E2E for x in r.spec.slo.latency)}
        seen = self._listener.traffic(limited, {}) if limited else ()
        return {one.deployment_id: told for one in seen if (told := e2e_attainment(one.windows))}

    def _heard(self) -> dict[str, Heard]:
        lost = self._lost()
        return {
            status.replica_id: Heard(
                link.node.node_id, status, link.node.node_id not in lost, self._publisher.knows(status.replica_id)
            )
            for link in self._links.all()
            for status in link.report.replicas
        }
