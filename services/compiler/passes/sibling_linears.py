"""Pass "sibling-linears": packed layers that read the same rows (Q, K and V; gate and up) become one product."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from services.compiler.kernels.formats import BLOCK
from services.compiler.passes.packed_linears import PackedLinear
from tradewind.domain.errors import UnsupportedModel


class Siblings:
    """What the first of some layers has computed for the others; empty between two calls."""

    def __init__(self) -> None:
        """Empty."""
        self._rows: Any = None
        self._results: dict[int, torch.Tensor] = {}

    def put(self, rows: torch.Tensor, results: Sequence[torch.Tensor]) -> None:
        """Results of the second layer, the third and so on, and the rows that they belong to."""
        self._rows, self._results = rows, dict(enumerate(results, 1))

    def take(self, number: int, rows: torch.Tensor) -> torch.Tensor:
        """The result of the layer of that number, once.

        Raises:
            UnsupportedModel: other rows than the first layer's.
        """
        if rows is not self._rows or number not in self._results:
            raise UnsupportedModel(
                "layers that shared their rows in one call do not in another; build it with a recipe without "
                "sibling-linears, such as f32-grouped"
            )
        result = self._results.pop(number)
        if not self._results:
            self._rows = None
        return result


class FirstSibling(torch.nn.Module):
    """Computes for all siblings and keeps what belongs to the others."""

    def __init__(self, layers: Sequence[PackedLinear], siblings: Siblings) -> None:
        """Over the weights of all of them, one behind the other."""
        super().__init__()
        weights, scales = (torch.cat([getattr(layer, key) for layer in layers]) for key in ("weights", "scales"))
        biases: list[torch.Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        bias = torch.nn.Parameter(torch.cat(biases), requires_grad=False) if biases else None
        packed, scaled = (torch.nn.Parameter(part, requires_grad=False) for part in (weights, scales))
        self.joined = PackedLinear(packed, scaled, bias)
        self.sizes = tuple(layer.weights.shape[0] * BLOCK for layer in layers)
        self._siblings = siblings

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[…, inputs] in, […, own outputs] out; f32."""
        own, *others = self.joined(rows).split(self.sizes, -1)
        self._siblings.put(rows, others)
        result: torch.Tensor = own
        return result


class LaterSibling(torch.nn.Module):
    """Takes what the first has computed."""

    def __init__(self, number: int, siblings: Siblings) -> None:
        """Has no weights of its own; `number` counts from the first sibling, which is 0."""
        super().__init__()
        self._number, self._siblings = number, siblings

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The same rows in; own outputs out."""
        return self._siblings.take(self._number, rows)


Place = tuple[torch.nn.Module, str]


def find_siblings(model: torch.nn.Module, run: Callable[[], object]) -> list[list[Place]]:
    """Owner and name of linear layers that read the same tensor, in the order of their calls.

    Args:
        model: whose layers are meant.
        run: runs the model once; which layers share their rows is seen, not guessed from names.
    """
    by_owner: dict[tuple[int, int], list[Place]] = {}
    with _watched(model, by_owner):
        run()
    return [places for places in by_owner.values() if len(places) > 1 and _alike([_at(p) for p in places])]


@contextmanager
def _watched(model: torch.nn.Module, by_owner: dict[tuple[int, int], list[Place]]) -> Iterator[None]:
    held: list[torch.Tensor] = []

    def hear(owner: torch.nn.Module, name: str) -> Callable[[torch.nn.Module, tuple[Any, ...]], None]:
        def note(_module: torch.nn.Module, args: tuple[Any, ...]) -> None:
            # Held to the end: a tensor's identity may be another's once it is gone.
            held.append(args[0])
            by_owner.setdefault((id(owner), id(args[0])), []).append((owner, name))

        return note

    hooks = [
        child.register_forward_pre_hook(hear(owner, name))
        for owner in model.modules()
        for name, child in owner.named_children()
        if isinstance(child, torch.nn.Linear)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def join_siblings(found: Sequence[Sequence[Place]]) -> None:
    """Joins packed layers; those that were not packed stay as they are."""
    for places in found:
        layers = [_at(place) for place in places]
        if all(isinstance(layer, PackedLinear) for layer in layers):
            siblings = Siblings()
            setattr(*places[0], FirstSibling(layers, siblings))
            for number, place in enumerate(places[1:], 1):
                setattr(*place, LaterSibling(number, siblings))


def _at(place: Place) -> Any:
    return getattr(*place)


def _alike(layers: Sequence[Any]) -> bool:
    return len({layer.bias is None for layer in layers}) == 1 and len({id(layer) for layer in layers}) == len(layers)
