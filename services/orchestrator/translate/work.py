"""Work as nodes report it: power of devices, speed of replicas, requests that wait at them; contract → core.

And how gateways judge it: core → contract.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from services.orchestrator.core.facts.traffic import PowerReading, Speed, Window
from services.orchestrator.link import Link
from tradewind.domain.traffic import summed
from tradewind.v1 import node_pb2, orchestrator_pb2


def power_of(links: Iterable[Link]) -> tuple[PowerReading, ...]:
    """Mean power of every device of every connected node."""
    return tuple(
        PowerReading(link.node.node_id, reading.device_id, reading.power_mw)
        for link in links
        if link.connected
        for reading in link.report.readings
        if reading.power_mw > 0.0
    )


def speeds_of(links: Iterable[Link]) -> tuple[Speed, ...]:
    """Speed of every replica that answered requests in the last minute."""
    return tuple(
        Speed(
            link.node.node_id,
            status.replica_id,
            status.ttft.mean_ms,
            status.tpot.mean_ms,
            # What is at work now stands for the last minute; a replica just gone idle had at least one.
            float(max(status.active_sequences, 1)),
            status.tpot.samples,
            status.variant_id,
        )
        for link in links
        if link.connected
        for status in link.report.replicas
        if status.state == node_pb2.REPLICA_STATE_READY and status.tpot.samples > 0
    )


def queued_at(links: Iterable[Link]) -> dict[str, int]:
    """Requests that wait at replicas, by deployment id."""
    counts: Counter[str] = Counter()
    for link in links:
        for status in link.report.replicas:
            counts[status.deployment_id] += status.queued_sequences
    return dict(counts)


def e2e_attainment(windows: Iterable[Window]) -> orchestrator_pb2.Attainment | None:
    """How the limit of end-to-end latency was kept in some windows; None when nothing was judged."""
    sums = summed(windows)
    total = sums.judged + sums.lost if sums else 0
    return orchestrator_pb2.Attainment(requests=total, kept=sums.e2e_within / total) if sums and total else None
