"""Back-ends under one contract: each rig has the gpus under test, and the world around them."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml

from services.node_agent.gpu.nvml import NvmlAdmin, NvmlReader, open_nvml
from services.node_agent.gpu.port import EventKind, GpuAdmin, GpuEvent, GpuReader
from services.node_agent.gpu.simulated import SimulatedGpus, SimulatedMachine
from services.node_agent.gpu.simulated.products import PRODUCTS

from .fake_nvml.machine import FakeMachine
from .helper.within import client_of_helper


@dataclass
class Rig:
    """A back-end on a machine of its own.

    Attributes:
        reader: under test.
        admin: under test.
        machine: the world: `SimulatedMachine` or `FakeMachine`, which share their verbs.
        advance: lets time pass, for the machine and for the back-end.
        xid: has the driver tell of one.
        reopen: ends the session and opens another, as after a reboot.
    """

    reader: GpuReader
    admin: GpuAdmin
    machine: Any
    advance: Callable[[float], None]
    xid: Callable[[str, int], None]
    reopen: Callable[[], Rig]


def simulated(machine_text: tuple[str, ...], _folder: Path, _library: Path) -> Rig:
    """The simulator."""
    now = [1000.0]

    def advance(seconds: float) -> None:
        now[0] += seconds

    machine = SimulatedMachine([PRODUCTS[name] for name in machine_text], 1, lambda: now[0])

    def rig() -> Rig:
        gpus = SimulatedGpus(machine)
        return Rig(
            gpus, gpus, machine, advance, lambda u, n: machine.tell(GpuEvent(u, EventKind.XID, n)), lambda: rig()
        )

    return rig()


def nvml(machine_text: tuple[str, ...], folder: Path, library: Path) -> Rig:
    """The NVML back-end over the fake library; `loaded_library` must be in force."""
    now = [1000.0]
    machine = FakeMachine(library, folder / "machine", [PRODUCTS[name] for name in machine_text])

    def advance(seconds: float) -> None:
        now[0] += seconds
        machine.advance(seconds)

    def rig() -> Rig:
        session = open_nvml()
        assert session is not None
        reader = NvmlReader(session, lambda: now[0])
        return Rig(reader, NvmlAdmin(session, reader.forget_slices), machine, advance, machine.xid, lambda: rig())

    return rig()


def through_helper(machine_text: tuple[str, ...], folder: Path, library: Path) -> Rig:
    """The privileged helper's client, its socket, checks and leases, before the simulator."""
    behind = simulated(machine_text, folder, library)

    def rig(behind: Rig) -> Rig:
        client = client_of_helper(behind.reader, behind.admin, folder)
        return Rig(client, client, behind.machine, behind.advance, behind.xid, lambda: rig(behind.reopen()))

    return rig(behind)


@contextmanager
def loaded_library(library: Path, folder: Path) -> Iterator[Path]:
    """Has pynvml use a copy of a library of its own: the loader would give the same one again, with its machine."""
    own = folder / library.name
    shutil.copy(library, own)
    before = pynvml.nvmlLib
    pynvml.nvmlLib = ctypes.CDLL(str(own))
    pynvml._nvmlGetFunctionPointer_cache.clear()
    try:
        yield own
    finally:
        pynvml.nvmlLib = before
        pynvml._nvmlGetFunctionPointer_cache.clear()


# A back-end joins here, with one line.
BACK_ENDS = {"simulated": simulated, "nvml": nvml, "helper": through_helper}
MACHINES = ("a100-40", "a100-80", "h100-80", "h100-94", "h200-141", "b200-180", "a30")
Machine = SimulatedMachine | FakeMachine
