"""Readings of a board, and who is on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pynvml

from services.node_agent.gpu.nvml.errors import told
from services.node_agent.gpu.nvml.mig_devices import MigDevice
from services.node_agent.gpu.port import BoardReading, GpuProcess

_NO_PERMISSION: Final = 4
_NO_INSTANCE: Final = 0xFFFFFFFF
_UNCORRECTED, _SINCE_LOAD = 1, 0  # NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC
_REASONS: Final = (
    (pynvml.nvmlClocksEventReasonGpuIdle, "gpu_idle"),
    (pynvml.nvmlClocksEventReasonApplicationsClocksSetting, "applications_clocks_setting"),
    (pynvml.nvmlClocksEventReasonSwPowerCap, "sw_power_cap"),
    (pynvml.nvmlClocksEventReasonHwSlowdown, "hw_slowdown"),
    (pynvml.nvmlClocksEventReasonSyncBoost, "sync_boost"),
    (pynvml.nvmlClocksEventReasonSwThermalSlowdown, "sw_thermal_slowdown"),
    (pynvml.nvmlClocksEventReasonHwThermalSlowdown, "hw_thermal_slowdown"),
    (pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown, "hw_power_brake_slowdown"),
    (pynvml.nvmlClocksEventReasonDisplayClockSetting, "display_clock_setting"),
)


def read_board(handle: Any, mode_on: bool) -> BoardReading:
    """A board now. Errors of NVML pass through, but for what it does not offer.

    Args:
        handle: of the board.
        mode_on: whether MIG is on; utilization is not told then, and not asked for.
    """
    busy = None if mode_on else told(pynvml.nvmlDeviceGetUtilizationRates, handle)
    reasons = told(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0
    return BoardReading(
        energy_mj=told(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle),
        power_mw=told(pynvml.nvmlDeviceGetPowerUsage, handle),
        power_cap_mw=told(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle),
        temperature_c=told(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        sm_clock_mhz=told(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        memory_clock_mhz=told(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        clock_reasons=tuple(name for bit, name in _REASONS if reasons & bit),
        utilization=None if busy is None else busy.gpu / 100,
        memory_used_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).used),
        ecc_uncorrected=told(pynvml.nvmlDeviceGetTotalEccErrors, handle, _UNCORRECTED, _SINCE_LOAD),
    )


def read_processes(handle: Any, slices: Callable[[Any], tuple[MigDevice, ...]]) -> tuple[GpuProcess, ...]:
    """Compute processes on the board.

    Args:
        handle: of the board.
        slices: lists its MIG devices; they are asked one by one where the board may not be asked for all.
    """
    try:
        return tuple(_process(one) for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
    except pynvml.NVMLError as error:
        if int(error.value) != _NO_PERMISSION:
            raise
    found = []
    for device in slices(handle):
        for one in pynvml.nvmlDeviceGetComputeRunningProcesses(device.handle):
            found.append(GpuProcess(int(one.pid), device.gi_id, int(one.usedGpuMemory or 0)))
    return tuple(found)


def _process(one: Any) -> GpuProcess:
    gi_id = None if one.gpuInstanceId == _NO_INSTANCE else int(one.gpuInstanceId)
    return GpuProcess(int(one.pid), gi_id, int(one.usedGpuMemory or 0))
