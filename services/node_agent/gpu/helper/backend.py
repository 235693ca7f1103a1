"""The back-ends that a worker can have, by name. A closed list: no name is ever imported."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from services.node_agent.core.mig.model import Placement
from services.node_agent.gpu.faults import InvalidRequest, NoDriver
from services.node_agent.gpu.helper.verbs import Arguments, NewInstance
from services.node_agent.gpu.nvml import NvmlAdmin, NvmlReader, open_nvml
from services.node_agent.gpu.port import GpuAdmin, GpuReader
from services.node_agent.gpu.simulated import SimulatedGpus, simulated_machine
from tradewind.domain.errors import InvalidField

NVML: Final = "nvml"
SIMULATED: Final = "simulated:"
# A simulated machine is the same at each start.
_SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Backend:
    """One session with a driver."""

    reader: GpuReader
    admin: GpuAdmin

    def call(self, verb: str, arguments: Arguments) -> Any:
        """Does what a verb of the list says.

        Raises:
            GpuError: what the driver answered.
        """
        if isinstance(arguments, NewInstance):
            place = _placement(arguments)
            return self.admin.create_gpu_instance(arguments.uuid, arguments.profile_id, place)
        if verb == "events":
            return self.reader.events(0.0)
        side = self.reader if hasattr(GpuReader, verb) else self.admin
        return getattr(side, verb)(**arguments.model_dump())


def open_backend(name: str) -> Backend:
    """The back-end of a name: "nvml", or "simulated:h100-80x2".

    Raises:
        InvalidField: no such back-end.
        NoDriver: there is no driver.
    """
    if name.startswith(SIMULATED):
        machine = simulated_machine(name.removeprefix(SIMULATED), _SEED, time.monotonic)
        gpus = SimulatedGpus(machine)
        return Backend(gpus, gpus)
    if name != NVML:
        raise InvalidField("backend", f"{name!r} is neither {NVML} nor {SIMULATED}MACHINE")
    return _nvml()


def _nvml() -> Backend:
    session = open_nvml()
    if session is None:
        raise NoDriver("no NVIDIA driver library here; install the driver, or leave the helper out on this machine", 12)
    reader = NvmlReader(session)
    return Backend(reader, NvmlAdmin(session, reader.forget_slices))


def _placement(arguments: NewInstance) -> Placement:
    try:
        return Placement(arguments.start, arguments.size)
    except ValueError as error:
        raise InvalidRequest(str(error), uuid=arguments.uuid) from error
