"""What a board is, as NVML tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pynvml

from services.node_agent.gpu.board_name import device_class, multiprocessors
from services.node_agent.gpu.nvml.errors import told
from services.node_agent.gpu.port import BoardFacts, PowerLimits, SystemFacts

_RESETLESS: Final = 184  # NVML_FI_DEV_IS_RESETLESS_MIG_SUPPORTED
_QUERY_WHILE_OFF: Final = 199  # NVML_FI_DEV_IS_MIG_MODE_INDEPENDENT_MIG_QUERY_CAPABLE
_PROHIBITED, _EXCLUSIVE_PROCESS = 2, 3


def read_system() -> SystemFacts:
    """Versions of driver, library and CUDA. Errors of NVML pass through."""
    cuda = told(pynvml.nvmlSystemGetCudaDriverVersion_v2) or 0
    return SystemFacts(
        driver_version=told(pynvml.nvmlSystemGetDriverVersion) or "",
        library_version=told(pynvml.nvmlSystemGetNVMLVersion) or "",
        cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
    )


def bus_id(handle: Any) -> str:
    """PCI bus id, for instance "00000000:01:00.0"."""
    text = pynvml.nvmlDeviceGetPciInfo(handle).busId
    return text.decode() if isinstance(text, bytes) else str(text)


def read_facts(handle: Any, uuid: str, uuid_by_bus_id: Mapping[str, str]) -> BoardFacts:
    """A board's facts. Errors of NVML pass through, but for what it does not offer.

    Args:
        handle: of the board.
        uuid: of the board.
        uuid_by_bus_id: all boards, to name linked ones.
    """
    name = str(pynvml.nvmlDeviceGetName(handle))
    memory_bytes = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    cores = told(pynvml.nvmlDeviceGetNumGpuCores, handle) or 0
    flags = _flags(handle)
    return BoardFacts(
        uuid=uuid,
        product_name=name,
        device_class=device_class(name, memory_bytes),
        pci_bus_id=bus_id(handle),
        compute_capability=(int(major), int(minor)),
        memory_bytes=memory_bytes,
        multiprocessor_count=multiprocessors(cores, (major, minor)),
        mig_capable=told(pynvml.nvmlDeviceGetMigMode, handle) is not None,
        resetless_mode=flags.get(_RESETLESS, False),
        query_while_off=flags.get(_QUERY_WHILE_OFF, False),
        power=_power_limits(handle),
        sm_clocks_mhz=_sm_clocks(handle),
        peers=_peers(handle, uuid_by_bus_id),
        exclusive=(told(pynvml.nvmlDeviceGetComputeMode, handle) or 0) in (_PROHIBITED, _EXCLUSIVE_PROCESS),
    )


def _flags(handle: Any) -> dict[int, bool]:
    values = told(pynvml.nvmlDeviceGetFieldValues, handle, [_RESETLESS, _QUERY_WHILE_OFF]) or ()
    return {value.fieldId: value.value.uiVal != 0 for value in values if value.nvmlReturn == pynvml.NVML_SUCCESS}


def _power_limits(handle: Any) -> PowerLimits | None:
    span = told(pynvml.nvmlDeviceGetPowerManagementLimitConstraints, handle)
    default_mw = told(pynvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)
    return PowerLimits(span[0], span[1], default_mw) if span is not None and default_mw is not None else None


def _sm_clocks(handle: Any) -> tuple[int, ...]:
    """Clocks at the highest memory clock: those of lower ones are fewer."""
    memory = told(pynvml.nvmlDeviceGetSupportedMemoryClocks, handle)
    clocks = told(pynvml.nvmlDeviceGetSupportedGraphicsClocks, handle, max(memory)) if memory else None
    return tuple(sorted(clocks or ()))


def _peers(handle: Any, uuid_by_bus_id: Mapping[str, str]) -> tuple[str, ...]:
    """Boards at the other end of active links; a link to a switch names none."""
    found: dict[str, None] = {}
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            if not pynvml.nvmlDeviceGetNvLinkState(handle, link):
                continue
            remote = pynvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId
        except pynvml.NVMLError:
            break
        uuid = uuid_by_bus_id.get(remote.decode() if isinstance(remote, bytes) else str(remote))
        if uuid:
            found[uuid] = None
    return tuple(found)
