"""States of managed boards as messages of the contract. Translation only."""

from __future__ import annotations

from typing import Final

from services.node_agent.core.mig.goal import Order
from services.node_agent.core.mig.ledger import Outcome
from services.node_agent.core.power import PowerState
from services.node_agent.gpu.executor.state import BoardState, Doing
from services.node_agent.wire import setting_message
from tradewind.v1 import node_pb2

_ACTIVITY: Final = {
    Doing.NOTHING: node_pb2.LAYOUT_ACTIVITY_NOTHING,
    Doing.CHANGING: node_pb2.LAYOUT_ACTIVITY_CHANGING,
    Doing.WAITING: node_pb2.LAYOUT_ACTIVITY_WAITING,
    Doing.GOING_BACK: node_pb2.LAYOUT_ACTIVITY_GOING_BACK,
    Doing.AWAY: node_pb2.LAYOUT_ACTIVITY_AWAY,
}
_OUTCOME: Final = {
    Outcome.REACHED: node_pb2.LAYOUT_OUTCOME_REACHED,
    Outcome.REFUSED: node_pb2.LAYOUT_OUTCOME_REFUSED,
    Outcome.RESTORED: node_pb2.LAYOUT_OUTCOME_RESTORED,
    Outcome.BLOCKED: node_pb2.LAYOUT_OUTCOME_BLOCKED,
    Outcome.DEGRADED: node_pb2.LAYOUT_OUTCOME_DEGRADED,
}


def layout_status(state: BoardState, refusal: str, refused: Order | None) -> node_pb2.LayoutStatus:
    """A board's layout.

    Args:
        state: of the board.
        refusal: why the newest target's partitions were not understood; "" when they were.
        refused: the order of that target.
    """
    status = node_pb2.LayoutStatus(
        device_id=state.uuid, activity=_ACTIVITY[state.doing], words=state.words, foreign_slices=state.foreign
    )
    if (order := refused if refusal and refused else state.order) is not None:
        status.fencing, status.generation, status.step = order.fencing, order.generation, order.step
    if (last := state.last) is not None:
        status.outcome, status.code, status.outcome_words = _OUTCOME[last.outcome], last.code, last.words
    if refusal:
        status.outcome, status.code, status.outcome_words = node_pb2.LAYOUT_OUTCOME_REFUSED, "invalid_field", refusal
    return status


def power_status(uuid: str, state: PowerState) -> node_pb2.PowerStatus:
    """A board's power."""
    return node_pb2.PowerStatus(
        device_id=uuid,
        requested=setting_message(state.requested),
        admitted=setting_message(state.admitted),
        enforced_cap_mw=state.observed.enforced_cap_mw,
        power_mw=state.observed.power_mw,
        sm_clock_mhz=state.observed.clock_mhz,
        refusal=state.refusal,
        not_in_force=state.not_in_force,
        slices=state.slices,
    )
