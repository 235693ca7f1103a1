"""Norms, gates and sums become part of the products they stand beside, and of no others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from services.compiler.kernels.formats import W4
from services.compiler.kernels.operators import PACKED_LINEAR
from services.compiler.kernels.packing import pack
from services.compiler.passes.product_edges import join_edges

WEIGHTS, SCALES = pack(torch.zeros(64, 64), W4)


def _normed(rows: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    return gain * (rows * torch.rsqrt(rows.pow(2).mean(-1, keepdim=True) + 1e-5))


def _product(rows: torch.Tensor) -> torch.Tensor:
    return PACKED_LINEAR(rows.reshape(-1, 64), WEIGHTS, SCALES).reshape(*rows.shape[:-1], 64)


class _Layer(torch.nn.Module):
    """What stands around products in a decoder's layer."""

    def forward(self, rows: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        more = rows + _product(_normed(rows, gain)[:, -2:])
        gate, up = torch.cat([more, more], -1).split([64, 64], -1)
        return more + _product(torch.nn.functional.silu(gate) * up)


class _Others(torch.nn.Module):
    """What only looks like it: halves in the wrong order, a mean of another tensor, a sum of what others read too."""

    def forward(self, rows: torch.Tensor, gain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = torch.cat([rows, rows], -1).split([64, 64], -1)
        first = _product(gate * torch.nn.functional.silu(up))
        strange = gain * (rows * torch.rsqrt(first.pow(2).mean(-1, keepdim=True) + 1e-5))
        second = _product(strange)
        return second + first, second


def _products(module: torch.nn.Module) -> tuple[Any, list[Any]]:
    program = torch.export.export(module, (torch.zeros(1, 4, 64)[:, :2], torch.zeros(64)), strict=False)
    program = program.run_decompositions({})
    join_edges(program)
    return program.graph, [node for node in program.graph.nodes if node.target is PACKED_LINEAR]


def test_a_norm_a_gate_and_sums_join_their_products() -> None:
    graph, (first, second) = _products(_Layer())
    _, _, _, gain, added, gated, epsilon = first.args
    assert (gain.name, gated, epsilon) == ("gain", False, pytest.approx(1e-5))
    assert added is not None
    assert second.args[3] is None and second.args[4] is not None and second.args[5]
    assert second.args[0].meta["val"].shape == (2, 128)
    # The norm is taken after the rows are chosen: nothing else is computed any more.
    left = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert left <= {
        "aten.view.default",
        "aten.slice.Tensor",
        "aten.cat.default",
        str(PACKED_LINEAR),
        "aten.alias.default",
    }


def test_what_only_looks_like_them_stays() -> None:
    graph, products = _products(_Others())
    assert all(node.args[3:5] in ((), (None, None)) for node in products)
    kept = {node.target for node in graph.nodes}
    assert {torch.ops.aten.silu.default, torch.ops.aten.rsqrt.default, torch.ops.aten.add.Tensor} <= kept
