"""How much of the machine's time processes with no part in a run took, which says what its figures are worth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

# Above this share of all cores' time, latencies are those of a crowded machine, and the report says so.
CROWDED_SHARE: Final = 0.05


@dataclass(frozen=True, slots=True)
class CoreTime:
    """Core-seconds since some moment.

    Attributes:
        busy_s: of the whole machine.
        own_s: of the run's own processes, those that ended and were waited for among them.
    """

    busy_s: float
    own_s: float

    def others_since(self, before: CoreTime) -> float:
        """Core-seconds of everybody else from a moment before to this one."""
        return max(self.busy_s - before.busy_s - (self.own_s - before.own_s), 0.0)


def core_time(state: Path) -> CoreTime:
    """The machine's and the run's core time now.

    Args:
        state: state folder; whoever has it in environment or command line belongs to the run, and so does this process.
    """
    times = psutil.cpu_times()
    # Guests are counted in user and nice already; waiting for a disk is not work.
    busy = times.user + times.nice + times.system + times.irq + times.softirq
    return CoreTime(busy, sum(_spent(process) for process in _own(state)))


def _own(state: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            words = " ".join((*process.cmdline(), *process.environ().values()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if str(state) in words or process.pid == os.getpid():
            yield process


def _spent(process: psutil.Process) -> float:
    try:
        spent = process.cpu_times()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0
    return float(spent.user + spent.system + spent.children_user + spent.children_system)
