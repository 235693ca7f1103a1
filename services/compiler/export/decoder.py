"""What export asks of a decoder without knowing its architecture: where its layers are, what its cache holds.

Answers come from the modules themselves and from running them once, never from names of classes or of settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

# Attributes that number a layer; they differ between layers that run the same code.
_NUMBERS: Final = frozenset({"layer_idx", "layer_id", "layer_number"})
_PLAIN: Final = (bool, int, float, str, type(None), tuple)


@dataclass(frozen=True, slots=True)
class CacheRows:
    """What a layer keeps of one token: (KV heads, width) of its key and of its value."""

    key: tuple[int, int]
    value: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of a decoder, in the module that runs through them.

    Attributes:
        owner: module that holds them.
        name: under which.
        modules: the layers.
    """

    owner: torch.nn.Module
    name: str
    modules: torch.nn.ModuleList

    def put(self, modules: torch.nn.ModuleList) -> None:
        """Has the owner run these instead."""
        setattr(self.owner, self.name, modules)

    @property
    def alike(self) -> bool:
        """Whether all run the same code over weights of the same shapes, so that tracing one traces all."""
        first = _description(self.modules[0])
        types = getattr(getattr(self.owner, "config", None), "layer_types", None) or ()
        return len(set(types)) <= 1 and all(_description(layer) == first for layer in self.modules)


def find_layers(model: Any) -> Layers | None:
    """The one list of as many modules as the model has layers; None when there is none or more than one."""
    config = getattr(model, "config", None)
    if config is None:
        return None
    count = config.num_hidden_layers
    found = [
        Layers(owner, name, child)
        for owner in model.modules()
        for name, child in owner.named_children()
        if isinstance(child, torch.nn.ModuleList) and len(child) == count
    ]
    return found[0] if len(found) == 1 else None


def cache_rows_of(model: Any) -> list[CacheRows]:
    """What each layer keeps of a token, seen by asking the model about one."""
    probe, zero = _Probe(), torch.zeros(1, 1, dtype=torch.long)
    seen = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    with torch.no_grad():
        model(input_ids=zero, position_ids=zero, attention_mask=seen, past_key_values=probe, use_cache=True)
    return [probe.rows[layer] for layer in sorted(probe.rows)]


class _Probe:
    """A cache that keeps nothing but the shapes it is given."""

    is_compileable = True

    def __init__(self) -> None:
        self.rows: dict[int, CacheRows] = {}

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.rows[layer] = CacheRows((key.shape[1], key.shape[3]), (value.shape[1], value.shape[3]))
        return key, value

    def get_seq_length(self, *_: Any) -> int:
        return 0


def _description(layer: torch.nn.Module) -> list[Any]:
    """Everything about a layer that could change the code it runs: classes, plain settings, shapes."""
    return [
        (
            name,
            type(module),
            sorted((k, v) for k, v in vars(module).items() if isinstance(v, _PLAIN) and k not in _NUMBERS),
            [(k, tuple(weight.shape), weight.dtype) for k, weight in module.named_parameters(recurse=False)],
        )
        for name, module in layer.named_modules()
    ]
