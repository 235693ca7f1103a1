"""What the CPU of this machine is called and can do, out of /proc/cpuinfo; which boot of which machine this is."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def read_host_cpu() -> str:
    """A name for this machine's CPU that two machines share only when one runs the other's code.

    The model name alone does not do: the same chip shows fewer instructions inside some virtual machines.
    """
    flags = cpu_flags()
    if not flags:
        return platform.machine()
    vector = next((name for name in ("avx512f", "avx2", "avx", "asimd") if name in flags), "scalar")
    return f"{platform.machine()}-{_cpu_model()}-{vector}"


def read_host_device() -> str:
    """This machine's CPU as a kind of device, for instance "cpu:x86_64-f25m1-avx2"."""
    return f"cpu:{read_host_cpu()}"


def read_boot_id() -> str:
    """The kernel's name for this boot, the same in every container on it; "" where it does not tell."""
    return _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else ""


def cpu_flags() -> frozenset[str]:
    """Features by their names in /proc/cpuinfo; none where there is no such file."""
    line = _cpuinfo("flags") or _cpuinfo("Features")
    return frozenset(line.split())


def _cpu_model() -> str:
    family, model = _cpuinfo("cpu family"), _cpuinfo("model")
    return f"f{family}m{model}" if family else "generic"


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    if not path.exists() or not os.access(path, os.R_OK):
        return ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
