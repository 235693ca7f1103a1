"""GPU instances and compute instances of a board: listing, creating, destroying. Each function is few library calls."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Final

import pynvml

from services.node_agent.core.mig.model import MAX_MEMORY_SLICES, Placement
from services.node_agent.gpu.nvml.errors import told
from services.node_agent.gpu.port import ComputeInstance, GpuInstance

_SHARED_ENGINES: Final = 0  # NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED
_INVALID_ARGUMENT: Final = 2


def list_instances(handle: Any, profile_ids: Sequence[int]) -> tuple[GpuInstance, ...]:
    """Every GPU instance, by start. Asked by profile: one without compute instances has no MIG device to find it by."""
    handles = [gi for profile_id in profile_ids for gi in _instances_of(handle, profile_id)]
    return tuple(sorted((_read_instance(gi) for gi in handles), key=lambda one: one.placement.start))


def create_gpu_instance(handle: Any, profile_id: int, placement: Placement) -> int:
    """Creates one at a place; its id."""
    # By reference: given by value, the library reads the numbers as an address and the process dies.
    place = pynvml.c_nvmlGpuInstancePlacement_t(placement.start, placement.size)
    made = pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(handle, profile_id, ctypes.byref(place))
    return int(pynvml.nvmlGpuInstanceGetInfo(made).id)


def create_compute_instance(handle: Any, gi_id: int) -> ComputeInstance:
    """Creates the one that takes all of a GPU instance."""
    gi = pynvml.nvmlDeviceGetGpuInstanceById(handle, gi_id)
    whole = max(_compute_profiles(gi), key=lambda profile: profile.sliceCount)
    return _read_compute(pynvml.nvmlGpuInstanceCreateComputeInstance(gi, whole.id))


def destroy_compute_instance(handle: Any, gi_id: int, ci_id: int) -> None:
    """Destroys one."""
    gi = pynvml.nvmlDeviceGetGpuInstanceById(handle, gi_id)
    pynvml.nvmlComputeInstanceDestroy(pynvml.nvmlGpuInstanceGetComputeInstanceById(gi, ci_id))


def destroy_gpu_instance(handle: Any, gi_id: int) -> None:
    """Destroys one without compute instances."""
    pynvml.nvmlGpuInstanceDestroy(pynvml.nvmlDeviceGetGpuInstanceById(handle, gi_id))


def _instances_of(handle: Any, profile_id: int) -> list[Any]:
    array = (pynvml.c_nvmlGpuInstance_t * MAX_MEMORY_SLICES)()
    count = ctypes.c_uint(0)
    pynvml.nvmlDeviceGetGpuInstances(handle, profile_id, array, ctypes.byref(count))
    return [array[n] for n in range(count.value)]


def _read_instance(gi: Any) -> GpuInstance:
    info = pynvml.nvmlGpuInstanceGetInfo(gi)
    compute = tuple(_read_compute(ci) for profile in _compute_profiles(gi) for ci in _computes_of(gi, profile.id))
    return GpuInstance(int(info.id), int(info.profileId), Placement(info.placement.start, info.placement.size), compute)


def _compute_profiles(gi: Any) -> list[Any]:
    """Kinds of compute instances that a GPU instance offers; the older call needs no names and works everywhere."""
    found = []
    for index in range(pynvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        try:
            info = told(pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo, gi, index, _SHARED_ENGINES, 1)
        except pynvml.NVMLError as error:
            if int(error.value) != _INVALID_ARGUMENT:
                raise
            continue  # an older driver's enumeration is shorter
        if info is not None:
            found.append(info)
    return found


def _computes_of(gi: Any, profile_id: int) -> list[Any]:
    array = (pynvml.c_nvmlComputeInstance_t * MAX_MEMORY_SLICES)()
    count = ctypes.c_uint(0)
    pynvml.nvmlGpuInstanceGetComputeInstances(gi, profile_id, array, ctypes.byref(count))
    return [array[n] for n in range(count.value)]


def _read_compute(ci: Any) -> ComputeInstance:
    info = pynvml.nvmlComputeInstanceGetInfo_v2(ci)
    return ComputeInstance(int(info.id), str(pynvml.nvmlDeviceGetUUID(info.device)))
