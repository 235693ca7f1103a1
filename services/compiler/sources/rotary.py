"""Rotary embeddings that become one fixed table, and up to which position that table is the model's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# Kinds whose table is the same at every length.
_FIXED: Final = frozenset({"default", "linear", "llama3", "yarn", "proportional"})
# Kinds that change their table once a sequence is longer than the model was first trained for; up to there it is fixed.
_GROWING: Final = frozenset({"dynamic", "longrope"})
KINDS: Final = _FIXED | _GROWING


def rotary_kinds(config: Any) -> set[str]:
    """The kinds of a configuration: one, or one for each type of layer."""
    return {str(entry.get("rope_type", "default")) for entry in _entries(config)}


def rotary_limit(config: Any) -> int:
    """Longest sequence, in tokens, at which the table is the one of short sequences."""
    longest = int(config.max_position_embeddings)
    limits = [longest]
    for entry in _entries(config):
        if entry.get("rope_type") in _GROWING:
            original = entry.get("original_max_position_embeddings")
            limits.append(int(original or getattr(config, "original_max_position_embeddings", None) or longest))
    return min(limits)


def freeze_rotary(model: Any) -> None:
    """Has the model use the table of short sequences as it stands, which export can trace."""
    for module in model.modules():
        kind = getattr(module, "rope_type", None)
        if isinstance(kind, str) and kind in _GROWING:
            module.rope_type = "default"
        elif isinstance(kind, dict):
            module.rope_type = {layer: "default" if name in _GROWING else name for layer, name in kind.items()}


def _entries(config: Any) -> list[Mapping[str, Any]]:
    found = getattr(config, "rope_parameters", None) or {}
    nested = [entry for entry in found.values() if isinstance(entry, Mapping)]
    return nested or [found]
