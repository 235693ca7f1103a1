"""The IREE device that a variant runs on: the CPU's workers, or the one GPU that this process sees."""

from __future__ import annotations

from typing import Any, Final

from tradewind.domain.errors import DeviceFault

# Drivers whose device is the CPU; all others need a board or slice.
_CPU_DRIVERS: Final = ("local-task", "local-sync")


def open_device(driver: str, threads: int, gpu_uuid: str) -> Any:
    """Opens it.

    Args:
        driver: of the manifest, for instance "local-task" or "cuda".
        threads: workers of the CPU device.
        gpu_uuid: what CUDA_VISIBLE_DEVICES of this process names; "" for none. It is the driver's only device then.

    Raises:
        DeviceFault: there is no such driver here, it finds no device, or a variant for a GPU was placed on a CPU.
    """
    import iree.runtime as rt

    rt.flags.parse_flags(f"--task_topology_group_count={threads}")
    if driver not in _CPU_DRIVERS and not gpu_uuid:
        raise DeviceFault(f"the variant needs a {driver} device and was placed on none; place it on a GPU's partition")
    if driver in _CPU_DRIVERS and gpu_uuid:
        raise DeviceFault(f"the variant runs on the CPU ({driver}) and was placed on {gpu_uuid}; place it on CPUs")
    try:
        return rt.get_driver(driver).create_default_device()
    except (RuntimeError, ValueError) as error:
        # The first line says it; what follows are paths of IREE's sources.
        words = str(error).strip().splitlines()[0].rpartition("; ")[2]
        raise DeviceFault(f"the driver {driver!r} opens no device here: {words}", {"driver": driver}) from error
