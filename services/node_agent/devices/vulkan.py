"""Devices that IREE reaches through Vulkan: a GPU of any maker, or Mesa's llvmpipe, which computes on the CPU.

Asked of the driver in a process of its own with a limit: loading a Vulkan driver runs its maker's code.

    python -m services.node_agent.devices.vulkan        # prints the devices as JSON
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Collection
from typing import Final

import psutil

from services.node_agent.core.energy import Rate
from services.node_agent.core.meter_window import MeterPoint
from services.node_agent.devices.port import DeviceFacts, DeviceKind, Partition, Reading
from services.node_agent.gpu.device import WHOLE
from tradewind.domain.errors import InUse, InvalidField
from tradewind.domain.figures import EnergyFigure, FigureSource

# A driver that takes longer to list its devices is left alone.
LIST_LIMIT_S: Final = 20
# What every device of Android's baseline profile runs; code for one maker's chips needs a table of them.
TARGETS: Final = ("vulkan:baseline",)
_ID_PREFIX: Final = "vulkan-"
_NO_ENERGY: Final = EnergyFigure(0.0, FigureSource.UNAVAILABLE, "vulkan-tells-none@1")


class VulkanDevice:
    """One device, whole. It tells neither power nor use; its memory is the machine's.

    Args:
        path: as IREE names it.
        name: as its driver names it.
        memory_bytes: of the machine.
    """

    def __init__(self, path: str, name: str, memory_bytes: int) -> None:
        self._path = path
        self._facts = DeviceFacts(
            device_id=_ID_PREFIX + path,
            kind=DeviceKind.VULKAN,
            device_class=f"vulkan:{_slug(name)}",
            product_name=name,
            targets=TARGETS,
            memory_bytes=memory_bytes,
            cpu_ids=(),
            partition_kinds=(WHOLE,),
            energy_source=_NO_ENERGY.source,
            energy_method=_NO_ENERGY.method,
            idle_power_mw=0.0,
            idle_power_source=_NO_ENERGY.source,
        )

    @property
    def facts(self) -> DeviceFacts:
        """See `Device`."""
        return self._facts

    def partitions(self) -> tuple[Partition, ...]:
        """See `Device`."""
        device = self._facts
        return (Partition(f"{device.device_id}:whole", device.device_id, WHOLE, (), device.memory_bytes, self._path),)

    def cut(self, kind: str, busy: Collection[int | str] = ()) -> Partition:
        """See `Device`. There is one partition, which somebody has or not."""
        (whole,) = self.partitions()
        if kind != WHOLE:
            raise InvalidField("partition_kind", f"{kind!r} is not offered by a Vulkan device, only {WHOLE}")
        if whole.uuid in busy:
            raise InUse(f"{whole.device_id} has a replica", {"holder": whole.uuid})
        return whole

    def check(self, device_id: str, kind: str, cpu_ids: Collection[int], uuid: str = "") -> None:
        """See `Device`."""
        if device_id not in ("", self._facts.device_id):
            raise InvalidField("partition.device_id", f"this is {self._facts.device_id}, not {device_id!r}")
        if uuid != self._path:
            raise InvalidField("partition.uuid", f"{uuid!r} is not {self._path!r}, which is all that stands here")
        if kind not in ("", WHOLE):
            raise InvalidField("partition.kind", f"{uuid} is {WHOLE}, not {kind}")

    def read(self) -> Reading:
        """See `Device`."""
        return Reading(_NO_ENERGY, 0.0, 0.0, 0)

    def meter(self, uuid: str, look: bool = True) -> MeterPoint | None:
        """See `Device`."""
        return None

    def rate(self) -> Rate:
        """See `Device`."""
        return Rate(0.0, _NO_ENERGY.source, _NO_ENERGY.method)


def discover_vulkan(boards: Collection[str] = ()) -> tuple[VulkanDevice, ...]:
    """The Vulkan devices of this machine; none where there is no loader, or the driver fails or hangs.

    Args:
        boards: UUIDs of boards that are devices already, by their own driver.
    """
    command = [sys.executable, "-m", "services.node_agent.devices.vulkan"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIST_LIMIT_S, check=True)
    except (subprocess.SubprocessError, OSError):
        return ()
    memory_bytes, known = int(psutil.virtual_memory().total), {_digits(uuid) for uuid in boards}
    return tuple(
        VulkanDevice(found["path"], found["name"], memory_bytes)
        for found in json.loads(ended.stdout)
        if _digits(found["path"]) not in known
    )


def _slug(name: str) -> str:
    """ "llvmpipe (LLVM 15.0.6, 256 bits)" → "llvmpipe"."""
    return re.sub(r"[^a-z0-9]+", "-", name.partition("(")[0].lower()).strip("-") or "unnamed"


def _digits(uuid: str) -> str:
    return re.sub(r"^gpu|[^0-9a-f]", "", uuid.lower())


def main() -> None:
    """Prints what IREE's Vulkan driver lists."""
    import iree.runtime as rt

    devices = rt.get_driver("vulkan").query_available_devices()
    print(json.dumps([{"path": device["path"], "name": device["name"]} for device in devices]))


if __name__ == "__main__":
    main()
