"""Finds this machine's devices. Reads the operating system; decides nothing about their use."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import psutil

from services.node_agent.core.energy import linear_power
from services.node_agent.devices.cpu import CpuDevice
from services.node_agent.devices.cpu_name import device_class, parse_cpuinfo, targets
from services.node_agent.meters.linear import LinearMeter
from services.node_agent.meters.port import Meter
from services.node_agent.meters.rapl import ROOT, open_rapl
from tradewind.domain.errors import InvalidField

CPUINFO: Final = Path("/proc/cpuinfo")


class SystemCpuUse:
    """CPU use of some logical CPUs, out of /proc."""

    def __init__(self, cpu_ids: Collection[int]) -> None:
        self._cpu_ids = frozenset(cpu_ids)

    def busy_core_s(self) -> float:
        """See `CpuUse`. Time stolen by other machines on the host is not ours."""
        total_s = 0.0
        for cpu, times in enumerate(psutil.cpu_times(percpu=True)):
            if cpu in self._cpu_ids:
                total_s += times.user + times.nice + times.system + times.irq + times.softirq
        return total_s

    def memory_used_bytes(self) -> int:
        """See `CpuUse`."""
        memory = psutil.virtual_memory()
        return int(memory.total - memory.available)


def offered_cpus(wanted: str, allowed: Collection[int]) -> tuple[int, ...]:
    """The CPUs to offer out of a setting such as "0,1" or "0-3,8"; "" offers all that are allowed.

    Raises:
        InvalidField: not a list of CPUs, or one that this process may not use.
    """
    chosen: set[int] = set()
    try:
        for part in filter(None, (p.strip() for p in wanted.split(","))):
            first, _, last = part.partition("-")
            chosen.update(range(int(first), int(last or first) + 1))
    except ValueError as error:
        raise InvalidField("cpu_ids", f"{wanted!r} is not a list such as 0,1 or 0-3") from error
    strange = sorted(chosen - set(allowed))
    if strange:
        raise InvalidField("cpu_ids", f"{strange} are not among the CPUs this process may use, {sorted(allowed)}")
    return tuple(sorted(chosen or set(allowed)))


def discover_cpu(cpu_ids: Sequence[int], tdp_w: float, rapl_root: Path = ROOT) -> CpuDevice:
    """The CPU of this machine.

    Args:
        cpu_ids: to offer.
        tdp_w: of the processor, for the model; 0 when not known.
        rapl_root: where RAPL zones lie.
    """
    info = parse_cpuinfo(CPUINFO.read_text(encoding="utf-8", errors="replace")) if CPUINFO.exists() else {}
    machine_cpus = max(os.cpu_count() or 1, len(cpu_ids))
    model = linear_power(len(cpu_ids), machine_cpus, tdp_w)
    use = SystemCpuUse(cpu_ids)
    meter: Meter = open_rapl(rapl_root) or LinearMeter(model, time.monotonic, use.busy_core_s)
    names = (device_class(info, platform.machine()), info.get("model name", platform.machine()), targets(info))
    memory_bytes = int(psutil.virtual_memory().total)
    return CpuDevice(cpu_ids, machine_cpus, names, memory_bytes, meter, model, use, time.monotonic)
