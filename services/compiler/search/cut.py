"""A model cut to its first layers: what a search builds first. Changes the model in place."""

from __future__ import annotations

from typing import Any

from services.compiler.export.decoder import find_layers


def cut_layers(model: Any, layers: int) -> bool:
    """Leaves the first layers, between embeddings and head as they are; whether it could.

    A graph that takes its past, and a model whose layers cannot be told, stay whole.
    """
    found = None if hasattr(model, "cache_rows") else find_layers(model)
    if found is None or not found.alike or layers >= len(found.modules):
        return False
    found.put(found.modules[:layers])
    config = model.config
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    config.num_hidden_layers = layers
    return True
