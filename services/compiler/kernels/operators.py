"""Torch operators that stand for kernels while a model is traced; `lowering` puts the kernels in their place.

They have shapes only: nothing here computes.
"""

# ruff: noqa: ARG001 — the signatures are the operators'.

from __future__ import annotations

import torch

from services.compiler.kernels.formats import BLOCK


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


@torch.library.custom_op("tradewind::attend", mutates_args=())
def attend(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Attention of f32 queries [tokens, heads, width] over caches f16 [slots, kv_heads, rows, width].

    Token t sees rows up to and with positions[t] of slots[t]; both are i64 [tokens].
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
) -> torch.Tensor:
    return torch.empty_like(queries)
