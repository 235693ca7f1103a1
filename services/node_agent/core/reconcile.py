"""What an agent does next, from what is wanted and what there is. Pure: whole states in, actions out, time an argument.

Called after every change and every period; an action that was lost is simply named again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.node_agent.core.board_wish import WHOLE_KIND
from services.node_agent.core.replica_states import ReplicaState
from services.node_agent.core.target import ReplicaSpec


@dataclass(frozen=True, slots=True)
class Observed:
    """A replica as it is.

    Attributes:
        spec: what it was started from.
        in_hand: requests at work.
        retry_at_s: of a FAILED one, when it may be tried again.
    """

    spec: ReplicaSpec
    state: ReplicaState
    in_hand: int = 0
    retry_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Create:
    """Begin to fetch, load and serve."""

    spec: ReplicaSpec


@dataclass(frozen=True, slots=True)
class Retry:
    """Try a failed one again."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Take nothing new."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class Settle:
    """It drains and holds nothing any more."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class Serve:
    """Take requests again."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class Remove:
    """End its process and forget it."""

    replica_id: str


Action = Create | Retry | Drain | Settle | Serve | Remove


def step(wanted: Sequence[ReplicaSpec], observed: Sequence[Observed], now_s: float) -> tuple[Action, ...]:
    """Actions towards the wanted state; none when it is reached or on its way.

    Removals come first, so that what they free is there for what is created. One that is not wanted any more finishes
    what it has in hand, unless its room is wanted: a node that comes back may have been given up meanwhile.

    Args:
        wanted: every replica there shall be.
        observed: every replica there is.
        now_s: monotonic time, of the same clock as `retry_at_s`.
    """
    by_id = {o.spec.replica_id: o for o in observed}
    want = {spec.replica_id: spec for spec in wanted}
    removals: list[Action] = []
    changes: list[Action] = []
    for replica_id, seen in by_id.items():
        spec = want.get(replica_id)
        if seen.state is ReplicaState.STOPPING:
            continue
        if spec is None and _may_finish(seen, wanted):
            changes.extend([Drain(replica_id)] if seen.state is ReplicaState.READY else [])
        elif spec is None or spec.process != seen.spec.process:
            removals.append(Remove(replica_id))
        else:
            changes.extend(_toward(spec, seen, now_s))
    created = [Create(spec) for spec in wanted if spec.replica_id not in by_id]
    return (*removals, *changes, *created)


def next_retry_s(observed: Sequence[Observed]) -> float | None:
    """When the next failed replica may be tried again; None when none failed."""
    times = [o.retry_at_s for o in observed if o.state is ReplicaState.FAILED]
    return min(times, default=None)


def _may_finish(seen: Observed, wanted: Sequence[ReplicaSpec]) -> bool:
    if seen.in_hand == 0 or seen.state not in (ReplicaState.READY, ReplicaState.DRAINING):
        return False
    return not any(_share_units(seen.spec, spec) for spec in wanted)


def _share_units(a: ReplicaSpec, b: ReplicaSpec) -> bool:
    if a.device_id != b.device_id:
        return False
    if a.cpu_ids or b.cpu_ids:
        return not set(a.cpu_ids).isdisjoint(b.cpu_ids)
    return a.partition_id == b.partition_id or WHOLE_KIND in (a.partition_kind, b.partition_kind)


def _toward(spec: ReplicaSpec, seen: Observed, now_s: float) -> list[Action]:
    replica_id = spec.replica_id
    if seen.state is ReplicaState.FAILED:
        # One that shall drain has nothing to finish: loading it again would help nobody.
        return [Retry(replica_id)] if now_s >= seen.retry_at_s and not spec.draining else []
    if spec.draining and seen.state is ReplicaState.READY:
        return [Drain(replica_id)]
    if spec.draining and seen.state is ReplicaState.DRAINING and seen.in_hand == 0:
        return [Settle(replica_id)]
    if not spec.draining and seen.state in (ReplicaState.DRAINING, ReplicaState.DRAINED):
        return [Serve(replica_id)]
    return []
