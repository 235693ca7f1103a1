"""A board's profiles and placements, read from the device."""

from __future__ import annotations

import ctypes
from typing import Any, Final

import pynvml

from services.node_agent.core.mig.model import MAX_PROFILES, DeviceTable, GiProfile, Placement
from services.node_agent.gpu.board_name import profile_name
from services.node_agent.gpu.faults import NotSupported
from services.node_agent.gpu.port import BoardFacts

_MIB: Final = 1 << 20
_INVALID_ARGUMENT, _NOT_SUPPORTED, _NO_FUNCTION, _VERSION = 2, 3, 13, 25
# What the index of the enumeration adds to a name that the library does not give.
_ATTRIBUTES: Final = {
    pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1: "me",
    pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE_REV1: "me",
    pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_GFX: "gfx",
    pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE_GFX: "gfx",
    pynvml.NVML_GPU_INSTANCE_PROFILE_4_SLICE_GFX: "gfx",
    pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_NO_ME: "no-me",
    pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE_NO_ME: "no-me",
    pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_ALL_ME: "me.all",
    pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE_ALL_ME: "me.all",
}


def read_table(handle: Any, facts: BoardFacts, mode_on: bool) -> DeviceTable:
    """Every profile with every placement.

    The versioned call names profiles, and answers "not supported" for each of them while the mode is off unless the
    board can be asked then; the older call always answers and has no names. So the choice is by what the board says,
    and an empty answer is asked again in the older way.

    Raises:
        NotSupported: the board cannot be cut.
    """
    infos = _infos(handle, 2) if mode_on or facts.query_while_off else []
    infos = infos or _infos(handle, 1)
    if not infos:
        raise NotSupported(f"{facts.product_name} offers no MIG profiles", _NOT_SUPPORTED, facts.uuid)
    profiles = tuple(_profile(handle, facts, index, info) for index, info in infos)
    return DeviceTable(facts.device_class.removeprefix("gpu:").upper(), profiles)


def _infos(handle: Any, version: int) -> list[tuple[int, Any]]:
    """Answers by index of the enumeration, which is not the profile's id."""
    found = []
    for index in range(MAX_PROFILES):
        try:
            found.append((index, pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, index, version=version)))
        except pynvml.NVMLError as error:
            code = int(error.value)
            if code in (_INVALID_ARGUMENT, _NO_FUNCTION, _VERSION):
                break
            if code != _NOT_SUPPORTED:
                raise
    return found


def _profile(handle: Any, facts: BoardFacts, index: int, info: Any) -> GiProfile:
    memory_bytes = int(info.memorySizeMB) * _MIB
    name = getattr(info, "name", b"")
    text = (name.decode() if isinstance(name, bytes) else str(name)).removeprefix("MIG ").strip()
    return GiProfile(
        profile_id=int(info.id),
        name=text or profile_name(info.sliceCount, memory_bytes, facts.memory_bytes, _ATTRIBUTES.get(index, "")),
        compute_slices=int(info.sliceCount),
        memory_bytes=memory_bytes,
        instance_limit=int(info.instanceCount),
        placements=_placements(handle, int(info.id)),
        engines=(("ofa", int(info.ofaCount)),) if info.ofaCount else (),
        multiprocessor_count=int(info.multiprocessorCount),
    )


def _placements(handle: Any, profile_id: int) -> tuple[Placement, ...]:
    count = ctypes.c_uint(0)
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile_id, None, ctypes.byref(count))
    places = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile_id, places, ctypes.byref(count))
    return tuple(Placement(places[n].start, places[n].size) for n in range(count.value))
