"""Which replica gets the next request: the one with the least work for its size. Pure; observations are arguments."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from tradewind.domain.routes import ReplicaRoute

# A replica of this weight still gets a request now and then, by which it is seen to be well again.
LEAST_WEIGHT: Final = 0.05


def choose(
    replicas: Sequence[ReplicaRoute],
    outstanding: Mapping[str, int],
    turn: int,
    excluded: Collection[str] = (),
) -> ReplicaRoute | None:
    """The replica that would be least loaded with one more request.

    Load is (outstanding + 1) / (batch limit × weight): a replica that decodes eight sequences together takes eight
    times as many requests as one that decodes a single one, and of two idle ones the larger goes first.

    Args:
        replicas: routes of one deployment; draining ones are never chosen.
        outstanding: requests at work by replica id, as this gateway counts them.
        turn: grows with each choice; spreads equal replicas round-robin.
        excluded: replica ids that must not be chosen.

    Returns:
        The replica, or None when no one is left.
    """
    able = sorted((r for r in replicas if not r.draining and r.replica_id not in excluded), key=lambda r: r.replica_id)
    if not able:
        return None
    loads = [load_after(replica, outstanding) for replica in able]
    least = min(loads)
    equal = [replica for replica, load in zip(able, loads, strict=True) if load == least]
    return equal[turn % len(equal)]


def load_after(replica: ReplicaRoute, outstanding: Mapping[str, int]) -> float:
    """Requests for each place of the batch, once one more is there."""
    return (outstanding.get(replica.replica_id, 0) + 1) / (
        max(replica.batch_limit, 1) * max(replica.weight, LEAST_WEIGHT)
    )


def capacity(replicas: Sequence[ReplicaRoute], queued_per_place: int) -> int:
    """Most requests that a deployment may have at once: every place of every batch, and so many waiting for each."""
    places = sum(max(replica.batch_limit, 1) for replica in replicas if not replica.draining)
    return places * (1 + queued_per_place)
