"""Torch operators that stand for kernels while a model is traced; `lowering` puts the kernels in their place.

They have shapes only: nothing here computes. `Rounded` below are whole numbers i8, or i16 when they are wide,
[rows, inputs], and their scales and scaled sums f32 [rows, groups].
"""

# ruff: noqa: ARG005 — the arguments are the operators'.

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from services.compiler.kernels.formats import BLOCK, GROUP

Rounded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _operator(name: str, schema: str, shape: Callable[..., torch.Tensor | Rounded]) -> torch._ops.OpOverload:
    """An operator of this schema; `shape` makes empty results of its arguments."""
    torch.library.define(f"tradewind::{name}", schema)
    torch.library.register_fake(f"tradewind::{name}", shape)
    made: torch._ops.OpOverload = getattr(torch.ops.tradewind, name).default
    return made


def _rounded(like: torch.Tensor, sizes: list[int], wide: bool) -> Rounded:
    groups = [*sizes[:-1], sizes[-1] // GROUP]
    kind = torch.int16 if wide else torch.int8
    return like.new_empty(sizes, dtype=kind), like.new_empty(groups), like.new_empty(groups)


def _turned(rows: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> Rounded:
    width = keys.shape[3]
    heads = rows.shape[1] // width - 2 * keys.shape[1]
    return rows.new_empty((rows.shape[0], heads, width)), torch.empty_like(keys), torch.empty_like(values)


# f32 [rows, inputs] and weights of `packing.pack` → f32 [rows, outputs].
#
# With a gain f32 [inputs] rows are normalised first (RMSNorm with epsilon); gated ones are f32 [rows, 2 · inputs],
# silu(first half) · second half. The result is added to `added`, f32 [rows, outputs].
PACKED_LINEAR: Final = _operator(
    "packed_linear",
    "(Tensor rows, Tensor weights, Tensor scales, Tensor? gain=None, Tensor? added=None, bool gated=False, "
    "float epsilon=0.0) -> Tensor",
    lambda rows, weights, *_, **__: rows.new_empty((rows.shape[0], weights.shape[0] * BLOCK)),
)
# As PACKED_LINEAR, of rows that were rounded for these weights before.
ROUNDED_LINEAR: Final = _operator(
    "rounded_linear",
    "(Tensor numbers, Tensor row_scales, Tensor row_sums, Tensor weights, Tensor scales, Tensor? added=None) -> Tensor",
    lambda numbers, scales, sums, weights, *_, **__: scales.new_empty((numbers.shape[0], weights.shape[0] * BLOCK)),
)
# Of what PACKED_LINEAR gives, silu(first half) · second half as `Rounded`.
GATED_LINEAR: Final = _operator(
    "gated_linear",
    "(Tensor rows, Tensor weights, Tensor scales, Tensor? gain, bool wide, float epsilon) -> (Tensor, Tensor, Tensor)",
    lambda rows, weights, _, gain, wide, epsilon: _rounded(rows, [rows.shape[0], weights.shape[0] * BLOCK // 2], wide),
)
# Attention of f32 queries [tokens, heads, width] over caches f16 [slots, kv_heads, rows, width].
#
# Token t sees rows up to and with positions[t] of slots[t]; both are i64 [tokens]. With `follows` all slots are the
# same, and each position is the one after that before.
ATTEND: Final = _operator(
    "attend",
    "(Tensor queries, Tensor keys, Tensor values, Tensor slots, Tensor positions, float scale, bool follows=False) "
    "-> Tensor",
    lambda queries, *_, **__: torch.empty_like(queries),
)
# What ATTEND gives as `Rounded`, [tokens, heads, width] and [tokens, heads, groups].
ATTEND_ROUNDED: Final = _operator(
    "attend_rounded",
    "(Tensor queries, Tensor keys, Tensor values, Tensor slots, Tensor positions, bool wide, float scale) "
    "-> (Tensor, Tensor, Tensor)",
    lambda queries, keys, values, slots, positions, wide, scale: _rounded(queries, list(queries.shape), wide),
)
# Queries f32 [tokens, heads, width], turned by their positions, and the caches with this call's keys and values.
#
# Rows are f32 [tokens, (heads + 2 · kv_heads) · width]: queries, keys and values of a token, one behind the other.
# Cosines and sines are f32 [tokens, width], slots and positions i64 [tokens], caches as ATTEND has them.
ROTARY_CACHE: Final = _operator(
    "rotary_cache",
    "(Tensor rows, Tensor cosines, Tensor sines, Tensor slots, Tensor positions, Tensor keys, Tensor values) "
    "-> (Tensor, Tensor, Tensor)",
    lambda rows, cosines, sines, slots, positions, keys, values: _turned(rows, keys, values),
)
