"""Rows are rounded by what makes them where one product alone reads them, in calls of few rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from services.compiler.kernels.formats import W4, W8, Format
from services.compiler.kernels.operators import (
    ATTEND,
    ATTEND_ROUNDED,
    GATED_LINEAR,
    PACKED_LINEAR,
    ROUNDED_LINEAR,
)
from services.compiler.kernels.packing import pack
from services.compiler.passes.product_edges import join_edges
from services.compiler.passes.rounded_rows import round_where_made


class _Layer(torch.nn.Module):
    """Attention, its projection, and a gated pair of products."""

    def __init__(self, form: Format, follows: bool) -> None:
        super().__init__()
        self.follows = follows
        self.out = pack(torch.zeros(64, 64), form)
        self.up = pack(torch.zeros(128, 64), form)
        self.down = pack(torch.zeros(64, 64), form)

    def forward(self, query: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        attended = ATTEND(query, cache, cache, slots, slots, 0.5, self.follows)
        hidden = PACKED_LINEAR(attended.reshape(-1, 64), *self.out)
        gate, up = PACKED_LINEAR(hidden, *self.up).split([64, 64], -1)
        return hidden + PACKED_LINEAR(torch.nn.functional.silu(gate) * up, *self.down)


class _Seen(_Layer):
    """The gate is seen by others, too."""

    def forward(self, query: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        attended = ATTEND(query, cache, cache, slots, slots, 0.5, False)
        both = PACKED_LINEAR(attended.reshape(-1, 64), *self.up)
        gate, up = both.split([64, 64], -1)
        return PACKED_LINEAR(torch.nn.functional.silu(gate) * up, *self.down) + both[:, :64] + attended.reshape(-1, 64)


def _targets(module: torch.nn.Module, tokens: int) -> tuple[list[Any], list[Any]]:
    cache, slots = torch.zeros(8, 1, 16, 32, dtype=torch.float16), torch.zeros(tokens, dtype=torch.long)
    program = torch.export.export(module, (torch.zeros(tokens, 2, 32), cache, slots), strict=False)
    program = program.run_decompositions({})
    join_edges(program)
    round_where_made(program)
    kernels = [node for node in program.graph.nodes if str(node.target).startswith("tradewind.")]
    return [node.target for node in kernels], kernels


@pytest.mark.parametrize("form", [W4, W8])
@pytest.mark.parametrize("tokens", [1, 8])
def test_attention_and_gate_round_for_the_product_behind(form: Format, tokens: int) -> None:
    targets, nodes = _targets(_Layer(form, False), tokens)
    assert targets == [ATTEND_ROUNDED, ROUNDED_LINEAR, GATED_LINEAR, ROUNDED_LINEAR]
    numbers, scales, sums = nodes[2].meta["val"]
    assert (numbers.dtype, numbers.shape) == (torch.int16 if form is W8 else torch.int8, (tokens, 64))
    assert scales.shape == sums.shape == (tokens, 2)
    assert nodes[3].args[5] is not None


def test_prompts_and_what_others_see_stay() -> None:
    assert _targets(_Layer(W4, True), 32)[0] == [ATTEND, PACKED_LINEAR, PACKED_LINEAR, PACKED_LINEAR]
    assert _targets(_Seen(W4, False), 4)[0] == [ATTEND, PACKED_LINEAR, PACKED_LINEAR]
