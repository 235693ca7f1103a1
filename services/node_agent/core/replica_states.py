"""Where a replica stands and what moves it: one table. Pure.

FETCHING ──fetched──► STARTING ──ready──► READY ──drain──► DRAINING ──emptied──► DRAINED
    ▲                                       ▲                 │                     │
    ├──retry── FAILED ◄──failed── (any)     └──────serve──────┴─────────────────────┘
    └──refused── (FETCHING, STARTING): the next link of its chain
STOPPING ◄──remove── (any)      STOPPING ──gone──► forgotten
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final


class ReplicaState(IntEnum):
    """The numbers of `tradewind.v1.ReplicaState`."""

    FETCHING = 1
    STARTING = 2
    READY = 3
    DRAINING = 4
    DRAINED = 5
    FAILED = 6
    STOPPING = 7

    @property
    def loaded(self) -> bool:
        """Whether its process serves or could at once."""
        return self in (ReplicaState.READY, ReplicaState.DRAINING, ReplicaState.DRAINED)


class Event(StrEnum):
    """What happens to a replica."""

    FETCHED = "fetched"
    READY = "ready"
    DRAIN = "drain"
    SERVE = "serve"
    EMPTIED = "emptied"
    FAILED = "failed"
    RETRY = "retry"
    REFUSED = "refused"
    REMOVE = "remove"


_S = ReplicaState
TABLE: Final[dict[tuple[ReplicaState, Event], ReplicaState]] = {
    (_S.FETCHING, Event.FETCHED): _S.STARTING,
    (_S.STARTING, Event.READY): _S.READY,
    (_S.READY, Event.DRAIN): _S.DRAINING,
    (_S.DRAINING, Event.EMPTIED): _S.DRAINED,
    (_S.DRAINING, Event.SERVE): _S.READY,
    (_S.DRAINED, Event.SERVE): _S.READY,
    (_S.FAILED, Event.RETRY): _S.FETCHING,
    (_S.FETCHING, Event.REFUSED): _S.FETCHING,
    (_S.STARTING, Event.REFUSED): _S.FETCHING,
    **{(s, Event.FAILED): _S.FAILED for s in (_S.FETCHING, _S.STARTING, _S.READY, _S.DRAINING, _S.DRAINED)},
    **{(s, Event.REMOVE): _S.STOPPING for s in _S if s is not _S.STOPPING},
}


class IllegalEvent(ValueError):
    """An event that cannot happen in a state: a fault of ours."""


def after(state: ReplicaState, event: Event) -> ReplicaState:
    """The next state.

    Raises:
        IllegalEvent: the table has no such pair.
    """
    try:
        return TABLE[state, event]
    except KeyError:
        raise IllegalEvent(f"a replica that is {state.name} cannot be {event}") from None
