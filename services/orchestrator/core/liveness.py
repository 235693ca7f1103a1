"""The state of a node as a table: state × event → state; events come from ages that are passed in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.orchestrator.core.facts.fleet import NodeState


class NodeEvent(StrEnum):
    """What is seen of a node, or wished of it, at one moment."""

    REPORT = "report"
    LATE = "late"
    SILENT = "silent"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    BUSY = "busy"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a node may be silent.

    Attributes:
        suspect_after_s: three reports of two seconds missed.
        lost_after_s: 15 s of patience and 5 s of grace; a restarted agent is back long before.
    """

    suspect_after_s: float = 6.0
    lost_after_s: float = 20.0


_J, _A, _S = NodeState.JOINING, NodeState.ACTIVE, NodeState.SUSPECT
_L, _D, _E = NodeState.LOST, NodeState.DRAINING, NodeState.DRAINED

# Every pair is legal: reports, silence and wishes come at any time. A wish to drain outlives a loss because it is fed
# in again at each observation.
TABLE: Final[dict[tuple[NodeState, NodeEvent], NodeState]] = {
    (state, event): after
    for event, row in {
        NodeEvent.REPORT: {_J: _A, _A: _A, _S: _A, _L: _A, _D: _D, _E: _E},
        NodeEvent.LATE: {_J: _J, _A: _S, _S: _S, _L: _L, _D: _D, _E: _E},
        NodeEvent.SILENT: {_J: _L, _A: _L, _S: _L, _L: _L, _D: _L, _E: _L},
        NodeEvent.DRAIN: {_J: _J, _A: _D, _S: _D, _L: _L, _D: _D, _E: _E},
        NodeEvent.UNDRAIN: {_J: _J, _A: _A, _S: _S, _L: _L, _D: _A, _E: _A},
        NodeEvent.BUSY: {_J: _J, _A: _A, _S: _S, _L: _L, _D: _D, _E: _D},
        NodeEvent.EMPTY: {_J: _J, _A: _A, _S: _S, _L: _L, _D: _E, _E: _E},
    }.items()
    for state, after in row.items()
}


def next_state(
    state: NodeState, *, age_s: float, reported: bool, connected: bool, drain: bool, busy: bool, patience: Patience
) -> NodeState:
    """The state after one look.

    Args:
        age_s: seconds since the newest report, or since we began to wait for the first.
        reported: whether any report came.
        connected: whether its stream is open.
        drain: whether people want it drained.
        busy: whether it still has replicas.
    """
    if age_s > patience.lost_after_s:
        seen = NodeEvent.SILENT
    elif not reported or not connected or age_s > patience.suspect_after_s:
        seen = NodeEvent.LATE
    else:
        seen = NodeEvent.REPORT
    wish = NodeEvent.DRAIN if drain else NodeEvent.UNDRAIN
    for event in (seen, wish, NodeEvent.BUSY if busy else NodeEvent.EMPTY):
        state = TABLE[state, event]
    return state
