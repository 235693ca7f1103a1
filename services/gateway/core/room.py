"""Replicas that may take one more request under the limit they are given. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tradewind.domain.routes import ReplicaRoute


def full(replicas: Iterable[ReplicaRoute], outstanding: Mapping[str, int]) -> frozenset[str]:
    """Ids of replicas with as many requests as they are given; a replica without a limit is never full."""
    return frozenset(
        r.replica_id for r in replicas if r.sequences_limit and outstanding.get(r.replica_id, 0) >= r.sequences_limit
    )
