"""Pass "cache-in-place": the KV cache lives in the module, [slots, rows, KV heads, width], and is updated in place.

As buffers of the traced module the caches become mutable globals: a step writes its own rows. As arguments of its
functions each step would copy every cache whole. All functions of a module share the cache, which is why they are
in one module (docs/adr/0003-variant-abi.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from services.compiler.export.decoder import CacheRows

# Two for each layer; 256 layers are twice what the deepest supported model has. See `_distinct_start`.
_MOST_CACHES: Final = 512


# Makes the buffer of keys or values of one layer for (KV heads, width) of a token.
MakeBuffer = Callable[[tuple[int, int]], torch.Tensor]


def by_rows(slots: int, rows: int, dtype: torch.dtype) -> MakeBuffer:
    """Makes zeroed buffers [slots, rows, KV, d]."""
    return lambda head: torch.zeros((slots, rows, *head), dtype=dtype)


class LayerCache(torch.nn.Module):
    """K and V of one layer for every slot."""

    def __init__(self, rows: CacheRows, make: MakeBuffer) -> None:
        """Made for what a token has there."""
        super().__init__()
        self.register_buffer("k", make(rows.key))
        self.register_buffer("v", make(rows.value))


class KvCache(torch.nn.Module):
    """The cache of every layer."""

    def __init__(self, layers: Sequence[CacheRows], make: MakeBuffer) -> None:
        """Made for each layer."""
        super().__init__()
        self.layers = torch.nn.ModuleList(LayerCache(rows, make) for rows in layers)


class SlotCache:
    """What transformers asks of a cache, over buffers [slots, rows, KV, d] that the exported function mutates.

    Attributes:
        is_compileable: transformers takes the mask as given.
    """

    is_compileable = True

    def __init__(
        self, buffers: list[tuple[torch.Tensor, torch.Tensor]], slots: torch.Tensor, rows: torch.Tensor, context: int
    ) -> None:
        """A view on the cache for one call.

        Args:
            buffers: K and V of every layer.
            slots: i64 [B, 1], the slot each row of the batch writes; None-free.
            rows: i64 [B, T], where each token is written.
            context: rows that are attended to.
        """
        self._buffers = buffers
        self._slots = slots
        self._rows = rows
        self._context = context
        self.layers: list[Any] = []
        self.is_sliding = [False] * len(buffers)

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes K and V [B, KV, T, d] of a layer and gives what is attended to, [B, KV, context, d]."""
        keys, values = self._buffers[layer]
        return self._write(keys, key), self._write(values, value)

    def _write(self, buffer: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        buffer.index_put_((self._slots, self._rows), new.transpose(1, 2))
        return self._read(buffer[:, : self._context]).transpose(1, 2)

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def get_seq_length(self, *_: Any) -> int:
        """Unused by the exported graph: positions and mask are given."""
        return 0

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        """Length and offset of the mask."""
        return self._context, 0

    def get_max_cache_shape(self, *_: Any) -> int:
        """Rows attended to."""
        return self._context


class OneSlotCache(SlotCache):
    """The cache as a prefill call sees it: one slot, whose number is an argument."""

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.index_select(0, self._slots[0])


class FirstSlotsCache(SlotCache):
    """The cache as a decode call sees it: the first B slots."""

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        return rows[: self._slots.shape[0]]


def start_caches(module: Any) -> None:
    """Gives each cache one number to start from.

    The numbers differ: IREE 3.13 lets mutable globals that start from equal splats share one buffer, and then updates
    it in place for all of them (answers are garbage; `tests/compiler/test_parity.py` would see it). Any finite number
    does: rows that were never written have weight 0 in attention.
    """
    from iree.compiler import ir

    with module.context:
        caches = [
            operation
            for operation in module.regions[0].blocks[0].operations
            if operation.operation.name == "util.global" and "is_mutable" in operation.attributes
        ]
        for index, operation in enumerate(caches):
            shape = ir.RankedTensorType(ir.TypeAttr(operation.attributes["type"]).value)
            number = ir.FloatAttr.get(shape.element_type, _distinct_start(index), loc=ir.Location.unknown())
            operation.attributes["initial_value"] = ir.DenseElementsAttr.get_splat(shape, number)


def _distinct_start(index: int) -> float:
    """A number of its own for each index: whole numbers up to 256 of both signs are exact in bf16."""
    if index >= _MOST_CACHES:
        raise ValueError(f"more than {_MOST_CACHES} cache buffers; no distinct start for buffer {index}")
    return float(index // 2 + 1) * (1 if index % 2 else -1)
