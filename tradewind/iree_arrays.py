"""Arrays of IREE's runtime brought to the host. Knows neither modules nor devices."""

from __future__ import annotations

from typing import Any

import numpy as np


def to_host(array: Any) -> np.ndarray[Any, Any]:
    """An answer of a module as an array on the host, whatever device it is on; a view of it where the host can see it.

    IREE 3.13's own way asks the driver whether host memory can be imported, and imports what NumPy gave it. Vulkan says
    that it can and then wants pages of 4,096 bytes, so that answers of a few bytes fail ("does not satisfy
    minImportedHostPointerAlignment"). A buffer of the driver's own, copied to and mapped, is right on every device.
    """
    if isinstance(array, np.ndarray) or array._is_mappable():
        return np.asarray(array)
    from iree.runtime import BufferUsage, HalFence, MemoryType

    device, source = array._device, array._buffer_view.get_buffer()
    staging = device.allocator.allocate_buffer(
        memory_type=int(MemoryType.HOST_LOCAL | MemoryType.DEVICE_VISIBLE),
        allowed_usage=int(BufferUsage.TRANSFER_TARGET | BufferUsage.MAPPING_SCOPED),
        allocation_size=source.byte_length(),
    )
    done = device.create_semaphore(0)
    device.queue_copy(source, staging, HalFence.create_at(done, 0), HalFence.create_at(done, 1))
    HalFence.create_at(done, 1).wait()
    return np.array(staging.map().asarray(array._buffer_view.shape, array._get_raw_dtype()))
