"""Routing weights: how much of a deployment's requests each of its replicas is given for its size. Pure.

A weight multiplies the batch limit, by which gateways share requests out. It says two things: what the plan reckoned
that a place of this replica takes, against the best place of the deployment, and that it is slower than its like.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from services.orchestrator.core.facts.blueprint import Replica
from services.orchestrator.core.facts.traffic import Speed

# Replicas of a kind differ by a tenth or two; half again as slow is a neighbour or heat.
STRAGGLER: Final = 1.5
# Fewer requests of the last minute are noise.
LEAST_SAMPLES: Final = 20

Routes = Iterable[tuple[str, tuple[Replica, ...]]]


def weights_of(routes: Routes, speeds: Iterable[Speed]) -> tuple[tuple[str, float], ...]:
    """Weights that are not 1, by replica id; two digits, so that equal ones stay equal."""
    by_id = {(s.node_id, s.replica_id): s for s in speeds if s.samples >= LEAST_SAMPLES and s.tpot_ms > 0.0}
    weights: list[tuple[str, float]] = []
    for _, routed in routes:
        planned, slow = _planned(routed), _slowness(routed, by_id)
        for replica in routed:
            weight = round(planned.get(replica.replica_id, 1.0) * slow.get(replica.replica_id, 1.0), 2)
            if weight != 1.0:
                weights.append((replica.replica_id, weight))
    return tuple(sorted(weights))


def _planned(routed: tuple[Replica, ...]) -> dict[str, float]:
    """Capacity of a place against the best place, when every replica of the deployment says its capacity."""
    if not routed or min(r.capacity_requests_per_s for r in routed) <= 0.0:
        return {}
    places = {r.replica_id: r.capacity_requests_per_s / max(r.batch_limit, 1) for r in routed}
    best = max(places.values())
    return {name: value / best for name, value in places.items()}


def _slowness(routed: tuple[Replica, ...], by_id: dict[tuple[str, str], Speed]) -> dict[str, float]:
    """A replica that takes more than `STRAGGLER` times the median of its like gets its share in proportion."""
    groups: dict[tuple[str, str, str], list[tuple[float, str]]] = {}
    for replica in routed:
        speed = by_id.get((replica.node_id, replica.replica_id))
        if speed is not None:
            like = (replica.variant_id, replica.device_class, replica.partition.kind)
            groups.setdefault(like, []).append((speed.tpot_ms, replica.replica_id))
    found: dict[str, float] = {}
    for group in groups.values():
        # The lower median: of two replicas the faster one is the measure.
        median = sorted(group)[(len(group) - 1) // 2][0]
        found |= {name: median / tpot for tpot, name in group if tpot > median * STRAGGLER}
    return found
