"""Which layers share their rows is seen in a call, and what one computes for the others reaches each of them once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from services.compiler.kernels.formats import W4
from services.compiler.kernels.packing import pack
from services.compiler.passes.packed_linears import PackedLinear
from services.compiler.passes.sibling_linears import Siblings, find_siblings, join_siblings
from tradewind.domain.errors import UnsupportedModel


class _Block(torch.nn.Module):
    """Two layers over the same rows, called against the order of their names, and one over their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (torch.nn.Linear(64, 64, bias=False) for _ in range(3))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        second: torch.Tensor = self.b(rows)
        return self.c(second + self.a(rows))  # type: ignore[no-any-return]


def test_layers_over_the_same_rows_are_siblings_in_the_order_of_their_calls() -> None:
    block = _Block()
    found = find_siblings(block, lambda: block(torch.zeros(1, 64)))
    assert [[name for _, name in places] for places in found] == [["b", "a"]]


def test_joined_weights_stand_one_behind_the_other() -> None:
    block = _Block()
    found = find_siblings(block, lambda: block(torch.zeros(1, 64)))
    parts = {name: pack(getattr(block, name).weight, W4) for name in "abc"}
    for name, (weights, scales) in parts.items():
        setattr(block, name, PackedLinear(_fixed(weights), _fixed(scales), None))
    join_siblings(found)
    first: Any = block.b
    assert torch.equal(first.joined.weights, torch.cat([parts["b"][0], parts["a"][0]]))
    assert torch.equal(first.joined.scales, torch.cat([parts["b"][1], parts["a"][1]]))
    assert first.sizes == (64, 64) and list(block.a.parameters()) == []


def test_each_takes_its_own_result_once_and_results_of_other_rows_are_refused() -> None:
    siblings, rows = Siblings(), torch.zeros(1, 64)
    siblings.put(rows, [rows + 1, rows + 2])
    with pytest.raises(UnsupportedModel, match="without sibling-linears"):
        siblings.take(1, torch.zeros(1, 64))
    assert torch.equal(siblings.take(2, rows), rows + 2)
    assert torch.equal(siblings.take(1, rows), rows + 1)
    with pytest.raises(UnsupportedModel):
        siblings.take(1, rows)


def _fixed(tensor: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor, requires_grad=False)
