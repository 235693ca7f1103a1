"""The IREE device that a variant runs on: the CPU's workers, or the one board or slice that this process sees.

The agent names it in CUDA_VISIBLE_DEVICES, by UUID; to CUDA it is then the only device there is. Vulkan hides nothing,
so that its device is opened by that name.
"""

from __future__ import annotations

import os
from typing import Any, Final

from tradewind.domain.errors import DeviceFault

VISIBLE_DEVICES: Final = "CUDA_VISIBLE_DEVICES"
# Read by the driver (580.105.08 and newer; older ones do not know it) when a context is made. With "1" the context
# does not hold the board at its highest clocks while nothing runs: an H100 idles at 73 in place of 128 W, the first
# request after a rest takes 0.15 s longer (arXiv 2605.23918).
NO_IDLE_BOOST: Final = "CUDA_DISABLE_PERF_BOOST"
# Drivers whose device is the CPU; all others need a board or slice.
_CPU_DRIVERS: Final = ("local-task", "local-sync")
_VULKAN: Final = "vulkan"


def open_device(driver: str, threads: int) -> Any:
    """Opens it.

    Args:
        driver: of the manifest, for instance "local-task" or "cuda".
        threads: workers of the CPU device.

    Raises:
        DeviceFault: there is no such driver here, it finds no device, or a variant for a GPU was placed on a CPU.
    """
    import iree.runtime as rt

    gpu_uuid = os.environ.get(VISIBLE_DEVICES, "")
    rt.flags.parse_flags(f"--task_topology_group_count={threads}")
    if driver not in _CPU_DRIVERS and not gpu_uuid:
        raise DeviceFault(f"the variant needs a {driver} device and was placed on none; place it on a GPU's partition")
    if driver in _CPU_DRIVERS and gpu_uuid:
        raise DeviceFault(f"the variant runs on the CPU ({driver}) and was placed on {gpu_uuid}; place it on CPUs")
    try:
        if driver == _VULKAN:
            return rt.get_device(f"{_VULKAN}://{gpu_uuid}")
        return rt.get_driver(driver).create_default_device()
    except (RuntimeError, ValueError) as error:
        # The first line says it; what follows are paths of IREE's sources.
        words = str(error).strip().splitlines()[0].rpartition("; ")[2]
        raise DeviceFault(f"the driver {driver!r} opens no device here: {words}", {"driver": driver}) from error
