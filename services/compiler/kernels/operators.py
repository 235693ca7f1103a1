"""Torch operators that stand for kernels while a model is traced; `lowering` puts the kernels in their place.

They have shapes only: nothing here computes.
"""

# ruff: noqa: ARG001 — the signatures are the operators'.

from __future__ import annotations

from typing import Final

import torch

from services.compiler.kernels.formats import BLOCK, GROUP


@torch.library.custom_op("tradewind::packed_linear", mutates_args=())
def packed_linear(
    rows: torch.Tensor,
    weights: torch.Tensor,
    scales: torch.Tensor,
    gain: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
    gated: bool = False,
    epsilon: float = 0.0,
) -> torch.Tensor:
    """f32 [rows, inputs] and weights of `packing.pack` → f32 [rows, outputs].

    With a gain f32 [inputs] rows are normalised first (RMSNorm with epsilon); gated ones are f32 [rows, 2 · inputs],
    silu(first half) · second half. The result is added to `added`, f32 [rows, outputs].
    """
    raise NotImplementedError("packed_linear is traced and compiled, not run")


@packed_linear.register_fake
def _packed_linear_shape(
    rows: torch.Tensor,
    weights: torch.Tensor,
    scales: torch.Tensor,
    gain: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
    gated: bool = False,
    epsilon: float = 0.0,
) -> torch.Tensor:
    return rows.new_empty((rows.shape[0], weights.shape[0] * BLOCK))


# Whole numbers i8, or i16 when they are `wide`, [rows, inputs], and f32 [rows, groups]: scales and scaled sums.
Rounded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _rounded_shape(like: torch.Tensor, sizes: list[int], wide: bool) -> Rounded:
    groups = [*sizes[:-1], sizes[-1] // GROUP]
    kind = torch.int16 if wide else torch.int8
    return like.new_empty(sizes, dtype=kind), like.new_empty(groups), like.new_empty(groups)


@torch.library.custom_op("tradewind::rounded_linear", mutates_args=())
def rounded_linear(
    numbers: torch.Tensor,
    row_scales: torch.Tensor,
    row_sums: torch.Tensor,
    weights: torch.Tensor,
    scales: torch.Tensor,
    added: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `packed_linear`, of rows that were rounded for these weights before."""
    raise NotImplementedError("rounded_linear is traced and compiled, not run")


@rounded_linear.register_fake
def _rounded_linear_shape(
    numbers: torch.Tensor,
    row_scales: torch.Tensor,
    row_sums: torch.Tensor,
    weights: torch.Tensor,
    scales: torch.Tensor,
    added: torch.Tensor | None = None,
) -> torch.Tensor:
    return row_scales.new_empty((numbers.shape[0], weights.shape[0] * BLOCK))


@torch.library.custom_op("tradewind::gated_linear", mutates_args=())
def gated_linear(
    rows: torch.Tensor,
    weights: torch.Tensor,
    scales: torch.Tensor,
    gain: torch.Tensor | None,
    wide: bool,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of what `packed_linear` gives, silu(first half) · second half as `Rounded`."""
    raise NotImplementedError("gated_linear is traced and compiled, not run")


@gated_linear.register_fake
def _gated_linear_shape(
    rows: torch.Tensor,
    weights: torch.Tensor,
    scales: torch.Tensor,
    gain: torch.Tensor | None,
    wide: bool,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _rounded_shape(rows, [rows.shape[0], weights.shape[0] * BLOCK // 2], wide)


@torch.library.custom_op("tradewind::attend", mutates_args=())
def attend(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    scale: float,
    follows: bool = False,
) -> torch.Tensor:
    """Attention of f32 queries [tokens, heads, width] over caches f16 [slots, kv_heads, rows, width].

    Token t sees rows up to and with positions[t] of slots[t]; both are i64 [tokens]. With `follows` all slots are the
    same, and each position is the one after that before.
    """
    raise NotImplementedError("attend is traced and compiled, not run")


@attend.register_fake
def _attend_shape(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    scale: float,
    follows: bool = False,
) -> torch.Tensor:
    return torch.empty_like(queries)


@torch.library.custom_op("tradewind::attend_rounded", mutates_args=())
def attend_rounded(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    wide: bool,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `attend` gives as `Rounded`, [tokens, heads, width] and [tokens, heads, groups]."""
    raise NotImplementedError("attend_rounded is traced and compiled, not run")


@attend_rounded.register_fake
def _attend_rounded_shape(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    wide: bool,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _rounded_shape(queries, list(queries.shape), wide)


@torch.library.custom_op("tradewind::rotary_cache", mutates_args=())
def rotary_cache(
    rows: torch.Tensor,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries f32 [tokens, heads, width], turned by their positions, and the caches with this call's keys and values.

    Rows are f32 [tokens, (heads + 2 · kv_heads) · width]: queries, keys and values of a token, one behind the other.
    Cosines and sines are f32 [tokens, width], slots and positions i64 [tokens], caches as `attend` has them.
    """
    raise NotImplementedError("rotary_cache is traced and compiled, not run")


@rotary_cache.register_fake
def _rotary_cache_shape(
    rows: torch.Tensor,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    width = keys.shape[3]
    heads = rows.shape[1] // width - 2 * keys.shape[1]
    return rows.new_empty((rows.shape[0], heads, width)), torch.empty_like(keys), torch.empty_like(values)


# As nodes of traced graphs name them.
PACKED_LINEAR: Final = torch.ops.tradewind.packed_linear.default
ROUNDED_LINEAR: Final = torch.ops.tradewind.rounded_linear.default
GATED_LINEAR: Final = torch.ops.tradewind.gated_linear.default
ATTEND_ROUNDED: Final = torch.ops.tradewind.attend_rounded.default
ATTEND: Final = torch.ops.tradewind.attend.default
ROTARY_CACHE: Final = torch.ops.tradewind.rotary_cache.default
