"""What each fault does when its call comes."""

from __future__ import annotations

from typing import Final

from services.node_agent.gpu.faults import DriverTrouble, GpuError, InUse, NoPermission, NoRoom, NotSupported, NotThere
from services.node_agent.gpu.port import Activation
from services.node_agent.gpu.simulated.board import SimulatedBoard
from services.node_agent.gpu.simulated.faults import Fault, FaultKind

_ANSWERS: Final[dict[FaultKind, tuple[type[GpuError], int, str]]] = {
    FaultKind.IN_USE: (InUse, 19, "in use"),
    FaultKind.NO_ROOM: (NoRoom, 23, "insufficient resources"),
    FaultKind.NO_PERMISSION: (NoPermission, 4, "no permission"),
    FaultKind.NOT_FOUND: (NotThere, 6, "not found"),
    FaultKind.TROUBLE: (DriverTrouble, 999, "unknown error"),
    FaultKind.MISSING_SYMBOL: (NotSupported, 13, "function not found"),
}


def raise_answer(fault: Fault, uuid: str) -> None:
    """Raises what the fault answers, if it is of that group."""
    if fault.kind in _ANSWERS:
        error, code, words = _ANSWERS[fault.kind]
        raise error(f"injected: {words}", code, uuid)


def strike(board: SimulatedBoard, fault: Fault, now_s: float) -> bool:
    """Does to the board what the fault says; whether its slices changed."""
    board.rail.advance(now_s)
    match fault.kind:
        case FaultKind.BOARD_LOST:
            board.lost = True
        case FaultKind.NOT_ACTIVE:
            board.next_activation = Activation(int(fault.number))
        case FaultKind.COUNTER_RESET:
            board.rail.reset_counter(now_s)
        case FaultKind.COUNTER_FROZEN:
            board.rail.counter_frozen = True
        case FaultKind.COUNTER_ABSENT:
            board.rail.counter_absent = True
        case FaultKind.CAP_CLIPPED:
            board.rail.other_limit_mw = int(fault.number)
        case FaultKind.FOREIGN_CREATE:
            return _create(board, fault)
        case FaultKind.FOREIGN_DESTROY:
            return _destroy(board, fault)
        case FaultKind.FOREIGN_MODE_OFF:
            board.set_mode(False)
    return False


def _create(board: SimulatedBoard, fault: Fault) -> bool:
    assert fault.placement is not None, "FOREIGN_CREATE needs a placement"
    board.slices.create_compute(board.slices.create(fault.profile_id, fault.placement))
    return True


def _destroy(board: SimulatedBoard, fault: Fault) -> bool:
    assert fault.placement is not None, "FOREIGN_DESTROY needs a placement"
    instance = board.slices.at(fault.placement)
    if instance is None:
        return False
    for compute in instance.compute:
        board.slices.destroy_compute(instance.gi_id, compute.ci_id)
    board.slices.destroy(instance.gi_id)
    return True
