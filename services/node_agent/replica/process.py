"""What the replica asks of the operating system: to die with its agent, to stay on its cores."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from typing import Final

# prctl(2), from linux/prctl.h.
_PR_SET_PDEATHSIG: Final = 1
EXIT_ORPHANED: Final = 3


def die_with(parent: int) -> None:
    """Has the kernel kill this process when the process `parent`, which started it, ends; leaves if it already has."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(EXIT_ORPHANED)


def stay_on(cpu_ids: Iterable[int]) -> int:
    """Keeps this process and its threads to come on some logical CPUs (none: all it may use); returns their number."""
    wanted = set(cpu_ids)
    if wanted:
        os.sched_setaffinity(0, wanted)
    return len(os.sched_getaffinity(0))


def private_stdout() -> int:
    """A descriptor of what was standard output, now standard error's: libraries that print cannot disturb."""
    status = os.dup(1)
    os.dup2(2, 1)
    return status
