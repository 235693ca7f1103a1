"""What a board or its driver may answer instead of doing what was asked, with what to do about it.

GpuError
├── NotSupported      a capability, not a failure
├── NoPermission      fail fast
├── NotThere          empty slot, vanished id; on destroy it is success
├── InvalidRequest    out of range or stale; no retry
├── InUse             a process or a compute instance holds it; back off
├── NoRoom            overlap or no capacity, also when the very same instance exists: read again before judging
├── ResetRequired     a mode waits for a reset
├── BoardLost         fell off the bus: quarantine
├── DriverTrouble     time-out or unknown: one retry after reading again, then quarantine
├── HelperAway        nothing was asked of the device, or nobody heard the answer: wait for the helper, read again
└── NoDriver          no driver, no library, a mismatch: the node has no GPUs, and says why in words
"""

from __future__ import annotations


class GpuError(Exception):
    """A call to the device's library that was not done.

    Args:
        message: what happened and what to do, with the device's own figures.
        code: number of the library's answer; -1 when it gave none.
        uuid: the board concerned, "" when none.
    """

    def __init__(self, message: str, code: int = -1, uuid: str = "") -> None:
        super().__init__(message)
        self.message, self.code, self.uuid = message, code, uuid


class NotSupported(GpuError):
    """The board or driver does not offer it."""


class NoPermission(GpuError):
    """The caller may not."""


class NotThere(GpuError):
    """No such board, slice or process."""


class InvalidRequest(GpuError):
    """An argument that the device does not take."""


class InUse(GpuError):
    """Something holds what should go."""


class NoRoom(GpuError):
    """No place or capacity left."""


class ResetRequired(GpuError):
    """The change waits for a reset of the board."""


class BoardLost(GpuError):
    """The board does not answer any more."""


class DriverTrouble(GpuError):
    """A time-out or an unknown error."""


class HelperAway(GpuError):
    """The privileged helper does not answer."""


class NoDriver(GpuError):
    """There is no usable driver."""
