"""Sums are rounded for the norms behind them, across layers, in calls of two to eight rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from services.compiler.kernels.formats import W4, W8, Format
from services.compiler.kernels.operators import (
    GATED_LINEAR,
    GATED_ROUNDED_LINEAR,
    PACKED_LINEAR,
    ROUNDED_LINEAR,
    WEIGHTED_LINEAR,
    packed_linear,
)
from services.compiler.kernels.packing import pack
from services.compiler.passes.product_edges import join_edges
from services.compiler.passes.rounded_norms import round_norms_where_made
from services.compiler.passes.rounded_rows import round_where_made


class _Feedforwards(torch.nn.Module):
    """Two gated pairs of products with residual sums, a norm before each and before what reads the last sum."""

    def __init__(self, form: Format) -> None:
        super().__init__()
        self.up, self.down = pack(torch.zeros(128, 64), W4), pack(torch.zeros(64, 64), W4)
        self.head = pack(torch.zeros(96, 64), form)
        self.gain = torch.ones(64)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            gate, up = packed_linear(self.norm(hidden), *self.up).split([64, 64], -1)
            hidden = hidden + packed_linear(torch.nn.functional.silu(gate) * up, *self.down)
        return packed_linear(self.norm(hidden), *self.head)

    def norm(self, rows: torch.Tensor) -> torch.Tensor:
        return rows * torch.rsqrt(rows.pow(2).mean(-1, keepdim=True) + 1e-5) * self.gain


def _nodes(form: Format, rows: int) -> list[Any]:
    program = torch.export.export(_Feedforwards(form), (torch.zeros(rows, 64),), strict=False).run_decompositions({})
    for edit in (join_edges, round_where_made, round_norms_where_made):
        edit(program)
    return [node for node in program.graph.nodes if str(node.target).startswith("tradewind.")]


@pytest.mark.parametrize("form", [W4, W8])
def test_a_norm_is_rounded_by_the_sum_before_it(form: Format) -> None:
    nodes = _nodes(form, 8)
    pairs = [GATED_LINEAR, WEIGHTED_LINEAR, GATED_ROUNDED_LINEAR, WEIGHTED_LINEAR, ROUNDED_LINEAR]
    assert [node.target for node in nodes] == pairs
    assert [node.meta["val"][1].dtype for node in (nodes[1], nodes[3])] == [
        torch.int8,
        torch.int16 if form is W8 else torch.int8,
    ]
    assert nodes[4].args[7] == 1e-5


def test_one_row_and_prompts_stay() -> None:
    assert WEIGHTED_LINEAR not in [node.target for node in _nodes(W4, 1)]
    assert [node.target for node in _nodes(W4, 32)] == [PACKED_LINEAR] * 5
