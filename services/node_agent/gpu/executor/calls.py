"""Makes one device call of a step, and tells from a second look whether it had its effect."""

from __future__ import annotations

from typing import Final

from services.node_agent.core.mig.ledger import Call, ModeStep
from services.node_agent.core.mig.model import Placement, Slice
from services.node_agent.core.mig.plan import Action
from services.node_agent.core.mig.retries import Fault
from services.node_agent.gpu import faults
from services.node_agent.gpu.executor.look import Look
from services.node_agent.gpu.port import Activation, BoardFacts, GpuAdmin

_FAULTS: Final[dict[type[faults.GpuError], Fault]] = {
    faults.NotSupported: Fault.NOT_SUPPORTED,
    faults.NoPermission: Fault.NO_PERMISSION,
    faults.NotThere: Fault.NOT_THERE,
    faults.InvalidRequest: Fault.INVALID_REQUEST,
    faults.InUse: Fault.IN_USE,
    faults.NoRoom: Fault.NO_ROOM,
    faults.ResetRequired: Fault.RESET_REQUIRED,
    faults.BoardLost: Fault.BOARD_LOST,
    faults.DriverTrouble: Fault.DRIVER_TROUBLE,
    faults.NoDriver: Fault.NO_DRIVER,
    faults.HelperAway: Fault.HELPER_AWAY,
}

_NOT_ACTIVE: Final[dict[Activation, type[faults.GpuError]]] = {
    Activation.IN_USE: faults.InUse,
    Activation.RESET_REQUIRED: faults.ResetRequired,
    Activation.NOT_SUPPORTED: faults.NotSupported,
}


def fault_of(error: faults.GpuError) -> Fault:
    """The kind of an error."""
    return _FAULTS.get(type(error), Fault.DRIVER_TROUBLE)


def make(admin: GpuAdmin, board: BoardFacts, call: Call, before: Look) -> int | None:
    """Makes the call; the GPU instance id when one was created.

    Args:
        admin: who may.
        board: on which.
        call: what.
        before: the board as just read, for its ids.

    Raises:
        GpuError: it was not done, or a mode that was accepted is not in force.
    """
    uuid = board.uuid
    if isinstance(call, ModeStep):
        _set_mode(admin, board, call.enabled)
        return None
    place = call.slice
    if call.action is Action.CREATE_GPU:
        return admin.create_gpu_instance(uuid, place.profile_id, Placement(place.start, place.size))
    instance = before.instances[place]
    match call.action:
        case Action.CREATE_COMPUTE:
            admin.create_compute_instance(uuid, instance.gi_id)
        case Action.DESTROY_COMPUTE:
            admin.destroy_compute_instance(uuid, instance.gi_id, instance.compute[0].ci_id)
        case Action.DESTROY_GPU:
            admin.destroy_gpu_instance(uuid, instance.gi_id)
    return None


def has_effect(call: Call, before: Look, after: Look) -> bool:
    """Whether the board shows what the call was for, whoever brought it about."""
    if isinstance(call, ModeStep):
        return after.sight.mig is call.enabled
    there, place = after.instances, call.slice
    match call.action:
        case Action.CREATE_GPU:
            return place in there
        case Action.CREATE_COMPUTE:
            return place in there and bool(there[place].compute)
        case Action.DESTROY_COMPUTE:
            return place not in there or len(there[place].compute) < len(before.instances[place].compute)
        case Action.DESTROY_GPU:
            return place not in there


def misplaced(gi_id: int | None, call: Call, after: Look) -> Slice | None:
    """A slice that the driver made elsewhere than it was asked to."""
    wanted = None if isinstance(call, ModeStep) else call.slice
    found = (place for place, one in after.instances.items() if one.gi_id == gi_id and place != wanted)
    return next(found, None) if gi_id is not None else None


def _set_mode(admin: GpuAdmin, board: BoardFacts, enabled: bool) -> None:
    answer = admin.set_mig_mode(board.uuid, enabled)
    if answer is Activation.ACTIVE:
        return
    error = _NOT_ACTIVE.get(answer, faults.DriverTrouble)
    word = "on" if enabled else "off"
    raise error(f"MIG mode {word} was accepted and is not in force: {answer.name.lower()}", int(answer), board.uuid)
